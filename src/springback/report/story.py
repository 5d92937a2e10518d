"""What the page tells, in order: key numbers, then sections of charts, tables and notes."""

from __future__ import annotations

from springback.report import (
    audit_story,
    boost_story,
    life_charts,
    model_story,
    protection_story,
    theory_story,
)
from springback.report.schema import Result
from springback.report.sections import Chapter, Section


def chapters(result: Result) -> tuple[Chapter, ...]:
    """One chapter for each job that was run; a null job of a demo is named as not run."""
    if result.theory is not None:
        return theory_story.chapters(result.theory)
    both = result.kind == "demo"
    told = []
    if result.audit is not None:
        title = "Does it spring back?" if both else ""
        told.append(
            Chapter(title, audit_story.facts(result.audit), audit_story.sections(result.audit))
        )
    if result.boost is not None:
        title = "Can it be made better without training?" if both else ""
        told.append(
            Chapter(title, boost_story.facts(result.boost), boost_story.sections(result.boost))
        )
    if result.models is not None:
        found = model_story.sections(result.models, result.reproduction, result.cells)
        several = len(result.protected) > 1
        for at, (name, shields, repair) in enumerate(result.protected, start=1):
            suffix = f"-{at}" if several else ""
            found += protection_story.sections(shields, repair, name, suffix)
        if result.life_cycle is not None:
            found += life_charts.sections(result.life_cycle)
        told.append(Chapter("", (), found))
    for job in ("audit", "boost"):
        if both and job in result.silent:
            missing = Section(f"no-{job}", job.capitalize(), missing=f"The {job} was not run.")
            told.append(Chapter("", (), (missing,)))
    return tuple(told)
