"""The extrapolate command, from its words to its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from springback.cli import main
from springback.weights import extrapolate
from weights_adapters import save_adapter, save_base
from weights_files import pair, plain, read_model, write_model


def springback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    """Exit code, output and errors of ``springback extrapolate WORDS``, in this process."""
    monkeypatch.setattr(sys, "argv", ["springback", "extrapolate", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_writes_what_the_function_writes_without_torch(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    code = (
        "import sys\n"
        "from springback.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])\n"
    )
    words = [early, ft, "--mu", "-0.3", "--out", tmp_path / "out", "--threads", "2"]
    command = [sys.executable, "-c", code, "extrapolate", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "4 tensors, 100.0 % of the weights changed" in done.stdout
    extrapolate(early, ft, -0.3, tmp_path / "same")
    for shard in (tmp_path / "same").glob("*.safetensors"):
        assert (tmp_path / "out" / shard.name).read_bytes() == shard.read_bytes()


def test_several_checkpoints_groups_and_low_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    folders = []
    for step in (100, 200, 400):
        tensors = {
            name: plain(rng.standard_normal((6, 5)).astype(np.float32))
            for name in ("x.mlp.up_proj.weight", "x.self_attn.q_proj.weight", "x.mixer.D")
        }
        folders.append(write_model(tmp_path / f"checkpoint-{step}", tensors))
    code, out, err = springback(
        capsys, monkeypatch, *folders, "--mu", "mlp=0.5", "--low-rank", 2, "--out", tmp_path / "out"
    )
    assert code == 0, err
    record = json.loads((tmp_path / "out/springback.json").read_text())
    assert record["mu"] == {"mlp": 0.5}
    assert record["direction"] == {"steps": [100, 200, 400], "low_rank": 2}
    assert "steps 100, 200, 400" in err
    assert "warning: 1 tensors are in no group and stay as they are: x.mixer.D" in err
    assert "the directions kept hold" in out
    new, got = (read_model(folder) for folder in (folders[-1], tmp_path / "out"))
    changed = [name for name in new if got[name][1].tobytes() != new[name][1].tobytes()]
    assert changed == ["x.mlp.up_proj.weight"]


def test_adapters_give_an_adapter_or_a_full_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_base(tmp_path / "base")
    pair_ = [save_adapter(tmp_path / name, base, seed, r=3) for seed, name in enumerate("ab")]
    capsys.readouterr()  # what Transformers says while saving
    words = [*pair_, "--mu", "0.2"]
    vllm = ["--for", "vllm", "--out", tmp_path / "x"]
    code, out, err = springback(capsys, monkeypatch, *words, *vllm)
    assert code == 0, err
    assert "2 modules of rank 6" in out
    assert "--max-lora-rank 6" in err
    code, out, err = springback(
        capsys, monkeypatch, *words, "--svd-rank", 2, "--out", tmp_path / "cut"
    )
    assert code == 0, err
    assert "cut by SVD: relative error" in out
    dense = ["--materialise", "--base", base, "--out", tmp_path / "dense"]
    code, out, err = springback(capsys, monkeypatch, *words, *dense)
    assert code == 0, err
    assert (tmp_path / "dense/model.safetensors").exists()
    for wrong, said in (
        (["--low-rank", 2], "--low-rank is not for adapters"),
        (["--materialise", "--svd-rank", 2], "--svd-rank is not for --materialise"),
        (["--for", "tgi"], "peft, vllm"),
    ):
        code, _, err = springback(capsys, monkeypatch, *words, *wrong, "--out", tmp_path / "no")
        assert (code, said in err) == (2, True), err
    code, out, err = springback(capsys, monkeypatch, *pair_, "--check")
    assert (code, "two checkpoints say nothing about the line" in out) == (0, True), err
    code, _, err = springback(
        capsys, monkeypatch, pair_[0], base, "--mu", "0.2", "--out", tmp_path / "no"
    )
    assert code == 2
    assert "adapters" in err
    assert "full models" in err


def test_check_prints_the_pre_check_only(
    tmp_path: Path,
    tiny_llama: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    early, ft = pair(tmp_path)
    third = write_model(tmp_path / "third", read_model(early))
    before = set(tmp_path.iterdir())
    code, out, err = springback(capsys, monkeypatch, early, ft, third, "--check")
    assert code == 0, err
    assert "cosine of updates 1 and 2: -1.000" in out
    assert "R^2 of linear motion: 0.0000 (a random walk: 0.7500)" in out
    assert out.splitlines()[-1].startswith("risky (by rule of thumb): the last update turns back")
    assert set(tmp_path.iterdir()) == before
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "the thing in her hand"}\n{"text": "a hero in the air"}\n')
    code, out, err = springback(
        capsys, monkeypatch, tiny_llama, tiny_llama, "--check", "--validation", rows
    )
    assert code == 0, err
    assert "mu 0: validation NLL" in out
    assert "no gain expected (by rule of thumb): the last two checkpoints are equal" in out


def test_words_that_do_not_fit_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    early, ft = pair(tmp_path)
    out = ["--out", tmp_path / "out"]
    for words, said in (
        ([early, ft], "needs --mu and --out"),
        ([early, ft, "--mu", "heads=1", *out], "mu for 'heads'"),
        ([early, "--mu", "1", *out], "two or more of one run"),
        ([early, "nowhere", "--mu", "1", *out], "no model at 'nowhere'"),
        ([early, ft, "--mu", "1", "--svd-rank", "2", *out], "--svd-rank is not for full weights"),
        ([early, ft, "--mu", "1", "--for", "vllm", *out], "--for is not for full weights"),
        ([early, ft, "--mu", "1", "--ft-revision", "x", *out], "is for a hub id"),
        ([early, ft, ft, "--mu", "1", "--early-revision", "a,b,c", *out], "3 early revisions"),
        ([early, ft, "--mu", "1", "--steps", "a,b", *out], "--steps is 'a,b'"),
        ([early, ft, "--mu", "1", "--validation", "x", *out], "--validation is for --check"),
    ):
        code, _, err = springback(capsys, monkeypatch, *words)
        assert (code, said in err, err.count("\n")) == (2, True, 1), err
    assert not (tmp_path / "out").exists()


def test_hub_ids_are_taken_at_their_revisions(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    cache = tmp_path / "hub"
    commits = {"step100": "1" * 40, "main": "2" * 40}
    root = cache / "models--some-org--some-model"
    for folder in ("refs", "snapshots"):
        (root / folder).mkdir(parents=True)
    for (revision, commit), model in zip(commits.items(), (early, ft), strict=True):
        (root / "refs" / revision).write_text(commit)
        model.rename(root / "snapshots" / commit)
    name, out = "some-org/some-model", str(tmp_path / "out")
    words = [name, name, "--early-revision", "step100", "--mu", "0.5", "--out", out]
    command = [sys.executable, "-m", "springback.cli", "extrapolate", *words]
    env = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out/springback.json").read_text())
    assert record["early"]["name"] == f"{name}@{'1' * 40}"
    assert record["ft"]["name"] == f"{name}@{'2' * 40}"
    other = [f"{name}@step100", name, "--mu", "0.5", "--out", str(tmp_path / "same")]
    command = [sys.executable, "-m", "springback.cli", "extrapolate", *other]
    subprocess.run(command, env=env, check=True)
    again = json.loads((tmp_path / "same/springback.json").read_text())
    assert again["early"] == record["early"]
    assert again["content_hash"] == record["content_hash"]
    words = [name, "some-org/missing", *words[2:]]
    command = [sys.executable, "-m", "springback.cli", "extrapolate", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'some-org/missing' is no folder here and the hub did not give it" in done.stderr
