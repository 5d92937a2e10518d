"""The chapters of ``springback theory``: the theorem, the Pareto tests, the springs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from springback.report.components import Chapter
from springback.report.node import form_of
from springback.report.papers.springs import springs_facts, springs_sections
from springback.report.papers.tails import tails_section
from springback.report.papers.theorem import theorem_facts, theorem_sections


def chapters(analysis: Mapping[str, Any]) -> tuple[Chapter, ...]:
    """The theorem's chapter, the Pareto tests', the springs', or several of them.

    Raises :class:`StoreError` where the analysis has not the form that the job writes.
    """
    with form_of("analysis", "theory"):
        parts = []
        if theorem := analysis.get("theorem"):
            parts.append(Chapter("", theorem_facts(theorem), theorem_sections(theorem)))
        if pareto := analysis.get("pareto"):
            parts.append(Chapter("", (), (tails_section(pareto),)))
        if springs := analysis.get("springs"):
            parts.append(Chapter("", springs_facts(springs), springs_sections(springs)))
    return tuple(parts)
