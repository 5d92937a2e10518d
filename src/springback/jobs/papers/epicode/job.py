"""``springback reproduce epicode-...``: paper B's tables over seeds, published beside measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from springback.core import to_jsonable
from springback.errors import SpringbackError
from springback.jobs.boost.analysis.seeds import SeedResult, across, by_difficulty
from springback.jobs.config import converted
from springback.jobs.papers.claims import check_names, record
from springback.jobs.papers.epicode import seed as seed_runs
from springback.jobs.papers.epicode import tables
from springback.jobs.papers.epicode.plan import check, planned
from springback.jobs.papers.epicode.settings import EPICODE, EpicodeSettings, changed
from springback.jobs.papers.epicode.theory import theory_of
from springback.progress import Progress, Silent
from springback.results.places import require_same_kind
from springback.results.reading import read_part
from springback.results.store import Store, write_text
from springback.results.writing import Clock, Result, write_result

NOT_RUN = (
    "The paper's scale names its models and data by hub id; it was not run for this version, so "
    "memory and time are not known."
)


@dataclass(frozen=True)
class Cell:
    """One model on one task, over the seeds."""

    name: str
    model: str | None
    task: str | None


def settings_of(name: str, scale: str, given: Mapping[str, Any]) -> EpicodeSettings:
    """What a reproduction starts from, ``given`` settings changed.

    Raises :class:`SpringbackError` on an unknown name or scale, or a setting that is none.
    """
    check_names(EPICODE, name, scale)
    settings = changed(EPICODE[name].begin[scale], converted(EpicodeSettings, given))
    if not settings.seeds:
        raise SpringbackError("--seeds is empty; give one or more, such as 0,1,2")
    return settings


def plan(name: str, scale: str = "small", given: Mapping[str, Any] | None = None) -> list[str]:
    """What :func:`reproduce_epicode` would run, line by line; loads no model and no data."""
    lines = planned(name, scale, settings_of(name, scale, given or {}))
    return [*lines, NOT_RUN] if scale == "paper" else lines


def cells(settings: EpicodeSettings) -> list[Cell]:
    """Every model with every task."""
    every = []
    for model in settings.series or (settings.model,):
        for task in settings.tasks or (settings.task,):
            name = Path(model or settings.ft or "").name
            every.append(Cell(f"{name} / {task}" if task else name, model, task))
    return every


def reproduce_epicode(
    name: str,
    scale: str = "small",
    out: str | Path = "springback-epicode",
    given: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Every seed of every cell, then the tables (kind ``reproduce``).

    A finished seed is a run in ``out/runs``; the same command goes on, and runs copied in from
    another machine count as done.  Also writes ``reproduce.md``.
    """
    clock, progress = Clock.start(), progress or Silent()
    settings = settings_of(name, scale, given or {})
    theory = name == "epicode-theory"
    check(settings)
    for line in plan(name, scale, given):
        progress.note(line)
    analysed = []
    with Store(out).locked() as store:
        require_same_kind(store, "reproduce")
        for cell in cells(settings):
            results = _seeds(settings, cell, theory, store, progress)
            analysed.append(
                {"name": cell.name, "model": cell.model, "task": cell.task}
                | (theory_of(results) if theory else _tables(settings, results))
            )
        analysed = to_jsonable(analysed)
        measured = tables.measured(name, analysed)
        note = NOT_RUN if scale == "paper" else None
        analysis = record(name, scale, EPICODE[name], measured, note=note, cells=analysed)
        write_text(store.root / "reproduce.md", tables.page(analysis))
        return write_result(
            store,
            "reproduce",
            clock,
            inputs={"settings": settings, "models": [cell.model for cell in cells(settings)]},
            measurements=[],
            analysis=analysis,
            verdict=tables.verdict(name, analysed),
        )


def _seeds(
    settings: EpicodeSettings, cell: Cell, theory: bool, store: Store, progress: Progress
) -> list[dict[str, Any]]:
    """The results of every seed of a cell."""
    results = []
    for number, seed in enumerate(settings.seeds, start=1):
        progress.note(f"{cell.name}: seed {seed}, {number} of {len(settings.seeds)}")
        one = settings.one(seed, cell.model, cell.task)
        rows = seed_runs.reference_rows(one, settings.reference_rows) if theory else None
        job = seed_runs.plan("epicode-theory" if theory else "epicode", one, rows)
        results.append(seed_runs.finished(job, store, progress))
    return results


def _tables(settings: EpicodeSettings, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seeds = read_part(tuple[SeedResult, ...], "seeds", results, "reproduce")
    bins = list(settings.difficulty) or 3
    return {
        **across(seeds, settings.tolerance),
        "difficulty": by_difficulty(seeds, bins),
        "search": [{"seed": result["seed"], **result["search"]} for result in results],
    }
