"""The command line as a user meets it: kill -9 and go on, wrong input, help, API."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import warm_start

TIMEOUT = 300


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "springback.cli", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd=cwd
    )


def findings(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "result.json").read_text())
    del data["provenance"]
    return data


def audit_words(model: str, out: str) -> list[str]:
    words = ["audit", "--model", model, "--out", out, "--n-pos", "64,128", "--doses", "32,64"]
    words += ["--seeds", "0,1", "--batch-size", "8", "--max-tokens", "48", "--holdout", "8"]
    return [*words, "--prompts", "8", "--sample-tokens", "8", "--resistance-rows", "16"]


def small_words(model: str, out: str) -> list[str]:
    """As little as shows every kind of run: for a model that takes seconds a step."""
    words = ["audit", "--model", model, "--out", out, "--n-pos", "8", "--doses", "4,8"]
    words += ["--seeds", "0", "--max-tokens", "24", "--holdout", "4", "--prompts", "4"]
    words += ["--probes", "margin,kl", "--sample-tokens", "4", "--resistance-rows", "4"]
    return [*words, "--resistance-tokens", "8", "--batch-size", "4", "--save-every", "1"]


@pytest.mark.parametrize(
    ("model", "words", "longest", "kills"),
    [("tiny", audit_words, 2.0, 5), ("smollm2-135m", small_words, 8.0, 3)],
)
def test_kill_9_at_random_moments_changes_nothing(
    model: str,
    words: Callable[[str, str], list[str]],
    longest: float,
    kills: int,
    tiny_llama: Path,
    tmp_path: Path,
) -> None:
    """Killed at random moments, the same command ends in the same result."""
    name = str(tiny_llama) if model == "tiny" else model
    whole = warm_start.run(words(name, "whole"), tmp_path, tmp_path)
    assert whole.returncode == 0, whole.stderr
    rng = random.Random(20260101)
    killed = 0
    for number in range(kills):
        said = tmp_path / f"said-{number}"
        going = warm_start.start(words(name, "cut"), tmp_path, tmp_path / "out", said)
        while going.is_alive() and not (said.exists() and said.stat().st_size):
            time.sleep(0.01)  # until it has begun to work
        going.join(rng.uniform(0.1, longest))
        if going.is_alive():
            going.kill()
            killed += 1
        going.join()
    assert killed > kills // 2, "the kills came too late to test anything"
    last = warm_start.run(words(name, "cut"), tmp_path, tmp_path)
    assert last.returncode == 0, last.stderr
    assert findings(tmp_path / "cut") == findings(tmp_path / "whole")
    assert (tmp_path / "cut" / "report.html").exists()


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """Through the installed command; every kind of fault: tests/test_cli_errors.py."""
    done = run("audit", "--align", "no/such.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no such file")
    assert "Traceback" not in done.stderr


def test_debug_shows_the_trace(tmp_path: Path) -> None:
    done = run("audit", "--align", "no/such.jsonl", "--debug", cwd=tmp_path)
    assert "Traceback" in done.stderr


def test_the_real_model_answers(tmp_path: Path) -> None:
    """The built-in model through the command line: fetched or cached, loaded, decoded."""
    prompt = "What is the capital of France? Answer in one word."
    done = run("generate", "smollm2-135m", prompt, "--max-new-tokens", "12", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


def test_doctor_names_what_matters(tmp_path: Path) -> None:
    done = run("doctor", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("torch", "transformers", "memory", "cache"):
        assert word in done.stdout.lower()


def test_public_names_are_the_documented_ones() -> None:
    import springback

    for name in ("audit", "boost", "check", "extrapolate", "generate", "load"):
        assert callable(getattr(springback, name))
    assert os.path.basename(springback.__file__) == "__init__.py"
