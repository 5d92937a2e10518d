"""A boost's work as tasks of an executor: the training of its pair, and each group of arms.

A group has one mu and one weak model, so a worker loads what it needs once.  The tasks fill the
store; the boost then reads it as it would after a kill, so that the results do not depend on the
executor.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from springback.core import Run, Slice, content_hash
from springback.integrations.ray import ExecutorSettings, Outcome, Task
from springback.integrations.ray.scheduler import connected, run_tasks
from springback.integrations.ray.shared_storage import Shared
from springback.integrations.ray.work import Place, kept, task_of, write_record
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.checkpoints import make_pair
from springback.jobs.boost.checks import Data, load_data
from springback.jobs.boost.epochs import epoch_name, training_run
from springback.jobs.boost.plan_at_hand import plan
from springback.jobs.boost.questions import question_format
from springback.jobs.boost.scoring import How, Scoring
from springback.jobs.boost.settings import BoostSettings
from springback.models.loading import resolve
from springback.models.memory_parts import Parts, total
from springback.models.placement import dtype_name
from springback.progress import Progress
from springback.results.store import Store

#: What a group's title says of runs that decode nothing.
_WHAT = {"nll": ", NLL", "letters": ", letters"}


@dataclass(frozen=True)
class Work:
    """One group of arms, as it travels to a worker; no arms: the training of the pair."""

    settings: BoostSettings
    place: Place
    how: How = "score"
    arms: tuple[Arm, ...] = ()
    part: str = ""


def perform(work: Work, progress: Progress) -> None:
    """On the worker: the runs, unless their results are there already."""
    with work.place.opened() as root:
        if root is None:
            return
        if not work.arms:
            train = load_data(work.settings).train
            assert train is not None
            shown = question_format(work.settings).render(train)
            make_pair(work.settings, shown, Store(root), progress)
            return
        data, job = kept(
            ("boost", content_hash(work.settings), str(root)),
            partial(_scoring, work.settings, root, progress),
        )
        job.progress = progress
        questions = data.test if work.part == "test" else data.validation
        if work.how == "nll":
            job.nll_all(work.arms, questions, work.part)
        elif work.how == "letters":
            for arm in work.arms:
                job.letters(arm, questions, work.part)
        elif work.how == "score_all":
            job.score_all(work.arms, questions, work.part)
        else:
            for arm in work.arms:
                job.score(arm, questions, work.part)


def _scoring(settings: BoostSettings, root: Path, progress: Progress) -> tuple[Data, Scoring]:
    data, store = load_data(settings), Store(root)
    shown = question_format(settings).render(data.train) if data.train else None
    pair = make_pair(settings, shown, store, progress)
    job = Scoring(settings, pair.line, store, progress, pair.weak, data.train)
    return data, job


class Workers:
    """The driver's side: one Ray from the first task to the end of the boost, where
    ``executor.json`` is written beside the results."""

    def __init__(
        self,
        settings: BoostSettings,
        store: Store,
        progress: Progress,
        executor: ExecutorSettings,
    ) -> None:
        self.settings, self.store, self.progress = settings, store, progress
        self.executor = executor
        self.shared = Shared(executor.shared) if executor.shared else None
        #: Below the store: what the pair is read from, where it was trained here.
        self.trained: tuple[str, ...] = ()
        self.outcomes: list[Outcome] = []
        self.wall = 0.0
        self._phases: Mapping[str, Parts] = {}
        self._ray = ExitStack()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.close()
        if self.outcomes:
            write_record(self.store, self.outcomes, self.wall, self.progress)

    def train(self, shown: Slice | None) -> None:
        """Fine-tune the pair as one task, unless it is given or done."""
        s = self.settings
        if s.early and s.ft:
            return
        assert shown is not None
        run = training_run(resolve(s.model or ""), shown, s.recipe(), s.system, s)
        epochs = [f"checkpoints/{run.name}/{epoch_name(e + 1)}" for e in range(s.epochs)]
        self.trained = (*epochs, f"runs/{run.name}")
        self._fetch(self.trained)
        if not all((self.store.root / name).exists() for name in self.trained):
            place = self._place(self.trained)
            self._do([self._task(run.name, "fine-tuning", self._memory("training"), place)])
            self._fetch(self.trained)

    def take(self, job: Scoring) -> None:
        """Make the runs of ``job`` from now on, in the dtype that it has here, where ``auto`` may
        stand for another there."""
        if job.sweep.place.dtype is not None:
            named = dtype_name(job.sweep.place.dtype)
            self.settings = replace(self.settings, dtype=named)
        job.elsewhere = partial(self.make, self._memory("searching and testing"))

    def _memory(self, phase: str) -> int:
        """Bytes of a phase, as the plan counts them."""
        if not self._phases:
            self._phases = plan(self.settings).phases
        return total(self._phases[phase])

    def make(
        self, memory: int, how: How, groups: Sequence[Sequence[tuple[Run, Arm]]], part: str
    ) -> None:
        """Make the runs of every group, each group a task."""
        for group in groups:
            self._fetch([f"runs/{run.name}" for run, _ in group])
        tasks = []
        for group in groups:
            pushes = tuple(f"runs/{run.name}" for run, _ in group)
            if all((self.store.root / name).exists() for name in pushes):
                continue
            arms = tuple(arm for _, arm in group)
            key = arms[0].key()
            lams = ", ".join(f"{arm.key()['lam']:g}" for arm in arms)
            title = f"{part}: mu {key['mu']:g}, lambda {lams}" + _WHAT.get(how, "")
            place = self._place(pushes, self.trained)
            tasks.append(self._task(group[0][0].name, title, memory, place, how, arms, part))
        self._do(tasks)
        for group in groups:
            self._fetch([f"runs/{run.name}" for run, _ in group])

    def _place(self, pushes: tuple[str, ...], pulls: tuple[str, ...] = ()) -> Place:
        root = str(self.store.root.absolute())
        # The next group on this worker reads the pair's weights too.
        return Place(root, self.executor.shared, pulls, pushes, drop_weights=False)

    def _task(self, key: str, title: str, memory: int, place: Place, *arms: Any) -> Task:
        call = partial(perform, Work(self.settings, place, *arms))
        return task_of(self.executor, memory)(key, title, call)

    def _do(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        self._ray.enter_context(connected(self.executor))
        began = time.monotonic()
        self.outcomes += run_tasks(tasks, self.executor, self.progress)
        self.wall += time.monotonic() - began

    def _fetch(self, names: Sequence[str]) -> None:
        if self.shared is not None:
            for name in names:
                self.shared.pull(self.store.root, name)
