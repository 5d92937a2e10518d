"""Gains in accuracy at points of a line, or a plane, smoothed: what neighbours say of each other.

The gain f over the first point is taken for a random walk away from it (Lévy's Brownian motion:
the variance of f(x) - f(y) grows with the distance of x and y), whose scale is averaged over, and
what validation shows is read as f with the noise that questions bring.  So the peak of a lucky
question is pulled towards its neighbours and towards no gain at all.  Compared with other rules in
``benchmarks/choosing.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from springback.errors import DataError, describe
from springback.stats.values import Floats

#: Scales of f at the farthest point, in shares of questions, equally likely beforehand.
SCALES = (0.003, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
#: Standard errors by which the slope on NLL must be above 0 for NLL to be used.
AGREES = 1.0


@dataclass(frozen=True)
class Smoothed:
    """Gains over the first point, [points]: expected, and their standard deviation.

    ``slope``: accuracy that a nat a token less brings, None where NLL was not used.
    """

    gain: Floats
    deviation: Floats
    slope: float | None


def smoothed_gains(
    points: Sequence[float] | Sequence[Sequence[float]] | Floats,
    correct: Sequence[Sequence[float]] | Floats,
    nll: Sequence[float] | Floats | None = None,
) -> Smoothed:
    """The gain in accuracy at each point over the first, given answers to the same questions.

    ``points``: [points], or [points, dimensions]; only their distances count, and these only
    relative to each other.  ``correct``: [points, questions], scores from 0 to 1.
    ``nll``: [points], mean NLL of the reference solutions (nats a token); it joins as a part of f
    proportional to the fall of NLL, but only if validation shows that the two agree: the slope of
    accuracy on that fall, fitted with the rest, is more than :data:`AGREES` standard errors
    above 0.  Raises :class:`~springback.errors.DataError` for other shapes.
    """
    where, table = np.asarray(points, np.float64), np.asarray(correct, np.float64)
    fall = None if nll is None else -np.asarray(nll, np.float64)
    right = table.ndim == 2 and where.ndim in (1, 2) and table.shape[:1] == where.shape[:1]
    if not right or table.size < 1 or (fall is not None and fall.shape != where.shape[:1]):
        raise DataError(
            describe(
                f"points {where.shape}, answers {table.shape}",
                "[points] or [points, dimensions], and [points, questions]",
                "pass the answers to the same questions at every point",
            )
        )
    seen, noise = _seen(table)
    prior = _prior(where.reshape(len(where), -1))
    if not prior.any():  # one point, or all in one place
        return Smoothed(np.zeros(len(where)), np.zeros(len(where)), None)
    slope = None
    if fall is not None and np.ptp(fall) > 0:
        part = fall[1:] - fall[0]
        mean, error = _slope(seen, noise, prior, part)
        if mean > AGREES * error:
            slope = mean
            # Scaled so that the part's largest value is as likely as f's own at the line's end.
            unit = part / np.abs(part).max()
            prior = prior + np.outer(unit, unit)
    gain, deviation = _posterior(seen, noise, prior)
    return Smoothed(np.append(0.0, gain), np.append(0.0, deviation), slope)


def _seen(table: Floats) -> tuple[Floats, Floats]:
    """Mean gains over the first point, and the covariance of their error.

    One question won and one lost are added to each point on its own: where few answers differ, the
    spread that they show is not trusted.
    """
    gains = table[1:] - table[0]  # [steps - 1, questions]
    n, mean = gains.shape[1], gains.mean(axis=1)
    centred = gains - mean[:, None]
    return mean, (centred @ centred.T + 2 * np.eye(len(gains))) / (n + 2) ** 2


def _prior(points: Floats) -> Floats:
    """Covariance of f at all points but the first, of variance 1 at the farthest of them.

    (|x| + |y| - |x - y|) / 2, distances being from the first: on a line the nearer distance of
    two points on one side, and nothing between the two sides.
    """
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)  # [points, points]
    far = apart[0, 1:]
    walk: Floats = (far[:, None] + far[None] - apart[1:, 1:]) / 2
    return walk / far.max() if far.size and far.max() > 0 else 0 * walk


def _scaled(seen: Floats, noise: Floats, prior: Floats) -> tuple[list[Floats], Floats]:
    """For each scale the covariance of what is seen, and how likely the scale is after it."""
    totals = [scale**2 * prior + noise for scale in SCALES]
    fits = []
    for total in totals:
        _, logdet = np.linalg.slogdet(total)
        fits.append(-0.5 * (logdet + seen @ np.linalg.solve(total, seen)))
    odds = np.exp(np.array(fits) - max(fits))
    return totals, odds / odds.sum()


def _posterior(seen: Floats, noise: Floats, prior: Floats) -> tuple[Floats, Floats]:
    totals, odds = _scaled(seen, noise, prior)
    mean, square = np.zeros_like(seen), np.zeros_like(seen)
    for scale, total, weight in zip(SCALES, totals, odds, strict=True):
        known = scale**2 * prior @ np.linalg.inv(total)
        here = known @ seen
        left = np.diag(scale**2 * prior - known @ (scale**2 * prior))
        mean += weight * here
        square += weight * (here**2 + np.maximum(left, 0.0))
    return mean, np.sqrt(np.maximum(square - mean**2, 0.0))


def _slope(seen: Floats, noise: Floats, prior: Floats, part: Floats) -> tuple[float, float]:
    """Slope of the gains on ``part``, beside f, and its standard error (generalised least
    squares, averaged over the scales)."""
    totals, odds = _scaled(seen, noise, prior)
    means, variances = [], []
    for total in totals:
        weights = np.linalg.solve(total, part)
        precision = float(part @ weights)
        means.append(float(weights @ seen) / precision)
        variances.append(1 / precision)
    mean = float(odds @ np.array(means))
    spread = odds @ (np.array(variances) + np.array(means) ** 2) - mean**2
    return mean, float(np.sqrt(spread))
