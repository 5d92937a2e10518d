"""Intervals of one mean: Student's t over seeds, the percentile bootstrap over examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats as sps

from springback.errors import DataError, describe
from springback.stats.values import (
    Floats,
    Interval,
    Values,
    binary,
    checked_resamples,
    no_spread,
    t_half,
    upper_quantile,
    vector,
)

#: Rows resampled at once: keeps the index block of 2,000 questions under 16 MB.
_BLOCK = 1000


def mean_interval(values: Values, *, level: float = 0.95) -> Interval:
    """Mean of ``values`` (one a seed) with Student's t interval on n - 1 degrees of freedom.

    t and not a bootstrap: with three seeds the bootstrap cannot leave the range of the three
    values and covers at most 75 %; t assumes near-normal seed means and pays for the small n
    with wide bounds (factor 4.3 at n = 3).  One value, or values that are all equal (which says
    that the measure is too coarse or the runs are copies, not that the truth is known), has no
    bounds.

    Raises :class:`~springback.errors.DataError` on an empty list, NaN, or a level outside (0, 1).
    """
    array = vector(values, "values")
    upper = upper_quantile(level)
    n, mean = array.size, float(array.mean())
    if n == 1:
        return Interval(mean, None, None, 1, "one value, no interval")
    if no_spread(array):
        return Interval(mean, None, None, n, "all values equal, no interval")
    half = t_half(array.var(ddof=1) / n, n - 1, upper)
    return Interval(mean, mean - half, mean + half, n, "Student's t")


def _resampled(sums: Floats, sizes: Floats, resamples: int, seed: int) -> Floats:
    """Means of ``resamples`` draws of whole units with replacement, shape [resamples]."""
    rng, n = np.random.default_rng(seed), sums.size
    means = []
    for begin in range(0, resamples, _BLOCK):
        rows = min(_BLOCK, resamples - begin)
        index = rng.integers(0, n, (rows, n))  # [rows, units]
        means.append(sums[index].sum(axis=1) / sizes[index].sum(axis=1))
    return np.concatenate(means)


def resampled_crossed(table: Floats, resamples: int, seed: int) -> Floats:
    """As :func:`_resampled`, drawing the rows and the columns of ``table`` [seeds, questions]."""
    rng, (seeds, questions) = np.random.default_rng(seed), table.shape
    means = []
    for begin in range(0, resamples, _BLOCK):
        rows = min(_BLOCK, resamples - begin)
        by_seed = rng.multinomial(seeds, [1 / seeds] * seeds, rows)  # [rows, seeds]
        by_question = rng.multinomial(questions, [1 / questions] * questions, rows)
        means.append(((by_seed @ table) * by_question).sum(axis=1) / table.size)
    return np.concatenate(means)


def percentiles(mean: float, draws: Floats, level: float, n: int, method: str) -> Interval:
    if no_spread(draws):
        return Interval(mean, None, None, n, "all values equal, no interval")
    upper = upper_quantile(level)
    low, high = np.quantile(draws, (1.0 - upper, upper))
    return Interval(mean, float(low), float(high), n, method)


def bootstrap_interval(
    per_example: Values,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    clusters: Sequence[object] | None = None,
) -> Interval:
    """Mean of ``per_example`` with a percentile bootstrap interval.

    With ``clusters`` (a label a value, for example the document a sentence came from) whole
    clusters are drawn, and ``n`` counts them.  Where all answers are right, or all wrong, nothing
    can be resampled: Wilson's interval then (0 of 200: up to 1.9 %).  Other values that are all
    equal, and a single cluster, have no bounds.  Raises :class:`~springback.errors.DataError` as
    :func:`mean_interval`, and if the labels are not one a value.
    """
    array = vector(per_example, "per-example values")
    if clusters is None and array.size > 1 and binary(array) and no_spread(array):
        test = sps.binomtest(int(array.sum()), array.size)
        bounds = test.proportion_ci(2.0 * upper_quantile(level) - 1.0, method="wilson")
        mean = float(array.mean())
        return Interval(mean, float(bounds.low), float(bounds.high), array.size, "Wilson")
    return bootstrap_of(array, level, resamples, seed, clusters)


def bootstrap_of(
    array: Floats, level: float, resamples: int, seed: int, clusters: Sequence[object] | None
) -> Interval:
    sums, sizes = array, np.ones_like(array)
    if clusters is not None:
        if len(clusters) != array.size:
            raise DataError(
                describe(
                    f"{len(clusters)} cluster labels for {array.size} values",
                    "one label a value",
                    "pass labels in the order of the values",
                )
            )
        order = {label: i for i, label in enumerate(dict.fromkeys(clusters))}
        member = np.array([order[label] for label in clusters])
        sums = np.bincount(member, weights=array).astype(np.float64)
        sizes = np.bincount(member).astype(np.float64)
    draws = _resampled(sums, sizes, checked_resamples(resamples), seed)
    unit = "examples" if clusters is None else "clusters"
    return percentiles(
        float(array.mean()), draws, level, sums.size, f"percentile bootstrap over {unit}"
    )
