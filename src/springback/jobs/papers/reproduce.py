"""``springback reproduce``: a table or figure of the papers, published beside measured."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from springback.elasticity import Bounded, Quantity
from springback.integrations.ray import ExecutorSettings
from springback.jobs.audit.analysis.protections import protection_tables
from springback.jobs.audit.job import plan as audit_plan
from springback.jobs.audit.plan import outline
from springback.jobs.audit.series import (
    FOLDER,
    NamedStudy,
    audit_of,
    cards,
    compared_cards,
    compared_verdict,
    run_all,
    slug,
)
from springback.jobs.clean import remaking
from springback.jobs.papers.checks import settings_of as settings_of
from springback.jobs.papers.claims import page, record
from springback.jobs.papers.pretrain import pretrain
from springback.jobs.papers.reproductions import REPRODUCTIONS, Reproduction
from springback.jobs.papers.theory.job import pareto_study, theorem_study
from springback.jobs.papers.theory.settings import ParetoSettings, SpringsSettings, TheoremSettings
from springback.jobs.papers.theory.springs import springs_study
from springback.models.loading import is_here
from springback.models.placement import audit_placement
from springback.progress import Progress, default_progress
from springback.results.audit_schema import Audit
from springback.results.card_schema import Comparison as CardComparison
from springback.results.card_schema import StudyCard
from springback.results.paper_schema import Entry, Figures, ReproducedStudy
from springback.results.places import require_same_kind
from springback.results.store import Store, write_text
from springback.results.writing import Clock, Result, write_result


def plan(
    name: str,
    scale: str = "small",
    out: str | Path = "springback-reproduce",
    given: Mapping[str, Any] | None = None,
) -> str:
    """What :func:`reproduce` would do, study by study; trains nothing and fetches no model.

    As ``audit plan`` says it where the model is a folder or a built-in one that was used before;
    else, and for models that are pre-trained first, the runs with the most tokens they can take.
    """
    settings, what = settings_of(name, scale, given or {}), REPRODUCTIONS[name]
    studies = what.studies(scale, settings, given or {})
    lines = [what.question, *what.notes]
    if not studies:
        rows = ", ".join(f"{n:,}" for n in what.volumes)
        lines.append(f"pre-trains a small model and keeps it after {rows} rows; of each:")
        studies = [NamedStudy("each of them", replace(settings, model="pre-trained here"))]
    for study in studies:
        lines += ["", f"{study.name}:"]
        if is_here(study.settings.model):
            lines.append(str(audit_plan(study.settings, Path(out) / FOLDER / slug(study.name))))
        else:
            lines.append(outline(study.settings))
    return "\n".join(lines)


def reproduce(
    name: str,
    scale: str = "small",
    out: str | Path = "springback-reproduce",
    given: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    executor: ExecutorSettings | None = None,
) -> Result:
    """Run the studies of ``name`` and write published beside measured (kind ``reproduce``).

    ``given``: settings that replace the reproduction's own, such as data.  Also writes
    ``reproduce.md``.  Raises :class:`SpringbackError` on an unknown name or scale.
    """
    noted, values = progress or default_progress(), given or {}
    return remaking(out, noted, lambda: _reproduce(name, scale, out, values, noted, executor))


def _reproduce(
    name: str,
    scale: str,
    out: str | Path,
    given: Mapping[str, Any],
    progress: Progress,
    executor: ExecutorSettings | None,
) -> Result:
    """:func:`reproduce`, where the weights that it needs are there."""
    clock = Clock.start()
    settings = settings_of(name, scale, given)
    what = REPRODUCTIONS[name]
    studies, place = what.studies(scale, settings, given), audit_placement(settings)
    with Store(out).locked() as store, closing(progress):
        require_same_kind(store, "reproduce")
        if not studies:
            folders = pretrain(what.volumes, store, progress, place=place)
            studies = [
                NamedStudy(f"{rows} rows", replace(settings, model=str(folder)))
                for rows, folder in folders.items()
            ]
        results = run_all(studies, store.root, progress, executor)
        compared = compared_cards(results) if len(results) > 1 else None
        audits = {name: audit_of(result) for name, result in results.items()}
        measured = _by_amount(audits) if what.by_amount else _measured(what, audits)
        analysis = record(
            name,
            scale,
            what,
            protection_tables(audits) or measured,
            studies=tuple(map(_with_protections, cards(results), audits.values())),
            comparison=CardComparison.of(compared) if compared else None,
        )
        write_text(store.root / "reproduce.md", "\n".join(page(analysis)))
        only = next(iter(results.values())).data["verdict"]
        return write_result(
            store,
            "reproduce",
            clock,
            inputs={"settings": settings, "models": [s.settings.model for s in studies]},
            measurements=[],
            analysis=analysis,
            verdict=compared_verdict(compared) if compared else only,
            computing=place.describe(),
            jobs=results.values(),
        )


def reproduce_theory(name: str, out: str | Path, progress: Progress | None = None) -> Result:
    """The theorem in numbers, the Pareto test on the built-in data, or the springs.

    All three write kind ``theory``.

    For your own data: ``springback theory pareto DATA``.
    """
    if name == "elasticity-theorem":
        return theorem_study(TheoremSettings(), out, progress)
    if name == "elasticity-springs":
        return springs_study(SpringsSettings(), out, progress)
    data = ("reviews:positive", "reviews:negative", "problems-text")
    return pareto_study(ParetoSettings(data=data), out, progress)


def _with_protections(card: StudyCard, audit: Audit) -> StudyCard:
    if audit.protections is None and audit.repair is None:
        return card
    return ReproducedStudy(**vars(card), protections=audit.protections, repair=audit.repair)


def _measured(what: Reproduction, audits: Mapping[str, Audit]) -> Figures:
    """One row a study: seeds, then value with interval and label of every quantity asked for.

    Of resistance also each pair: both losses, as the paper has them, and what they say.
    """
    cards = {name: audit.card for name, audit in audits.items() if audit.card is not None}
    first = next(iter(cards.values()))
    titles = [first.quantities[key].title for key in what.columns]
    pairs = list(first.pairs) if "resistance_ratio" in what.columns else []
    columns = ("study", "seeds", *titles, *(first.pairs[p].title for p in pairs))
    rows: list[tuple[Entry, ...]] = []
    for name, card in cards.items():
        cells = [_cell(card.quantities[key]) for key in what.columns]
        resistance = audits[name].resistance
        losses = {p.pair: p for p in (resistance.pairs if resistance is not None else ())}
        for pair in pairs:
            both = [i.mean for i in (losses[pair].inverse, losses[pair].forward) if i is not None]
            cells.append(f"{both[0]:.3f} against {both[1]:.3f}; {_cell(card.pairs[pair])}")
        rows.append((name, str(len(card.seeds)), *cells))
    return Figures(columns, tuple(rows))


def _by_amount(audits: Mapping[str, Audit]) -> Figures:
    """The paper's Table 3: rows of KL after alignment and of doses, a column for each n_pos."""
    rows: list[tuple[Entry, ...]] = []
    amounts: list[str] = []
    for name, audit in audits.items():
        if audit.rebound is None or audit.doses_to_undo is None:
            continue
        amounts = amounts or [f"aligned on {n:,}" for n in audit.rebound.n_pos]
        probes = audit.rebound.probes
        for key, words in (("kl", "KL"), ("reverse_kl", "reverse KL")):
            if key in probes:
                means = [size.value for size in probes[key].aligned]
                values = ["" if mean is None else mean.with_bounds(".3g") for mean in means]
                rows.append((f"{name}: {words} after alignment, nats/token", *values))
        for doses in audit.doses_to_undo.known().values():
            cells = [" ".join(filter(None, (size.words, _bounded(size.mean)))) for size in doses.at]
            rows.append((f"{name}: until {doses.what}", *cells))
    return Figures(("study", *amounts), tuple(rows))


def _bounded(mean: Bounded | None) -> str:
    """Limits of a mean dose, which may be open above."""
    if mean is None or mean.low is None:
        return ""
    high = "no upper limit" if mean.high is None else f"{mean.high:.0f}"
    return f"(mean {max(mean.low, 0):.0f} to {high})"


def _cell(quantity: Quantity) -> str:
    return " ".join(filter(None, (quantity.shown(), _bounds(quantity), quantity.label)))


def _bounds(quantity: Quantity) -> str:
    if quantity.low is None or quantity.high is None:
        return ""
    return f"({quantity.bounds()})"
