"""The audit's arithmetic: doses, falls, decay and slopes.  Pure; no random numbers.

A curve is a list of doses (perturbing examples seen, ascending) and the value measured at each;
between two doses it is read as a straight line.  Margins are in nats a token and higher means
more aligned.  Paper A, section A3 (rebound).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from springback.errors import DataError, describe
from springback.stats import Interval, bootstrap_interval, mean_interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Crossing:
    """Where a curve first reaches a level.

    Attributes:
        dose: examples; null if it never does
        censored: whether the level lies beyond the doses measured; if false too, the question has
            no answer (alignment had gained nothing)
        extreme: the value that came nearest (the lowest of a falling curve)
        extreme_dose: its dose, examples
    """

    dose: float | None
    censored: bool
    extreme: float
    extreme_dose: float

    def words(self, unit: str = "examples") -> str:
        """For a table: "120 examples", "not reached; nearest ...", or "not defined ..."."""
        if self.dose is not None:
            return f"{self.dose:.0f} {unit}"
        if not self.censored:
            return "not defined: alignment gained nothing"
        return f"not reached; nearest {self.extreme:.3g} at {self.extreme_dose:.0f} {unit}"


def _curve(
    doses: Sequence[float], values: Sequence[float], *, from_zero: bool = False
) -> tuple[Floats, Floats]:
    """Both as finite vectors of one length, doses ascending from 0 or more."""
    x, y = np.asarray(doses, dtype=np.float64), np.asarray(values, dtype=np.float64)
    fits = x.ndim == 1 and x.shape == y.shape and x.size >= 1
    if not fits or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(
            describe(
                f"{x.size} doses and {y.size} values",
                "one finite value at each of at least one dose",
                "drop doses that were not measured",
            )
        )
    if x[0] < 0 or (np.diff(x) <= 0).any() or (from_zero and x[0] != 0):
        raise DataError(
            describe(
                f"doses {[float(d) for d in x[:6]]}",
                "ascending from 0" if from_zero else "ascending, none below 0",
                "sort them, and measure the aligned model itself as dose 0",
            )
        )
    return x, y


def first_crossing(
    doses: Sequence[float], values: Sequence[float], level: float, *, falling: bool = True
) -> Crossing:
    """The smallest dose at which the piecewise-linear curve is at or past ``level``.

    Past means below for ``falling``, else above.  A curve that starts past the level crosses at
    its first dose.  For the paper's dose to undo pass KL to the start model and epsilon.

    Raises :class:`~springback.errors.DataError` on unequal lengths, doses that do not ascend, or
    values that are not finite.
    """
    x, y = _curve(doses, values)
    height = (y - level) if falling else (level - y)  # past the level at 0 and below
    nearest = int(np.argmin(y) if falling else np.argmax(y))
    extreme, extreme_dose = float(y[nearest]), float(x[nearest])
    past = np.flatnonzero(height <= 0)
    if past.size == 0:
        return Crossing(None, True, extreme, extreme_dose)
    first = int(past[0])
    if first == 0:
        return Crossing(float(x[0]), False, extreme, extreme_dose)
    part = height[first - 1] / (height[first - 1] - height[first])
    dose = float(x[first - 1] + part * (x[first] - x[first - 1]))
    return Crossing(dose, False, extreme, extreme_dose)


def _dose_of_share(
    doses: Sequence[float], margins: Sequence[float], start: float, aligned: float, share: float
) -> Crossing:
    level = start + (1.0 - share) * (aligned - start)  # exactly start for all of it
    crossing = first_crossing(doses, margins, level)
    if aligned > start:
        return crossing
    return Crossing(None, False, crossing.extreme, crossing.extreme_dose)


def dose_to_half_gain(
    doses: Sequence[float], margins: Sequence[float], start: float, aligned: float
) -> Crossing:
    """Perturbing examples until half of what alignment gained in margin is lost (A3).

    ``start`` and ``aligned``: margin of the start and of the aligned model.  Without a gain the
    dose is not defined (see :class:`Crossing`); in the opposite order (negative first) pass
    margins with their sign turned.  Raises as :func:`first_crossing`.
    """
    return _dose_of_share(doses, margins, start, aligned, 0.5)


def dose_to_undo_gain(
    doses: Sequence[float], margins: Sequence[float], start: float, aligned: float
) -> Crossing:
    """As :func:`dose_to_half_gain`, until all of the gain is lost."""
    return _dose_of_share(doses, margins, start, aligned, 1.0)


def absolute_fall(
    doses: Sequence[float], margins: Sequence[float], dose: float | None = None
) -> float:
    """How far the margin has fallen below its value at dose 0, in nats a token; above 0 = fell.

    At ``dose`` (read off the line between its neighbours), or with None the mean over the curve:
    the area between the curve and its starting value, divided by the last dose.

    Raises :class:`~springback.errors.DataError` as :func:`first_crossing`, and if dose 0 is
    missing or ``dose`` lies outside the curve.
    """
    x, y = _curve(doses, margins, from_zero=True)
    if dose is None:
        if x.size == 1:
            return 0.0
        steps = np.diff(x) * (y[1:] + y[:-1]) / 2  # [doses - 1]
        return float(y[0] - steps.sum() / x[-1])
    if not 0 <= dose <= x[-1]:
        raise DataError(
            describe(f"dose {dose}", f"0 to {x[-1]:g}", "choose a dose within those measured")
        )
    return float(y[0] - np.interp(dose, x, y))


def share_lost(
    doses: Sequence[float], margins: Sequence[float], start: float, dose: float | None = None
) -> float | None:
    """:func:`absolute_fall` over what alignment had gained (margin at dose 0 minus ``start``).

    1 = all of it is lost; None if alignment gained nothing.  Raises as :func:`absolute_fall`.
    """
    fall = absolute_fall(doses, margins, dose)
    gain = float(margins[0]) - start
    return fall / gain if gain > 0 else None


@dataclass(frozen=True)
class DecayFit:
    """gain(d) = gains0[b] * exp(-rate * d), one ``rate`` (1/examples) for all branches b.

    ``residuals``: measured minus fitted, [branch][dose]; ``rmse`` over all of them.
    """

    rate: float
    gains0: tuple[float, ...]
    residuals: tuple[tuple[float, ...], ...]
    rmse: float


def fit_proportional_decay(doses: Sequence[float], curves: Sequence[Sequence[float]]) -> DecayFit:
    """Least-squares fit of proportional decay at one rate to the margin gains of all branches.

    ``curves``: margin minus the start model's margin, [branch][dose], dose 0 first.  The heights
    are solved for exactly at each rate, so only the rate is searched, from 0 (no decay) to
    practically at once.  If every branch loses the same share at the same dose, residuals show no
    trend with n_pos; that is what the stricter rebound criterion is judged against.

    Raises :class:`~springback.errors.DataError` with fewer than two doses or no branch.
    """
    pairs = [_curve(doses, curve, from_zero=True) for curve in curves]
    if not pairs or pairs[0][0].size < 2:
        raise DataError(
            describe(
                f"{len(pairs)} branches at {len(doses)} doses",
                "one branch or more, dose 0 and one more",
                "measure the curve at more doses",
            )
        )
    x, gains = pairs[0][0], np.stack([y for _, y in pairs])  # [doses], [branches, doses]

    def fitted(rates: Floats) -> Floats:
        shapes = np.exp(-np.outer(rates, x))  # [rates, doses]; 1 at dose 0, so no norm is 0
        heights = gains @ shapes.T / (shapes**2).sum(axis=1)  # [branches, rates]
        fits: Floats = heights[:, :, None] * shapes  # [branches, rates, doses]
        return fits

    def loss(rates: Floats) -> Floats:
        squares: Floats = ((gains[:, None, :] - fitted(rates)) ** 2).sum(axis=(0, 2))
        return squares

    rate = lowest(loss, np.array([0.0, *np.geomspace(1e-4 / x[-1], 50 / x[1], 200)]))
    fit = fitted(np.array([rate]))[:, 0, :]
    residuals = gains - fit
    return DecayFit(
        rate,
        tuple(float(v) for v in fit[:, 0]),
        tuple(tuple(float(v) for v in row) for row in residuals),
        float(np.sqrt((residuals**2).mean())),
    )


def lowest(loss: Callable[[Floats], Floats], grid: Floats) -> float:
    """Where ``loss`` (of many rates at once) is least: the best of ``grid``, then refined.

    ``grid`` ascends; the search goes on between the neighbours of its best point.
    """
    losses = loss(grid)
    best = int(np.argmin(losses))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, grid.size - 1)])
    minimum = minimize_scalar(
        lambda rate: float(loss(np.array([rate]))[0]),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-10 * high},
    )
    return float(minimum.x) if minimum.fun < losses[best] else float(grid[best])


def slopes_on_log2(
    n_pos: Sequence[float], values_by_seed: Mapping[int, Sequence[float]]
) -> dict[int, float]:
    """Seed -> change of a value per doubling of ``n_pos``, by least squares.

    ``values_by_seed``: seed -> one value for each of ``n_pos``.

    Raises :class:`~springback.errors.DataError` with fewer than two different ``n_pos``, any of
    them not above 0, or values that are missing or not finite.
    """
    x = np.asarray(n_pos, dtype=np.float64)
    if x.ndim != 1 or np.unique(x).size < 2 or not np.isfinite(x).all() or (x <= 0).any():
        raise DataError(
            describe(
                f"n_pos {list(n_pos)}",
                "two or more different numbers above 0",
                "align on at least two amounts of data",
            )
        )
    z = np.log2(x) - np.log2(x).mean()
    slopes = {}
    for seed, values in values_by_seed.items():
        y = np.asarray(values, dtype=np.float64)
        if y.shape != x.shape or not np.isfinite(y).all():
            raise DataError(
                describe(
                    f"{y.size} values for seed {seed}",
                    f"one finite value for each of the {x.size} n_pos",
                    "leave a seed out whose branches were not all measured",
                )
            )
        slopes[seed] = float(z @ y / (z @ z))
    return slopes


def slope_on_log2(
    n_pos: Sequence[float],
    values_by_seed: Mapping[int, Sequence[float]],
    *,
    level: float = 0.95,
) -> Interval:
    """Change of a value per doubling of ``n_pos``: :func:`slopes_on_log2`, t over the seeds.

    Seeds are the blocks: the branches of one trajectory share its data, so they do not count as
    independent points.  One seed gives a slope without bounds.

    Raises :class:`~springback.errors.DataError` as :func:`slopes_on_log2`, and without seeds.
    """
    return mean_interval(list(slopes_on_log2(n_pos, values_by_seed).values()), level=level)


def bootstrap_slope(
    n_pos: Sequence[float],
    values_by_seed: Mapping[int, Sequence[float]],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """As :func:`slope_on_log2`, by a percentile bootstrap that draws whole seeds; None below three.

    To be shown beside the t interval, not for verdicts: over 2,000 simulated studies of three
    seeds it covered the true slope in 74 % at nominal 95 % and called 26 % of level slopes a trend
    (t: 95 % and 5 %); with ten seeds it covered 90 %.  Raises as :func:`slope_on_log2`.
    """
    slopes = list(slopes_on_log2(n_pos, values_by_seed).values())
    if len(slopes) < 3:
        return None
    interval = bootstrap_interval(slopes, level=level, resamples=2000, seed=seed)
    return replace(interval, method="percentile bootstrap over seeds")
