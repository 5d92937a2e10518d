r"""Compare mathematical expressions: math-verify's work, in a process with limits.

math-verify stops itself by a signal, which fails outside the main thread, and an answer may ask for
more time or memory than there is.  So a process of its own gets the two texts as JSON, and is
killed and started anew when it takes too long.  Where both sides are plain numbers, the exact
comparison of :mod:`springback.data.grading.values` decides, without a process.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import re
import selectors
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Literal

from springback.data.grading.normalise import (
    after_thinking,
    boxes,
    plain_latex,
    plain_signs,
    unboxed,
)
from springback.data.grading.spans import CUE, MARK, read_reference, whole
from springback.data.grading.values import equal
from springback.errors import MissingExtraError, SpringbackError

#: What became of a comparison; ``unread`` counts as wrong: no expression, or too much to work out.
Outcome = Literal["right", "wrong", "unread"]

#: Seconds for one comparison, for the process to start, and the longest expression.
SECONDS, START, LENGTH = 10.0, 120.0, 1000

_GROUP_MARK = re.compile(r"(?<=[0-9])(?:\{,\}|\\[,!;: ])+(?=[0-9]{3}(?![0-9]))")
_THIN = re.compile(r"(?<!\\)\\(?:[!,;:]|(?=\s))")  # not of \\, where a row of a matrix ends
#: What math-verify takes for other letters: pi in plain signs, and \frac\pi2.
_PI = re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])")
_BARE_PI = re.compile(r"(?<=frac) ?(\\pi) ?([0-9])")
_BOX_NAME = re.compile(r"\\f(?:rame)?box\b")
_DOLLARS = re.compile(r"\$\$?([^$]+)\$")
_WORD = re.compile(r"(?<![\\A-Za-z])(?:[A-Za-z]{3,}|or|so|is|if|to)(?![A-Za-z])")
_TEXT = re.compile(
    r"\\(?:begin|end)\{[A-Za-z*]+\}|\\(?:text\w*|math\w+|mbox|operatorname)\s?\{[^{}]*\}|\\[A-Za-z]+"
)
_NAMES = "sin cos tan cot sec csc log exp lim max min mod arcsin arccos arctan"
_FUNCTION_NAMES = frozenset(_NAMES.split())


def math_span(text: str) -> str | None:
    r"""The expression that ``text`` gives as its answer, as LaTeX without dollar signs, or None.

    The last box; what follows the last ``####`` or the last cue on its line; the last formula
    between dollar signs; the last line.  Marks of thousands (``{,}``, ``\,``) are taken out.
    """
    text = _plain_groups(after_thinking(text))
    held = boxes(text) if "\\boxed" in text else []
    if held:
        return _trimmed(held[-1])
    mark = text.rfind("####")
    cues = list(CUE.finditer(text))
    if mark >= 0 or cues:
        start = MARK.match(text, mark) if mark >= 0 else cues[-1]
        assert start is not None
        text = text[start.end() :].partition("\n")[0] or text
    formulas = [_last_between(text, *marks) for marks in ((r"\(", r"\)"), (r"\[", r"\]"))]
    dollars = _DOLLARS.findall(text)
    formula = next((f for f in formulas if f), dollars[-1] if dollars else None)
    return _trimmed(formula or text.strip().rpartition("\n")[2])


def _plain_groups(text: str) -> str:
    return _BOX_NAME.sub(r"\\boxed", _GROUP_MARK.sub("", plain_signs(text)))


def math_reference(answer: str) -> str | None:
    """The expression that a reference is, after its last ``####`` if it has one, or None.

    None where words stand in it, or more than one formula.
    """
    text = _plain_groups(answer).rpartition("####")[2]
    span = _trimmed(unboxed(text))
    if span is None or "$" in span or "\\boxed" in span:
        return None
    words = {word.lower() for word in _WORD.findall(_TEXT.sub(" ", span))}
    return None if words - _FUNCTION_NAMES else span


def _last_between(text: str, opening: str, closing: str) -> str:
    end = text.rfind(closing)
    start = text.rfind(opening, 0, max(end, 0))
    return text[start + len(opening) : end] if start >= 0 else ""


def _trimmed(span: str) -> str | None:
    span = _BARE_PI.sub(r"{\1}{\2}", _PI.sub(r"\\pi", span))
    return _THIN.sub("", span).strip(" \t\n$*_.").removesuffix("\\") or None


def compare(completion: str, answer: str) -> Outcome:
    """Whether ``completion`` gives the expression ``answer``.

    Raises :class:`~springback.errors.MissingExtraError` without the package math-verify.
    """
    given, wanted = math_span(completion), math_reference(answer)
    number = None if given is None else whole(plain_latex(given))
    exact = read_reference(answer)
    if number is not None and exact is not None:
        return "right" if equal(number, exact) else "wrong"
    wanted = wanted or (exact.text if exact else None)
    if given is None or wanted is None:
        return "unread"
    return _WORKER.ask({"reference": wanted, "answer": given})


@lru_cache(maxsize=4096)
def readable(answer: str) -> bool:
    """Whether a reference is an expression and nothing more, as "about six" is not."""
    if read_reference(answer) is not None:
        return True
    wanted = math_reference(answer)
    return wanted is not None and _WORKER.ask({"reference": wanted}) == "right"


def require_math() -> None:
    """Raise :class:`~springback.errors.MissingExtraError` without the package math-verify."""
    if importlib.util.find_spec("math_verify") is None:
        raise MissingExtraError("math-verify", "math", "metric 'math'")


class _Worker:
    """The process, started when it is first asked; safe to ask from several threads."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, question: dict[str, str]) -> Outcome:
        """``unread`` if the process takes too long or dies of the question."""
        require_math()
        if any(len(text) > LENGTH for text in question.values()):
            return "unread"
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(question).encode() + b"\n")
                process.stdin.flush()
            word = _line(process, SECONDS)
            if word == "right":
                return "right"
            if word == "wrong":
                return "wrong"
            if word != "unread":
                self._stop()
            return "unread"

    def stop(self) -> None:
        """End the process; the next question starts another."""
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            # -P: or the modules beside the file would hide others of the same name.
            command = [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py"))]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us, who then stop it
            )
            if _line(self._process, START) != "ready":
                self._stop()
                raise SpringbackError(
                    "metric 'math': the package math-verify does not start; allowed: a working "
                    "installation; try: python -c 'import math_verify'"
                )
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def _line(process: subprocess.Popen[bytes], seconds: float) -> str:
    """The next line of the process; empty if none comes in time."""
    assert process.stdout is not None
    end, held = time.monotonic() + seconds, b""
    pipe = process.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not held.endswith(b"\n"):
            ready = selector.select(max(0.0, end - time.monotonic()))
            part = os.read(pipe, 64) if ready else b""
            if not part:
                return ""
            held += part
    return held.decode().strip()


_WORKER = _Worker()
atexit.register(_WORKER.stop)
