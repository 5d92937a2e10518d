"""``springback`` and snippets of Python, each in a process that need not import torch first.

Each is forked from a process that has imported the libraries and done nothing else (the standard
library's "forkserver"): new in all but that, and seconds sooner at work.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *(f"springback.jobs.{job}.job" for job in ("audit", "boost", "check")),
        "springback.inference",
        "springback.report",
        "matplotlib.figure",
        "transformers.trainer",
        "transformers.models.llama.modeling_llama",
    ]
)


@dataclass(frozen=True)
class Done:
    """How a process ended and what it said."""

    returncode: int
    stdout: str
    stderr: str


def start(words: Sequence[str], place: Path, out: Path, err: Path) -> BaseProcess:
    """Begin ``springback WORDS``, or ``-c SNIPPET`` of Python, in the folder ``place``.

    What it says goes to the files ``out`` and ``err``.
    """
    process = _CONTEXT.Process(target=_main, args=(words, place, out, err, dict(os.environ)))
    process.start()
    return process


def run(words: Sequence[str], place: Path, said: Path, timeout: float = 600) -> Done:
    """The same to its end; ``said``: a folder for the files of what it says."""
    out, err = said / "out.txt", said / "err.txt"
    process = start(words, place, out, err)
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"{words} took more than {timeout} s:\n{err.read_text()[-2000:]}")
    return Done(process.exitcode, out.read_text(), err.read_text())


def _main(words: Sequence[str], place: Path, out: Path, err: Path, env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(place)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", 1)
    if words[0] == "-c":
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.argv = ["springback", *words]
        runpy.run_module("springback.cli", run_name="__main__", alter_sys=True)
