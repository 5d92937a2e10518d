"""Tasks on Ray: each begins when what it needs is there, and again when its worker was lost.

A run leaves its results and the state it resumes from in the store, so a task that begins again
reads or resumes instead of repeating; what it finds does not depend on where it ran.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from springback.core import byte_size
from springback.errors import MissingExtraError, SpringbackError
from springback.integrations.ray.settings import ExecutorSettings
from springback.integrations.ray.tasks import Outcome, Task, check_tasks
from springback.progress import Progress

#: Seconds between two looks at the cluster, and between two lines of one worker.
LOOK, TELL = 0.2, 0.5
#: The display shows this many running tasks.
SHOWN = 4

OnDone = Callable[[Outcome], None]
#: Whether the Ray that this process is connected to is one that it leaves at the end.
_leaving = False


def _ray() -> Any:
    # Before the import: what Ray reads then.  It reports usage unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtraError("ray", "ray", "--executor ray") from error
    return ray


def _reach(address: str) -> None:
    """Raise :class:`SpringbackError` unless somebody listens there; Ray tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        if not host or not port.isdigit():
            raise ValueError("it is not HOST:PORT")
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise SpringbackError(
            f"cannot reach --address {address} ({error}); give the HOST:PORT of a running Ray (ray "
            "start --head), auto for the one on this machine, or leave it out"
        ) from error


@contextlib.contextmanager
def connected(settings: ExecutorSettings) -> Iterator[tuple[Any, bool]]:
    """Ray, joined or started, as a context, and whether this process leaves it at the end: one
    that was there before stays.  Within such a context it is the same Ray."""
    global _leaving
    ray = _ray()
    if ray.is_initialized():
        yield ray, _leaving
        return
    quietly: dict[str, Any] = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if settings.address:
        if settings.address != "auto":
            _reach(settings.address)
        quietly.pop("include_dashboard")
        quietly["address"] = settings.address
    else:
        # Not one that happens to run here; and on loopback only: nobody else is to reach it.
        quietly |= {"address": "local", "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(**quietly)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"--address {settings.address}" if settings.address else "a Ray of its own"
        first = (str(error).splitlines() or [""])[0]
        raise SpringbackError(
            f"cannot reach {where} ({first}); give the HOST:PORT of a running Ray (ray start "
            "--head), or leave --address out"
        ) from error
    _leaving = True
    try:
        yield ray, True
    finally:
        _leaving = False
        ray.shutdown()


class _Board:
    """The last line of progress of each worker; an actor on the node of the driver."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}

    def tell(self, key: str, text: str) -> None:
        self.lines[key] = text

    def read(self) -> dict[str, str]:
        return dict(self.lines)


class _BoardProgress:
    """A worker's :class:`Progress`: sends its line to the board, at most every half second."""

    def __init__(self, board: Any, key: str) -> None:
        self.board, self.key = board, key
        self.title, self.total, self.done, self.last = "", 0, 0, 0.0

    def _tell(self, note: str = "", now: bool = False) -> None:
        if now or time.monotonic() - self.last >= TELL:
            self.last = time.monotonic()
            text = f"{self.title} {self.done}/{self.total} {note}".strip()
            self.board.tell.remote(self.key, text)

    def stage(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self._tell(now=True)

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        self._tell(note)

    def note(self, text: str) -> None:
        self.title = text
        self._tell(now=True)

    def close(self) -> None: ...


def _work(
    call: Callable[[Progress], Any], key: str, board: Any, threads: int
) -> tuple[float, str, Any]:
    """On the worker: seconds it took, the node's name, and what was returned."""
    if threads:
        import torch

        torch.set_num_threads(threads)
    began = time.monotonic()
    value = call(_BoardProgress(board, key))
    ray = _ray()
    node = ray.get_runtime_context().get_node_id()
    return time.monotonic() - began, f"{socket.gethostname()}/{node[:8]}", value


@dataclass
class _Running:
    task: Task
    attempt: int
    began: float = field(default_factory=time.monotonic)


def run_tasks(
    tasks: Sequence[Task],
    settings: ExecutorSettings,
    progress: Progress,
    on_done: OnDone | None = None,
) -> list[Outcome]:
    """Do every task; returns what each took, in the order they ended.

    ``on_done`` is called here after each.  The first error of a task stops the others and is
    raised; a worker or node that is lost does not count as one until a task has lost
    ``settings.retries`` + 1 of them.  Raises :class:`SpringbackError` where no node has what a task
    needs.
    """
    check_tasks(tasks)
    if not tasks:
        return []
    with connected(settings) as (ray, leaves):
        loop = _Loop(ray, tasks, settings, progress, on_done)
        try:
            return loop.run()
        except BaseException:
            if not leaves:  # else the workers end with this process's job
                loop.cancel()
            raise


class _Loop:
    """The driver's side: what waits, what runs, what is done."""

    def __init__(
        self,
        ray: Any,
        tasks: Sequence[Task],
        settings: ExecutorSettings,
        progress: Progress,
        on_done: OnDone | None,
    ) -> None:
        self.ray, self.settings, self.progress, self.on_done = ray, settings, progress, on_done
        self.waiting = {task.key: task for task in tasks}
        self.total = len(tasks)
        self.running: dict[Any, _Running] = {}
        self.done: set[str] = set()
        self.attempts: dict[str, int] = {}
        self.outcomes: list[Outcome] = []
        self.last_look = 0.0
        self.remote = ray.remote(_work)
        here = ray.get_runtime_context().get_node_id()
        pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        actor = ray.remote(_Board).options(num_cpus=0, scheduling_strategy=pinned)
        self.board = actor.remote()

    def run(self) -> list[Outcome]:
        for task in self.waiting.values():
            self._check_needs(task)
        self.progress.stage(f"{self.total} runs on Ray, {len(self._nodes())} nodes", self.total)
        try:
            while self.waiting or self.running:
                self._begin()
                self._collect()
                self._show()
        finally:
            with contextlib.suppress(Exception):
                self.ray.kill(self.board)
        self.progress.close()
        return self.outcomes

    def cancel(self) -> None:
        """Stop what is still at work.

        Never a task that has ended: Ray (2.60) aborts the whole process when it is asked to cancel
        one whose reply it is just taking in ("Tried to complete task that was not pending").
        """
        if not self.running:
            return
        refs = list(self.running)
        _, at_work = self.ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        for ref in at_work:
            with contextlib.suppress(Exception):
                self.ray.cancel(ref, force=True)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _check_needs(self, task: Task) -> None:
        """Raise unless some node has all of what the task needs: Ray would wait for ever."""
        needs = {"CPU": task.cpus, "GPU": task.gpus, "memory": task.memory}
        nodes = [node["Resources"] for node in self._nodes()]
        if any(all(n.get(k, 0) >= v for k, v in needs.items()) for n in nodes):
            return
        asked = f"{task.cpus:g} CPU, {task.gpus:g} GPU, {byte_size(task.memory)} of memory"
        have = "; ".join(
            f"{n.get('CPU', 0):g} CPU, {n.get('GPU', 0):g} GPU, {byte_size(n.get('memory', 0))}"
            for n in nodes
        )
        raise SpringbackError(
            f"a run needs {asked}; Ray's nodes have {have or 'nothing'}; lower --run-cpus, "
            "--run-gpus or --run-memory, or join a Ray with larger nodes"
        )

    def _begin(self) -> None:
        """Submit whatever may begin; Ray queues what has no place yet."""
        for key, task in list(self.waiting.items()):
            free = all(before in self.done for before in task.after)
            if not free and (task.early is None or not task.early()):
                continue
            attempt = self.attempts.get(key, 0) + 1
            how = self.remote.options(
                num_cpus=task.cpus,
                num_gpus=task.gpus,
                memory=task.memory or None,
                max_retries=0,  # a lost worker is counted, and reported, here
                scheduling_strategy="SPREAD",
                name=task.key,
            )
            ref = how.remote(task.call, key, self.board, task.threads)
            self.attempts[key] = attempt
            self.running[ref] = _Running(task, attempt)
            del self.waiting[key]

    def _collect(self) -> None:
        """Take what has ended, waiting a little for the first."""
        if not self.running:
            if self.waiting:  # nothing runs that it could wait for: `early` alone lets it begin
                time.sleep(LOOK)
            return
        refs = list(self.running)
        ready, _ = self.ray.wait(refs, num_returns=1, timeout=LOOK, fetch_local=False)
        if ready:
            ready, _ = self.ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        for ref in ready:
            self._take(ref)

    def _take(self, ref: Any) -> None:
        errors = self.ray.exceptions
        entry = self.running.pop(ref)
        task = entry.task
        try:
            seconds, node, value = self.ray.get(ref)
        except errors.RayTaskError as error:
            if isinstance(error.cause, (SpringbackError, KeyboardInterrupt)):
                raise error.cause from None
            raise
        except errors.RayError as error:
            self._lost(task, entry.attempt, error)
            return
        outcome = Outcome(task.key, task.title, task.seconds, seconds, node, entry.attempt, value)
        self.done.add(task.key)
        self.outcomes.append(outcome)
        if self.on_done is not None:
            self.on_done(outcome)
        self.progress.advance(note=f"{task.title}: {seconds:.0f} s")

    def _lost(self, task: Task, attempt: int, error: Exception) -> None:
        kind = type(error).__name__
        if attempt > self.settings.retries:
            raise SpringbackError(
                f"{task.title}: {attempt} workers were lost ({kind}); look at Ray's logs, raise "
                "--retries or --run-memory, and run the same command again"
            ) from error
        self.progress.note(f"lost the worker of {task.title} ({kind}); it begins again")
        self._check_needs(task)
        self.waiting[task.key] = task

    def _show(self) -> None:
        """Every worker in one line, at most once a second."""
        now = time.monotonic()
        if now - self.last_look < 1.0:
            return
        self.last_look = now
        with contextlib.suppress(self.ray.exceptions.RayError):
            lines = self.ray.get(self.board.read.remote(), timeout=5)
            at_work = [lines[r.task.key] for r in self.running.values() if r.task.key in lines]
            if at_work:
                more = len(at_work) - SHOWN
                text = " | ".join(at_work[:SHOWN]) + (f" | and {more} more" if more > 0 else "")
                self.progress.advance(0, note=text)
