"""Resistance: the loss of going back beside the loss of going on."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import elasticity_card, figure, text
from springback.report.components import Cell, Grid, Section, there
from springback.report.figure import Axis, Caption, Chart, Plot, Series
from springback.results.audit_schema import Pair, Resistance
from springback.results.card_schema import Card
from springback.results.schema import Interval

RAW = (
    "Forward trains the earlier model on texts of the later one, inverse the later model on texts "
    "of the earlier one, with equal data, steps and settings. Shown is the mean loss of the run: "
    "an inverse loss to the left of the forward one means that going back is easier, resistance."
)
SLICES = (
    "Forward trains the earlier model on rows of the later one's slice, inverse the later model on "
    "rows of the earlier one's, with equal settings: the variant without sampled responses, where "
    "the two ways also differ in their rows. Shown is the mean loss of the run."
)
ANSWERS = (
    "Forward trains the earlier model on the later one's whole greedy answers, inverse the later "
    "model on texts of the earlier one, with the same prompts, steps and settings. Shown is the "
    "final loss, that of all trained rows once the run is over: an inverse loss to the left of the "
    "forward one means that going back is easier, resistance."
)
EXCESS = (
    "The same losses less what the model that they lead to scores on the texts itself: raw losses "
    "are also lower where the texts are merely more predictable."
)


def resistance_section(resistance: Resistance, card: Card | None) -> Section:
    pairs, data = resistance.pairs, resistance.data
    ratios = text.listing(
        f"{text.both(p.ratio)} for {p.pair}" for p in pairs if p.ratio is not None
    )
    tested = card is not None and bool(card.pairs)
    note = f"Inverse over forward loss: {ratios}; below 1 is resistance."
    grids = [elasticity_card.pairs_grid(card)] if card is not None and tested else []
    if resistance.sampled:
        grids.append(arms_grid(resistance))
    return Section(
        "resistance-pairs",
        "Resistance",
        "Is it easier to lead the model back than to lead it on?",
        there([losses_chart(pairs, data=data), losses_chart(pairs, excess=True)]),
        (note,) if ratios and not tested else (),
        grids=tuple(grids),
    )


def arms_grid(resistance: Resistance) -> Grid:
    """Every outcome of both arms, going back against going on."""
    head = (
        "Answers, pair",
        "Final loss, nats/token",
        "Mean loss, nats/token",
        "Finding",
        "KL to the target closed, nats/token",
        "Share of it closed",
        "Finding by KL",
    )
    arms = {"greedy": resistance.pairs, "sampled": resistance.sampled}
    rows = tuple(
        (
            Cell(f"{arm}, {p.pair}"),
            _against(p.inverse, p.forward),
            _against(p.mean_inverse, p.mean_forward),
            Cell(p.label or "–"),
            _against(p.kl_inverse, p.kl_forward),
            _against(p.kl_share_inverse, p.kl_share_forward),
            Cell(p.kl_label or "–"),
        )
        for arm, pairs in arms.items()
        for p in pairs
    )
    title = "Resistance on greedy and on sampled answers: going back against going on"
    return Grid(title, head, rows, frozenset({3, 6}), titled=True)


def _against(back: Interval | None, on: Interval | None) -> Cell:
    if back is None or on is None:
        return Cell("–")
    return Cell(f"{text.value(back)} against {text.value(on)}")


def losses_chart(pairs: Sequence[Pair], excess: bool = False, data: str = "") -> Chart | None:
    """Forward beside inverse loss of each pair; ``excess``: above what the target itself scores."""
    losses = [
        (p.pair, p.excess_forward, p.excess_inverse) if excess else (p.pair, p.forward, p.inverse)
        for p in pairs
    ]
    known = [row for row in losses if None not in row]
    if excess:
        caption = Caption("resistance-excess", "Loss in excess", EXCESS)
    else:
        reading = {"slices": SLICES, "answers": ANSWERS}.get(data, RAW)
        caption = Caption("resistance", "Forward and inverse loss", reading)
    unit = "training loss, nats/token"
    return figure.rows(
        caption,
        Plot(
            "loss for each pair of slices (left = easier)",
            [
                Series("forward", [forward for _, forward, _ in known], join=""),
                Series("inverse", [inverse for _, _, inverse in known], join=""),
            ],
        ),
        Axis(unit + " above the target's own" * excess, [p for p, _, _ in known], head="pair"),
    )
