"""One phase against two on the way down (A3: a fast fall, then a slow one).

Four shapes are fitted by least squares to the mean curve over the seeds:

* ``line``: one rate throughout;
* ``decay``: proportional decay toward the start model (``fit_proportional_decay``);
* ``levelling``: decay toward a level of its own, since a fall often goes past the start;
* ``two lines``: continuous, with one breakpoint.  The first three are one phase.

Chosen by AICc.  Not by BIC: its penalty of log(n) a parameter is the smaller one at so few doses,
and in simulation (three seeds, noise of 3 % of the gain) it found two phases in 42 % of straight
lines at 5 doses and in 16 % at 9, AICc in none.  Without ``levelling`` a smooth fall that ends
below the start passed for two phases every time.  Below ``FEWEST`` doses AICc cannot see two
phases at any usual noise, so nothing is chosen there.

Errors along one curve depend on each other (a run that strays stays astray), which no criterion on
points knows: with errors that add up from dose to dose, AICc alone saw two phases in 40 % of
straight lines at 17 doses.  So the seeds, which are independent, are asked too: two phases need the
two lines fitted to the other seeds to predict a left-out seed better than the best one-phase shape
does, in every seed (in all but one of six or more; all but two of twelve).  That leaves 2 % with
three seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats as sps

from springback.elasticity.curves import fit_proportional_decay, lowest
from springback.elasticity.rebound import ReboundCurves
from springback.errors import DataError, describe
from springback.stats import Interval

Floats = npt.NDArray[np.float64]
PhaseLabel = Literal["one phase", "two phases", "undecided", "too few doses"]

#: Doses that are needed, 0 among them.
FEWEST = 9
#: A lead in AICc from which one model is preferred; below it both are well supported.
LEAD = 2.0
#: Parameters of each shape, the variance of the errors among them.
_ONE = ("line", "decay", "levelling")
_PARAMETERS = {"line": 3, "decay": 3, "levelling": 4, "two lines": 5}


@dataclass(frozen=True)
class Phases:
    """What a fall curve looks like.

    Attributes:
        label: the finding
        aicc: AICc of `line`, `decay`, `levelling`, `two lines`; lower = better; empty with too few
            doses
        breakpoint: dose at which the two lines meet, examples; given whatever the label, null with
            too few doses
        interval: of the breakpoint over the seeds, from three seeds on
        slopes: before and after it, nats/token for each example
        seeds: how many
        sentence: the finding in words
    """

    label: PhaseLabel
    aicc: Mapping[str, float]
    breakpoint: float | None
    interval: Interval | None
    slopes: tuple[float, float] | None
    seeds: int
    sentence: str


def two_lines(x: Floats, y: Floats) -> tuple[float, tuple[float, float], Floats]:
    """Breakpoint, slopes and fitted values of the best continuous two lines, exactly (Hudson 1966).

    ``x``: ascending doses, at least 4, shape [doses]; ``y`` likewise.  Each line has two doses or
    more, the breakpoint among them, else it would not be determined.  For each split both lines are
    fitted on their own; if they meet between the two parts that is the optimum there, and
    otherwise the optimum is a breakpoint on a dose.
    """
    best: tuple[float, float] | None = None  # squares, breakpoint
    for cut in range(2, x.size - 1):
        (a, b), left = _line(x[:cut], y[:cut])
        (c, d), right = _line(x[cut:], y[cut:])
        if b != d and x[cut - 1] <= (meet := (a - c) / (d - b)) <= x[cut]:
            best = min(best or (math.inf, 0.0), (left + right, float(meet)))
    for knot in x[1:-1]:
        _, squares = _least(_broken(x, float(knot)), y)
        best = min(best or (math.inf, 0.0), (squares, float(knot)))
    assert best is not None  # x[1:-1] is not empty
    basis = _broken(x, best[1])
    weights, _ = _least(basis, y)
    slopes = (float(weights[1]), float(weights[1] + weights[2]))
    return best[1], slopes, basis @ weights


def _broken(x: Floats, knot: float) -> Floats:
    return np.stack([np.ones_like(x), x, np.maximum(x - knot, 0.0)], axis=1)  # [doses, 3]


def _least(basis: Floats, y: Floats) -> tuple[Floats, float]:
    weights = np.asarray(np.linalg.lstsq(basis, y, rcond=None)[0], dtype=np.float64)
    return weights, float(((y - basis @ weights) ** 2).sum())


def _line(x: Floats, y: Floats) -> tuple[tuple[float, float], float]:
    """Intercept and slope, and the sum of squares."""
    z = x - x.mean()
    slope = float(z @ y / (z @ z))
    squares = float(((y - y.mean() - slope * z) ** 2).sum())
    return (float(y.mean() - slope * x.mean()), slope), squares


def _levelling(x: Floats, y: Floats) -> Floats:
    """Fitted values of level + height * exp(-rate * x)."""
    centred = y - y.mean()

    def shapes(rates: Floats) -> Floats:
        decays = np.exp(-np.outer(rates, x))  # [rates, doses]
        centred_decays: Floats = decays - decays.mean(axis=1, keepdims=True)
        return centred_decays

    def heights(rates: Floats) -> Floats:
        s = shapes(rates)
        fitted: Floats = s @ centred / (s**2).sum(axis=1)
        return fitted

    def loss(rates: Floats) -> Floats:
        squares: Floats = ((centred - heights(rates)[:, None] * shapes(rates)) ** 2).sum(axis=1)
        return squares

    # From all but straight to over within the first dose.
    rate = np.array([lowest(loss, np.geomspace(1e-2 / x[-1], 20 / x[1], 100))])
    fit: Floats = y.mean() + heights(rate)[0] * shapes(rate)[0]
    return fit


def _fits(x: Floats, y: Floats) -> dict[str, Floats]:
    """Fitted values of the one-phase shapes."""
    (a, b), _ = _line(x, y)
    decay = fit_proportional_decay([float(v) for v in x], [[float(v) for v in y]])
    return {
        "line": a + b * x,
        "decay": y - np.array(decay.residuals[0]),
        "levelling": _levelling(x, y),
    }


def _criteria(y: Floats, fits: Mapping[str, Floats]) -> dict[str, float]:
    """AICc of each shape."""
    n, rounding = y.size, 1e-9 * float(np.abs(y).max())  # below it, one exact fit is like another
    criteria = {}
    for name, fit in fits.items():
        mean_square = max(float(((y - fit) ** 2).mean()), rounding**2, 1e-300)
        k = _PARAMETERS[name]
        criteria[name] = n * math.log(mean_square) + 2 * k * n / (n - k - 1)
    return criteria


def fall_phases(
    doses: Sequence[float],
    gains: Mapping[int, Sequence[float]],
    *,
    resamples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Phases:
    """One phase or two, for the model of one n_pos.

    ``gains``: seed -> margin minus the start model's at each dose, dose 0 first, nats a token.
    ``two phases`` if AICc prefers the two lines by ``LEAD`` and, over two seeds or more, they
    predict left-out seeds better (see above); ``one phase`` if it prefers a one-phase shape by as
    much; ``too few doses`` below ``FEWEST``.  One phase means that one is enough for these doses
    and this noise.  ``resamples`` and ``seed`` are those of the breakpoint's interval.

    Raises :class:`~springback.errors.DataError` without seeds, on values that are missing or not
    finite, or doses that do not ascend from 0.
    """
    x, table = _table(doses, gains)
    seeds = len(table)
    if x.size < FEWEST:
        text = f"{x.size} doses do not tell one phase from two; {FEWEST} with dose 0 are needed."
        return Phases("too few doses", {}, None, None, None, seeds, text)
    y = table.mean(axis=0)
    fits = _fits(x, y)
    point, slopes, fits["two lines"] = two_lines(x, y)
    aicc = _criteria(y, fits)
    one = min(_ONE, key=aicc.__getitem__)
    lead = aicc[one] - aicc["two lines"]
    label: PhaseLabel = "undecided"
    why = f"AICc of the best one-phase shape ({one}) minus that of two lines: {lead:+.1f}"
    if lead <= -LEAD:
        label = "one phase"
    elif lead >= LEAD and seeds == 1:
        why += "; one seed cannot confirm it"
    elif lead >= LEAD:
        better = _predicted(x, table)
        why += f"; two lines predict {better} of {seeds} left-out seeds better"
        label = "two phases" if better >= seeds - seeds // 6 else label
    interval = _interval(x, table, point, resamples, seed, level) if seeds >= 3 else None
    return Phases(label, aicc, point, interval, slopes, seeds, _sentence(label, why, point, slopes))


def branch_phases(curves: ReboundCurves, *, resamples: int = 200) -> dict[int, Phases]:
    """n_pos -> :func:`fall_phases` of its branch."""
    return {
        n: fall_phases(
            curves.doses,
            {
                seed: [margin - curves.start[seed] for margin in rows[branch]]
                for seed, rows in curves.margins.items()
            },
            resamples=resamples,
        )
        for branch, n in enumerate(curves.n_pos)
    }


def _table(doses: Sequence[float], gains: Mapping[int, Sequence[float]]) -> tuple[Floats, Floats]:
    x = np.asarray(doses, dtype=np.float64)
    rows = [np.asarray(row, dtype=np.float64) for row in gains.values()]
    fits = x.ndim == 1 and x.size > 1 and x[0] == 0 and bool((np.diff(x) > 0).all())
    if not fits or not rows or any(r.shape != x.shape or not np.isfinite(r).all() for r in rows):
        raise DataError(
            describe(
                f"doses {list(doses)[:6]}, {len(rows)} seeds",
                "doses ascending from 0, and one finite value at each for every seed",
                "leave a seed out whose curve was not all measured",
            )
        )
    return x, np.stack(rows)


def _predicted(x: Floats, table: Floats) -> int:
    """Seeds whose curve, its height left free, two lines of the other seeds predict better."""
    better = 0
    for left_out in range(len(table)):
        y = np.delete(table, left_out, axis=0).mean(axis=0)
        fits = _fits(x, y)
        criteria = _criteria(y, fits)
        one = fits[min(_ONE, key=criteria.__getitem__)]
        errors = [table[left_out] - fit for fit in (one, two_lines(x, y)[2])]
        squares = [float(((e - e.mean()) ** 2).sum()) for e in errors]
        better += squares[1] < squares[0]
    return better


def _interval(
    x: Floats, table: Floats, point: float, resamples: int, seed: int, level: float
) -> Interval | None:
    """Of the breakpoint, drawing whole seeds.

    Covered 97, 94 and 98 % at 3, 5 and 8 seeds (nominal 95; the bootstrap's percentiles: 77, 84
    and 86 %), with breakpoints that differ between seeds.
    """
    seeds = len(table)
    draws = np.random.default_rng(seed).multinomial(seeds, [1 / seeds] * seeds, resamples)
    kinds, times = np.unique(draws, axis=0, return_counts=True)  # few seeds: few different draws
    points = np.array([two_lines(x, kind @ table / seeds)[0] for kind in kinds])
    spread = math.sqrt(float(np.cov(points, fweights=times)))
    if spread <= 1e-9 * x[-1]:
        return Interval(point, None, None, seeds, "all draws equal, no interval")
    # The bootstrap's spread is too small by (seeds - 1) / seeds, and its percentiles cannot leave
    # the seeds' range: Student's t with the corrected standard error.
    half = spread * math.sqrt(seeds / (seeds - 1)) * float(sps.t.ppf((1 + level) / 2, seeds - 1))
    return Interval(
        point,
        max(point - half, 0.0),
        min(point + half, float(x[-1])),
        seeds,
        "Student's t with a standard error from drawing whole seeds",
    )


def _sentence(label: PhaseLabel, why: str, point: float, slopes: tuple[float, float]) -> str:
    if label != "two phases":
        return f"{label[0].upper()}{label[1:]}: {why}."
    before, after = (100 * slope for slope in slopes)
    order = "fast, then slow" if abs(before) > abs(after) else "slow, then fast"
    return (
        f"Two phases, {order}: {before:+.3g} nats a token per 100 examples up to {point:.0f} "
        f"examples, {after:+.3g} after; {why}."
    )
