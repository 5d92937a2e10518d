"""Cards of several models side by side, with tests for the differences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from springback.core import printable, to_jsonable
from springback.elasticity.card import (
    ElasticityCard,
    Quantity,
    interval_in_words,
    page,
    seeds_in_words,
    table,
    with_unit,
)
from springback.elasticity.seed_tests import paired_change, welch_change
from springback.errors import DataError, describe
from springback.stats import holm


@dataclass(frozen=True)
class Difference:
    """One quantity of two models, ``a`` minus ``b``.

    Attributes:
        quantity: its name
        unit: of the difference
        a: name of a model
        b: name of another
        value: null where censored seeds leave it open
        low: lower end of its interval
        high: upper end
        p: of its test
        p_holm: adjusted over every test of the comparison
        label: `higher`, `lower`, `undecided`, `one seed`, `not measured`, `not estimable`
            (censored in both) or `not compared`
        method: the test, or why there is none
    """

    quantity: str
    unit: str
    a: str
    b: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    label: str = ""
    method: str = ""


@dataclass(frozen=True)
class Row:
    """One quantity: each model's, in the order of the names, and the difference of every pair."""

    key: str
    title: str
    unit: str
    values: tuple[Quantity, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, repr=False)
class Comparison:
    """``notes``: what keeps the models from being compared like with like."""

    names: tuple[str, ...]
    cards: tuple[ElasticityCard, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the cards as :meth:`ElasticityCard.to_dict` writes them."""
        return {
            "schema_version": 1,
            "names": list(self.names),
            "level": self.level,
            "notes": list(self.notes),
            "cards": [card.to_dict() for card in self.cards],
            "differences": [to_jsonable(d) for row in self.rows for d in row.differences],
        }

    def __repr__(self) -> str:
        return f"<comparison of {printable(', '.join(self.names))}: {len(self.rows)} quantities>"

    def _repr_markdown_(self) -> str:
        """For notebooks."""
        return self.to_markdown()

    def to_markdown(self) -> str:
        """Both tables, the values and the differences, as a page of Markdown."""
        head = ("quantity", *self.names)
        values = [(row.title, *(_value(q) for q in row.values)) for row in self.rows]
        differences = [
            (row.title, f"{d.a} minus {d.b}", *_difference(d, row.unit))
            for row in self.rows
            for d in row.differences
            if d.label not in ("not measured", "not compared")
        ]
        level = f"{100 * self.level:g} %"
        lines = ["# Elasticity compared", ""]
        lines += [
            f"- {n}: {seeds_in_words(c.seeds)}" for n, c in zip(self.names, self.cards, strict=True)
        ]
        lines += [f"- Note: {note}" for note in self.notes]
        lines += ["", *table(head, values), ""]
        if differences:
            columns = ("quantity", "models", "difference", f"{level} interval", "p (Holm)", "label")
            lines += table((*columns, "test"), differences)
        if any(d.p is not None for row in self.rows for d in row.differences):
            lines += [
                "",
                f"Labels are read from the p-values, adjusted by Holm over all tests on this page: "
                f"the chance of any false one is at most {100 * (1 - self.level):.3g} %. Intervals "
                "are not adjusted.",
                "",
            ]
        return page(lines)


def compare(
    cards: Sequence[ElasticityCard],
    *,
    names: Sequence[str] | None = None,
    level: float = 0.95,
) -> Comparison:
    """Compare the cards of two models or more.

    Paired by seed where data and settings are the same and so are the seeds (the seed draws the
    order of the data, so a pair shares it); Welch's t over the seeds otherwise.  A censored dose
    counts as anything above the largest one measured.  ``names`` default to the models' own, told
    apart by a number.  The worst case is a maximum and is shown, not tested.

    Raises :class:`~springback.errors.DataError` with fewer than two models, names that do not
    match them or are not distinct.
    """
    cards = tuple(cards)
    labels = tuple(" ".join(n.split()) for n in (_names(cards) if names is None else names))
    if len(cards) < 2 or len(labels) != len(cards) or len(set(labels)) != len(labels):
        raise DataError(
            describe(
                f"{len(cards)} models named {list(labels)}",
                "two models or more, each with a name of its own",
                "name the results of at least two audits",
            )
        )
    rows = [_row(key, labels, cards, level) for key in cards[0].quantities()]
    return Comparison(labels, cards, tuple(_adjusted(rows, level)), _notes(labels, cards), level)


def _names(cards: Sequence[ElasticityCard]) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    names = []
    for card in cards:
        counts[card.model] = counts.get(card.model, 0) + 1
        names.append(
            card.model if counts[card.model] == 1 else f"{card.model} #{counts[card.model]}"
        )
    return tuple(names)


def _row(key: str, names: tuple[str, ...], cards: tuple[ElasticityCard, ...], level: float) -> Row:
    values = tuple(card.quantities()[key] for card in cards)
    unit = values[0].unit
    differences = tuple(
        _tested(Difference(key, unit, names[i], names[j]), cards[i], cards[j], level)
        for i, j in itertools.combinations(range(len(cards)), 2)
    )
    return Row(key, values[0].title, unit, values, differences)


def _tested(
    untested: Difference, card: ElasticityCard, other: ElasticityCard, level: float
) -> Difference:
    """Not adjusted yet: a label that hangs on p is ``undecided`` so far."""
    one, two = (c.quantities()[untested.quantity] for c in (card, other))
    a, b = one.ranges(), two.ranges()
    known = untested
    if one.value is not None and two.value is not None:
        known = replace(untested, value=one.value - two.value)
    if untested.quantity == "worst_case":
        return replace(known, label="not compared", method="a maximum has no interval")
    if one.title != two.title and a and b:
        why = f"not the same quantity: {one.title}; {two.title}"
        return replace(untested, label="not compared", method=why)
    if not a or not b:
        return replace(known, label="not measured", method="no values by seed")
    if min(len(a), len(b)) == 1:
        return replace(known, label="one seed", method="one seed, no interval")
    if a.keys() == b.keys() and card.study and card.study == other.study:
        seeds = sorted(a)
        change = paired_change([a[s] for s in seeds], [b[s] for s in seeds], level=level)
    else:
        change = welch_change([*a.values()], [*b.values()], level=level)
    label, method = "undecided", change.method
    if change.p is None and one.censored and two.censored:
        label, method = "not estimable", f"{method}, censored in both models"
    elif change.p is None:
        method += ", no spread over the seeds"
    return replace(
        untested,
        value=change.value,
        low=change.low,
        high=change.high,
        p=change.p,
        label=label,
        method=method,
    )


def _adjusted(rows: Sequence[Row], level: float) -> list[Row]:
    """Holm over all tests, and the labels that follow."""
    tested = [d.p for row in rows for d in row.differences if d.p is not None]
    adjusted = iter(holm(tested))

    def label(d: Difference) -> Difference:
        if d.p is None:
            return d
        p_holm = next(adjusted)
        if p_holm >= 1 - level:
            return replace(d, p_holm=p_holm)
        # A p this small comes from the side on which the interval excludes 0.
        higher = d.low is not None and d.low > 0
        return replace(d, p_holm=p_holm, label="higher" if higher else "lower")

    return [replace(row, differences=tuple(label(d) for d in row.differences)) for row in rows]


def _notes(names: tuple[str, ...], cards: tuple[ElasticityCard, ...]) -> tuple[str, ...]:
    notes = []
    for what in ("n_pos", "doses"):
        if len({getattr(card, what) for card in cards}) > 1:
            shown = "; ".join(
                f"{name} {', '.join(f'{v:g}' for v in getattr(card, what))}"
                for name, card in zip(names, cards, strict=True)
            )
            notes.append(
                f"the models were measured at different {what} ({shown}), so values taken at the "
                "largest are not of the same thing"
            )
    if not notes and (len({card.study for card in cards}) > 1 or not cards[0].study):
        notes.append(
            "data or settings differ or are not in the file, so differences may come from the "
            "study and not from the models"
        )
    return tuple(notes)


def _value(q: Quantity) -> str:
    bounds = interval_in_words(q.low, q.high, q.unit)
    text = q.shown() if bounds == "none" else f"{q.shown()} ({bounds})"
    return f"{text}; {q.label}" if q.label else text


def _difference(d: Difference, unit: str) -> tuple[str, ...]:
    value = "open" if d.value is None else with_unit(d.value, unit)
    # A difference of two percentages is in points.
    shown = [
        text.replace("%", "points") for text in (value, interval_in_words(d.low, d.high, unit))
    ]
    return *shown, "–" if d.p_holm is None else f"{d.p_holm:.2g}", d.label, d.method
