"""Phases: whether the margin falls fast first and slowly then, as a table."""

from __future__ import annotations

from dataclasses import replace

from springback.report import text
from springback.report.audit.realign import EXAMPLES
from springback.report.components import Cell, Grid, Section
from springback.results.audit_schema import FallPhases
from springback.results.schema import Interval, Phases

#: In ``aicc``, the shape of two phases.
TWO_LINES = "two lines"


def phases_section(phases: FallPhases) -> Section | None:
    if not phases.branches:
        return None
    lead = "Does it fall fast first and slowly then?"
    if all(b.breakpoint is None for b in phases.branches.values()):
        labels = text.listing(dict.fromkeys(b.label for b in phases.branches.values()))
        return Section("phases", "Phases", lead, missing=f"Not judged: {labels or 'no fit'}.")
    head = (
        "Aligned on",
        "Finding",
        "Breakpoint, examples",
        "Slope before",
        "Slope after",
        "Best shape of one phase",
        "Lead of two lines, AICc",
    )
    rows = tuple(_row(n_pos, branch) for n_pos, branch in phases.branches.items())
    return Section(
        "phases",
        "Phases",
        lead,
        reading="Two straight lines that meet at a breakpoint, against the best curve of one "
        "phase. Two phases are claimed only where AICc prefers them by 2 or more and they predict "
        "left-out seeds better; elsewhere the breakpoint is that of the best two lines and means "
        "little. Slopes are in nats/token for each 100 examples, below 0 = falling.",
        grids=(Grid("Phases of the fall", head, rows, frozenset({1, 5})),),
    )


def _row(n_pos: int, branch: Phases) -> tuple[Cell, ...]:
    point = _breakpoint(branch)
    aicc = {shape: value for shape, value in branch.aicc.items() if value is not None}
    single = min((s for s in aicc if s != TWO_LINES), key=aicc.__getitem__, default="")
    lead = aicc[single] - aicc[TWO_LINES] if single and TWO_LINES in aicc else None
    slopes = [None if s is None else EXAMPLES * s for s in branch.slopes or (None, None)]
    return (
        Cell(f"{n_pos:,}" if n_pos else "0 (as it is)"),
        Cell(branch.label or "–", _words(branch)),
        Cell(text.value(point), text.bounds(point)),
        *(Cell(text.number(slope, sign=True)) for slope in slopes),
        Cell(single or "–"),
        Cell(text.number(lead, sign=True)),
    )


def _breakpoint(branch: Phases) -> Interval | None:
    """With its interval, where there is one."""
    if branch.breakpoint is None:
        return None
    return replace(branch.interval or Interval(branch.breakpoint), mean=branch.breakpoint)


def _words(branch: Phases) -> str:
    """What two phases are like; nothing is said where they are not claimed."""
    if branch.label != "two phases" or branch.slopes is None or branch.breakpoint is None:
        return ""
    before, after = branch.slopes
    point = f"up to {text.value(_breakpoint(branch))} examples"
    if before < 0 and after < 0:
        pace = ("fast", "slowly") if before < after else ("slowly", "fast")
        return f"falls {pace[0]} {point}, then {pace[1]}"
    one, two = ("falls" if slope < 0 else "rises" for slope in branch.slopes)
    return f"{one} {point}, then {two}"
