"""A finished model is audited as it is: what it has to lose, and how little takes it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from springback.cli.app import app
from springback.elasticity import outcome_curves
from springback.errors import DataError, ModelError, SpringbackError
from springback.jobs.audit import runs
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import audit, plan
from springback.jobs.audit.plan import outline, parts_of
from springback.jobs.audit.settings import AuditSettings
from springback.report import build
from springback.results.cards import card_of_result
from springback.results.schema import read
from springback.results.store import read_json


def answers(path: Path, word: str, prompts: bool = True) -> str:
    lines = [
        {"prompt": f"Say {word} {n}", "response": f"{word} it is {n}"}
        if prompts
        else {"text": f"{word} it is {n}"}
        for n in range(40)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(path)


def moved(model: Path, folder: Path) -> Path:
    """A copy of the model with other weights: what it may have been made from."""
    shutil.copytree(model, folder)
    file = folder / "model.safetensors"
    torch.manual_seed(0)
    weights = {name: w + 0.02 * torch.randn_like(w) for name, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return folder


@pytest.fixture
def settings(tiny_llama: Path, tmp_path: Path) -> AuditSettings:
    return AuditSettings(
        model=str(tiny_llama),
        n_pos=(0,),
        controls=(),
        align=answers(tmp_path / "wanted.jsonl", "good"),
        perturb=answers(tmp_path / "unwanted.jsonl", "bad"),
        doses=(4, 8),
        seeds=(0, 1),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=80,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        probes=("margin", "kl"),
        precision="float32",
    )


@pytest.fixture
def base(tiny_llama: Path, tmp_path: Path) -> Path:
    return moved(tiny_llama, tmp_path / "base")


def values(result: Any, probe: str, **tags: Any) -> list[float]:
    return [
        record["value"]
        for record in result.data["measurements"]
        if record["probe"] == probe and tags.items() <= record["tags"].items()
    ]


def test_with_a_base_the_gain_is_over_it(
    settings: AuditSettings, base: Path, tmp_path: Path
) -> None:
    asked = replace(settings, base=str(base), attack_learning_rates=(3e-3,), mix=(0.5,))
    result = audit(asked, tmp_path / "out")
    analysis = result.data["analysis"]
    (start,), (below,) = (
        values(result, "margin", phase="start"),
        values(result, "margin", phase="base"),
    )
    assert analysis["finished"] == {
        "outcome": "margin",
        "lost": "the margin over the base model's",
        "unit": "nats/token",
        "level": start,
        "base": below,
    }
    gain = start - below
    rebound = analysis["rebound"]
    fall = rebound["fall"][0]["mean"]
    if gain > 0:
        assert rebound["gain"][0]["mean"] == pytest.approx(gain)
        assert rebound["share_lost"][0]["mean"] == pytest.approx(fall / gain)
        half = analysis["doses_to_undo"]["half"]
        assert half["what"] == "half of the margin over the base model's"
    # KL to the base model: none of the base itself, some of the model, along the doses.
    assert values(result, "base_kl", phase="base") == [pytest.approx(0, abs=1e-6)]
    assert len(values(result, "base_kl", phase="perturb")) == 2 * 3
    assert min(values(result, "base_kl", phase="perturb")) > 0
    undone = analysis["doses_to_undo"]["kl"]
    assert undone["what"] == "KL to the base model at most 0.01 nats a token"
    assert undone["at"][0]["censored"] == 2
    # Nothing aligned, and nothing says that something did not align.
    assert not values(result, "margin", phase="align")
    assert analysis["resistance"] is None
    verdict = json.dumps(result.data["verdict"])
    assert "lign" not in verdict.replace("undo half of the alignment", "")
    assert result.data["inputs"]["base"]["path"] == str(base)
    assert card_of_result(result.data).to_dict() == analysis["card"]
    page = build(tmp_path / "out").read_text(encoding="utf-8")
    assert "aligned on 0" not in page
    assert "base model" in page
    read(result.data)
    again = audit(asked, tmp_path / "out")
    assert again.data["provenance"]["runs"]["made"] == 0


def test_without_a_base_the_margin_itself_is_what_there_is(
    settings: AuditSettings, tmp_path: Path
) -> None:
    result = audit(settings, tmp_path / "out")
    analysis = result.data["analysis"]
    (start,) = values(result, "margin", phase="start")
    finished = analysis["finished"]
    assert (finished["lost"], finished["level"], "base" in finished) == (
        "the margin",
        start,
        True,
    )
    assert analysis["rebound"]["gain"][0]["mean"] is None
    if start > 0:
        fall = analysis["rebound"]["fall"][0]["mean"]
        assert analysis["rebound"]["share_lost"][0]["mean"] == pytest.approx(fall / start)
    assert "kl" not in analysis["doses_to_undo"]
    assert [run.phase for run in runs.of(check_settings(settings))] == ["start"] + ["perturb"] * 2


def test_without_wanted_texts_refusals_count(settings: AuditSettings, tmp_path: Path) -> None:
    alone = check_settings(
        replace(settings, align=AuditSettings.align, probes=AuditSettings.probes)
    )
    assert (alone.align, alone.behaviour) == ("", "refusal")
    assert alone.probes == ("unwanted_nll", "kl", "behaviour", "neutral_nll")
    assert check_settings(alone) == alone
    result = audit(alone, tmp_path / "out")
    finished = result.data["analysis"]["finished"]
    assert (finished["outcome"], finished["lost"]) == ("behaviour", "the share refused")
    # A random model refuses nothing.
    assert result.data["verdict"]["label"] == "nothing to undo"
    assert "share refused is not above 0" in result.data["verdict"]["text"]
    assert result.data["inputs"]["wanted"]["rows"] == 0
    card = result.data["analysis"]["card"]
    assert card["quantities"]["half_life_dose"]["reason"] == "the share refused is not above 0"
    assert card_of_result(result.data).to_dict() == card
    assert "refus" in build(tmp_path / "out").read_text(encoding="utf-8")


def test_a_score_of_answers_beside_the_margin_has_a_dose_of_its_own(
    settings: AuditSettings, base: Path, tmp_path: Path
) -> None:
    scorer = tmp_path / "scorer.py"
    scorer.write_text("def length(prompts, texts):\n    return [1.0 + len(t) for t in texts]\n")
    asked = replace(
        settings,
        seeds=(0,),
        lora_rank=2,
        base=str(base),
        probes=("margin", "behaviour"),
        behaviour=f"python:{scorer}:length",
    )
    result = audit(asked, tmp_path / "out")
    undo = result.data["analysis"]["doses_to_undo"]
    assert undo["behaviour"]["what"] == "half of the score over the base model's"
    assert "base_kl" in result.data["analysis"]["rebound"]["probes"]
    build(tmp_path / "out")


def test_a_score_below_the_base_models_is_turned_round() -> None:
    found = outcome_curves(
        (0,), (0, 8), {0: [[0.1, 0.7]]}, start=0.1, base=0.9, probe="behaviour", unit="score"
    )
    assert (found.start, found.margins) == ({0: -0.9}, {0: [[-0.1, -0.7]]})
    assert found.shares(8)[0][0] == pytest.approx(0.75)  # 0.6 of 0.8
    assert found.gain == "the score over the base model's"
    plain = outcome_curves((8,), (0, 8), {0: [[0.1, 0.7]]}, start=0.5)
    assert (plain.start, plain.gain) == ({0: 0.5}, "the gain in margin")


def test_plans_count_the_base_model(settings: AuditSettings, base: Path, tmp_path: Path) -> None:
    based = replace(settings, base=str(base))
    made = plan(based, tmp_path / "out")
    assert [p.run.kind for p in made.runs] == ["start", "base", "perturb", "perturb"]
    names = [part.name for part in parts_of(based)]
    assert names.count("base model") == 1
    assert "base model" not in [part.name for part in parts_of(settings)]
    assert f"made from {base}" in outline(based)
    assert "align:    nothing; the model as it is" in outline(settings)


def test_a_base_of_another_kind_is_refused_before_anything_is_trained(
    settings: AuditSettings, base: Path, tmp_path: Path
) -> None:
    config = read_json(base / "config.json")
    config["num_hidden_layers"] = 1
    (base / "config.json").write_text(json.dumps(config))
    for call in (audit, plan):
        with pytest.raises(ModelError, match="shape is not that of --model"):
            call(replace(settings, base=str(base)), tmp_path / "out")
    config["num_hidden_layers"] = 2
    (base / "config.json").write_text(json.dumps(config))
    tokenizer = read_json(base / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    a, b = list(vocabulary)[-2:]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="different tokenizers"):
        audit(replace(settings, base=str(base)), tmp_path / "out")
    assert not list((tmp_path / "out" / "runs").glob("*"))
    with pytest.raises(ModelError):
        audit(replace(settings, base="no/such@model here"), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_pos": (0, 4), "base": "there"}, "--base with --n-pos 0, 4"),
        ({"n_pos": (4,), "base": "there"}, "--base with --n-pos 4"),
        ({"probes": ("margin", "base_kl")}, "base_kl without --base"),
        ({"align": ""}, "--probes has margin with --n-pos 0 and no wanted texts"),
        ({"align": "", "probes": ("kl",)}, "nothing says when the model is undone"),
        (
            {"align": "", "probes": AuditSettings.probes, "mitigate": ("mix:0.2",)},
            "no rows to mix in",
        ),
    ],
)
def test_what_cannot_be_measured_says_so(
    settings: AuditSettings, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpringbackError, match=words):
        check_settings(replace(settings, **change))


def test_rows_without_prompts_have_nothing_to_refuse(
    settings: AuditSettings, tmp_path: Path
) -> None:
    texts = answers(tmp_path / "texts.jsonl", "bad", prompts=False)
    asked = replace(settings, align="", probes=AuditSettings.probes, perturb=texts)
    with pytest.raises(DataError, match="nothing to refuse"):
        plan(asked, tmp_path / "out")
    learned = replace(asked, perturb=settings.perturb, perturb_algorithm="dpo")
    with pytest.raises(DataError, match="dpo learns against wanted answers"):
        plan(learned, tmp_path / "out")


def test_from_the_shell(settings: AuditSettings, base: Path, tmp_path: Path) -> None:
    flags = ["--model", settings.model, "--base", str(base), "--n-pos", "0"]
    flags += ["--align", settings.align, "--perturb", settings.perturb, "--probes", "margin,kl"]
    flags += ["--doses", "4,8", "--batch-size", "4", "--seeds", "0", "--holdout", "4"]
    flags += ["--max-tokens", "80", "--prompts", "2", "--sample-tokens", "4"]
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["audit", *flags, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert read_json(out / "result.json")["analysis"]["finished"]["outcome"] == "margin"
    assert "the model as it is" in (out / "card.md").read_text()
    wrong = CliRunner().invoke(app, ["audit", *flags, "--experiments", "rebound,realign"])
    assert wrong.exit_code != 0
    assert "realign with --n-pos 0" in str(wrong.exception)
