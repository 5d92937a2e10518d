"""What the page tells of several models: of a series, and of a reproduction."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import elasticity_card, formatting
from springback.report.boost import chapter, logit_errors, methods
from springback.report.components import Section, there
from springback.report.elasticity_card import Models
from springback.report.papers import model_charts
from springback.results.boost_schema import ComparedMethod, SeedsComparison
from springback.results.card_schema import Comparison
from springback.results.paper_schema import Cell, Reproduction


def sections(
    models: Models, reproduction: Reproduction | None = None, cells: Sequence[Cell] = ()
) -> tuple[Section, ...]:
    told = [] if reproduction is None else [_published(reproduction)]
    for at, cell in enumerate(cells, start=1):
        told += _cell(cell, f"-{at}" if len(cells) > 1 else "")
    if models.studies:
        told += _models(models)
    return tuple(told)


def _cell(cell: Cell, suffix: str) -> list[Section]:
    """One model on one task: its methods over the seeds, by difficulty, against lambda."""
    told = []
    rows = [_method(row) for row in cell.methods]
    if rows:
        told.append(
            Section(
                f"comparison{suffix}",
                f"Methods: {cell.name}",
                "Means over the seeds, each against the fine-tuned model of its seed.",
                there([methods.methods_chart(rows, f"methods{suffix}")]),
                notes=chapter.cut_notes(rows),
                grids=(chapter.methods_grid(rows),),
            )
        )
    if cell.difficulty is not None:
        told += chapter.difficulty_sections(cell.difficulty, f"difficulty{suffix}")
    if cell.curve:
        chart = logit_errors.lambda_chart(cell.curve, f"theory-lambda{suffix}")
        lead = "Does the error that theory predicts move as NLL and accuracy do?"
        told.append(Section(f"lambda{suffix}", f"Lambda: {cell.name}", lead, there([chart])))
    return told


def _method(row: SeedsComparison) -> ComparedMethod:
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
    if len(models.studies) > 1 and (charts := model_charts.main_charts(models)):
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
