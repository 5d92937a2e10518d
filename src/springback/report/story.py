"""What the page tells, in order: key numbers, then sections of charts, tables and notes."""

from __future__ import annotations

from springback.report.audit import chapter as audit_chapter
from springback.report.audit import protections_story
from springback.report.boost import chapter as boost_chapter
from springback.report.components import Chapter, Section
from springback.report.papers import life_cycle, several_models, theory
from springback.report.schema import Result


def chapters(result: Result) -> tuple[Chapter, ...]:
    """One chapter for each job that was run; a null job of a demo is named as not run."""
    if result.theory is not None:
        return theory.chapters(result.theory)
    both = result.kind == "demo"
    told = []
    if result.audit is not None:
        title = "Does it spring back?" if both else ""
        told.append(
            Chapter(title, audit_chapter.facts(result.audit), audit_chapter.sections(result.audit))
        )
    if result.boost is not None:
        title = "Can it be made better without training?" if both else ""
        told.append(
            Chapter(title, boost_chapter.facts(result.boost), boost_chapter.sections(result.boost))
        )
    if result.models is not None:
        found = several_models.sections(result.models, result.reproduction, result.cells)
        several = len(result.protected) > 1
        for at, (name, shields, repair) in enumerate(result.protected, start=1):
            suffix = f"-{at}" if several else ""
            found += protections_story.sections(shields, repair, name, suffix)
        if result.life_cycle is not None:
            found += life_cycle.sections(result.life_cycle)
        told.append(Chapter("", (), found))
    for job in ("audit", "boost"):
        if both and job in result.silent:
            missing = Section(f"no-{job}", job.capitalize(), missing=f"The {job} was not run.")
            told.append(Chapter("", (), (missing,)))
    return tuple(told)
