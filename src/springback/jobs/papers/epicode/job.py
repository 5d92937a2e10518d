"""``springback reproduce epicode-...``: paper B's tables over seeds, published beside measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from springback.integrations.ray import ExecutorSettings, Task, on_ray
from springback.integrations.ray.scheduler import run_tasks
from springback.integrations.ray.shared_storage import Shared
from springback.integrations.ray.work import Place, task_of, write_record
from springback.jobs.boost.analysis.seeds import SeedResult, across, by_difficulty
from springback.jobs.boost.plan_at_hand import peak_parts
from springback.jobs.papers.claims import record
from springback.jobs.papers.epicode import seed as seed_runs
from springback.jobs.papers.epicode import tables
from springback.jobs.papers.epicode.plan import check, settings_of
from springback.jobs.papers.epicode.plan_at_hand import NOT_RUN, cells, plan
from springback.jobs.papers.epicode.settings import EPICODE, EpicodeSettings
from springback.jobs.papers.epicode.theory import theory_of
from springback.models.memory_parts import total
from springback.models.placement import placement
from springback.progress import Progress, default_progress
from springback.results.paper_schema import Cell
from springback.results.places import require_same_kind
from springback.results.reading import read_part
from springback.results.store import Store, write_text
from springback.results.writing import Clock, Result, write_result


def reproduce_epicode(
    name: str,
    scale: str = "small",
    out: str | Path = "springback-epicode",
    given: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    executor: ExecutorSettings | None = None,
) -> Result:
    """Every seed of every cell, then the tables (kind ``reproduce``); on Ray each seed is a task.

    A finished seed is a run in ``out/runs``; the same command goes on, and runs copied in from
    another machine count as done.  Also writes ``reproduce.md``.
    """
    clock, progress = Clock.start(), progress or default_progress()
    settings = settings_of(name, scale, given or {})
    theory, spread = name == "epicode-theory", on_ray(executor)
    check(settings, theory, spread)
    for line in plan(name, scale, given):
        progress.note(line)
    analysed = []
    with Store(out).locked() as store, closing(progress):
        require_same_kind(store, "reproduce")
        if spread and executor is not None:
            _make_on_ray(settings, theory, store, progress, executor)
        for cell in cells(settings):
            results = _seeds(settings, cell, theory, store, progress)
            parts = theory_of(results) if theory else _tables(settings, results)
            analysed.append(replace(cell, **parts))
        note = NOT_RUN if scale == "paper" else None
        measured = tables.measured(name, analysed)
        analysis = record(name, scale, EPICODE[name], measured, note=note, cells=tuple(analysed))
        write_text(store.root / "reproduce.md", tables.page(analysis))
        return write_result(
            store,
            "reproduce",
            clock,
            inputs={"settings": settings, "models": [cell.model for cell in cells(settings)]},
            measurements=[],
            analysis=analysis,
            verdict=tables.verdict(name, analysed),
            computing=placement(settings).describe(),
        )


def _seeds(
    settings: EpicodeSettings, cell: Cell, theory: bool, store: Store, progress: Progress
) -> list[dict[str, Any]]:
    """The results of every seed of a cell."""
    results = []
    for number, seed in enumerate(settings.seeds, start=1):
        progress.note(f"{cell.name}: seed {seed}, {number} of {len(settings.seeds)}")
        job = _planned(settings, cell, seed, theory)
        results.append(seed_runs.finished(job, store, progress))
    return results


def _planned(settings: EpicodeSettings, cell: Cell, seed: int, theory: bool) -> seed_runs.Job:
    one = settings.one(seed, cell.model, cell.task)
    rows = seed_runs.reference_rows(one, settings.reference_rows) if theory else None
    kind = "epicode-theory" if theory else "epicode"
    return seed_runs.plan(kind, one, rows, settings.smaller)


def make_seed(job: seed_runs.Job, place: Place, progress: Progress) -> None:
    """On the worker: one seed, unless it is done."""
    with place.opened() as root:
        if root is not None:
            seed_runs.finished(job, Store(root), progress)


def _make_on_ray(
    settings: EpicodeSettings,
    theory: bool,
    store: Store,
    progress: Progress,
    executor: ExecutorSettings,
) -> None:
    """Make every seed that is not done, each a task; writes ``executor.json``."""
    shared = Shared(executor.shared) if executor.shared else None
    tasks: dict[str, Task] = {}
    memory: dict[str, int] = {}  # seeds of a cell are alike
    for cell, seed in product(cells(settings), settings.seeds):
        job = _planned(settings, cell, seed, theory)
        name = f"runs/{job.run.name}"
        if shared is not None:
            shared.pull(store.root, name)
        if store.results(job.run) is None:
            s = job.settings
            if cell.name not in memory:
                memory[cell.name] = total(peak_parts(s))
            place = Place(str(store.root.absolute()), executor.shared, pushes=(name,))
            call = partial(make_seed, job, place)
            title = f"{cell.name}: seed {s.seed}"
            tasks[job.run.name] = task_of(executor, memory[cell.name])(job.run.name, title, call)
    if not tasks:
        return
    began = time.monotonic()
    outcomes = run_tasks(list(tasks.values()), executor, progress)
    if shared is not None:
        for key in tasks:
            shared.pull(store.root, f"runs/{key}")
    write_record(store, outcomes, time.monotonic() - began, progress)


def _tables(settings: EpicodeSettings, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seeds = read_part(tuple[SeedResult, ...], "seeds", results, "reproduce")
    bins = list(settings.difficulty) or 3
    return {
        **across(seeds, settings.tolerance),
        "difficulty": by_difficulty(seeds, bins),
        "search": tuple({"seed": result["seed"], **_means(result["search"])} for result in results),
    }


def _means(search: Mapping[str, Any]) -> dict[str, Any]:
    """What every search tried and chose, without the answers by question, which the runs keep."""
    return {
        name: {
            **found,
            "tried": [{k: v for k, v in t.items() if k != "correct"} for t in found["tried"]],
        }
        for name, found in search.items()
    }
