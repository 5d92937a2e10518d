"""What the tasks of every job share: where runs lie, what a worker keeps, what is recorded."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from springback.errors import SpringbackError
from springback.integrations.ray.settings import ExecutorSettings
from springback.integrations.ray.shared_storage import Shared
from springback.integrations.ray.tasks import Outcome, Task
from springback.progress import Progress
from springback.results.store import Store, write_json

RECORD = "executor.json"
_Kept = TypeVar("_Kept")
#: What this worker made last, by what it was made of (:func:`kept`).
_KEPT: dict[Any, Any] = {}


@dataclass(frozen=True)
class Place:
    """The store of a task, as it travels to a worker.

    ``pulls``, ``pushes``: folders below the store that the task reads and leaves; where workers
    share no file system (``shared``) they go through that address.  ``drop_weights``: weights are
    removed from the worker's own store once they are pushed.
    """

    root: str
    shared: str | None
    pulls: tuple[str, ...] = ()
    pushes: tuple[str, ...] = ()
    drop_weights: bool = True

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path | None]:
        """On the worker: the store's folder, with what the task reads; None where all that it
        leaves is there already.  What it leaves is pushed at the end.

        Raises :class:`SpringbackError` where the worker made other runs than it was asked for.
        """
        shared = Shared(self.shared) if self.shared else None
        root = _scratch() if shared else Path(self.root)
        there = shared.has if shared else lambda name: (root / name).exists()
        if self.pushes and all(there(name) for name in self.pushes):
            yield None
            return
        if shared is not None:
            for name in self.pulls:
                shared.pull(root, name)
        yield root
        for name in self.pushes:  # weights may be read and dropped by now
            if name.startswith("runs/") and not (root / name).exists():
                raise SpringbackError(
                    f"{name} was asked of the worker on {socket.gethostname()}, which made another "
                    "run: its files, packages or devices are not those here; allowed: the same "
                    "files and packages everywhere; name what is auto"
                )
        if shared is None:
            return
        for name in sorted(self.pushes):  # checkpoints before runs: a run says that it is done
            shared.push(root, name)
        if self.drop_weights:
            shutil.rmtree(root / "checkpoints", ignore_errors=True)


@cache
def _scratch() -> Path:
    """A store of this process's own."""
    folder = tempfile.mkdtemp(prefix="springback-worker-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def kept(key: Any, make: Callable[[], _Kept]) -> _Kept:
    """What ``make`` returns, which stays on this worker until another key is asked for: a model
    stays loaded from one task to the next."""
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = make()
    made: _Kept = _KEPT[key]
    return made


def task_of(executor: ExecutorSettings, memory: int) -> Callable[..., Task]:
    """:class:`Task` with what each run is to have; ``memory``: bytes, unless a flag says."""
    return partial(
        Task,
        cpus=executor.run_cpus,
        gpus=executor.run_gpus,
        memory=int(executor.run_memory * 1e9) or memory,
        threads=executor.run_cpus,
    )


def write_record(
    store: Store, outcomes: Sequence[Outcome], wall: float, progress: Progress
) -> None:
    """Write ``executor.json``: estimate (where there is one) and actual of every run, side by
    side, and how well the places were used."""
    worked, guess = sum(o.seconds for o in outcomes), sum(o.estimate for o in outcomes)
    nodes = sorted({o.node for o in outcomes})
    lost = sum(o.attempts - 1 for o in outcomes)
    facts = {
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
    write_json(store.root / RECORD, facts)
    progress.note(
        f"{len(outcomes)} runs on {len(nodes)} node(s) in {wall:.0f} s: {worked:.0f} s of work"
        + (f", estimated {guess:.0f} s" if guess else "")
        + (f"; {lost} worker(s) were lost" if lost else "")
    )
