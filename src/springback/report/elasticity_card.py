"""Elasticity cards and their differences: as tables, as a section, and as a page of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from springback.report import text
from springback.report.components import Cell, Fact, Grid, Section
from springback.report.estimate import shown, shown_difference
from springback.results.card_schema import Card, Comparison, StudyCard
from springback.results.paper_schema import Entry, Figures
from springback.results.schema import Difference, Interval, Quantity

#: More rows than this stand folded, below those that say something.
MANY = 12
#: Labels of differences that were neither tested nor worth a row.
SILENT = ("not measured", "not compared")
#: The quantities that stand large at the top of the card's own page.
MAIN = ("gain", "half_life_dose", "dose_to_undo", "resistance_ratio")
#: How the page of a single model is named in its folder.
REPORT = "report.html"


@dataclass(frozen=True)
class Models:
    """Several models' cards, of a series or of a reproduction."""

    studies: Sequence[StudyCard]
    comparison: Comparison | None

    def title(self, key: str) -> str:
        """What a quantity is called on the cards, or its name."""
        cards = (s.card for s in self.studies if s.card is not None)
        titles = (card.quantities[key].title for card in cards if key in card.quantities)
        return next(titles, key.replace("_", " "))


def quantities_grid(label: str, quantities: Iterable[Quantity], first: str = "Quantity") -> Grid:
    """One line for each: value, interval, unit, finding."""
    head = (first, "Value", "95 % interval", "Unit", "Finding")
    return Grid(label, head, tuple(map(_quantity_row, quantities)), frozenset({3, 4}))


def _quantity_row(q: Quantity) -> tuple[Cell, ...]:
    estimate, unit = shown(q)
    return (
        Cell(text.sentence(q.title).removesuffix(".")),
        Cell(text.estimate(estimate)),
        Cell(text.limits(estimate) or "–"),
        Cell(unit or "–"),
        Cell(q.label or "–", _reason(q)),
    )


def _reason(q: Quantity) -> str:
    """What the label has not said already."""
    return "" if q.label.startswith("one seed") and q.reason == "one value" else q.reason


def pairs_grid(card: Card) -> Grid:
    """Resistance ratio of each pair of models, with its test."""
    head = ("Pair", "Inverse over forward loss", "95 % interval", "Finding")
    rows = tuple(
        (
            Cell(pair, q.title),
            Cell(text.estimate(shown(q)[0])),
            Cell(text.limits(shown(q)[0]) or "–"),
            Cell(q.label or "–", _reason(q)),
        )
        for pair, q in card.pairs.items()
    )
    return Grid("Resistance by pair", head, rows, frozenset({3}))


def cards_grid(models: Models) -> Grid:
    """Quantities as rows, models as columns; above them what each was measured with."""
    studies = models.studies
    keys = list(dict.fromkeys(key for s in studies if s.card for key in s.card.quantities))
    rows = [
        (Cell("Seeds"), *(Cell(_numbers(s.card.seeds) if s.card else "–") for s in studies)),
        (Cell("Aligned on"), *(Cell(_numbers(s.card.n_pos) if s.card else "–") for s in studies)),
        (Cell("Largest dose"), *(Cell(_largest(s.card)) for s in studies)),
    ]
    if any(report_link(s.folder) for s in studies):
        links = (Cell("page" if (to := report_link(s.folder)) else "–", link=to) for s in studies)
        rows.insert(0, (Cell("Single report"), *links))
    for key in keys:
        quantities = [s.card.quantities.get(key) if s.card else None for s in studies]
        unit = next((shown(q)[1] for q in quantities if q is not None), "")
        rows.append((Cell(models.title(key), unit), *map(_card_cell, quantities)))
    return Grid("Cards side by side", ("Quantity", *(s.name for s in studies)), tuple(rows))


def _card_cell(q: Quantity | None) -> Cell:
    if q is None:
        return Cell("–")
    estimate, _ = shown(q)
    below = (text.limits(estimate), q.label, "" if estimate.known else q.reason)
    return Cell(text.estimate(estimate), "; ".join(filter(None, dict.fromkeys(below))))


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(f"{v:,}" for v in values) or "–"


def _largest(card: Card | None) -> str:
    return text.plain(max(card.doses)) if card is not None and card.doses else "–"


def report_link(folder: str | None) -> str:
    """The single report's address, relative; empty for a folder that is not inside this one."""
    path = PurePosixPath(folder or "")
    if not folder or path.is_absolute() or ".." in path.parts or "\\" in folder:
        return ""
    return quote(f"{path}/{REPORT}") if path.parts else ""


def difference_grids(comparison: Comparison, models: Models) -> tuple[Grid, ...]:
    """Those that the tests show, then all; in one table where they are few."""
    every = [d for d in comparison.differences if d.label not in SILENT]
    if not every:
        return ()
    if len(every) <= MANY:
        return (_differences("Differences", every, models),)
    known = [d for d in every if d.label in ("higher", "lower")]
    grids = (
        _differences("Differences that the tests show", known, models),
        _differences(f"All {len(every)} differences", every, models, folded=True),
    )
    return grids if known else grids[1:]


def _differences(
    label: str, given: Sequence[Difference], models: Models, folded: bool = False
) -> Grid:
    head = ("Quantity", "Models", "Difference", "95 % interval", "p (Holm)", "Finding", "Test")
    rows = tuple(_difference_row(d, models) for d in given)
    return Grid(label, head, rows, frozenset({1, 5, 6}), folded=folded)


def _difference_row(d: Difference, models: Models) -> tuple[Cell, ...]:
    difference, unit = shown_difference(d)
    return (
        Cell(models.title(d.quantity), unit),
        Cell(f"{d.a} minus {d.b}"),
        Cell("open" if difference.value is None else text.estimate(difference, sign=True)),
        Cell(text.limits(difference, sign=True) or "–"),
        Cell("–" if d.p_holm is None else text.number(d.p_holm, 2)),
        Cell(d.label or "–", tone="plain" if d.label else ""),
        Cell(d.method or "–"),
    )


def figures_grid(label: str, figures: Figures) -> Grid:
    """A table of a reproduction; numbers to the right, words to the left."""
    textual = frozenset(
        i
        for i in range(1, len(figures.columns))
        if any(isinstance(row[i], str) for row in figures.rows)
    )
    rows = tuple(tuple(map(_entry_cell, row)) for row in figures.rows)
    return Grid(label, figures.columns, rows, textual, titled=True)


def _entry_cell(given: Entry) -> Cell:
    if isinstance(given, Interval):
        return Cell(text.value(given), text.bounds(given))
    return Cell(text.entry(given))


def card_section(card: Card) -> Section:
    largest = text.plain(max(card.doses, default=0))
    dose = f", then trained on up to {largest} of the opposite"
    seeds = f", over {text.count(len(card.seeds), 'seed')}" if card.seeds else ""
    return Section(
        "card",
        "Elasticity card",
        "How strongly does this model spring back?",
        reading=f"Where a line does not say otherwise: of {_model_of(card)}"
        f"{dose if card.doses else ''}{seeds}. Cards of several models can be laid side by side.",
        grids=(quantities_grid("Elasticity card", card.quantities.values()),),
    )


def _model_of(card: Card) -> str:
    """The model whose quantities a card shows."""
    if card.n_pos == (0,):
        return "the model as it is"
    aligned = f"{max(card.n_pos):,} examples" if card.n_pos else "the most examples"
    return f"the model aligned on {aligned}"


def page_content(card: Card, floor: Mapping[str, float]) -> dict[str, Any]:
    """What the template of the card's own page is given.

    ``floor``: by probe, how far scoring alone moves it.
    """
    notes = [
        f"Where a line does not say otherwise, it is of {_model_of(card)}; intervals are of 95 % "
        "over the seeds.",
        "Noise floor of scoring: "
        + (", ".join(f"{k} {text.number(v, 2)}" for k, v in floor.items()) + " nats a token."),
    ]
    main = (card.quantities.get(key) for key in MAIN)
    grids = [quantities_grid("Quantities", card.quantities.values())]
    if card.pairs:
        grids.append(pairs_grid(card))
    if card.agreement:
        grids.append(quantities_grid("Agreement of judges", card.agreement.values(), "Judges"))
    return {
        "card": card,
        "model": text.short(card.model, 60) or "model without a name",
        "about": _about(card),
        "facts": [_fact(q) for q in main if q is not None],
        "grids": grids,
        "notes": notes if floor else notes[:1],
    }


def _about(card: Card) -> list[str]:
    doses = text.plain(max(card.doses)) if card.doses else ""
    numbers = ", ".join(f"{n:,}" for n in card.n_pos)
    return [
        part
        for part in (
            text.count(len(card.seeds), "seed") if card.seeds else "",
            ("as it is" if numbers == "0" else f"aligned on {numbers} examples") * bool(numbers),
            f"then up to {doses} of the opposite" if doses else "",
        )
        if part
    ]


def _fact(q: Quantity) -> Fact:
    estimate, unit = shown(q)
    limits = text.limits(estimate)
    below = f"{limits} (95 %)" if limits else q.label or q.reason
    title = text.sentence(q.title).removesuffix(".")
    return Fact(title, text.estimate(estimate), unit, below)
