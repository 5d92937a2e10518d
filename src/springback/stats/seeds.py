"""Tests across seeds, as paper B has them: paired t and Wilcoxon's signed ranks."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats as sps

from springback.errors import DataError, describe
from springback.stats.values import Floats, Values, no_spread, vector


def _differences(a: Values, b: Values) -> Floats:
    left, right = vector(a, "first arm"), vector(b, "second arm")
    if left.size != right.size:
        raise DataError(
            describe(
                f"{left.size} and {right.size} seeds",
                "one value a seed in both arms, in the same order",
                "leave out seeds that one arm lacks",
            )
        )
    return np.asarray(left - right)


def paired_t(a: Values, b: Values) -> float | None:
    """Two-sided p-value of the paired t test over seeds, one value a seed.

    It is below 0.05 exactly where :func:`~springback.stats.mean_interval` of the differences
    excludes 0.  None where it cannot be had: one seed, or differences that are equal and not 0.
    1.0 where all are 0.
    """
    gaps = _differences(a, b)
    if not gaps.any():
        return 1.0 if gaps.size > 1 else None
    if gaps.size < 2 or no_spread(gaps):
        return None
    return float(sps.ttest_1samp(gaps, 0.0).pvalue)


def wilcoxon_exact(a: Values, b: Values) -> float | None:
    """Two-sided p-value of Wilcoxon's signed ranks over seeds, exact with ties too.

    Differences of 0 are dropped (Wilcoxon's own way), equal ones share their mean rank, and the
    distribution is that of all 2^n signs of these ranks.  None if nothing is left.  With n seeds
    it cannot be below 2 / 2^n: 0.25 at three, 0.031 at six (:func:`seeds_needed`).
    """
    gaps = _differences(a, b)
    gaps = gaps[gaps != 0]
    if not gaps.size:
        return None
    # Rounding must not part what is equal: 0.3 - 0.1 and 0.2 - 0.0.
    ranks = sps.rankdata(np.round(np.abs(gaps), 12))
    doubled = np.rint(2 * ranks).astype(int)
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled:  # each rank goes to the plus side or does not
        ways[rank:] += ways[:-rank].copy()
    plus = int(doubled[gaps > 0].sum())
    tail = min(ways[: plus + 1].sum(), ways[plus:].sum()) / ways.sum()
    return min(1.0, 2.0 * float(tail))


def seeds_needed(level: float = 0.95) -> int:
    """Seeds below which Wilcoxon's test can never reach ``1 - level``: 6 at 0.95."""
    if not 0.0 < level < 1.0:
        raise DataError(describe(f"level {level}", "between 0 and 1", "use for example 0.95"))
    return math.ceil(math.log2(2.0 / (1.0 - level)) - 1e-9)
