"""Means over seeds of values that are known only to lie beyond a bound (censored doses).

A dose that was not reached lies somewhere above the largest one measured, and one that was reached
by the first measured somewhere between 0 and that.  Leaving it out, or
writing the largest dose for it, pulls every mean and slope toward the doses that were reached.
So each value is kept as the range it can lie in, and the mean is bounded by the means of the lower
and of the upper ends (Manski's worst-case bounds).  Since the lower ends are never above the truth,
Student's lower limit of their mean is a valid lower limit of the true mean, and likewise above: no
assumption about what lies beyond the largest dose is needed, and the price is width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from springback.errors import DataError, describe
from springback.stats import mean_interval


@dataclass(frozen=True)
class Bounded:
    """A mean over seeds of which censored ones are known as a range only.

    Attributes:
        at_least: the least that the mean of these very seeds can be; null if it has no end there
        at_most: the most that it can be, equal if none is censored; null if it has no end there
        low: lower 95 % limit of the mean over all seeds, by itself; null if there is none on that
            side (or there is one seed, or no spread)
        high: upper limit, likewise
        n: seeds
        censored: seeds that are known as a range only
        method: how the limits were made
    """

    at_least: float | None
    at_most: float | None
    low: float | None
    high: float | None
    n: int
    censored: int
    method: str

    @property
    def mean(self) -> float | None:
        """The mean; None if a censored value leaves it open."""
        return self.at_least if self.censored == 0 else None

    @property
    def estimable(self) -> bool:
        """Whether anything at all is known: an end on one side at least."""
        return self.at_least is not None or self.at_most is not None


def bounded_mean(lows: Sequence[float], highs: Sequence[float], *, level: float = 0.95) -> Bounded:
    """The mean of values that lie between ``lows`` and ``highs``, one a seed; ends may be infinite.

    Equal ends everywhere give exactly :func:`springback.stats.mean_interval`.  With censored
    values the limits hold at ``level`` or more (each side on its own at its half of it), as long
    as Student's t holds for the ends.

    Raises :class:`~springback.errors.DataError` without values, on NaN, or ends that cross.
    """
    ends = list(zip(lows, highs, strict=False))
    if len(lows) != len(highs) or not ends or not all(low <= high for low, high in ends):
        raise DataError(
            describe(
                f"lower ends {list(lows)[:6]}, upper ends {list(highs)[:6]}",
                "one pair a seed, the lower end not above the upper",
                "leave out seeds that were not measured",
            )
        )
    censored = sum(low < high for low, high in ends)
    below = mean_interval(lows, level=level) if all(map(math.isfinite, lows)) else None
    above = mean_interval(highs, level=level) if all(map(math.isfinite, highs)) else None
    known = below or above
    method = "censored on both sides, no interval" if known is None else known.method
    if censored and known is not None and len(ends) > 1:
        method = f"{method} of the bounds of censored values"
    return Bounded(
        None if below is None else below.mean,
        None if above is None else above.mean,
        None if below is None else below.low,
        None if above is None else above.high,
        len(ends),
        censored,
        method,
    )


def in_words(
    value: float | None,
    at_least: float | None,
    at_most: float | None,
    show: Callable[[float], str],
) -> str:
    """A quantity that cannot be negative: its value, or between which ends it lies; else empty.

    Cards, verdicts and tables all say a dose by this function.
    """
    if value is not None:
        return show(value)
    if at_most is None:
        return "" if at_least is None else f"more than {show(at_least)}"
    if at_least is None or at_least <= 0:
        return f"at most {show(at_most)}"
    return f"between {show(at_least)} and {show(at_most)}"
