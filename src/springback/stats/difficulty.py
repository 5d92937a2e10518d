"""Does an effect depend on how hard a question is?  Bins of equal size, and a trend test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as sps

from springback.errors import DataError, describe
from springback.stats.values import Floats, Interval, Values, t_half, upper_quantile, vector


@dataclass(frozen=True)
class Bin:
    """Questions of similar size: ``low`` to ``high`` (both included), and which they are."""

    low: float
    high: float
    members: tuple[int, ...]


@dataclass(frozen=True)
class Trend:
    """How a difference changes from the easiest question to the hardest (by rank of size)."""

    slope: Interval
    p: float | None


def bins_by_size(sizes: Values, bins: int | Sequence[float] = 3) -> tuple[Bin, ...]:
    """Questions by size: ``bins`` groups of about equal number, or cut at the edges given.

    Questions of one size stay together, so with many ties there may be fewer bins, and none is
    empty.  An edge belongs to the bin below it.  Raises :class:`~springback.errors.DataError` on
    a number of bins below 1 or edges that do not rise.
    """
    array = vector(sizes, "sizes")
    if isinstance(bins, int):
        if bins < 1:
            raise DataError(describe(f"{bins} bins", "1 or more", "use 3 for terciles"))
        ordered = np.sort(array)
        cuts = {float(ordered[math.ceil(array.size * i / bins) - 1]) for i in range(1, bins)}
        edges = sorted(cuts)
    else:
        edges = [float(edge) for edge in bins]
        if edges != sorted(set(edges)):
            raise DataError(describe(f"edges {edges}", "rising numbers", "sort them"))
    owner = np.searchsorted(edges, array, side="left")
    filled = []
    for i in range(len(edges) + 1):
        members = np.flatnonzero(owner == i)
        if members.size:
            inside = array[members]
            filled.append(Bin(float(inside.min()), float(inside.max()), tuple(map(int, members))))
    return tuple(filled)


def trend(sizes: Values, differences: Values, *, level: float = 0.95) -> Trend:
    """Least-squares slope of ``differences`` on the rank of ``sizes``, scaled to 0..1.

    So the slope is the effect on the hardest question minus that on the easiest, in the unit of
    the differences.  Interval and p: Student's t on n - 2 degrees of freedom with the HC3 variance,
    since differences of answers (-1, 0, 1) vary more where more answers change.  Without bounds and
    p where sizes or differences are all equal, and below 4 questions.
    """
    x, y = _ranks(vector(sizes, "sizes")), vector(differences, "differences")
    if x.size != y.size:
        raise DataError(
            describe(
                f"{x.size} sizes for {y.size} differences",
                "one size a question",
                "pass both in the order of the questions",
            )
        )
    n = x.size
    gap = x - x.mean()
    square = float(gap @ gap)
    if n < 4 or square == 0:
        return Trend(Interval(0.0, None, None, n, "no spread of sizes, no trend"), None)
    slope = float(gap @ y) / square
    left = y - y.mean() - slope * gap
    weight = 1 - 1 / n - gap**2 / square  # 1 - leverage
    if not (weight > 1e-9).all() or np.abs(left).max() <= 1e-12:
        return Trend(Interval(slope, None, None, n, "all values on a line, no interval"), None)
    variance = float(((gap * left / weight) ** 2).sum()) / square**2
    half = t_half(variance, n - 2, upper_quantile(level))
    p = 2 * float(sps.t.sf(abs(slope) / math.sqrt(variance), n - 2))
    method = "least squares on the rank of size, HC3"
    return Trend(Interval(slope, slope - half, slope + half, n, method), p)


def _ranks(array: Floats) -> Floats:
    """Mid-ranks, scaled so that the smallest of distinct values is 0 and the largest 1."""
    if array.size < 2:
        return np.zeros_like(array)
    return np.asarray((sps.rankdata(array) - 1) / (array.size - 1), dtype=np.float64)
