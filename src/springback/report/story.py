"""What the page tells, in order: key numbers, then sections of charts, tables and notes."""

from __future__ import annotations

from springback.report.audit import chapter as audit_chapter
from springback.report.audit import protections_story
from springback.report.boost import chapter as boost_chapter
from springback.report.components import Chapter, Section
from springback.report.elasticity_card import Models
from springback.report.papers import life_cycle, several_models, theory
from springback.results.card_schema import Series
from springback.results.paper_schema import Reproduction
from springback.results.schema import Demo, ResultFile
from springback.results.theory_schema import Theory


def chapters(result: ResultFile) -> tuple[Chapter, ...]:
    """One chapter for each job that was run; a null job of a demo is named as not run."""
    found = result.analysis
    if isinstance(found, Theory):
        return theory.chapters(found)
    if isinstance(found, Series):
        models = Models(found.models, found.comparison)
        return (Chapter("", (), several_models.sections(models)),)
    if isinstance(found, Reproduction):
        return (Chapter("", (), _reproduced(found)),)
    both = isinstance(found, Demo)
    told = []
    if (audit := result.audit) is not None:
        title = "Does it spring back?" if both else ""
        told.append(Chapter(title, audit_chapter.facts(audit), audit_chapter.sections(audit)))
    if (boost := result.boost) is not None:
        title = "Can it be made better without training?" if both else ""
        told.append(Chapter(title, boost_chapter.facts(boost), boost_chapter.sections(boost)))
    for job in ("audit", "boost"):
        if both and job in found.silent:
            missing = Section(f"no-{job}", job.capitalize(), missing=f"The {job} was not run.")
            told.append(Chapter("", (), (missing,)))
    return tuple(told)


def _reproduced(found: Reproduction) -> tuple[Section, ...]:
    sections = several_models.sections(Models(found.studies, found.comparison), found, found.cells)
    several = len(found.studies) > 1
    for at, study in enumerate(found.studies, start=1):
        suffix = f"-{at}" if several else ""
        sections += protections_story.sections(study.protections, study.repair, study.name, suffix)
    return sections + (life_cycle.sections(found.life_cycle) if found.life_cycle else ())
