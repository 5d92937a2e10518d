"""Gains in accuracy along a line of steps, smoothed: what a few questions can say of neighbours.

The gain f(s) over s = 0 is taken for a random walk in s that begins at 0, whose scale is averaged
over, and what validation shows is read as f with the noise that questions bring.  So the peak of
a lucky question is pulled towards its neighbours and towards no gain at all.  Compared with other
rules in ``benchmarks/choosing.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from springback.errors import DataError, describe
from springback.stats.values import Floats

#: Scales of f at the end of the line, in shares of questions, equally likely beforehand.
SCALES = (0.003, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
#: Standard errors by which the slope on NLL must be above 0 for NLL to be used.
AGREES = 1.0


@dataclass(frozen=True)
class Smoothed:
    """Gains over the first step, [steps]: expected, and their standard deviation.

    ``slope``: accuracy that a nat a token less brings, None where NLL was not used.
    """

    gain: Floats
    deviation: Floats
    slope: float | None


def smoothed_gains(steps: Sequence[float], correct: Floats, nll: Floats | None = None) -> Smoothed:
    """The gain in accuracy at each step over the first, given answers to the same questions.

    ``steps``: [steps], the first 0.  ``correct``: [steps, questions], scores from 0 to 1.
    ``nll``: [steps], mean NLL of the reference solutions (nats a token); it joins as a part of f
    proportional to the fall of NLL, but only if validation shows that the two agree: the slope of
    accuracy on that fall, fitted with the rest, is more than :data:`AGREES` standard errors
    above 0.  Raises :class:`~springback.errors.DataError` for other shapes.
    """
    s, table = np.asarray(steps, np.float64), np.asarray(correct, np.float64)
    fall = None if nll is None else -np.asarray(nll, np.float64)
    right = table.ndim == 2 and s.shape == table.shape[:1] and s.size > 0 and s[0] == 0
    if not right or table.shape[1] < 1 or (fall is not None and fall.shape != s.shape):
        raise DataError(
            describe(
                f"steps {s.shape}, answers {table.shape}",
                "[steps] from 0 on and [steps, questions]",
                "pass the answers to the same questions at every step",
            )
        )
    if s.size == 1:
        return Smoothed(np.zeros(1), np.zeros(1), None)
    seen, noise = _seen(table)
    prior = _prior(s[1:])
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
    """Mean gains over the first step, and the covariance of their error.

    One question won and one lost are added to each step on its own: where few answers differ, the
    spread that they show is not trusted.
    """
    gains = table[1:] - table[0]  # [steps - 1, questions]
    n, mean = gains.shape[1], gains.mean(axis=1)
    centred = gains - mean[:, None]
    return mean, (centred @ centred.T + 2 * np.eye(len(gains))) / (n + 2) ** 2


def _prior(s: Floats) -> Floats:
    """Covariance of f, a random walk away from 0 to both sides, of variance 1 at the farthest."""
    far = np.abs(s) / np.abs(s).max()
    walk: Floats = np.where(np.outer(s, s) > 0, np.minimum(far[:, None], far[None]), 0.0)
    return walk


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
