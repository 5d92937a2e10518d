"""The elasticity card as a page of its own: what it says, before a template makes HTML of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from springback.report import elasticity_card, formatting
from springback.report.components import Fact
from springback.report.estimate import shown
from springback.results.card_schema import Card
from springback.results.schema import Quantity

#: The quantities that stand large at the top.
MAIN = ("gain", "half_life_dose", "dose_to_undo", "resistance_ratio")


def content(card: Card, floor: Mapping[str, float]) -> dict[str, Any]:
    """What the template is given; ``floor``: by probe, how far scoring alone moves it."""
    largest = f"{max(card.n_pos):,} examples" if card.n_pos else "the most examples"
    notes = [
        f"Where a line does not say otherwise, it is of the model aligned on {largest}; intervals "
        "are of 95 % over the seeds.",
        "Noise floor of scoring: "
        + (
            ", ".join(f"{k} {formatting.number(v, 2)}" for k, v in floor.items()) + " nats a token."
        ),
    ]
    found = (card.quantities.get(key) for key in MAIN)
    grids = [elasticity_card.quantities_grid("Quantities", card.quantities.values())]
    if card.pairs:
        grids.append(elasticity_card.pairs_grid(card))
    return {
        "card": card,
        "model": formatting.short(card.model, 60) or "model without a name",
        "about": _about(card),
        "facts": [_fact(q) for q in found if q is not None],
        "grids": grids,
        "notes": notes if floor else notes[:1],
    }


def _about(card: Card) -> list[str]:
    doses = formatting.plain(max(card.doses)) if card.doses else ""
    numbers = ", ".join(f"{n:,}" for n in card.n_pos)
    return [
        text
        for text in (
            formatting.count(len(card.seeds), "seed") if card.seeds else "",
            f"aligned on {numbers} examples" if numbers else "",
            f"then up to {doses} of the opposite" if doses else "",
        )
        if text
    ]


def _fact(q: Quantity) -> Fact:
    found, unit = shown(q)
    limits = formatting.limits(found)
    below = f"{limits} (95 %)" if limits else q.label or q.reason
    return Fact(
        formatting.sentence(q.title).removesuffix("."), formatting.estimate(found), unit, below
    )
