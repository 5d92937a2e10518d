"""Several audits side by side: models or checkpoints with one study, or named studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from springback.elasticity import Comparison, compare
from springback.errors import SpringbackError
from springback.integrations.ray import ExecutorSettings
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.studies import FOLDER as FOLDER
from springback.jobs.audit.studies import NamedStudy as NamedStudy
from springback.jobs.audit.studies import by_model as by_model
from springback.jobs.audit.studies import slug as slug
from springback.models.loading import release_memory
from springback.models.placement import audit_placement
from springback.progress import Progress, default_progress
from springback.results.audit_schema import Audit
from springback.results.card_schema import Comparison as CardComparison
from springback.results.card_schema import Series, StudyCard
from springback.results.cards import card_of_result
from springback.results.places import require_apart, require_same_kind
from springback.results.schema import Verdict, read
from springback.results.store import Store, below
from springback.results.writing import Clock, Result, write_result


def run_all(
    studies: Sequence[NamedStudy],
    root: Path,
    progress: Progress,
    executor: ExecutorSettings | None = None,
) -> dict[str, Result]:
    """Every study in a folder of its own below ``root``; finished runs are read."""
    folders = [slug(s.name) for s in studies]
    if len(set(folders)) < len(folders):
        raise SpringbackError(
            f"two of {', '.join(s.name for s in studies)} have the same name on disk; rename one"
        )
    results = {}
    for number, (study, folder) in enumerate(zip(studies, folders, strict=True), start=1):
        progress.note(f"study {number} of {len(studies)}: {study.name}")
        place = below(root, FOLDER, folder)
        results[study.name] = audit(study.settings, place, progress, executor)
        release_memory()
    return results


def cards(results: Mapping[str, Result]) -> tuple[StudyCard, ...]:
    """Name, folder and card of every study."""
    return tuple(
        StudyCard(name, f"{FOLDER}/{result.folder.name}", audit_of(result).card)
        for name, result in results.items()
    )


def audit_of(result: Result) -> Audit:
    """The ``analysis`` of an audit that was made or read."""
    analysis = read(result.data).audit
    assert analysis is not None
    return analysis


def series(
    settings: AuditSettings,
    out: str | Path = "springback-audit",
    progress: Progress | None = None,
    executor: ExecutorSettings | None = None,
) -> Result:
    """Audit every model of ``settings.series`` with this study and compare them.

    Model size and pre-training volume (paper A, section A3) are such series.  Writes
    ``out/result.json`` of kind ``series``; the single audits lie in ``out/studies``.
    """
    clock, progress = Clock.start(), progress or default_progress()
    studies = by_model(settings)
    require_apart(out, settings, ("series",))
    with Store(out).locked() as store, closing(progress):
        require_same_kind(store, "series")
        results = run_all(studies, store.root, progress, executor)
        compared = compared_cards(results)
        return write_result(
            store,
            "series",
            clock,
            inputs={"settings": settings},
            measurements=[],
            analysis=Series(cards(results), CardComparison.of(compared)),
            verdict=compared_verdict(compared),
            computing=audit_placement(settings).describe(),
            jobs=results.values(),
        )


def compared_cards(results: Mapping[str, Result]) -> Comparison:
    """The studies' cards, by name."""
    cards = [card_of_result(result.data) for result in results.values()]
    return compare(cards, names=list(results))


def compared_verdict(compared: Comparison) -> Verdict:
    """What the comparison says: the differences that survive the correction, or that none does."""
    differences = [
        f"{row.title}: {d.a} {d.label} than {d.b}"
        for row in compared.rows
        for d in row.differences
        if d.label in ("higher", "lower")
    ]
    tested = any(d.p is not None for row in compared.rows for d in row.differences)
    if differences:
        text = f"After correction for all tests: {'; '.join(differences)}."
        label = "they differ"
    elif tested:
        label, text = "undecided", "No difference survives the correction for all tests."
    else:
        label, text = "one seed", "There is one seed, so no difference is tested."
    return Verdict(label, text)
