"""``springback check`` from the shell: no other flag, killed and gone on with, wrong input."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import warm_start
from boosted_fixture import checkpoints

WORDS = ["--text-rows", "8", "--choice-rows", "8", "--prompt-rows", "8"]


def run(*words: str, cwd: Path) -> warm_start.Done:
    return warm_start.run(["check", *words], cwd, cwd.parent, timeout=300)


def findings(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "result.json").read_text())
    del data["provenance"]
    return data


def test_base_and_tuned_and_nothing_else(tiny_llama: Path, tmp_path: Path) -> None:
    base, tuned = map(str, checkpoints(tiny_llama, tmp_path))
    done = run(base, tuned, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sentence, *between, results, report, spent = done.stdout.splitlines()
    assert "measures of what should be kept" in sentence
    assert any(line.startswith("Worse beyond noise: ") for line in between)
    assert [line.split(":")[0] for line in (results, report, spent)] == [
        "results",
        "report",
        "time",
    ]
    measures = findings(tmp_path / "springback-check")["analysis"]["models"][0]["measures"]
    assert [m["n"] for m in measures] == [48, 48, 64, 64, 24, 24]
    assert (tmp_path / "springback-check" / "report.html").exists()


def test_kill_9_and_the_same_command_again(tiny_llama: Path, tmp_path: Path) -> None:
    base, tuned = map(str, checkpoints(tiny_llama, tmp_path))
    assert run(base, tuned, *WORDS, "--out", "whole", cwd=tmp_path).returncode == 0
    words, nowhere = ["check", base, tuned, *WORDS, "--out", "cut"], Path(os.devnull)
    going = warm_start.start(words, tmp_path, nowhere, nowhere)
    end = time.monotonic() + 120
    while time.monotonic() < end and len(list((tmp_path / "cut" / "runs").glob("check-*"))) < 3:
        time.sleep(0.02)
    going.kill()
    going.join()
    assert not (tmp_path / "cut" / "result.json").exists(), "killed too late to test anything"
    done = run(base, tuned, *WORDS, "--out", "cut", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert findings(tmp_path / "cut") == findings(tmp_path / "whole")
    runs = json.loads((tmp_path / "cut" / "result.json").read_text())["provenance"]["runs"]
    assert runs["read"] >= 3


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = run("smollm2-135m", "./no/such/model", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no model at './no/such/model'")
    assert list(tmp_path.iterdir()) == []
