"""What the page tells of protections and of repair."""

from __future__ import annotations

from springback.report.audit import protections as charts
from springback.report.components import Section, there
from springback.results.audit_schema import Protections, Repair


def sections(
    protections: Protections | None, repair: Repair | None, name: str = "", suffix: str = ""
) -> tuple[Section, ...]:
    """Their sections; ``name`` and ``suffix`` tell several studies on one page apart."""
    told = []
    of = f": {name}" if name else ""
    if protections is not None:
        told.append(_protections(protections, of, suffix))
    if repair is not None:
        told.append(_repair(repair, of, suffix))
    return tuple(told)


def _protections(found: Protections, of: str, suffix: str) -> Section:
    drawn = there(
        (
            *charts.curves_charts(found, suffix),
            charts.dose_chart(found, suffix),
            charts.left_chart(found, suffix) if found.rows else None,
            charts.cost_chart(found, suffix),
        )
    )
    return Section(
        f"protections{suffix}",
        f"Protections{of}",
        "What makes the alignment harder to undo, and at what price?",
        drawn,
        reading=f"All of the model aligned on {found.n_pos:,} examples, and paired by seed. "
        "mu: the aligned weights are moved further along the alignment by that much of its "
        "length; with a rank, along so many directions of each matrix. Findings are adjusted by "
        "Holm over the protections.",
    )


def _repair(found: Repair, of: str, suffix: str) -> Section:
    return Section(
        f"repair{suffix}",
        f"Repair{of}",
        "Can an alignment that benign training wore be added back?",
        (charts.pareto_chart(found, suffix),),
        reading=f"The model aligned on {found.n_pos:,} examples was trained on "
        f"{found.rows:,} rows of {found.benign}; the skill is scored on "
        f"{found.skill.source}.",
    )
