"""Several judges of the same sampled texts: how far each two of them agree."""

from __future__ import annotations

from springback.report import text
from springback.report.components import Cell, Grid, Section
from springback.results.audit_schema import JudgePair, Judges
from springback.results.schema import Interval


def judges_section(judges: Judges) -> Section | None:
    if not judges.pairs:
        return None
    first = next(iter(judges.names.values()), "the first")
    head = ("Judges", "Texts", "Same verdict, %", "Cohen's kappa", "Rank correlation")
    return Section(
        "judges",
        "Judges",
        "Do the judges of the sampled texts agree?",
        reading=f"Texts of {text.count(judges.models, 'model')}; the verdict goes by "
        f"{first}. Kappa takes off the agreement that chance gives: 1 is full agreement, 0 "
        "chance's, below 0 the opposite, as between a judge of refusals and one of harm. Where a "
        "judge gives graded scores, Spearman's rank correlation stands instead. Intervals of 95 % "
        "are over prompts.",
        grids=(Grid("Agreement of judges", head, tuple(map(_row, judges.pairs))),),
    )


def _row(pair: JudgePair) -> tuple[Cell, ...]:
    return (
        Cell(f"{pair.a} and {pair.b}"),
        Cell(f"{pair.texts:,}"),
        _cell(pair.agreement, 100),
        _cell(pair.kappa),
        _cell(pair.rank_correlation),
    )


def _cell(value: Interval | None, scale: float = 1.0) -> Cell:
    if value is None:
        return Cell("–")
    return Cell(text.value(value, scale), text.bounds(value, scale))
