"""What the page tells of several models: of a series, and of a reproduction."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import elasticity_card, formatting
from springback.report.boost import difficulty, logit_errors, methods
from springback.report.cards import Comparison, Models, Quantity, Reproduction
from springback.report.components import Section, there
from springback.report.figure import Chart, Table
from springback.report.line_charts import Frame, Line, lines_chart
from springback.report.schema import Cell
from springback.report.values import Estimate


def sections(
    models: Models | None, reproduction: Reproduction | None, cells: Sequence[Cell] = ()
) -> tuple[Section, ...]:
    told = [] if reproduction is None else [_published(reproduction)]
    for at, cell in enumerate(cells, start=1):
        told += _cell(cell, f"-{at}" if len(cells) > 1 else "")
    if models is not None and models.studies:
        told += _models(models)
    return tuple(told)


def _cell(cell: Cell, suffix: str) -> list[Section]:
    """One model on one task: its methods over the seeds, by difficulty, against lambda."""
    told = []
    if cell.methods:
        told.append(
            Section(
                f"comparison{suffix}",
                f"Methods: {cell.name}",
                "Means over the seeds, each against the fine-tuned model of its seed.",
                there([methods.methods_chart(cell.methods, f"methods{suffix}")]),
                notes=methods.cut_notes(cell.methods),
                grids=(methods.methods_grid(cell.methods),),
            )
        )
    if cell.difficulty is not None:
        told += difficulty.difficulty_sections(cell.difficulty, f"difficulty{suffix}")
    if cell.curve:
        chart = logit_errors.lambda_chart(cell.curve, f"theory-lambda{suffix}")
        lead = "Does the error that theory predicts move as NLL and accuracy do?"
        told.append(Section(f"lambda{suffix}", f"Lambda: {cell.name}", lead, there([chart])))
    return told


def _published(found: Reproduction) -> Section:
    grids = []
    if found.published is not None:
        grids.append(elasticity_card.figures_grid("Published", found.published))
    if found.measured is not None:
        grids.append(elasticity_card.figures_grid("Measured here", found.measured))
    source = found.published.source if found.published is not None else ""
    notes = [f"Published: {source}"] if source else []
    if found.published is None:
        notes.append("The paper gives no table for this.")
    if found.scale:
        notes.append(f"Scale of what was measured here: {found.scale}.")
    return Section(
        "published",
        "Published and measured",
        found.question,
        notes=tuple(map(formatting.sentence, notes)),
        grids=tuple(grids),
        missing="" if grids else "Nothing was measured.",
        reading=f"The paper: {formatting.sentence(found.paper)}" if found.paper else "",
        beside=len(grids) > 1,
    )


def _models(models: Models) -> list[Section]:
    told = [
        Section(
            "cards",
            "Cards" if len(models.studies) > 1 else "Card",
            "How strongly does each model spring back?",
            reading="Each card is of one audit: where a line does not say otherwise, of the most "
            "aligned model, with 95 % intervals over the seeds below the values.",
            grids=(elasticity_card.cards_grid(models),),
        )
    ]
    if len(models.studies) > 1 and (charts := main_charts(models)):
        lead = "How do they differ in what counts?"
        told.append(Section("by-model", "Model by model", lead, charts))
    if models.comparison is not None:
        told.append(_differences(models.comparison, models))
    return told


def _differences(comparison: Comparison, models: Models) -> Section:
    tests = [d for d in comparison.differences if d.p_holm is not None]
    found = [d for d in tests if d.label in ("higher", "lower")]
    chance = formatting.number(100 * (1 - comparison.level), 2)
    notes = []
    if tests:
        notes.append(
            f"Findings are read from p-values adjusted by Holm over all {len(tests)} tests: the "
            f"chance of any false one is at most {chance} %. Intervals are not adjusted."
        )
        if not found:
            notes.append("No difference stands after that.")
    else:
        notes.append("Nothing could be tested: a test needs two seeds or more of each model.")
    return Section(
        "differences",
        "Differences",
        "Which differences between the models are more than chance?",
        notes=tuple(notes),
        warnings=tuple(map(formatting.sentence, comparison.notes)),
        grids=elasticity_card.difference_grids(comparison, models),
    )


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


def main_charts(models: Models) -> tuple[Chart, ...]:
    """A chart of each main quantity by model, of those that some model has."""
    return tuple(c for key in MAIN if (c := _chart(models, key)) is not None)


def _chart(models: Models, key: str) -> Chart | None:
    title, reading, mark = MAIN[key]
    found = [(s.name, s.card.quantity(key) if s.card is not None else None) for s in models.studies]
    unit = next((q.shown()[1] for _, q in found if q is not None), "")
    lines = [
        Line(_name(name, q), Estimate(None) if q is None else q.shown()[0], _missing(q))
        for name, q in found
    ]
    frame = Frame(
        f"models-{key.replace('_', '-')}",
        title,
        unit,
        "",
        reading,
        mark,
        zero=key != "resistance_ratio",
    )
    rows = tuple(
        (name, formatting.with_limits(line.found), _finding(q))
        for line, (name, q) in zip(lines, found, strict=True)
    )
    return lines_chart(frame, lines, Table(("model", unit, "finding"), rows))


def _name(name: str, q: Quantity | None) -> str:
    """What did not align says so in the chart itself: its other values mean little."""
    return f"{name} ({q.label})" if q is not None and q.label == "did not align" else name


def _missing(q: Quantity | None) -> str:
    return "no card" if q is None else q.reason or "not measured"


def _finding(q: Quantity | None) -> str:
    return "–" if q is None else q.label or "–"
