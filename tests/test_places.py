"""Where results may be written, and study files that are no settings."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from springback.cli.app import main
from springback.errors import SpringbackError, StoreError
from springback.jobs.audit.job import audit
from springback.jobs.audit.series import series
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.config import build, read_study


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: " + "[" * 3000, "not YAML"),
        ("seeds: " + "9" * 5000, "not YAML .*5000 digits"),
        ("model: 2026-13-45", "not YAML"),
        ("seeds: &a [1, *a]", "without aliases"),
        ("seeds: &a [" + "*a," * 5000 + "]", "without aliases"),
        (
            "seeds: [&a0 [x,x,x,x,x,x,x,x,x]"
            + "".join(f", &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))
            + "]",
            "without aliases",
        ),
    ],
)
def test_a_study_that_is_deep_long_or_endless_is_refused_in_one_line(
    text: str, words: str, tmp_path: Path
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(text)
    with pytest.raises(SpringbackError, match=words) as caught:
        read_study(study)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_aliases_that_stand_for_a_few_values_are_read(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("seeds: &s [0, 1]\nattack_seeds: *s\n")
    assert read_study(study) == {"seeds": [0, 1], "attack_seeds": [0, 1]}


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(SpringbackError, match=r"seeds is .*characters") as caught:
        build(AuditSettings, {"seeds": ["x"] * 5000})
    assert len(str(caught.value)) < 1000


def quick(model: Path, **given: Any) -> AuditSettings:
    return AuditSettings(
        **{
            "model": str(model),
            "experiments": ("rebound",),
            "probes": ("margin",),
            "n_pos": (8,),
            "doses": (4,),
            "seeds": (0,),
            "batch_size": 4,
            "max_tokens": 24,
            "holdout": 4,
            "prompts": 4,
            "prompt_tokens": 6,
            "sample_tokens": 4,
            "resistance_rows": 0,
            "learning_rate": 1e-3,
            "precision": "float32",
            **given,
        }
    )


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_audit_takes_more_of_the_same_study_and_no_other_one(
    model: Path, tmp_path: Path
) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out"
    rows.write_text("".join(f'{{"text": "number {n} is {n * n}"}}\n' for n in range(40)))
    settings = quick(model, align=str(rows))
    audit(settings, out)
    shutil.copy(rows, tmp_path / "copy.jsonl")
    audit(replace(settings, align=str(tmp_path / "copy.jsonl")), out)  # the same rows
    audit(settings, out)
    audit(replace(settings, seeds=(0, 1), doses=(4, 8), holdout=8), out)
    audit(settings, out)
    before = files(out)
    other = tmp_path / "other"
    shutil.copytree(model, other)
    weights = load_file(other / "model.safetensors")
    save_file(
        {k: v * 1.5 for k, v in weights.items()}, other / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(StoreError, match="--model was"):
        audit(replace(settings, model=str(other)), out)
    with pytest.raises(StoreError, match=r"--learning-rate was 0\.001, and now is 0\.002"):
        audit(replace(settings, learning_rate=2e-3), out)
    with pytest.raises(StoreError, match="--perturb was"):
        audit(replace(settings, perturb="problems-text"), out)
    rows.write_text("".join(f'{{"text": "number {n} was {n * n}"}}\n' for n in range(40)))
    with pytest.raises(StoreError, match="--align was"):
        audit(settings, out)
    assert files(out) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps({"schema_version": 1, "kind": "boost"}), "of kind boost"),
        (json.dumps({"results": {"mmlu": 0.3}}), "of no springback job"),
        ("[]", "of no springback job"),
        ('{"kind": "aud', "cannot read"),
    ],
)
def test_results_of_another_kind_are_not_written_over(
    text: str, words: str, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "result.json").write_text(text)
    with pytest.raises(StoreError, match=words):
        audit(quick(model), out)
    with pytest.raises(StoreError, match=words):
        series(quick(model, series=(str(model), "org/b")), out)
    if "boost" not in text:
        with pytest.raises(StoreError, match=words):
            boost(BoostSettings(model=str(model), train="problems", test_rows=4), out)
    assert (out / "result.json").read_text() == text


def test_nothing_is_written_over_what_is_read(model: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    with pytest.raises(StoreError, match="--model"):
        audit(quick(model), model)
    with pytest.raises(StoreError, match="--model"):
        audit(quick(model), tmp_path / "model" / ".." / "model")
    with pytest.raises(StoreError, match="--series"):
        series(quick(model, series=(str(model), "org/b")), model)
    with pytest.raises(StoreError, match="--early"):  # out/model is where the boosted folder goes
        boost(BoostSettings(early=str(model), ft=str(model)), tmp_path)
    with pytest.raises(StoreError, match="empty"):
        audit(quick(model), "")
    data = tmp_path / "card.json"
    data.write_text('[{"text": "a"}]')
    with pytest.raises(StoreError, match="--align"):
        audit(quick(model, align=f"{data}?text=a"), tmp_path)
    data.unlink()
    assert files(tmp_path) == before


@pytest.mark.parametrize("words", [["--out", ""], ["--out="]])
@pytest.mark.parametrize("command", ["audit", "boost", "demo", "extrapolate", "compress"])
def test_an_empty_out_is_refused_by_every_command(
    command: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["springback", command, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: --out is empty")
    assert not list(tmp_path.iterdir())
