"""An audit's runs as tasks of an executor: each run one task.

The tasks fill the store; the audit then reads it as it would after a kill, so that the results do
not depend on the executor.  A run begins once the weights that it starts from are there: the run
that leaves them is a dependency, not a barrier.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from springback.core import content_hash
from springback.integrations.ray import ExecutorSettings, Outcome, Task
from springback.integrations.ray.scheduler import run_tasks
from springback.integrations.ray.shared_storage import Shared
from springback.integrations.ray.work import Place, kept, task_of, write_record
from springback.jobs.audit import runs
from springback.jobs.audit.plan import Plan
from springback.jobs.audit.rows import PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.jobs.audit.training_run import TrainingRun, Weights
from springback.progress import Progress
from springback.results.store import Store


@dataclass(frozen=True)
class Work:
    """One run, as it travels to a worker."""

    settings: AuditSettings
    place: Place
    opposite: bool
    run: TrainingRun


def _study(work: Work, root: Path, progress: Progress) -> Study:
    """The one that this worker last worked on, if it is the same: its model stays loaded."""

    def make() -> list[Study]:
        prompt_filter = PromptFilter(work.settings)
        data = load_data(work.settings, prompt_filter)
        return [Study(work.settings, data, Store(root), progress, prompt_filter=prompt_filter)]

    studies = kept((content_hash(work.settings), str(root)), make)
    if work.opposite and len(studies) == 1:
        studies.append(studies[0].opposite())
    for study in studies:
        study.progress = progress
    return studies[work.opposite]


def perform(work: Work, progress: Progress) -> None:
    """On the worker: the run, unless its results and weights are there already."""
    with work.place.opened() as root:
        if root is not None:
            work.run.make(_study(work, root, progress))


def _folder(study: Study, weights: Weights) -> str:
    """Below the store."""
    return f"checkpoints/{weights.run.identity(study).name}/{weights.label}"


def _task(
    study: Study,
    run: TrainingRun,
    waiting: Sequence[TrainingRun],
    plan: Plan,
    executor: ExecutorSettings,
) -> Task:
    """One of the runs that wait to be made."""
    key, start, needed = run.identity(study).name, run.starts_from, runs.needed_by(waiting)
    before = [*(weights.run for weights in run.weights_read), *run.reads]
    pulls = [f"runs/{other.identity(study).name}" for other in run.reads]
    pulls += [_folder(study, weights) for weights in run.weights_read]
    pushes = [_folder(study, weights) for weights in run.weights_left if weights in needed]
    work = Work(
        study.like.settings if study.like else study.settings,
        Place(
            str(study.store.root.absolute()),
            executor.shared,
            tuple(pulls),
            (*pushes, f"runs/{key}"),
        ),
        study.like is not None,
        run,
    )
    early = start is not None and not run.reads and not executor.shared
    seed = f"seed {run.seed}, " if run.rows else ""
    return task_of(executor, plan.memory)(
        key,
        f"{seed}{run.phase}" + (" (opposite order)" if study.like else ""),
        partial(perform, work),
        tuple({other.identity(study).name: None for other in before if other in waiting}),
        start.path(study).exists if start and early else None,
        seconds=plan.each.get(key, 0.0),
    )


def make(
    studies: Sequence[Study], plan: Plan, executor: ExecutorSettings, progress: Progress
) -> None:
    """Make every run of the studies that is not done, on Ray; writes ``executor.json`` beside
    them.  Raises as :func:`springback.integrations.ray.scheduler.run_tasks`."""
    store = studies[0].store
    shared = Shared(executor.shared) if executor.shared else None
    if shared is not None:
        for planned in plan.waiting:
            shared.pull(store.root, f"runs/{planned.run.name}")
    tasks: list[Task] = []
    readers: dict[str, set[str]] = {}  # folder of weights -> keys of the tasks that still read it
    for study in studies:
        waiting = runs.left(study, runs.of(study.settings))
        tasks += [_task(study, run, waiting, plan, executor) for run in waiting]
        for run in waiting:
            for weights in run.weights_read:
                folder = _folder(study, weights)
                readers.setdefault(folder, set()).add(run.identity(study).name)
    if not tasks:
        return

    def drop_weights(outcome: Outcome) -> None:
        """Those that no task reads any more."""
        for folder, keys in list(readers.items()):
            keys.discard(outcome.key)
            if not keys:
                del readers[folder]
                if shared is not None:
                    shared.drop(folder)
                shutil.rmtree(store.below(folder), ignore_errors=True)

    began = time.monotonic()
    outcomes = run_tasks(tasks, executor, progress, drop_weights)
    wall = time.monotonic() - began
    if shared is not None:
        for task in tasks:
            shared.pull(store.root, f"runs/{task.key}")
    write_record(store, outcomes, wall, progress)
