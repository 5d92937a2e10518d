"""Progress for people: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys

from springback.cli.output import OUTPUT
from springback.core import printable
from springback.progress import Lines, Progress, Silent


def make_progress() -> Progress:
    """Rich bars if standard error is a terminal, else a line every ten seconds; ``-q``: nothing."""
    if OUTPUT.quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


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
