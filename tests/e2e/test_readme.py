"""The README from top to bottom, as a new user would type it, on a tiny model.

What it needs lies where the README says: models, a run's checkpoints, rows.  Left out are ``make``
(make's own tests) and what stands in ``LEFT_OUT``; what takes minutes on the built-in model is only
planned.  Each step is a process that has torch loaded already (warm_start); with
``SPRINGBACK_WALK=FILE`` a whole one, whose seconds go there (benchmarks/new_user.py).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import warm_start
from readme_walk import blocks, commands, prepare, prepare_boosted, questions
from test_compare_evals import lm_eval

pytestmark = pytest.mark.e2e
#: Beginnings of commands that are not run here, and why.
LEFT_OUT = {
    "springback lm-eval": "needs lm-eval; tests/integrations/test_readme_lm_eval.py",
    "springback check smollm2-135m": "three minutes; test_check_cli.py",
}
#: Those that are planned, since they take longer.
PLANNED = ("springback reproduce",)
#: Where the seconds of whole processes go.
WHOLE = os.environ.get("SPRINGBACK_WALK")


class Walk:
    """One folder in which the steps follow one another, and how long each took."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[" ".join(step.split())] = round(time.monotonic() - began, 1)

    def run(self, step: str, words: list[str], into: str = "") -> None:
        """A step that must end well: ``springback WORDS``, or ``-c SNIPPET`` of Python.

        ``into``: a file for what it says.
        """
        done: warm_start.Done | subprocess.CompletedProcess[str]
        with self.timed(step):
            if WHOLE is None:
                done = warm_start.run(words, self.place, self.place.parent)
            else:
                module = [] if words[0] == "-c" else ["-m", "springback.cli"]
                done = subprocess.run(
                    [sys.executable, *module, *words],
                    cwd=self.place,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=600,
                )
        assert done.returncode == 0, f"{step}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        if into:
            (self.place / into).write_text(done.stdout, encoding="utf-8")

    def serve(self, line: str) -> None:
        """Start a server, wait until it serves, stop it as Ctrl-C does."""
        words = [sys.executable, "-m", "springback.cli", *shlex.split(line)[1:], "--port", "0"]
        with self.timed(line), (self.place / "serve.log").open("w+") as log:
            server = subprocess.Popen(
                words, cwd=self.place, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                deadline = time.monotonic() + 120
                while not re.search(r"serving \S+ at http://", said := log_text(log.name)):
                    assert server.poll() is None, said
                    assert time.monotonic() < deadline, said
                    time.sleep(0.1)
                server.terminate()
                server.wait(60)
            finally:
                server.kill()
                server.wait()


def log_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def test_everything_in_the_readme_does_what_it_says(tiny_llama: Path, tmp_path: Path) -> None:
    prepare(tmp_path, tiny_llama)
    for name, right in (("base", 5), ("tuned", 9)):
        scores = [float(n < right) for n in range(12)]
        folder = tmp_path / f"lm-eval-of-{name}"
        lm_eval(folder, scores, filters=("strict-match", "flexible-extract"))
    walk = Walk(tmp_path)
    for line in commands():
        if any(line.startswith(begin) for begin in LEFT_OUT):
            continue
        if line.startswith("springback serve "):
            walk.serve(line)
            continue
        # The boosts stand for one another: a test set is opened by one of them alone.
        questions(tmp_path / "test.jsonl", 200 + 100 * len(walk.seconds))
        words, _, into = line.partition(" > ")
        plan = ["--plan"] if line.startswith(PLANNED) else []
        walk.run(line, [*shlex.split(words)[1:], *plan], into)
        if "--out boost-of-mine" in line:
            prepare_boosted(tmp_path, tiny_llama)
        elif "--out audit-of-mine" in line:
            shutil.copytree(tmp_path / "audit-of-mine", tmp_path / "audit-of-another")
    for number, snippet in enumerate(blocks("python"), start=1):
        walk.run(f"Python, snippet {number}", ["-c", snippet])
    print("\n".join(f"{seconds:6.1f} s  {step}" for step, seconds in walk.seconds.items()))
    if WHOLE is not None:
        Path(WHOLE).write_text(json.dumps(walk.seconds))
    pages = [f"{job}-of-mine/report.html" for job in ("audit", "boost")]
    for path in (*pages, "extrapolated", "springback-audit/result.json"):
        assert (tmp_path / path).exists(), path


def test_what_is_left_out_stands_in_the_readme() -> None:
    lines = commands()
    for begin in (*LEFT_OUT, *PLANNED):
        assert any(line.startswith(begin) for line in lines), begin
