"""An audit's runs as tasks of an executor: each run one task.

The tasks fill the store; the audit then reads it as it would after a kill, so that the results do
not depend on the executor.  A run begins once the weights that it starts from are there: the run
that leaves them is a dependency, not a barrier.
"""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from springback.core import content_hash
from springback.errors import MissingExtraError
from springback.integrations.ray import ExecutorSettings, Outcome, Task
from springback.integrations.ray.scheduler import run_tasks
from springback.integrations.ray.shared_storage import Shared
from springback.jobs.audit import runs
from springback.jobs.audit.plan import Plan
from springback.jobs.audit.rows import PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.jobs.audit.training_run import TrainingRun, Weights
from springback.progress import Progress
from springback.results.store import Store, write_json

RECORD = "executor.json"


@dataclass(frozen=True)
class Work:
    """One run, as it travels to a worker.

    ``pulls``, ``pushes``: folders below the store that it reads and leaves, where workers share no
    file system.
    """

    settings: AuditSettings
    root: str
    shared: str | None
    opposite: bool
    run: TrainingRun
    pulls: tuple[str, ...] = ()
    pushes: tuple[str, ...] = ()


@cache
def _scratch() -> Path:
    """A store of this process's own."""
    folder = tempfile.mkdtemp(prefix="springback-worker-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


#: The studies that this worker last worked on, by their settings and place: their model stays
#: loaded from one task to the next.
_held: dict[tuple[str, str], list[Study]] = {}


def _study(work: Work, root: Path, progress: Progress) -> Study:
    key = (content_hash(work.settings), str(root))
    if key not in _held:
        _held.clear()
        prompt_filter = PromptFilter(work.settings)
        data = load_data(work.settings, prompt_filter)
        _held[key] = [
            Study(work.settings, data, Store(root), progress, prompt_filter=prompt_filter)
        ]
    if work.opposite and len(_held[key]) == 1:
        _held[key].append(_held[key][0].opposite())
    for study in _held[key]:
        study.progress = progress
    return _held[key][work.opposite]


def perform(work: Work, progress: Progress) -> None:
    """On the worker: the run, unless its results and weights are there already."""
    shared = Shared(work.shared) if work.shared else None
    root = _scratch() if shared else Path(work.root)
    if shared is not None:
        if all(shared.has(name) for name in work.pushes):
            return
        for name in work.pulls:
            shared.pull(root, name)
    elif all((root / name).exists() for name in work.pushes):
        return
    work.run.make(_study(work, root, progress))
    if shared is not None:
        for name in sorted(work.pushes):  # checkpoints before runs: a run says that it is done
            shared.push(root, name)
        shutil.rmtree(root / "checkpoints", ignore_errors=True)


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
    before = [*([start.run] if start else []), *run.reads]
    pulls = [f"runs/{other.identity(study).name}" for other in run.reads]
    pulls += [_folder(study, start)] if start else []
    pushes = [_folder(study, weights) for weights in run.weights_left if weights in needed]
    work = Work(
        study.like.settings if study.like else study.settings,
        str(study.store.root.absolute()),
        executor.shared,
        study.like is not None,
        run,
        tuple(pulls),
        (*pushes, f"runs/{key}"),
    )
    early = start is not None and not run.reads and not executor.shared
    seed = f"seed {run.seed}, " if run.rows else ""
    return Task(
        key,
        f"{seed}{run.phase}" + (" (opposite order)" if study.like else ""),
        partial(perform, work),
        tuple(other.identity(study).name for other in before if other in waiting),
        start.path(study).exists if start and early else None,
        cpus=executor.run_cpus,
        gpus=executor.run_gpus,
        memory=int(executor.run_memory * 1e9) or plan.memory,
        threads=executor.run_cpus,
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
            if run.starts_from is not None:
                folder = _folder(study, run.starts_from)
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
    _record(store, outcomes, wall, progress)


def _record(store: Store, outcomes: Sequence[Outcome], wall: float, progress: Progress) -> None:
    """Estimate and actual of every run, side by side, and how well the places were used."""
    worked, guess = sum(o.seconds for o in outcomes), sum(o.estimate for o in outcomes)
    nodes = sorted({o.node for o in outcomes})
    lost = sum(o.attempts - 1 for o in outcomes)
    record = {
        "wall_seconds": round(wall, 1),
        "run_seconds": round(worked, 1),
        "estimated_seconds": round(guess, 6),
        "nodes": nodes,
        "lost_workers": lost,
        "runs": [
            {
                "run": o.key,
                "title": o.title,
                "estimated": round(o.estimate, 6),
                "seconds": round(o.seconds, 2),
                "node": o.node,
                "attempts": o.attempts,
            }
            for o in outcomes
        ],
    }
    write_json(store.root / RECORD, record)
    progress.note(
        f"{len(outcomes)} runs on {len(nodes)} node(s) in {wall:.0f} s: {worked:.0f} s of work, "
        f"estimated {guess:.0f} s" + (f"; {lost} worker(s) were lost" if lost else "")
    )


def on_ray(executor: ExecutorSettings | None) -> bool:
    """Whether runs go to Ray; checks the settings, and that Ray is installed."""
    if executor is None or executor.checked().executor != "ray":
        return False
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "ray", "--executor ray")
    return True
