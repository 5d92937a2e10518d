"""``springback reproduce epicode-...``: paper B's tables over seeds, published beside measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from springback.core import to_jsonable
from springback.errors import SpringbackError
from springback.jobs.boost.analysis.seeds import SeedResult, across, by_difficulty
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.config import build
from springback.jobs.papers.epicode import seed as epicode_seed
from springback.jobs.papers.epicode import tables
from springback.jobs.papers.epicode.plan import check, planned
from springback.jobs.papers.epicode.settings import EPICODE, SOURCE, EpicodeSettings, changed
from springback.jobs.papers.epicode.theory import theory_of
from springback.progress import Progress, Silent
from springback.results.store import Store, write_text
from springback.results.writing import Clock, Result, write_result

SCALES = ("small", "paper")
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
    if name not in EPICODE:
        raise SpringbackError(f"no reproduction '{name}'; allowed: {', '.join(EPICODE)}")
    if scale not in SCALES:
        raise SpringbackError(f"--scale is {scale}; allowed: {', '.join(SCALES)}")
    made = build(EpicodeSettings, given)
    settings = changed(EPICODE[name].begin[scale], {key: getattr(made, key) for key in given})
    if not settings.seeds:
        raise SpringbackError("--seeds is empty; give one or more, such as 0,1,2")
    return settings


def plan(name: str, scale: str = "small", given: Mapping[str, Any] | None = None) -> list[str]:
    """What :func:`reproduce_epicode` would run, line by line; loads no model and no data."""
    lines = planned(name, scale, settings_of(name, scale, given or {}))
    return [*lines, NOT_RUN] if scale == "paper" else lines


def cells(settings: EpicodeSettings) -> list[Cell]:
    """Every model with every task."""
    found = []
    for model in settings.series or (settings.model,):
        for task in settings.tasks or (settings.task,):
            name = Path(model or settings.ft or "").name
            found.append(Cell(f"{name} / {task}" if task else name, model, task))
    return found


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
    what, theory = EPICODE[name], name == "epicode-theory"
    check(settings)
    for line in plan(name, scale, given):
        progress.note(line)
    told = []
    with Store(out).locked() as store:
        for cell in cells(settings):
            results = _seeds(settings, cell, theory, store, progress)
            told.append(
                {"name": cell.name, "model": cell.model, "task": cell.task}
                | (theory_of(results) if theory else _tables(settings, results))
            )
        told = to_jsonable(told)
        measured = tables.measured(name, told)
        published = None
        if what.published:
            head, *rows = what.published
            published = {"columns": head, "rows": rows, "source": SOURCE}
        analysis = {
            "name": name,
            "question": what.question,
            "scale": scale,
            "note": NOT_RUN if scale == "paper" else None,
            "paper": what.finding,
            "published": published,
            "measured": measured,
            "studies": [],
            "comparison": None,
            "cells": told,
        }
        write_text(store.root / "reproduce.md", tables.page(analysis))
        return write_result(
            store,
            "reproduce",
            clock,
            inputs={"settings": settings, "models": [cell.model for cell in cells(settings)]},
            measurements=[],
            analysis=analysis,
            verdict=tables.verdict(name, told),
        )


def _seeds(
    settings: EpicodeSettings, cell: Cell, theory: bool, store: Store, progress: Progress
) -> list[dict[str, Any]]:
    """What every seed of a cell found."""
    found = []
    for at, seed in enumerate(settings.seeds, start=1):
        progress.note(f"{cell.name}: seed {seed}, {at} of {len(settings.seeds)}")
        one = settings.one(seed, cell.model, cell.task)
        found.append(_seed(settings, one, theory, store, progress))
    return found


def _seed(
    settings: EpicodeSettings, one: BoostSettings, theory: bool, store: Store, progress: Progress
) -> dict[str, Any]:
    if not theory:
        job = epicode_seed.plan("epicode", one)
        return epicode_seed.finished(job, store, progress, epicode_seed.methods)
    rows = epicode_seed.reference_rows(one, settings.reference_rows)
    job = epicode_seed.plan("epicode-theory", one, rows)
    return epicode_seed.finished(job, store, progress, epicode_seed.theory(rows))


def _tables(settings: EpicodeSettings, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seeds = [SeedResult.of(found) for found in results]
    bins = list(settings.difficulty) or 3
    return {
        **across(seeds, settings.tolerance),
        "difficulty": by_difficulty(seeds, bins),
        "search": [{"seed": found["seed"], **found["search"]} for found in results],
    }
