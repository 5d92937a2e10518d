"""Numbers as the result file holds them: means with intervals, and values left open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean and, where the data carry one, its 95 % interval; ``method`` names it in words."""

    mean: float
    low: float | None
    high: float | None
    n: int
    method: str = ""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Low and high, or None unless both are known."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def scaled(self, factor: float) -> Interval:
        """In another unit: a share times 100 is a percentage."""
        low, high = (None if b is None else b * factor for b in (self.low, self.high))
        return Interval(self.mean * factor, low, high, self.n, self.method)


@dataclass(frozen=True)
class AtSize:
    """A value for the model aligned on ``n_pos`` examples."""

    n_pos: int
    value: Interval | None


@dataclass(frozen=True)
class Estimate:
    """A value that censored seeds may leave open, with limits that each stand by themselves.

    ``value`` None: it lies above ``at_least``, or below ``at_most``; with neither nothing is
    known.  ``low`` and ``high``: None where there is no limit on that side.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @classmethod
    def of(cls, found: Interval) -> Estimate:
        return cls(found.mean, found.low, found.high)

    def scaled(self, factor: float) -> Estimate:
        """In another unit, by a factor above 0."""
        given = (self.value, self.low, self.high, self.at_least, self.at_most)
        return Estimate(*(None if v is None else v * factor for v in given))

    def above_zero(self) -> Estimate:
        """For what cannot be negative, as a dose: its lower limit ends at 0."""
        low = None if self.low is None else max(self.low, 0.0)
        return Estimate(self.value, low, self.high, self.at_least, self.at_most)

    @property
    def known(self) -> tuple[float, ...]:
        """Every number of it, for the limits of an axis."""
        given = (self.value, self.low, self.high, self.at_least, self.at_most)
        return tuple(v for v in given if v is not None)
