"""Time and memory of a reproduction of paper B: ``springback reproduce epicode-* --plan``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from springback.core import byte_size
from springback.jobs.boost.plan_at_hand import plan as boost_plan
from springback.jobs.papers.epicode import seed as seed_runs
from springback.jobs.papers.epicode.plan import planned, settings_of
from springback.jobs.papers.epicode.settings import EpicodeSettings
from springback.jobs.plan_lines import duration
from springback.models.loading import is_here
from springback.results.paper_schema import Cell

#: Stages of a boost's plan: arms of one model on the test, and of two.
_TESTS = ("one model", "two models")
NOT_RUN = (
    "The paper's scale names its models and data by hub id; it was not run for this version, so "
    "memory and time are not known."
)


def plan(
    name: str,
    scale: str = "small",
    given: Mapping[str, Any] | None = None,
    timed: bool = False,
) -> list[str]:
    """What :func:`reproduce_epicode` would run, line by line; loads no weights and no data.

    ``timed``: also how long it takes, for models that are here; this reads the data.
    """
    settings = settings_of(name, scale, given or {})
    lines = planned(name, scale, settings)
    if scale == "paper":
        return [*lines, NOT_RUN]
    return [*lines, *_times(settings, name == "epicode-theory")] if timed else lines


def _times(settings: EpicodeSettings, theory: bool) -> list[str]:
    """Time and memory of a seed and of all, a line for each cell, as a boost's plan counts them."""
    lines = []
    for cell in cells(settings):
        one = settings.one(settings.seeds[0], cell.model, cell.task)
        if one.model and not is_here(one.model):
            lines.append(f"{cell.name}: time is not known before the model is here")
            continue
        one_seed, seeds = boost_plan(one), len(settings.seeds)
        stages = {s.name: s for s in one_seed.stages}
        seconds = {s.name: t for s, t in zip(one_seed.stages, one_seed.seconds, strict=True)}
        plain, pair = (seconds[f"test, {n}"] / stages[f"test, {n}"].arms for n in _TESTS)
        total_seconds = sum(seconds.values()) + len(seed_runs.CONTROLS) * plain
        if theory:  # every lambda in place of the methods, and the reference's training
            tested = sum(seconds[f"test, {n}"] for n in _TESTS)
            total_seconds = sum(seconds.values()) - tested + plain + len(one.lam) * pair
            rows = settings.reference_rows or seed_runs.TIMES * (one.train_rows or 0)
            trained = stages["training"].questions if "training" in stages else 0
            total_seconds += seconds.get("training", 0) * rows / max(trained, 1)
        lines.append(
            f"{cell.name}: a seed takes about {duration(total_seconds)}, {seeds} of them "
            f"{duration(seeds * total_seconds)}; {byte_size(one_seed.memory)} of memory (speeds: "
            f"{one_seed.speeds})"
        )
    return lines


def cells(settings: EpicodeSettings) -> list[Cell]:
    """Every model with every task, before it is measured."""
    every = []
    for model in settings.series or (settings.model,):
        for task in settings.tasks or (settings.task,):
            name = Path(model or settings.ft or "").name
            every.append(Cell(f"{name} / {task}" if task else name, model, task))
    return every
