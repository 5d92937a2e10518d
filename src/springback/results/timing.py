"""Where a job's time goes: seconds by part, each moment counted once."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

#: What no part was named for: data, arithmetic, files of results.
OTHER = "other"
P = ParamSpec("P")
R = TypeVar("R")


class Timer:
    """Seconds by part of one process's work.

    Parts may lie in one another: then the inner one's time is not the outer one's, so that the sum
    of all parts is the time that passed.  On a GPU a part ends where its numbers are read.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._since = clock, clock()
        self._open = [OTHER]
        self._seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Within, time counts as that of ``name``."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def take(self) -> dict[str, float]:
        """Seconds by part since this was last asked."""
        self._charge()
        taken, self._seconds = self._seconds, {}
        return taken

    def _charge(self) -> None:
        now, name = self._clock(), self._open[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


def sum_of_parts(each: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by part of several pieces of work together, the longest first."""
    total: Counter[str] = Counter()
    for parts in each:
        total.update(parts)
    return {name: round(seconds, 2) for name, seconds in total.most_common()}


class Timed(Protocol):
    """Whatever has a timer."""

    @property
    def timer(self) -> Timer: ...


T = TypeVar("T", bound=Timed)


def timed(
    name: str,
) -> Callable[[Callable[Concatenate[T, P], R]], Callable[Concatenate[T, P], R]]:
    """A method whose time counts as that of ``name``, by its object's timer."""

    def around(method: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
        @functools.wraps(method)
        def within(self: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
            with self.timer.part(name):
                return method(self, *args, **kwargs)

        return within

    return around
