"""What the page tells of an audit's further findings: card, phases, attackers, opposite order.

The verdict's parts have a sentence for each; here stand the numbers behind it.
"""

from __future__ import annotations

from springback.report import formatting
from springback.report.audit.realign import EXAMPLES
from springback.report.components import Cell, Grid, Section
from springback.report.findings import Branch, Phases


def phases_section(phases: Phases) -> Section | None:
    if not phases.branches:
        return None
    lead = "Does it fall fast first and slowly then?"
    if all(b.breakpoint is None for b in phases.branches):
        labels = formatting.listing(dict.fromkeys(b.label for b in phases.branches if b.label))
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
    rows = tuple(map(_phases_row, phases.branches))
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


def _phases_row(b: Branch) -> tuple[Cell, ...]:
    before, after = b.slopes or (None, None)
    hundred = EXAMPLES
    return (
        Cell(f"{b.n_pos:,}"),
        Cell(b.label or "–", _phases_words(b)),
        Cell(formatting.value(b.breakpoint), formatting.bounds(b.breakpoint)),
        Cell(formatting.number(None if before is None else hundred * before, sign=True)),
        Cell(formatting.number(None if after is None else hundred * after, sign=True)),
        Cell(b.single or "–"),
        Cell(formatting.number(b.lead, sign=True)),
    )


def _phases_words(b: Branch) -> str:
    """What two phases are like; nothing is said where they are not claimed."""
    if b.label != "two phases" or b.slopes is None or b.breakpoint is None:
        return ""
    before, after = b.slopes
    point = f"up to {formatting.value(b.breakpoint)} examples"
    if before < 0 and after < 0:
        pace = ("fast", "slowly") if before < after else ("slowly", "fast")
        return f"falls {pace[0]} {point}, then {pace[1]}"
    one, two = ("falls" if slope < 0 else "rises" for slope in b.slopes)
    return f"{one} {point}, then {two}"
