"""Reads elasticity cards and what is made of them; see :mod:`springback.report.cards`."""

from __future__ import annotations

from collections.abc import Mapping

from springback.report.cards import (
    Card,
    Comparison,
    Difference,
    Entry,
    Figures,
    Models,
    Quantity,
    Reproduction,
    Study,
)
from springback.report.node import Node, interval
from springback.report.values import Estimate

#: Of cards; they and their comparison have a schema_version of their own.
CARD_VERSION = 1
#: Below it a quantity of a card, or a difference of two, is 0.
ROUNDING = 1e-12


def card(node: Node) -> Card:
    version = node.need("schema_version")
    if version.value != CARD_VERSION:
        raise version.bad(f"{CARD_VERSION}")
    return Card(
        node.optional("model", Node.text) or "",
        node.every("seeds", Node.whole),
        node.every("n_pos", Node.whole),
        node.every("doses", Node.number),
        _quantities(node, "quantities"),
        _quantities(node, "pairs"),
        node.optional("verdict", Node.text) or "",
    )


def _quantities(node: Node, name: str) -> tuple[Quantity, ...]:
    found = node.get(name)
    return tuple(
        _quantity(key, child)
        for key in (found.mapping() if found else ())
        if found and (child := found.get(key)) is not None
    )


def _number(node: Node, key: str) -> float | None:
    """Rounding errors of what is exactly 0 read as 0."""
    found = node.optional(key, Node.finite)
    return 0.0 if found is not None and abs(found) < ROUNDING else found


def _quantity(key: str, node: Node) -> Quantity:
    numbers = (_number(node, k) for k in ("value", "low", "high", "at_least"))
    return Quantity(
        key,
        node.optional("title", Node.text) or key.replace("_", " "),
        node.optional("unit", Node.text) or "",
        Estimate(*numbers),
        node.optional("label", Node.text) or "",
        node.optional("reason", Node.text) or "",
    )


def _difference(node: Node) -> Difference:
    numbers = (_number(node, k) for k in ("value", "low", "high"))
    return Difference(
        node.need("quantity").text(),
        node.optional("unit", Node.text) or "",
        node.need("a").text(),
        node.need("b").text(),
        Estimate(*numbers),
        node.optional("p_holm", Node.finite),
        node.optional("label", Node.text) or "",
        node.optional("method", Node.text) or "",
    )


def _comparison(node: Node) -> Comparison:
    level = node.optional("level", Node.finite)
    return Comparison(
        node.every("differences", _difference),
        node.every("notes", Node.text),
        0.95 if level is None else level,
    )


def _study(node: Node) -> Study:
    return Study(
        node.need("name").text(),
        node.optional("folder", Node.text) or "",
        node.optional("card", card),
    )


def models(node: Node, studies: str) -> Models:
    """The analysis of a series (``studies`` is "models") or of a reproduction ("studies")."""
    return Models(node.every(studies, _study), node.optional("comparison", _comparison))


def _entry(node: Node) -> Entry:
    if node.value is None or isinstance(node.value, str):
        return node.value
    if isinstance(node.value, Mapping):
        return interval(node)
    if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
        raise node.bad("a string, a number, an interval or null")
    return node.finite()


def _figures(node: Node) -> Figures:
    columns = tuple(c.text() for c in node.need("columns").items())
    rows = []
    for row in node.need("rows").items():
        entries = tuple(map(_entry, row.items()))
        if len(entries) != len(columns):
            raise row.bad(f"as many values as there are columns ({len(columns)})")
        rows.append(entries)
    return Figures(columns, tuple(rows), node.optional("source", Node.text) or "")


def reproduction(node: Node) -> Reproduction:
    def text(key: str) -> str:
        return node.optional(key, Node.text) or ""

    return Reproduction(
        text("name"),
        text("question"),
        text("scale"),
        text("paper"),
        node.optional("published", _figures),
        node.optional("measured", _figures),
    )
