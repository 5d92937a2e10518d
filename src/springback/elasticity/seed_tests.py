"""Tests over seeds: paired by seed, or Welch's where the seeds of two models are not the same.

Values may be ranges (censored doses): each side is then tested with the ends that speak against
it, as in :mod:`springback.elasticity.censored`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as sps

from springback.elasticity.censored import bounded_mean

#: Where a value can lie: equal ends for one that is known.
Range = tuple[float, float]


@dataclass(frozen=True)
class Change:
    """A difference of two means over seeds.

    Attributes:
        value: null where censored values leave it open
        low: lower end of its interval; null where nothing is known of that side
        high: upper end
        p: two-sided; null where nothing can be tested
        method: in words
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    method: str


def paired_change(a: Sequence[Range], b: Sequence[Range], *, level: float = 0.95) -> Change:
    """a - b, paired in the order given (one pair a seed): paired t.

    Raises :class:`~springback.errors.DataError` without pairs.
    """
    lows = [x[0] - y[1] for x, y in zip(a, b, strict=True)]
    highs = [x[1] - y[0] for x, y in zip(a, b, strict=True)]
    mean = bounded_mean(lows, highs, level=level)
    p = _two_sided(_above(lows), _above([-v for v in highs]))
    return Change(mean.mean, mean.low, mean.high, p, f"paired by {len(lows)} seeds")


def welch_change(a: Sequence[Range], b: Sequence[Range], *, level: float = 0.95) -> Change:
    """a - b, seeds independent: Welch's t (unequal variances).  Each needs two seeds or more."""
    lowest = _welch([x[0] for x in a], [y[1] for y in b])
    highest = _welch([x[1] for x in a], [y[0] for y in b])
    upper = (1.0 + level) / 2.0
    low = None if lowest is None else lowest.mean - lowest.reach(upper)
    high = None if highest is None else highest.mean + highest.reach(upper)
    known = all(x[0] == x[1] for x in (*a, *b))
    value = float(np.mean([x[0] for x in a]) - np.mean([y[0] for y in b])) if known else None
    p = _two_sided(
        None if lowest is None else lowest.above(), None if highest is None else highest.below()
    )
    return Change(value, low, high, p, f"Welch's t over {len(a)} and {len(b)} seeds")


def t_pvalue(values: Sequence[float]) -> float | None:
    """Two-sided p of Student's t that the mean is 0; None below two values or without spread."""
    return _two_sided(_above(values), _above([-v for v in values]))


def _two_sided(above: float | None, below: float | None) -> float | None:
    sides = [p for p in (above, below) if p is not None]
    return min(1.0, 2.0 * min(sides)) if sides else None


def _above(values: Sequence[float]) -> float | None:
    """One-sided p that the mean is not above 0."""
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2 or not np.isfinite(array).all() or np.ptp(array) <= _rounding(array):
        return None
    t = array.mean() / math.sqrt(array.var(ddof=1) / array.size)
    return float(sps.t.sf(t, array.size - 1))


def _rounding(array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return 1e-12 * float(np.abs(array).max())


@dataclass(frozen=True)
class _Welch:
    mean: float
    error: float
    freedom: float

    def reach(self, upper: float) -> float:
        return float(sps.t.ppf(upper, self.freedom)) * self.error

    def above(self) -> float:
        return float(sps.t.sf(self.mean / self.error, self.freedom))

    def below(self) -> float:
        return float(sps.t.cdf(self.mean / self.error, self.freedom))


def _welch(a: Sequence[float], b: Sequence[float]) -> _Welch | None:
    """None with an infinite value, fewer than two seeds, or no spread in either."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if min(x.size, y.size) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    parts = [float(v.var(ddof=1)) / v.size for v in (x, y)]
    error = math.sqrt(sum(parts))
    if error <= max(_rounding(x), _rounding(y)):
        return None
    weights = sum(v**2 / (n - 1) for v, n in zip(parts, (x.size, y.size), strict=True))
    return _Welch(float(x.mean() - y.mean()), error, error**4 / weights)
