"""Several models: those of a series, and of a reproduction beside what was published."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import elasticity_card, figure, text
from springback.report.boost.difficulty import difficulty_sections
from springback.report.boost.logit_errors import lambda_chart
from springback.report.boost.methods import cut_notes, methods_chart, methods_grid
from springback.report.components import Section, there
from springback.report.elasticity_card import Models
from springback.report.estimate import shown
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series, Value
from springback.results.boost_schema import ComparedMethod, SeedsComparison
from springback.results.card_schema import Comparison, StudyCard
from springback.results.paper_schema import Cell, Reproduction
from springback.results.schema import Quantity

#: By quantity: title, how to read it, and the value that a dashed line marks.
MAIN: dict[str, tuple[str, str, tuple[float, str] | None]] = {
    "gain": ("Gained by aligning", "What alignment added to the margin.", (0.0, "no gain")),
    "share_lost": (
        "Share lost",
        "What the opposite took back of the gain at the largest dose.",
        (100.0, "all of the gain"),
    ),
    "rebound_slope": (
        "Rebound slope",
        "How much further the margin falls for each doubling of alignment; above 0 is the "
        "paper's finding.",
        (0.0, "no steeper"),
    ),
    "resistance_ratio": (
        "Resistance ratio",
        "Loss going back over loss going forward; below 1 going back is easier.",
        (1.0, "as hard"),
    ),
    "half_life_dose": (
        "Half-life dose",
        "Examples of the opposite that undo half of the gain; fewer is undone sooner.",
        None,
    ),
}


def sections(
    models: Models, reproduction: Reproduction | None = None, cells: Sequence[Cell] = ()
) -> tuple[Section, ...]:
    parts = [] if reproduction is None else [_published_section(reproduction)]
    for number, cell in enumerate(cells, start=1):
        parts += _cell_sections(cell, f"-{number}" if len(cells) > 1 else "")
    if models.studies:
        parts += _model_sections(models)
    return tuple(parts)


def _cell_sections(cell: Cell, suffix: str) -> list[Section]:
    """One model on one task: its methods over the seeds, by difficulty, against lambda."""
    parts = []
    if rows := [_method_of(row) for row in cell.methods or ()]:
        parts.append(
            Section(
                f"comparison{suffix}",
                f"Methods: {cell.name}",
                "Means over the seeds, each against the fine-tuned model of its seed.",
                there([methods_chart(rows, f"methods{suffix}")]),
                notes=cut_notes(rows),
                grids=(methods_grid(rows),),
            )
        )
    if cell.difficulty is not None:
        parts += difficulty_sections(cell.difficulty, f"difficulty{suffix}")
    if cell.curve:
        chart = lambda_chart(cell.curve, f"theory-lambda{suffix}")
        lead = "Does the error that theory predicts move as NLL and accuracy do?"
        parts.append(Section(f"lambda{suffix}", f"Lambda: {cell.name}", lead, there([chart])))
    return parts


def _method_of(row: SeedsComparison) -> ComparedMethod:
    """As a method of one boost; a strength only where all seeds chose the same."""
    mu, lam = (set(strengths) for strengths in (row.mu, row.lam))
    return ComparedMethod(
        row.method,
        mu.pop() if len(mu) == 1 else None,
        lam.pop() if len(lam) == 1 else None,
        row.accuracy,
        row.nll,
        row.difference,
        row.nll_difference,
        row.verdict,
        row.cut,
        p_holm=row.p_t_holm,
        nll_p_holm=row.nll_p_t_holm,
    )


def _published_section(reproduction: Reproduction) -> Section:
    published, measured = reproduction.published, reproduction.measured
    further = [("Published, further", table) for table in reproduction.further]
    tables = (("Published", published), ("Measured here", measured), *further)
    grids = [elasticity_card.figures_grid(label, t) for label, t in tables if t is not None]
    notes = []
    if published is None:
        notes.append("The paper gives no table for this.")
    elif published.source:
        notes.append(f"Published: {published.source}")
    if reproduction.scale:
        notes.append(f"Scale of what was measured here: {reproduction.scale}.")
    notes += reproduction.notes
    paper = reproduction.paper
    return Section(
        "published",
        "Published and measured",
        reproduction.question,
        notes=tuple(map(text.sentence, notes)),
        grids=tuple(grids),
        missing="" if grids else "Nothing was measured.",
        reading=f"The paper: {text.sentence(paper)}" if paper else "",
    )


def _model_sections(models: Models) -> list[Section]:
    several = len(models.studies) > 1
    parts = [
        Section(
            "cards",
            "Cards" if several else "Card",
            "How strongly does each model spring back?",
            reading="Each card is of one audit: where a line does not say otherwise, of the most "
            "aligned model, with 95 % intervals over the seeds below the values.",
            grids=(elasticity_card.cards_grid(models),),
        )
    ]
    if several and (charts := there([quantity_chart(models, key) for key in MAIN])):
        lead = "How do they differ in what counts?"
        parts.append(Section("by-model", "Model by model", lead, charts))
    if models.comparison is not None:
        parts.append(_differences_section(models.comparison, models))
    return parts


def _differences_section(comparison: Comparison, models: Models) -> Section:
    tests = [d for d in comparison.differences if d.p_holm is not None]
    chance = text.number(100 * (1 - comparison.level), 2)
    notes = []
    if tests:
        notes.append(
            f"Findings are read from p-values adjusted by Holm over all {len(tests)} tests: the "
            f"chance of any false one is at most {chance} %. Intervals are not adjusted."
        )
        if not any(d.label in ("higher", "lower") for d in tests):
            notes.append("No difference stands after that.")
    else:
        notes.append("Nothing could be tested: a test needs two seeds or more of each model.")
    return Section(
        "differences",
        "Differences",
        "Which differences between the models are more than chance?",
        notes=tuple(notes),
        warnings=tuple(map(text.sentence, comparison.notes)),
        grids=elasticity_card.difference_grids(comparison, models),
    )


def quantity_chart(models: Models, key: str) -> Chart | None:
    """One main quantity of the cards by model; None where no model has it."""
    title, reading, marked = MAIN[key]
    quantities = [(s, s.card.quantities.get(key) if s.card else None) for s in models.studies]
    unit = next((shown(q)[1] for _, q in quantities if q is not None), "")
    values = [_value(q) for _, q in quantities]
    findings = ["–" if q is None else q.label or "–" for _, q in quantities]
    return figure.rows(
        Caption(f"models-{key.replace('_', '-')}", title, reading),
        Plot(
            unit,
            [Series("", values, join="")],
            None if marked is None else Level(*marked),
            zero=key != "resistance_ratio",
        ),
        Axis(
            "",
            [s.name for s, _ in quantities],
            "model",
            {"finding": findings},
            ticks=[_name(s, q) for s, q in quantities],
        ),
    )


def _value(quantity: Quantity | None) -> Value:
    if quantity is None:
        return "no card"
    estimate, _ = shown(quantity)
    return estimate if estimate.known else quantity.reason or "not measured"


def _name(study: StudyCard, quantity: Quantity | None) -> str:
    """What did not align says so in the chart itself: its other values mean little."""
    fell = quantity is not None and quantity.label == "did not align"
    return f"{study.name} (did not align)" if fell else study.name
