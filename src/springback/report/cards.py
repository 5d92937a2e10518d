"""Elasticity cards, their comparison, and the two results that are made of them.

See ``docs/result_schema.md`` for every key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from springback.report.values import Estimate, Interval

#: Units that are read better in percent: factor, words for a value, words for a difference.
_PERCENT = {
    "share of the gain": (100.0, "% of the gain", "points of the gain"),
    "share of the gain per doubling": (
        100.0,
        "points of the gain per doubling",
        "points of the gain per doubling",
    ),
}


def shown_unit(unit: str, difference: bool = False) -> tuple[float, str]:
    """Factor to multiply by, and the unit that the product has."""
    factor, words, of_difference = _PERCENT.get(unit, (1.0, unit, unit))
    return factor, of_difference if difference else words


@dataclass(frozen=True)
class Quantity:
    """One line of a card; ``reason`` says why there is no value, or what to know."""

    key: str
    title: str
    unit: str
    found: Estimate
    label: str
    reason: str

    def shown(self) -> tuple[Estimate, str]:
        """Value and unit as they are read best."""
        factor, unit = shown_unit(self.unit)
        return self.found.scaled(factor), unit


@dataclass(frozen=True)
class Card:
    """``pairs``: the resistance ratio of each pair of models, by the pair."""

    model: str
    seeds: tuple[int, ...]
    n_pos: tuple[int, ...]
    doses: tuple[float, ...]
    quantities: tuple[Quantity, ...]
    pairs: tuple[Quantity, ...]
    verdict: str

    def quantity(self, key: str) -> Quantity | None:
        return next((q for q in self.quantities if q.key == key), None)


@dataclass(frozen=True)
class Difference:
    """Model ``a`` minus model ``b``; ``p_holm`` is adjusted over every test of the comparison."""

    quantity: str
    unit: str
    a: str
    b: str
    found: Estimate
    p_holm: float | None
    label: str
    method: str


@dataclass(frozen=True)
class Comparison:
    """``notes``: what keeps the models from being compared like with like."""

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    level: float


@dataclass(frozen=True)
class Study:
    """One model's audit; ``folder`` is where its own report lies, relative to this result."""

    name: str
    folder: str
    card: Card | None


@dataclass(frozen=True)
class Models:
    studies: tuple[Study, ...]
    comparison: Comparison | None

    def title(self, key: str) -> str:
        """What a quantity is called on the cards, or its name."""
        found = (s.card.quantity(key) for s in self.studies if s.card is not None)
        return next((q.title for q in found if q is not None), key.replace("_", " "))


#: What stands in a table of a reproduction.
Entry = str | float | Interval | None


@dataclass(frozen=True)
class Figures:
    """A table of numbers, published or measured; rows are as long as ``columns``."""

    columns: tuple[str, ...]
    rows: tuple[Sequence[Entry], ...]
    source: str = ""


@dataclass(frozen=True)
class Reproduction:
    """``paper``: what the paper found, in words."""

    name: str
    question: str
    scale: str
    paper: str
    published: Figures | None
    measured: Figures | None
