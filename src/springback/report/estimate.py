"""Values as charts and tables show them: known, or left open by censored seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from springback.results.audit_schema import MeanDose
from springback.results.schema import Bounded, Change, Difference, Interval, Quantity

#: Units that are read better in percent: factor, words for a value, words for a difference.
_PERCENT = {
    "share of the gain": (100.0, "% of the gain", "points of the gain"),
    "share of what there was": (100.0, "% of what there was", "points of what there was"),
    "share of the gain per doubling": (
        100.0,
        "points of the gain per doubling",
        "points of the gain per doubling",
    ),
}
#: Below it a quantity of a card, or a difference of two, is 0.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A value that censored seeds may leave open, with limits that each stand by themselves.

    ``value`` None: it lies above ``at_least``, or below ``at_most``, or between both; with neither
    nothing is known.  ``low`` and ``high``: None where there is no limit on that side.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @classmethod
    def of(cls, quantity: Interval | Bounded | MeanDose | Change | None) -> Estimate:
        if quantity is None:
            return cls(None)
        if isinstance(quantity, Change):
            return cls(quantity.value, quantity.low, quantity.high)
        if isinstance(quantity, Interval) or not quantity.censored:
            return cls(quantity.mean, quantity.low, quantity.high)
        return cls(None, quantity.low, quantity.high, quantity.at_least, quantity.at_most)

    def scaled(self, factor: float) -> Estimate:
        """In another unit, by a factor above 0."""
        return Estimate(*(None if v is None else v * factor for v in vars(self).values()))

    def above_zero(self) -> Estimate:
        """For what cannot be negative, as a dose: its lower limit ends at 0."""
        return replace(self, low=None if self.low is None else max(self.low, 0.0))

    @property
    def known(self) -> tuple[float, ...]:
        """Every number of it, for the limits of an axis."""
        return tuple(v for v in vars(self).values() if v is not None)


def shown(quantity: Quantity) -> tuple[Estimate, str]:
    """A card's quantity and its unit as they are read best; rounding errors are 0."""
    factor, unit, _ = _PERCENT.get(quantity.unit, (1.0, quantity.unit, ""))
    ends = quantity.at_least, quantity.at_most
    numbers = (quantity.value, quantity.low, quantity.high, *ends)
    return Estimate(*map(_rounded, numbers)).scaled(factor), unit


def shown_difference(difference: Difference) -> tuple[Estimate, str]:
    """Likewise the difference of two cards: that of two percentages is in points."""
    factor, _, unit = _PERCENT.get(difference.unit, (1.0, "", difference.unit))
    numbers = (difference.value, difference.low, difference.high)
    return Estimate(*map(_rounded, numbers)).scaled(factor), unit


def _rounded(value: float | None) -> float | None:
    return 0.0 if value is not None and abs(value) < ROUNDING else value
