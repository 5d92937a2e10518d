"""The page: one self-contained HTML file out of one result file."""

from __future__ import annotations

import functools
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from springback.errors import StoreError, describe
from springback.report import elasticity_card, picture, text, texts
from springback.report.audit import chapter as audit_chapter
from springback.report.audit.protections import protection_sections
from springback.report.boost import chapter as boost_chapter
from springback.report.check import chapter as check_chapter
from springback.report.components import Chapter, Section, tone
from springback.report.elasticity_card import Models
from springback.report.figure import Chart
from springback.report.headline import Headline, headlines, open_parts, open_words, written
from springback.report.papers import several_models, theory
from springback.report.papers.life_cycle import life_cycle_sections
from springback.report.theme import DARK, LIGHT
from springback.results.card_schema import Series
from springback.results.check_schema import Check
from springback.results.paper_schema import Reproduction
from springback.results.redaction import redacted_command
from springback.results.schema import KINDS, Demo, ResultFile, Verdict, read
from springback.results.store import read_json, require_named, whole_folder, write_text
from springback.results.theory_schema import Theory

if TYPE_CHECKING:
    import jinja2

RESULT = "result.json"
REPORT = "report.html"
CARD = "card.html"
CHARTS = "charts"
TEMPLATES = Path(__file__).parent / "templates"

#: What the page is of, by kind.
SUBJECT = {
    "audit": "Audit",
    "boost": "Boost",
    "check": "Check",
    "demo": "Demo",
    "series": "Series",
    "reproduce": "Reproduction",
    "theory": "Theory",
}
#: More parts of a verdict than this are listed, their sentences unfolded on request.
MANY_PARTS = 9
#: How the charts are named that stand first on a page: the earliest of them that there is.
PICTURES = (
    "dose-share",
    "rebound-margin",
    "rebound-",
    "methods",
    "search-mu",
    "check-run",
    "check-shares",
    "life-fall-size",
    "models-half-life-dose",
    "models-share-lost",
)
#: How the stems of our chart files begin: what a rebuild may replace in ``charts/``.
OURS = (
    "rebound-",
    "dose-",
    "alignment-",
    "resistance",
    "attackers-",
    "realign-",
    "protection-",
    "repair-",
    "life-",
    "symmetry-",
    "check-",
    "models-",
    "search-",
    "methods",
    "theory-",
)


def render(result: Mapping[str, Any]) -> str:
    """The HTML of a result file's content.

    The page needs no other file: its links, to the result file and to the charts' own
    files, are relative to the folder it lies in and lead nowhere without :func:`build`.
    Raises :class:`StoreError` where ``result`` is not of schema_version 1.
    """
    parsed = read(result)
    return _html(parsed, *first_screen(parsed, chapters(parsed)))


def render_card(result: Mapping[str, Any]) -> str | None:
    """The HTML of the elasticity card alone; None where the result has none.

    Raises :class:`StoreError` as :func:`render` does.
    """
    return _card_html(read(result))


def build(out: Path) -> Path:
    """Write ``report.html`` and ``charts/*.svg`` and ``*.png`` beside ``out/result.json``.

    Of an audit also ``card.html``, the elasticity card alone.  Returns the path of the page.
    Files in ``charts`` that a report did not write stay.
    Raises :class:`StoreError` where there is no result file, or one that cannot be read,
    of another schema_version or of an unknown kind.
    """
    require_named(out)
    source = out / RESULT
    if not source.is_file():
        jobs = f"springback {text.listing(KINDS)}"
        raise StoreError(
            f"there is no {RESULT} in {out}: "
            + describe(out, f"a folder that {jobs} wrote to with --out", "name such a folder")
        )
    result = read(read_json(source))
    screens, content = first_screen(result, _with_texts(result, chapters(result), out))
    html = _html(result, screens, content)
    charts = [c for chapter in content for s in chapter.sections for c in s.charts]
    charts += [screen.picture for screen in screens if screen.picture is not None]
    _write_charts(out / CHARTS, charts)
    card = _card_html(result)
    if card is not None:
        write_text(out / CARD, card)
    write_text(out / REPORT, html)
    return out / REPORT


@dataclass(frozen=True)
class Screen:
    """What the page greets with: a verdict of one job, and the chart that shows it."""

    headline: Headline
    picture: Chart | None


def first_screen(
    result: ResultFile, content: tuple[Chapter, ...]
) -> tuple[tuple[Screen, ...], tuple[Chapter, ...]]:
    """A screen for each headline, and the chapters without the charts that these show."""
    heads, rest = headlines(result), list(content)
    screens = []
    for number, headline in enumerate(heads):
        places = [number] if len(heads) > 1 else range(len(rest))
        picture = _picture([c for i in places for s in rest[i].sections for c in s.charts])
        screens.append(Screen(headline, picture))
        rest = [_without(chapter, picture) for chapter in rest]
    return tuple(screens), tuple(rest)


def _picture(charts: Sequence[Chart]) -> Chart | None:
    """The chart that a verdict is read off: the first of :data:`PICTURES` that there is."""
    for name in PICTURES:
        for chart in charts:
            if chart.name.startswith(name):
                return chart
    return charts[0] if charts else None


def _without(chapter: Chapter, picture: Chart | None) -> Chapter:
    """The chapter without that chart, and without a section that had nothing else."""
    sections = []
    for section in chapter.sections:
        if any(chart is picture for chart in section.charts):
            section = replace(section, charts=tuple(c for c in section.charts if c is not picture))
            if not (section.charts or section.grids or section.notes or section.warnings):
                continue
        sections.append(section)
    return replace(chapter, sections=tuple(sections))


def chapters(result: ResultFile) -> tuple[Chapter, ...]:
    """One chapter for each job that was run; a null job of a demo is named as not run."""
    analysis = result.analysis
    if isinstance(analysis, Theory):
        return theory.chapters(analysis)
    if isinstance(analysis, Check):
        return (Chapter("", check_chapter.facts(analysis), check_chapter.sections(analysis)),)
    if isinstance(analysis, Series):
        models = Models(analysis.models, analysis.comparison)
        return (Chapter("", (), several_models.sections(models)),)
    if isinstance(analysis, Reproduction):
        return (Chapter("", (), _reproduced(analysis)),)
    both = isinstance(analysis, Demo)
    parts = []
    if (audit := result.audit) is not None:
        title = "Does it spring back?" if both else ""
        parts.append(Chapter(title, audit_chapter.facts(audit), audit_chapter.sections(audit)))
    if (boost := result.boost) is not None:
        title = "Can it be made better without training?" if both else ""
        parts.append(Chapter(title, boost_chapter.facts(boost), boost_chapter.sections(boost)))
    for job in ("audit", "boost"):
        if both and job in analysis.silent:
            missing = Section(f"no-{job}", job.capitalize(), missing=f"The {job} was not run.")
            parts.append(Chapter("", (), (missing,)))
    return tuple(parts)


def _with_texts(result: ResultFile, content: tuple[Chapter, ...], out: Path) -> tuple[Chapter, ...]:
    """The chapters with the tables of texts that lie in the job's folder."""
    parted, checked = (isinstance(result.analysis, form) for form in (Demo, Check))
    jobs = [job for job in ("audit", "boost") if getattr(result, job) is not None]
    jobs += ["check"] * checked
    chapters = list(content)
    for place, job in enumerate(jobs):
        inside, of_job = job if parted else "", chapters[place]
        if job == "audit":
            section = texts.texts_section(out, texts.BY_DOSE, ("", ""), inside)
            after = len(of_job.sections)
        else:
            method = written(result.boost) if result.boost is not None else None
            pair = ("" if checked else "fine-tuned", method.method if method else "")
            section = texts.texts_section(out, texts.BY_QUESTION, pair, inside)
            first = of_job.sections[0].id if of_job.sections else ""
            after = int(first == "comparison" or first.startswith("check-"))
        if section is not None:
            sections = (*of_job.sections[:after], section, *of_job.sections[after:])
            chapters[place] = replace(of_job, sections=sections)
    return tuple(chapters)


def _reproduced(reproduction: Reproduction) -> tuple[Section, ...]:
    studies = reproduction.studies
    models = Models(studies, reproduction.comparison)
    sections = several_models.sections(models, reproduction, reproduction.cells)
    for number, study in enumerate(studies, start=1):
        suffix = f"-{number}" if len(studies) > 1 else ""
        sections += protection_sections(study.protections, study.repair, study.name, suffix)
    if reproduction.life_cycle is not None:
        sections += life_cycle_sections(reproduction.life_cycle)
    return sections


def _write_charts(folder: Path, charts: list[Chart]) -> None:
    """All pictures or none, so that no picture of an older result stays among them."""
    foreign = [p for p in folder.iterdir() if not _ours(p)] if folder.is_dir() else []
    with whole_folder(folder) as tmp:
        for chart in charts:
            (tmp / f"{chart.name}.svg").write_text(picture.standalone_svg(chart), encoding="utf-8")
            (tmp / f"{chart.name}.png").write_bytes(picture.png(chart))
        for path in foreign:
            if path.is_dir() and not path.is_symlink():
                shutil.copytree(path, tmp / path.name, symlinks=True)
            else:
                shutil.copy2(path, tmp / path.name, follow_symlinks=False)


def _ours(path: Path) -> bool:
    return path.is_file() and path.suffix in (".svg", ".png") and path.stem.startswith(OURS)


def _card_html(result: ResultFile) -> str | None:
    if result.audit is None or result.audit.card is None:
        return None
    content = elasticity_card.page_content(result.audit.card, result.audit.known_floor)
    return _fill("card.html.j2", result.provenance, report_file=REPORT, **content)


def _html(result: ResultFile, screens: tuple[Screen, ...], chapters: tuple[Chapter, ...]) -> str:
    verdict = result.verdict or Verdict()
    sentence = " ".join(screen.headline.sentence for screen in screens)
    left_open = open_parts(verdict)
    has_texts = any(section.texts for chapter in chapters for section in chapter.sections)
    has_card = result.audit is not None and result.audit.card is not None
    return _fill(
        "report.html.j2",
        result.provenance,
        subject=SUBJECT[result.kind],
        verdict=verdict,
        sentence=sentence,
        full="" if " ".join(verdict.text.split()) == sentence else verdict.text,
        screens=screens,
        decided=[part for part in verdict.parts if part not in left_open],
        left_open=left_open,
        open_words=open_words(verdict),
        tone=tone,
        head=_head(result),
        chapters=chapters,
        result=result,
        measurements=len(result.measurements),
        many_parts=MANY_PARTS,
        inputs=text.flat(result.inputs),
        provenance=_provenance(result.provenance),
        script=texts.SCRIPT if has_texts else "",
        script_hash=texts.script_hash() if has_texts else "",
        charts_folder=CHARTS,
        card_file=CARD if has_card else "",
    )


@functools.cache
def _environment() -> jinja2.Environment:
    """The templates, compiled once."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["capital"] = text.capital
    environment.filters["svg"] = picture.inline_svg
    return environment


def _fill(template: str, made: Mapping[str, Any], **content: Any) -> str:
    """A template with what both pages share: style, colours, version, the result file's name."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    page = _environment().get_template(template)
    return page.render(
        style=style,
        light=LIGHT,
        dark=DARK,
        version=made.get("springback") or "",
        result_file=RESULT,
        **content,
    )


def _head(result: ResultFile) -> list[str]:
    """What, how many seeds, how long, when: each only where known."""
    rebound = result.audit.rebound if result.audit else None
    runs = result.provenance.get("runs")
    in_parts = isinstance(runs, Mapping) and runs.get("read")  # seconds are those of the last part
    took = "" if in_parts else text.duration(result.provenance.get("seconds"))
    return [
        part
        for part in (
            text.short(_model(result.inputs), 60),
            *_models(result),
            text.count(len(rebound.seeds), "seed") if rebound and rebound.seeds else "",
            took,
            text.day(result.provenance.get("finished")),
        )
        if part
    ]


def _models(result: ResultFile) -> list[str]:
    """Name and scale of a reproduction, and how many models it or a series has."""
    analysis = result.analysis
    if isinstance(analysis, Series):
        return [text.count(len(analysis.models), "model")]
    if isinstance(analysis, Reproduction):
        count = len(analysis.studies) or len(analysis.cells)
        return [analysis.name, analysis.scale, text.count(count, "model") if count else ""]
    return []


def _model(inputs: Mapping[str, Any]) -> str:
    """The path or name of the model at the root of the inputs, or of a demo's first job."""
    for key in ("model", "ft", "tuned", "base", "audit", "boost"):
        named = inputs.get(key)
        if isinstance(named, Mapping):
            path = named.get("path")
            return path if isinstance(path, str) else _model(named)
    return ""


def _provenance(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = dict(provenance)
    command = rows.get("command")
    if isinstance(command, list):
        rows["command"] = shlex.join(redacted_command([str(word) for word in command]))
    rows["time"] = text.shares_of_time(rows.get("time"))
    return text.flat(rows)
