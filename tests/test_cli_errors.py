"""Every kind of wrong input through the command line: one line that says how, and exit code 2."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from springback.cli.app import main
from springback.errors import SpringbackError

SMALL = ["--n-pos", "8", "--doses", "8", "--seeds", "0", "--max-tokens", "32", "--holdout", "4"]
SMALL += ["--prompts", "2", "--sample-tokens", "2", "--probes", "margin", "--resistance-rows", "0"]
PAIR = ["boost", "--validation", "problems", "--test", "problems", "--metric", "number"]

#: By name: the command, and a part of what it says.  {tiny}, {other}, {wide}: model folders.
BAD = {
    "missing file": ("audit --align no/such.jsonl", "no such file"),
    "wrong field": ("audit --align bad.jsonl", "fields not recognised: 'colour'"),
    "mapped to a field that is not there": ("audit --align bad.jsonl --field text=shade", "shade"),
    "empty file": ("audit --align empty.jsonl", "is empty"),
    "empty split": ("audit --align few.jsonl --perturb a.jsonl", "there are 3"),
    "a condition that keeps nothing": ("audit --align a.jsonl?text=x", "no row meets"),
    "overlap of the sides": ("audit --align a.jsonl --perturb a.jsonl", "also in"),
    "overlap of train and test": (
        "boost --model {tiny} --train problems --validation q.jsonl --validation-rows 20 "
        "--test copy.jsonl --test-rows 60",
        "are also in",
    ),
    "no number": ("audit --n-pos many", "whole numbers"),
    "no multiple": ("audit --n-pos 10", "multiples of the batch size"),
    "no study file": ("audit nowhere.yaml", "cannot read the study file"),
    "a study file with a wrong setting": ("audit study.yaml", "'n_positive'; allowed: model"),
    "one folder": ("compare a", "two audits or more"),
    "no such reproduction": ("reproduce elasticity-magic", "allowed: elasticity-resistance"),
    "no model": ("audit --model ./nowhere", "no model"),
    "neither pair nor data": ("boost --validation problems --test problems", "either"),
    "no checkpoints": ("extrapolate nowhere nowhere --mu 0.1 --out x", "nowhere"),
    "other shapes": ("extrapolate {wide} {tiny} --mu 0.1 --out x", "do not fit"),
    "other tokenizers": (f"{' '.join(PAIR)} --early {{other}} --ft {{tiny}}", "different tokenize"),
    "other shapes of a pair": (f"{' '.join(PAIR)} --early {{wide}} --ft {{tiny}}", "do not fit"),
    "no result": ("report nowhere", "result.json"),
    "loss that is no number": (f"audit --learning-rate 1e30 {' '.join(SMALL)}", "learning rate"),
    "out is a file": ("audit --out a.jsonl", "is a file; name a folder"),
}


@pytest.fixture(scope="module")
def folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are wrong in some way, and models that do not fit the tiny one."""
    from springback.models.from_scratch import Shape, fresh_model, save_model
    from springback.models.loading import load_tokenizer, resolve

    place = tmp_path_factory.mktemp("wrong")
    texts = [{"text": f"a film number {n} that is fine"} for n in range(700)]
    asked = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(60)]
    files = {
        "bad": [{"colour": "red"}],
        "empty": [],
        "few": texts[:3],
        "a": texts,
        "q": asked,
        "copy": asked,
    }
    for name, rows in files.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "study.yaml").write_text("n_positive: 8\n")
    # Another tokenizer and, or the pair is one checkpoint, other weights.
    other = place / "other"
    shutil.copytree(tiny_llama, other)
    tokens = json.loads((other / "tokenizer.json").read_text())
    ids = tokens["model"]["vocab"]
    ids["!"], ids["$"] = ids["$"], ids["!"]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    tokenizer = load_tokenizer(resolve(tiny_llama))
    save_model(fresh_model(tokenizer, Shape(16, 2, 4), seed=1), tokenizer, place / "wide")
    return place


def refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The line that the command ends with; it must be the only one that is no note."""
    monkeypatch.setattr(sys, "argv", ["springback", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2, said.err
    assert "Traceback" not in said.err
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said.err
    assert said.err.rstrip().endswith(lines[0])
    return lines[0]


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_is_one_line_and_exit_code_2(
    name: str,
    folder: Path,
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line, says = BAD[name]
    places = {"tiny": tiny_llama, "other": folder / "other", "wide": folder / "wide"}
    words = line.format(**places).split()
    if words[0] == "audit" and "--model" not in words:
        words += ["--model", str(tiny_llama)]
    if words[0] in ("audit", "boost", "reproduce") and "--out" not in words:
        words += ["--out", str(tmp_path / "out")]
    monkeypatch.chdir(folder)
    assert says in refused(words, monkeypatch, capsys)
    assert not list(tmp_path.rglob("result.json"))
    assert not list(folder.rglob("result.json"))


def test_a_full_disk_is_told_before_anything_is_trained(
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 1000))
    words = ["audit", "--model", str(tiny_llama), *SMALL, "--out", str(tmp_path / "out")]
    line = refused(words, monkeypatch, capsys)
    assert "1 kB are free" in line
    assert "free some" in line
    assert not list(tmp_path.rglob("run.json"))


def test_debug_shows_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["springback", "audit", "--align", "no/such.jsonl", "--debug"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SpringbackError, match="no such file"):
        main()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
@pytest.mark.parametrize(
    "command",
    [
        ["audit"],
        ["boost", "--train=problems", "--validation=problems", "--test=problems"],
        ["reproduce", "epicode-main"],
    ],
    ids=lambda command: command[0],
)
def test_a_missing_ray_is_told_before_a_folder_is_made(
    command: list[str],
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--model", str(tiny_llama), "--executor", "ray", "--out", str(tmp_path / "x")]
    words = [*command, *words]
    assert "pip install 'springback[ray]'" in refused(words, monkeypatch, capsys)
    assert not (tmp_path / "x").exists()
