"""The chapters of ``springback theory``: the theorem, the Pareto tests, the springs."""

from __future__ import annotations

from springback.report.components import Chapter
from springback.report.papers.springs import springs_facts, springs_sections
from springback.report.papers.tails import tails_section
from springback.report.papers.theorem import theorem_facts, theorem_sections
from springback.results.theory_schema import Theory


def chapters(analysis: Theory) -> tuple[Chapter, ...]:
    """The theorem's chapter, the Pareto tests', the springs', or several of them."""
    parts = []
    if (theorem := analysis.theorem) is not None:
        parts.append(Chapter("", theorem_facts(theorem), theorem_sections(theorem)))
    if pareto := analysis.pareto:
        parts.append(Chapter("", (), (tails_section(pareto),)))
    if (springs := analysis.springs) is not None:
        parts.append(Chapter("", springs_facts(springs), springs_sections(springs)))
    return tuple(parts)
