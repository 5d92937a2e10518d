"""Ctrl-C, SIGTERM and SIGHUP: one line on standard error, and 128 plus the number as exit code.

Typer would end without a word, and an import that is broken off would show a trace.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

_RESUMED = ("audit", "boost", "demo", "extrapolate", "reproduce", "theory")
_WHOLE = ("compress", "decompress")


class Stop:
    """While in force the first signal raises KeyboardInterrupt, and a second one ends the process
    at once.  Stays in force after a signal, so that an end under way shows no trace either."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.process = os.getpid()
        self.before: dict[int, Any] = {}
        self.hook = sys.unraisablehook

    def __enter__(self) -> Stop:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may say what a signal does
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:  # nohup, and jobs in the background of a script
                self.before[number] = signal.signal(number, self._handle)
        sys.unraisablehook = self._unraisable
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        done = error is None or (isinstance(error, SystemExit) and not error.code)
        if self.number is None and isinstance(error, KeyboardInterrupt):
            self.number = signal.SIGINT
        if self.number is not None and not done:
            print(self._line(), file=sys.stderr)
            raise SystemExit(128 + self.number)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self.hook

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # forked from here; whoever started it reports
            os._exit(128 + number)
        if self.number is not None:
            self._end()
        self.number = number
        raise KeyboardInterrupt

    def _unraisable(self, lost: Any) -> None:
        """Where nothing can be raised, in a destructor, the exception of the handler is lost."""
        if self.number is not None and issubclass(lost.exc_type, KeyboardInterrupt):
            self._end()
        self.hook(lost)

    def _end(self) -> None:
        assert self.number is not None
        os.write(2, f"{self._line()}\n".encode())
        os._exit(128 + self.number)

    def _line(self) -> str:
        """What happened, and what a user does next."""
        name = signal.Signals(self.number or signal.SIGINT).name
        line = "interrupted" if name == "SIGINT" else f"stopped by {name}"
        command = next((a for a in sys.argv[1:] if not a.startswith("-")), "")
        if command in _RESUMED:
            return f"{line}; the same command goes on where it was"
        return f"{line}; nothing was written" if command in _WHOLE else line
