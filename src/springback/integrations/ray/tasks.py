"""A run as an executor sees it: what to call, after what, and what it needs."""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from springback.errors import SpringbackError, describe
from springback.progress import Progress


@dataclass(frozen=True)
class Task:
    """``call`` does the work and leaves its results in the store; it travels to the worker, so it
    is a function of a module with its arguments (``functools.partial``).

    ``after``: keys of tasks that have to be done first.  ``early``: asked here, not on the worker;
    once it is true the task may begin although those before it are still at work (a shared prefix
    whose branch point is there is no barrier).  ``threads``: of torch; 0 leaves torch alone.
    ``memory``: bytes.  ``seconds``: estimate, to be set beside the actual time.
    """

    key: str
    title: str
    call: Callable[[Progress], Any]
    after: tuple[str, ...] = ()
    early: Callable[[], bool] | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    threads: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """``seconds`` of the attempt that succeeded; ``attempts`` 1 where nothing was lost; ``value``
    is what the call returned."""

    key: str
    title: str
    estimate: float
    seconds: float
    node: str
    attempts: int
    value: Any = None


def check_tasks(tasks: Sequence[Task]) -> None:
    """Raise :class:`SpringbackError` on two of one key, one that waits for none, or a circle."""
    known = [task.key for task in tasks]
    if len(set(known)) < len(known):
        raise SpringbackError(
            describe("two tasks with one key", "each key once", "name them differently")
        )
    for task in tasks:
        if missing := [key for key in task.after if key not in known]:
            raise SpringbackError(
                f"{task.key} waits for {', '.join(missing)}; allowed: tasks of the same list"
            )
    try:
        graphlib.TopologicalSorter({t.key: t.after for t in tasks}).prepare()
    except graphlib.CycleError as error:
        raise SpringbackError(f"tasks wait for each other: {' -> '.join(error.args[1])}") from error
