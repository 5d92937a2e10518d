"""Is the second alignment faster than the first?

After the fall the model is aligned once more, on as many examples.  Later work found the second
time faster ("rehearsal priming", arXiv 2605.18309).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from springback.elasticity.curves import first_crossing
from springback.elasticity.rebound import bounds_in_words, count_seeds
from springback.errors import DataError, describe
from springback.stats import Interval, mean_interval

Floats = npt.NDArray[np.float64]
SpeedLabel = Literal["faster", "slower", "undecided", "one seed, no interval"]


@dataclass(frozen=True)
class AtCount:
    """Margin gained for each example after so many examples, nats/token.

    Attributes:
        count: examples
        first: of the first alignment
        second: of the second
        difference: second minus first, paired by seed
    """

    count: float
    first: Interval
    second: Interval
    difference: Interval


@dataclass(frozen=True)
class Realignment:
    """The second alignment against the first.

    Attributes:
        label: of the second time against the first, by ``difference``
        difference: second minus first, margin gained for each example averaged over ``counts``,
            nats/token, paired by seed
        begins: margin at which the second begins minus that of the first
        examples: examples needed between two heights that both pass, second minus first; below 0 =
            the second is faster from equal height too; null if they share no heights
        height_label: of ``examples``
        counts: margin gained at equal counts
        sentence: the finding in words
    """

    label: SpeedLabel
    difference: Interval
    begins: Interval
    examples: Interval | None
    height_label: SpeedLabel | None
    counts: tuple[AtCount, ...]
    sentence: str


def realignment(
    counts: Sequence[float],
    first: Mapping[int, Sequence[float]],
    second: Mapping[int, Sequence[float]],
    *,
    level: float = 0.95,
) -> Realignment:
    """Compare margin gained per example at equal counts, the second alignment against the first.

    ``counts``: aligning examples, ascending from 0; ``first``: seed -> margin at each, beginning
    with the start model's; ``second``: likewise, beginning with the fallen model's.  Nats a token.

    A second alignment that begins lower has further to go and gains faster for that alone, as any
    relaxation does.  So the time between two equal heights is compared as well: from the higher
    beginning to the lower of the two highest margins.

    Raises :class:`~springback.errors.DataError` if the seeds differ, or curves do not match
    ``counts`` or are not finite, or without a count above 0.
    """
    x = np.asarray(counts, dtype=np.float64)
    a, b = _table(x, first, second, "first"), _table(x, second, first, "second")
    rates_a, rates_b = (((t[:, 1:] - t[:, :1]) / x[1:]) for t in (a, b))  # [seeds, counts - 1]
    by_count = tuple(
        AtCount(
            float(count),
            mean_interval(rates_a[:, i], level=level),
            mean_interval(rates_b[:, i], level=level),
            mean_interval(rates_b[:, i] - rates_a[:, i], level=level),
        )
        for i, count in enumerate(x[1:])
    )
    difference = mean_interval((rates_b - rates_a).mean(axis=1), level=level)
    begins = mean_interval(b[:, 0] - a[:, 0], level=level)
    examples = _between_heights(x, a, b, level)
    label = _label(difference.n, difference.low, difference.high)
    height = None
    if examples is not None:  # fewer examples = faster
        low = None if examples.high is None else -examples.high
        high = None if examples.low is None else -examples.low
        height = _label(examples.n, low, high)
    sentence = _sentence(difference, label, begins, height, level)
    return Realignment(label, difference, begins, examples, height, by_count, sentence)


def _table(
    x: Floats, one: Mapping[int, Sequence[float]], other: Mapping[int, Sequence[float]], what: str
) -> Floats:
    """[seeds, counts] in the order of the sorted seeds."""
    ascending = x.ndim == 1 and x.size > 1 and x[0] == 0 and bool((np.diff(x) > 0).all())
    rows = [np.asarray(one[seed], dtype=np.float64) for seed in sorted(one)]
    fits = all(row.shape == x.shape and bool(np.isfinite(row).all()) for row in rows)
    if not ascending or not rows or one.keys() != other.keys() or not fits:
        raise DataError(
            describe(
                f"{what} alignment of seeds {sorted(one)}, other of {sorted(other)}, at counts "
                f"{[float(v) for v in x[:6]]}",
                "the same seeds, counts ascending from 0, one finite margin at each",
                "leave out seeds that were not measured both times",
            )
        )
    return np.stack(rows)


def _between_heights(x: Floats, a: Floats, b: Floats, level: float) -> Interval | None:
    """Examples from the higher beginning to the lower top, second minus first, over the seeds."""
    differences = []
    for one, two in zip(a, b, strict=True):
        bottom, top = max(one[0], two[0]), min(one.max(), two.max())
        if top <= bottom:
            return None
        first, second = (_climb(x, curve, bottom, top) for curve in (one, two))
        differences.append(second - first)
    return mean_interval(differences, level=level)


def _climb(x: Floats, curve: Floats, bottom: float, top: float) -> float:
    def reached(height: float) -> float:
        # The curve's own top is at or above both heights, so it passes them.
        return first_crossing([*x], [*curve], height, falling=False).dose or 0.0

    return reached(top) - reached(bottom)


def _label(n: int, low: float | None, high: float | None) -> SpeedLabel:
    if n == 1:
        return "one seed, no interval"
    if low is not None and low > 0:
        return "faster"
    return "slower" if high is not None and high < 0 else "undecided"


def _sentence(
    difference: Interval,
    label: SpeedLabel,
    begins: Interval,
    height: SpeedLabel | None,
    level: float,
) -> str:
    bounds = bounds_in_words(difference, level, lambda v: f"{100 * v:+.3g}")
    ends = {
        "faster": "the second time is faster",
        "slower": "the second time is slower",
        "undecided": "the interval does not settle which is faster",
        "one seed, no interval": "one seed shows a direction and proves nothing",
    }
    where = "higher" if begins.mean > 0 else "lower"
    text = (
        f"Over {count_seeds(difference.n)} the second alignment gains {100 * difference.mean:+.3g} "
        f"nats a token per 100 examples more than the first ({bounds}): {ends[label]}. It begins "
        f"{abs(begins.mean):.3g} nats a token {where}; between equal heights: "
    )
    return text + (height or "no heights in common") + "."
