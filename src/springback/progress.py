"""How long work tells where it is.  Jobs speak to this protocol; what draws is set from above.

The command line names what draws.  From Python :func:`default_progress` does: bars where somebody
looks on (a notebook, a terminal), else nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

from springback.core import printable


class Progress(Protocol):
    """What a job may say.  One stage is open at a time."""

    def stage(self, title: str, total: int) -> None:
        """Begin a stage of ``total`` steps."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """``steps`` more are done."""

    def note(self, text: str) -> None:
        """A line worth keeping."""

    def close(self) -> None:
        """End the last stage."""


class Silent:
    """Says nothing: for library calls and tests."""

    def stage(self, title: str, total: int) -> None: ...

    def advance(self, steps: int = 1, note: str = "") -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class Lines:
    """Plain lines on standard error, at most one in ``every`` seconds within a stage."""

    def __init__(self, every: float = 10.0) -> None:
        self.every = every
        self.start = time.monotonic()
        self.title, self.total, self.done, self.last = "", 0, 0, 0.0

    def _say(self, text: str) -> None:
        elapsed = int(time.monotonic() - self.start)
        line = f"[{elapsed // 60:d}:{elapsed % 60:02d}] {printable(text)}"
        print(line, file=sys.stderr, flush=True)

    def stage(self, title: str, total: int) -> None:
        self.title, self.total, self.done, self.last = title, total, 0, time.monotonic()
        self._say(title)

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            self._say(f"{self.title}: {self.done}/{self.total} {note}".rstrip())

    def note(self, text: str) -> None:
        self._say(text)

    def close(self) -> None: ...


#: What :func:`default_progress` makes; ``springback/__init__.py`` sets what can draw.
_makers: list[Callable[[], Progress]] = [Silent]


def draw_by(make: Callable[[], Progress]) -> None:
    """Have :func:`default_progress` give what ``make`` gives."""
    _makers[:] = [make]


def default_progress() -> Progress:
    """Where nobody said how to show progress: bars in a notebook or on a terminal, else silence."""
    return _makers[0]()
