"""Progress for people: bars on a terminal and in a notebook, plain lines otherwise."""

from __future__ import annotations

import gc
import html
import sys
import time
from typing import Any

from springback.cli.output import OUTPUT
from springback.core import printable
from springback.progress import Lines, Progress, Silent


def make_progress() -> Progress:
    """Rich bars if standard error is a terminal, else a line every ten seconds; ``-q``: nothing.

    A command asks for it when its job is loaded and about to begin.  What is there by then stays,
    and is set aside from the garbage collector: every training run would have it searched, 0.1 s.
    """
    gc.freeze()
    if OUTPUT.quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


def looked_at() -> Progress:
    """From Python: bars where a notebook or a terminal shows them, else nothing."""
    if notebook() is not None:
        return NotebookBars()
    return Bars() if sys.stderr.isatty() else Silent()


def notebook() -> Any:
    """IPython's shell of the notebook that this process computes for, None where there is none.

    Nothing is imported to find out: in a notebook IPython has been.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    # A terminal's shell has no kernel behind it.
    return shell if getattr(shell, "kernel", None) is not None else None


class Bars:
    """One bar for the stage at hand; notes and finished stages scroll by above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TaskID,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = Console(stderr=True, highlight=False)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
        )
        self.task: TaskID | None = None
        self.title = ""

    def stage(self, title: str, total: int) -> None:
        self.close()
        self.title = title = printable(title)
        self.bars.start()
        self.task = self.bars.add_task(title, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.task is not None:
            self.bars.update(self.task, advance=steps, note=printable(note))

    def note(self, text: str) -> None:
        self.console.print(printable(text), markup=False)

    def close(self) -> None:
        if self.task is not None:
            task = next(t for t in self.bars.tasks if t.id == self.task)
            elapsed = task.elapsed or 0.0
            self.bars.remove_task(self.task)
            self.bars.stop()
            self.task = None
            self.console.print(f"{self.title}: {elapsed:.0f} s", style="dim", markup=False)


class NotebookBars:
    """One bar for the stage at hand, in the output of a notebook's cell, by HTML alone.

    A finished stage leaves its name and its seconds; notes stand between.
    """

    #: Seconds between two drawings, since each is a message to the browser.
    EVERY = 0.2

    def __init__(self) -> None:
        self.title, self.total, self.done, self.last_note = "", 0, 0, ""
        self.began = self.drawn = 0.0
        self.handle: Any = None

    def stage(self, title: str, total: int) -> None:
        self.close()
        self.title, self.total, self.done, self.last_note = printable(title), total, 0, ""
        self.began = self.drawn = time.monotonic()
        self.handle = _display(self._bar(), display_id=True)

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done, self.last_note = self.done + steps, printable(note)
        if self.handle is not None and time.monotonic() - self.drawn >= self.EVERY:
            self.drawn = time.monotonic()
            self.handle.update(_html(self._bar()))

    def note(self, text: str) -> None:
        _display(f"<div>{html.escape(printable(text))}</div>")

    def close(self) -> None:
        if self.handle is not None:
            elapsed = time.monotonic() - self.began
            text = f"{html.escape(self.title)}: {elapsed:.0f} s"
            self.handle.update(_html(f"<div style='opacity: 0.6'>{text}</div>"))
            self.handle = None

    def _bar(self) -> str:
        words = f"{self.done}/{self.total} {self.last_note}".rstrip()
        return (
            f"<div>{html.escape(self.title)} <progress value='{self.done}' "
            f"max='{max(self.total, 1)}'></progress> {html.escape(words)}</div>"
        )


def _html(text: str) -> Any:
    from IPython.display import HTML

    return HTML(text)


def _display(text: str, **options: Any) -> Any:
    from IPython.display import display

    return display(_html(text), **options)
