"""An audit's runs as tasks of an executor: each run or branch one task.

The tasks fill the store; the audit then reads it as it would after a kill, so that what is found
does not depend on the executor.  A branch begins once the weights of its branch point are there:
the aligning run before it is a dependency, not a barrier.
"""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from springback.core import Run, content_hash
from springback.errors import MissingExtraError
from springback.integrations.ray import ExecutorSettings, Outcome, Task
from springback.integrations.ray.scheduler import run_tasks
from springback.integrations.ray.shared_storage import Shared
from springback.jobs.audit import realign, rebound, resistance
from springback.jobs.audit.branches import PLAIN
from springback.jobs.audit.plan import Plan
from springback.jobs.audit.rows import Room, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.progress import Progress
from springback.results.store import Store, write_json

RECORD = "executor.json"


@dataclass(frozen=True)
class Work:
    """One run, as it travels to a worker.

    ``step``: which, and its seed and more.  ``pulls``, ``pushes``: folders below the store that it
    reads and leaves, where workers share no file system.
    """

    settings: AuditSettings
    root: str
    shared: str | None
    opposite: bool
    step: tuple[Any, ...]
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
        room = Room(work.settings)
        data = load_data(work.settings, room)
        _held[key] = [Study(work.settings, data, Store(root), progress, room=room)]
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
    _step(_study(work, root, progress), *work.step)
    if shared is not None:
        for name in sorted(work.pushes):  # checkpoints before runs: a run says that it is done
            shared.push(root, name)
        shutil.rmtree(root / "checkpoints", ignore_errors=True)


def _step(study: Study, kind: str, *given: Any) -> None:
    if kind == "start":
        rebound.measure_start(study)
    elif kind == "align":
        rebound.align_once(study, *given)
    elif kind == "perturb":
        seed, n_pos, attack, fallen = given
        run = realign.realign_run(study, seed) if fallen else None
        keep = study.store.checkpoint(run, "fallen") if run else None
        rebound.perturb_once(study, seed, n_pos, attack, keep)
    elif kind == "realign":
        realign.again_once(study, *given)
    elif kind == "slice":
        resistance.slice_once(study, *given)
    else:
        seed, source, target = given
        learned = study.store.results(resistance.slice_run(study, seed, target)) or {}
        resistance.toward_once(study, seed, source, target, learned["responses"])


@dataclass
class _Graph:
    """The tasks of an audit, and what may be dropped once which of them are done."""

    executor: ExecutorSettings
    plan: Plan
    memory: int
    tasks: list[Task] = field(default_factory=list)
    #: Folder of weights -> keys of the tasks that still read it.
    readers: dict[str, set[str]] = field(default_factory=dict)

    def add(
        self,
        study: Study,
        run: Run,
        step: tuple[Any, ...],
        *,
        reads: Sequence[str] = (),
        leaves: Sequence[str] = (),
        after: Sequence[Run] = (),
        early: bool = False,
    ) -> None:
        """``reads`` and ``leaves``: folders of weights below the store.

        ``early``: it may begin once what it reads is there.
        """
        opposite = study.like is not None
        settings = study.like.settings if study.like is not None else study.settings
        keys = {task.key for task in self.tasks}
        shared = self.executor.shared
        root = study.store.root.absolute()
        runs = [f"runs/{r.name}" for r in after]
        work = Work(
            settings,
            str(root),
            shared,
            opposite,
            step,
            (*reads, *runs),
            (*leaves, f"runs/{run.name}"),
        )
        there = [root / name for name in reads]
        ready = partial(all_there, there) if early and not shared else None
        seed = f"seed {step[1]}, " if len(step) > 1 else ""
        self.tasks.append(
            Task(
                run.name,
                f"{seed}{step[0]}" + (" (opposite order)" if opposite else ""),
                partial(perform, work),
                tuple(r.name for r in after if r.name in keys),
                ready,
                cpus=self.executor.run_cpus,
                gpus=self.executor.run_gpus,
                memory=self.memory,
                threads=self.executor.run_cpus,
                seconds=self.plan.each.get(run.name, 0.0),
            )
        )
        for name in reads:
            self.readers.setdefault(name, set()).add(run.name)

    def drop(self, store: Store, shared: Shared | None, outcome: Outcome) -> None:
        """Weights that no task reads any more."""
        for name, readers in list(self.readers.items()):
            readers.discard(outcome.key)
            if not readers:
                del self.readers[name]
                if shared is not None:
                    shared.drop(name)
                shutil.rmtree(store.below(name), ignore_errors=True)


def all_there(paths: Sequence[Path]) -> bool:
    return all(path.exists() for path in paths)


def run(
    studies: Sequence[Study], plan: Plan, executor: ExecutorSettings, progress: Progress
) -> None:
    """Make every run of the studies that is not done, on Ray; writes ``executor.json`` beside
    them.  Raises as :func:`springback.integrations.ray.scheduler.run_tasks`."""
    store = studies[0].store
    shared = Shared(executor.shared) if executor.shared else None
    if shared is not None:
        for planned in plan.waiting:
            shared.pull(store.root, f"runs/{planned.run.name}")
    memory = int(executor.run_memory * 1e9) or plan.memory
    graph = _Graph(executor, plan, memory)
    for study in studies:
        _add_study(graph, study)
    if not graph.tasks:
        return
    began = time.monotonic()
    outcomes = run_tasks(
        graph.tasks, executor, progress, lambda found: graph.drop(store, shared, found)
    )
    wall = time.monotonic() - began
    if shared is not None:
        for task in graph.tasks:
            shared.pull(store.root, f"runs/{task.key}")
    _record(store, outcomes, wall, progress)


def _add_study(graph: _Graph, study: Study) -> None:
    start = rebound.start_run(study)
    if study.store.results(start) is None:
        graph.add(study, start, ("start",))
    for seed in study.settings.seeds:
        _add_rebound(graph, study, seed)
        if study.settings.resistance_rows:
            _add_resistance(graph, study, seed)


def _weights(run: Run, label: object) -> str:
    return f"checkpoints/{run.name}/{label}"


def _add_rebound(graph: _Graph, study: Study, seed: int) -> None:
    settings, store = study.settings, study.store
    last = max(settings.n_pos)
    align = rebound.align_run(study, seed)
    waiting = [
        branch
        for branch in rebound.branches(settings)
        if store.results(rebound.perturb_run(study, seed, *branch)) is None
    ]
    again = realign.realign_run(study, seed) if "realign" in settings.experiments else None
    if again is not None and store.results(again) is not None:
        again = None
    fallen = _weights(again, "fallen") if again is not None else ""
    if again is not None and (last, PLAIN) not in waiting and not (store.root / fallen).exists():
        waiting.append((last, PLAIN))
    points = dict.fromkeys(_weights(align, n) for n, _ in waiting)
    gone = any(not (store.root / name).exists() for name in points)
    if store.results(align) is None or gone:
        graph.add(study, align, ("align", seed), leaves=tuple(points))
    for n_pos, attack in waiting:
        keep = again is not None and (n_pos, attack) == (last, PLAIN)
        graph.add(
            study,
            rebound.perturb_run(study, seed, n_pos, attack),
            ("perturb", seed, n_pos, attack, keep),
            reads=(_weights(align, n_pos),),
            leaves=(fallen,) if keep else (),
            after=(align,),
            early=True,
        )
    if again is not None:
        before = rebound.perturb_run(study, seed, last)
        graph.add(study, again, ("realign", seed), reads=(fallen,), after=(before,))


def _add_resistance(graph: _Graph, study: Study, seed: int) -> None:
    store = study.store
    if store.results(resistance.sum_run(study, seed)) is not None:
        return
    ways = [
        way
        for way in resistance.ways()
        if store.results(resistance.toward_run(study, seed, *way)) is None
    ]
    chain = {k: resistance.slice_run(study, seed, k) for k in (1, 2, 3)}
    for k, run_ in chain.items():
        weights = _weights(run_, "end")
        if store.results(run_) is None or (ways and not (store.root / weights).exists()):
            graph.add(
                study,
                run_,
                ("slice", seed, k),
                reads=(_weights(chain[k - 1], "end"),) if k > 1 else (),
                leaves=(weights,),
                after=(chain[k - 1],) if k > 1 else (),
            )
    for source, target in ways:
        graph.add(
            study,
            resistance.toward_run(study, seed, source, target),
            ("toward", seed, source, target),
            reads=(_weights(chain[source], "end"),),
            after=(chain[source], chain[target]),
        )


def _record(
    store: Store, outcomes: Sequence[Outcome], wall: float, progress: Progress
) -> dict[str, Any]:
    """Estimate and actual of every run, side by side, and how well the places were used."""
    worked, guess = sum(o.seconds for o in outcomes), sum(o.estimate for o in outcomes)
    nodes = sorted({o.node for o in outcomes})
    lost = sum(o.attempts - 1 for o in outcomes)
    found = {
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
    write_json(store.root / RECORD, found)
    progress.note(
        f"{len(outcomes)} runs on {len(nodes)} node(s) in {wall:.0f} s: {worked:.0f} s of work, "
        f"estimated {guess:.0f} s" + (f"; {lost} worker(s) were lost" if lost else "")
    )
    return found


def on_ray(executor: ExecutorSettings | None) -> bool:
    """Whether runs go to Ray; checks the settings, and that Ray is installed."""
    far = executor is not None and executor.checked().executor == "ray"
    if far and importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "ray", "--executor ray")
    return far
