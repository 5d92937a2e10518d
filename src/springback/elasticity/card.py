"""The elasticity card: one model's audit on one page, with the values by seed that tests need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from springback.core import ABSENT, printable, to_jsonable
from springback.elasticity.censored import in_words

SCHEMA_VERSION = 1
#: Units as they are written out: factor and words.
_UNITS = {
    "share of the gain": (100.0, "% of the gain"),
    "share of what there was": (100.0, "% of what there was"),
    "share of the gain per doubling": (100.0, "points of the gain per doubling"),
}


@dataclass(frozen=True)
class Quantity:
    """One line of a card.

    Attributes:
        title: for reading
        unit: of all its numbers
        value: mean over the seeds
        low: lower end of its 95 % interval, by itself
        high: upper end
        at_least: where censored seeds leave the value open: the mean is above it
        by_seed: value by seed
        censored: seeds whose value lies above the one in ``by_seed``
        label: the finding in a few words, or empty
        reason: why there is no value or interval, or what to know
        at_most: likewise, the mean is not above it
        before: seeds whose value lies at or below the one in ``by_seed``, and not below 0
    """

    title: str
    unit: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    at_least: float | None = None
    by_seed: Mapping[int, float] = field(default_factory=dict)
    censored: tuple[int, ...] = ()
    label: str = ""
    reason: str = ""
    at_most: float | None = field(default=None, metadata=ABSENT)
    before: tuple[int, ...] = field(default=(), metadata=ABSENT)

    def shown(self) -> str:
        """The value with its unit: "49 examples", "more than 64 examples", "–"."""

        def show(value: float) -> str:
            return with_unit(value, self.unit)

        return in_words(self.value, self.at_least, self.at_most, show) or "–"

    def bounds(self) -> str:
        """The interval with its unit, or why there is none."""
        if self.low is None and self.high is None:
            return "none" + (f": {self.reason}" if self.reason else "")
        text = interval_in_words(self.low, self.high, self.unit)
        return f"{text} ({self.reason})" if self.reason else text

    def ranges(self) -> dict[int, tuple[float, float]]:
        """Seed -> where its value can lie."""
        return {
            s: (0.0 if s in self.before else v, math.inf if s in self.censored else v)
            for s, v in self.by_seed.items()
        }


@dataclass(frozen=True, repr=False)
class ElasticityCard:
    """How strongly one model springs back.

    ``study``: a hash of data and settings but for model and seeds; equal studies pair by seed.
    Quantities are those of the largest ``n_pos`` unless their title says otherwise.  ``pairs``:
    resistance of each pair of models.  ``agreement``: of each two judges of sampled texts, where
    there are several.  ``noise_floor``: by probe, nats a token, of scoring alone.
    """

    model: str
    model_hash: str
    study: str
    seeds: tuple[int, ...]
    n_pos: tuple[int, ...]
    doses: tuple[float, ...]
    gain: Quantity
    share_lost: Quantity
    resistance_ratio: Quantity
    rebound_slope: Quantity
    share_slope: Quantity
    beyond_controls: Quantity
    beyond_share_slope: Quantity
    half_life_dose: Quantity
    behaviour_half_dose: Quantity
    dose_to_undo: Quantity
    kl_dose: Quantity
    worst_case: Quantity
    utility_kept: Quantity
    pairs: Mapping[str, Quantity]
    noise_floor: Mapping[str, float]
    verdict: str
    agreement: Mapping[str, Quantity] = field(default_factory=dict)
    schema_version: int = field(default=SCHEMA_VERSION, init=False)

    def quantities(self) -> dict[str, Quantity]:
        """Name -> quantity, in the order of the card."""
        return {name: getattr(self, name) for name in QUANTITIES}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``results.cards.read_card`` gives the card back."""
        return {
            "schema_version": self.schema_version,
            **{name: getattr(self, name) for name in ("model", "model_hash", "study", "verdict")},
            **{name: list(getattr(self, name)) for name in ("seeds", "n_pos", "doses")},
            "noise_floor": dict(self.noise_floor),
            "quantities": to_jsonable(self.quantities()),
            "pairs": to_jsonable(self.pairs),
            **({"agreement": to_jsonable(self.agreement)} if self.agreement else {}),
        }

    def _measured(self) -> str:
        """Of which models the card is."""
        largest = number(max(self.doses, default=0))
        if self.n_pos == (0,):
            return f"the model as it is, then up to {largest} examples of the opposite."
        return (
            f"aligned on {_list(self.n_pos)} examples, then up to {largest} of the opposite. Where "
            f"not said otherwise: the model aligned on {number(max(self.n_pos, default=0))}."
        )

    def __repr__(self) -> str:
        return f"<elasticity card of {printable(self.model)}: {printable(self.verdict)}>"

    def _repr_markdown_(self) -> str:
        """For notebooks."""
        return self.to_markdown()

    def to_markdown(self) -> str:
        """The card as a page of Markdown: verdict, one row a quantity, resistance by pair."""
        floor = ", ".join(f"{k} {number(v)} nats/token" for k, v in self.noise_floor.items())
        lines = [
            f"# Elasticity card: {' '.join(self.model.split())}",
            "",
            f"{seeds_in_words(self.seeds)}; {self._measured()}",
            "",
            f"**Verdict.** {self.verdict}",
            "",
            *table(_HEADER, [_row(q) for q in self.quantities().values()]),
        ]
        if self.pairs:
            head = ("resistance by pair", *_HEADER[1:])
            lines += ["", *table(head, [_row(q) for q in self.pairs.values()])]
        if self.agreement:
            head = ("agreement of judges", *_HEADER[1:])
            lines += ["", *table(head, [_row(q) for q in self.agreement.values()])]
        lines += ["", f"Noise floor of scoring: {floor or 'not measured'}.", ""]
        return page(lines)


#: The quantities of a card, in order.
QUANTITIES = tuple(
    f.name for f in dataclasses.fields(ElasticityCard) if f.type in ("Quantity", Quantity)
)
#: Those that cards of before there were controls lack.
LATER = ("beyond_controls", "beyond_share_slope", "behaviour_half_dose")
_HEADER = ("quantity", "value", "95 % interval", "finding")


def _row(q: Quantity) -> tuple[str, ...]:
    return q.title, q.shown(), q.bounds(), q.label or "–"


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, whole from 100 on: "0.0185", "1,250"; rounding errors are 0."""
    if abs(value) < 1e-12:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def with_unit(value: float, unit: str) -> str:
    """The number and its unit as they are written out."""
    factor, words = _UNITS.get(unit, (1.0, unit))
    return f"{number(value * factor)} {words}"


def interval_in_words(low: float | None, high: float | None, unit: str) -> str:
    """Both limits and the unit; a side on which there is none is said to be open."""
    factor, words = _UNITS.get(unit, (1.0, unit))
    if low is None or high is None:
        if low is not None:
            return f"above {number(low * factor)} {words}, no upper limit"
        return "none" if high is None else f"below {number(high * factor)} {words}, no lower limit"
    low, high = low * factor, high * factor
    # As many digits as it takes to tell the limits apart.
    shown = [(number(low, digits), number(high, digits)) for digits in range(3, 7)]
    first, last = next((pair for pair in shown if pair[0] != pair[1]), shown[0])
    return f"{first} to {last} {words}"


def seeds_in_words(seeds: tuple[int, ...]) -> str:
    """ "One seed (0)", "3 seeds (0, 1, 2)"."""
    if not seeds:
        return "Seeds unknown"
    return f"{'One seed' if len(seeds) == 1 else f'{len(seeds)} seeds'} ({_list(seeds)})"


def _list(values: tuple[int, ...]) -> str:
    return ", ".join(str(v) for v in values) or "an unknown number of"


def page(lines: list[str]) -> str:
    """The lines as one text in which no name can pass for HTML or steer a terminal."""
    return "\n".join(map(printable, lines)).replace("<", "&lt;")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a Markdown table; pipes and line breaks in the cells are made harmless."""
    clean = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in clean]
    return [lines[0], "|" + " --- |" * len(head), *lines[1:]]
