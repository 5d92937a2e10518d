"""``springback check``: both models on the same things, what got better and worse, what can't be
compared, and the checkpoint to take."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import springback
from boosted_fixture import LAM, boosted, checkpoints
from springback.cli.app import app
from springback.errors import DataError, SpringbackError
from springback.jobs.check.analysis import (
    Checkpoint,
    Paired,
    along_run,
    compared,
    labelled,
    verdict_words,
)
from springback.jobs.check.content import load_items
from springback.jobs.check.job import check, plan, subjects
from springback.jobs.check.settings import CheckSettings
from springback.jobs.check.subject import kl_between
from springback.models.from_scratch import Shape, fresh_model, save_model
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.report import build
from springback.results.check_schema import Check, CheckedMeasure, CheckedModel
from springback.results.schema import read
from springback.results.store import read_json
from springback.results.texts import read_texts
from springback.weights.moved import moved, moved_by_adapter
from weights_adapters import save_adapter, save_base

#: As little as measures everything.
SMALL = CheckSettings(
    text_rows=6, choice_rows=6, task_rows=6, prompt_rows=4, answer_tokens=4, sample_tokens=4
)


@pytest.fixture(scope="module")
def pair(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A base, and the same moved a little."""
    early, ft = checkpoints(tiny_llama, tmp_path_factory.mktemp("pair"))
    return str(early), str(ft)


@pytest.fixture(scope="module")
def adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PEFT adapter on the tiny model, without a base of its own that is here."""
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    save_adapter(folder, tiny_llama, 3, r=2, target_modules=["q_proj", "down_proj"])
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "org/elsewhere"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def test_everything_is_measured_with_no_other_word(pair: tuple[str, str], tmp_path: Path) -> None:
    """The defaults but for their number: texts, choices, refusals of both kinds, KL, weights."""
    settings = replace(SMALL, base=pair[0], tuned=pair[1])
    result = springback.check(settings, tmp_path / "out")
    found = read(result.data).analysis
    assert isinstance(found, Check)
    (model,) = found.models
    assert [(m.measure, m.source) for m in model.measures] == [
        ("bits per byte", "passages"),
        ("bits per byte", "problems-text"),
        ("accuracy", "problems-choice"),
        ("P(right letter)", "problems-choice"),
        ("over-refusals", "requests:harmless"),
        ("refusals", "requests:harmful"),
    ]
    assert [m.better for m in model.measures[-2:]] == ["lower", "higher"]
    for m in model.measures:
        assert m.difference.mean == pytest.approx(m.tuned.mean - m.base.mean, abs=1e-12)
    assert model.drift is not None
    assert model.drift[0].forgotten.mean > 0 < model.drift[0].new.mean
    assert model.weights is not None
    assert model.left_out == ()
    assert result.verdict.startswith("Worse beyond noise: ")
    page = build(result.folder).read_text()
    assert "What got better and worse" in page


def test_questions_are_listed_with_the_score_of_each_model(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    """Of prompts, which may be harmful, nothing is listed."""
    only: dict[str, Any] = {"texts": (), "harmful": (), "weights": False, "prompts": ()}
    settings = replace(SMALL, base=pair[0], tuned=pair[1], **only)
    result = check(settings, tmp_path / "out")
    asked = read_texts(tmp_path / "out", "questions")
    assert asked is not None
    assert len(asked) == 6
    assert len(asked[0].answers) == 2
    measures = result.data["analysis"]["models"][0]["measures"]
    accuracy = next(m for m in measures if m["measure"] == "accuracy")
    base, tuned = (
        [score for one in asked if (score := [*one.answers.values()][i].score) is not None]
        for i in (0, 1)
    )
    assert sum(base) / 6 == pytest.approx(accuracy["base"]["mean"])
    assert sum(tuned) / 6 == pytest.approx(accuracy["tuned"]["mean"])
    assert 'id="questions"' in build(tmp_path / "out").read_text("utf-8")
    check(replace(settings, choices=(), texts=("passages",)), tmp_path / "out")
    assert not (tmp_path / "out" / "questions.csv").exists()


def test_bits_per_byte_are_those_of_the_text(pair: tuple[str, str], tmp_path: Path) -> None:
    """By hand: every token but the first, its bits over the bytes that it stands for."""
    file = tmp_path / "t.jsonl"
    texts = ["the hen and the ring", "in the beginning there was ä thing"]
    file.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    only: dict[str, Any] = {"choices": (), "prompts": (), "harmful": (), "weights": False}
    settings = replace(SMALL, base=pair[0], tuned=pair[1], texts=(str(file),), **only)
    result = check(settings, tmp_path / "out")
    (measure,) = result.data["analysis"]["models"][0]["measures"]
    model, tokenizer = load_model(resolve(pair[0])), load_tokenizer(resolve(pair[0]))
    values = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            logp = torch.log_softmax(model(ids).logits[0, :-1], -1)
        nats = -float(logp.gather(-1, ids[0, 1:, None]).sum())
        size = len(tokenizer.decode(ids[0, 1:]).encode())
        values.append(nats / math.log(2) / size)
    assert measure["base"]["mean"] == pytest.approx(sum(values) / 2, rel=1e-5)
    assert measure["n"] == 2


def test_kl_is_exact_and_goes_both_ways(pair: tuple[str, str]) -> None:
    settings = replace(SMALL, base=pair[0], tuned=pair[1], texts=(), choices=(), harmful=())
    base, (tuned,) = subjects(settings)
    (item,) = load_items(settings, lambda _: None)
    rows = base.continuations(tuned.encode(item), 100)
    assert all(max(row.ids[row.start :]) < 100 for row in rows), "what only one could draw"
    assert all(row.counted == settings.sample_tokens for row in rows)
    first = rows[0]
    ids = torch.tensor([first.ids])
    with torch.no_grad():
        logs = [
            torch.log_softmax(s.loaded.expert(ids).logits[0, first.start - 1 : -1].double(), -1)
            for s in (base, tuned)
        ]
    p, q = logs
    by_hand = float((p.exp() * (p - q)).sum(-1).mean())
    assert kl_between(base, tuned, rows)[0] == pytest.approx(by_hand, rel=1e-4)
    assert kl_between(base, base, rows) == pytest.approx([0.0] * len(rows), abs=1e-6)


def test_a_second_run_measures_nothing_and_more_content_measures_that_alone(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    settings = replace(SMALL, base=pair[0], tuned=pair[1])
    one = check(settings, tmp_path / "out").data
    again = check(settings, tmp_path / "out").data
    made = one.pop("provenance")["runs"]["made"], again.pop("provenance")["runs"]["made"]
    assert made == (12, 0), "five items on two models, KL and weights"
    assert one == again
    more = check(replace(settings, task="problems:1"), tmp_path / "out").data
    assert more["provenance"]["runs"]["made"] == 2


def test_another_tuned_model_in_the_folder_is_refused(
    pair: tuple[str, str], adapter: str, tmp_path: Path
) -> None:
    few = replace(SMALL, base=pair[0], texts=("passages",), choices=(), prompts=(), harmful=())
    check(replace(few, tuned=pair[1]), tmp_path / "out")
    with pytest.raises(SpringbackError, match="holds the results of another study: --tuned"):
        check(replace(few, tuned=adapter), tmp_path / "out")


def test_an_adapter_is_taken_on_the_base(tiny_llama: Path, adapter: str, tmp_path: Path) -> None:
    """Whatever base its own settings name; its weights are the merged model's."""
    settings = replace(SMALL, base=str(tiny_llama), tuned=adapter)
    (model,) = check(settings, tmp_path / "out").data["analysis"]["models"]
    assert model["left_out"] == []
    whole = model["weights"][0]
    # Scaling is lora_alpha over r, 8 / 2.
    factors = load_file(Path(adapter) / "adapter_model.safetensors")
    change = math.sqrt(
        sum(
            float((4 * factors[name.replace("lora_A", "lora_B")] @ a).double().square().sum())
            for name, a in factors.items()
            if "lora_A" in name
        )
    )
    assert whole["group"] == "all"
    assert whole["norm"] == pytest.approx(change, rel=1e-4)
    assert {group["group"] for group in model["weights"] if group["norm"]} == {
        "all", "attention", "mlp",
    }  # fmt: skip


def test_a_boosted_folder_is_measured_as_it_decodes(tiny_llama: Path, tmp_path: Path) -> None:
    """With contrast: the pair's distribution, which is not its strong model's."""
    folder = boosted(tiny_llama, tmp_path)
    few = replace(SMALL, base=str(tiny_llama), tuned=str(folder), choices=(), harmful=())
    data = check(few, tmp_path / "out").data
    (model,) = data["analysis"]["models"]
    assert data["inputs"]["tuned"]["lambda"] == LAM
    assert "strong model" in " ".join(model["left_out"])
    strong = tmp_path / "strong"
    shutil.copytree(folder, strong, ignore=shutil.ignore_patterns("amateur*", "springback.json"))
    (alone,) = check(replace(few, tuned=str(strong)), tmp_path / "alone").data["analysis"]["models"]
    assert alone["weights"] == model["weights"]
    assert alone["measures"][0]["tuned"] != model["measures"][0]["tuned"]


def test_what_needs_one_tokenizer_is_left_out_and_said(
    tiny_llama: Path, pair: tuple[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(pair[1], other)
    tokens = json.loads((other / "tokenizer.json").read_text())
    ids = tokens["model"]["vocab"]
    ids["!"], ids["$"] = ids["$"], ids["!"]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    settings = replace(SMALL, base=str(tiny_llama), tuned=str(other))
    (model,) = check(settings, tmp_path / "out").data["analysis"]["models"]
    assert model["drift"] is None
    assert "different tokenizers" in model["left_out"][0]
    assert len(model["measures"]) == 6
    assert model["weights"] is not None


def test_what_needs_one_architecture_is_left_out_and_said(tiny_llama: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(resolve(tiny_llama))
    save_model(fresh_model(tokenizer, Shape(16, 1, 2), seed=1), tokenizer, tmp_path / "small")
    settings = replace(SMALL, base=str(tiny_llama), tuned=str(tmp_path / "small"))
    (model,) = check(settings, tmp_path / "out").data["analysis"]["models"]
    assert model["weights"] is None
    assert model["left_out"][0].startswith("how far weights moved: ")
    assert model["drift"][0]["forgotten"]["mean"] > 0


def test_the_checkpoints_of_a_run(tiny_llama: Path, tmp_path: Path) -> None:
    """Each is checked; with a task one is recommended; the base is measured once."""
    for step in (10, 20):
        model = AutoModelForCausalLM.from_pretrained(tiny_llama)
        noise = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.002 * step * torch.randn(p.shape, generator=noise))
        folder = tmp_path / "run" / f"checkpoint-{step}"
        model.save_pretrained(folder)
        load_tokenizer(resolve(tiny_llama)).save_pretrained(folder)
    settings = replace(
        SMALL, base=str(tiny_llama), run=(str(tmp_path / "run"),), task="problems:1", choices=()
    )
    result = check(settings, tmp_path / "out")
    along = result.data["analysis"]["along"]
    assert [p["name"] for p in along["points"]] == ["checkpoint-10", "checkpoint-20"]
    assert along["chosen"] in ("checkpoint-10", "checkpoint-20")
    assert any(p["front"] for p in along["points"])
    assert f"Take {along['chosen']}" in result.verdict
    # Five items on three models, KL and weights of two.
    assert result.data["provenance"]["runs"]["made"] == 5 * 3 + 2 + 2
    assert "Which checkpoint to take" in build(result.folder).read_text()
    bare = check(replace(settings, task=None), tmp_path / "out")
    assert bare.data["analysis"]["along"] is None
    assert "--task" in bare.verdict


def test_a_plan_runs_nothing_and_knows_what_is_done(pair: tuple[str, str], tmp_path: Path) -> None:
    settings = replace(SMALL, base=pair[0], tuned=pair[1])
    before = plan(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(before.runs) == 12
    assert not any(run.done for run in before.runs)
    assert "what it needs: about" in str(before)
    check(settings, tmp_path / "out")
    assert all(run.done for run in plan(settings, tmp_path / "out").runs)


# The arithmetic, by hand.


def row(measure: str, base: list[float], tuned: list[float], kind: str = "text") -> CheckedMeasure:
    return compared(Paired("s", kind, measure, "kept", base, tuned))


def test_lower_is_better_for_bits_and_for_over_refusals() -> None:
    up = [0.1 + n / 1000 for n in range(20)]
    bits = row("bits per byte", [1.0] * 20, [1.0 + u for u in up])
    refusals = ([0.0] * 40, [1.0] * 30 + [0.0] * 10)
    over, should = (row("refusals", *refusals, kind) for kind in ("prompt", "harmful"))
    (model,) = labelled([CheckedModel("t", (bits, over, should))])
    assert [m.label for m in model.measures] == ["worse", "worse", "better"]
    assert bits.gain == pytest.approx(-0.1095)
    assert over.method == "exact McNemar"
    assert over.p == pytest.approx(2 * 0.5**30)
    assert verdict_words(model)[1].startswith(
        "Worse beyond noise: bits per byte (s), over-refusals (s); better: refusals (s); "
        "undecided: nothing."
    )


def test_words_come_after_holm_over_all_tests_of_all_models() -> None:
    """Six lost and none won: McNemar 2 * 2^-6 = 0.031; of two such tests 0.0625 each."""
    lost = row("accuracy", [1.0] * 6 + [0.0] * 6, [0.0] * 12, "choice")
    (alone,) = labelled([CheckedModel("a", (lost,))])
    assert alone.measures[0].label == "worse"
    both = labelled([CheckedModel("a", (lost,)), CheckedModel("b", (lost,))])
    for model in both:
        assert model.measures[0].p_holm == pytest.approx(4 * 0.5**6)
        assert model.measures[0].label == "undecided"


def test_within_a_hundredth_is_the_same() -> None:
    base = [1.0 + n / 10 for n in range(30)]
    tuned = [b + 0.0004 * (-1) ** n for n, b in enumerate(base)]
    (model,) = labelled([CheckedModel("t", (row("bits per byte", base, tuned),))])
    assert model.measures[0].label == "same"


def test_the_checkpoint_that_lost_least_of_those_that_learned_as_much() -> None:
    """Gains 1.0, 1.9, 2.0; the last two differ by 0.1 with a standard error of 0.1155."""
    early = Checkpoint("early", (1.0, 1.0, 1.0, 1.0), (0.0, 0.1, 0.0, 0.1), 0)
    middle = Checkpoint("middle", (1.7, 2.1, 1.7, 2.1), (0.2, 0.3, 0.2, 0.3), 0)
    last = Checkpoint("last", (2.0, 2.0, 2.0, 2.0), (0.5, 0.6, 0.5, 0.6), 1)
    along = along_run("t", "bits per byte", "bits per byte", [early, middle, last])
    assert (along.best, along.chosen) == ("last", "middle")
    assert [p.front for p in along.points] == [True, True, True]
    assert along.points[1].behind.mean == pytest.approx(0.1)
    assert along.points[2].lost_more.mean == pytest.approx(0.3)
    assert "within a standard error" in along.text
    worse = Checkpoint("worse", (1.0, 1.0, 1.0, 1.0), (0.9, 0.9, 0.9, 0.9), 3)
    again = along_run("t", "bits per byte", "bits per byte", [early, worse, last])
    assert [p.front for p in again.points] == [True, False, True]
    assert again.chosen == "last"


def test_weights_moved_by_group_by_hand(tmp_path: Path) -> None:
    """3 added to each of two attention biases' 16 values: sqrt(2 * 16 * 9)."""
    base = save_base(tmp_path / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for name in ("q_proj", "k_proj"):
            getattr(model.model.layers[0].self_attn, name).bias.add_(3.0)
    model.save_pretrained(tmp_path / "tuned")
    groups = {g.group: g for g in moved(base, tmp_path / "tuned")}
    assert groups["attention"].norm == pytest.approx(math.sqrt(2 * 16 * 9), rel=1e-6)
    assert groups["all"].norm == pytest.approx(groups["attention"].norm)
    assert groups["mlp"].norm == 0 == groups["norms"].norm
    assert groups["all"].parameters == model.num_parameters()


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    base = save_base(tmp_path / "base")
    lora = save_adapter(tmp_path / "lora", base, 1, r=2, target_modules=["q_proj"])
    assert moved_by_adapter(base, lora)[0].norm > 0
    biased = save_adapter(tmp_path / "biased", base, 1, r=2, bias="all")
    with pytest.raises(SpringbackError, match=r"allowed: an adapter of that base"):
        moved_by_adapter(tiny_llama, biased)


# Wrong input.

BAD = {
    "no second model": (["{base}"], "neither TUNED nor --run"),
    "both": (["{base}", "{tuned}", "--run", "{tuned}"], "both TUNED and --run"),
    "no such folder": (["{base}", "./no/such"], "no model at './no/such'"),
    "the same model": (["{base}", "{base}"], "are the same model"),
    "no texts": (["{base}", "{tuned}", "--texts", "no/such.jsonl"], "no such file"),
    "no choices": (["{base}", "{tuned}", "--choices", "passages"], "with 0 choices"),
    "prompts as texts": (["{base}", "{tuned}", "--texts", "requests:harmless"], "--prompts"),
    "zero rows": (["{base}", "{tuned}", "--text-rows", "0"], "--text-rows is 0"),
    "twice": (["{base}", "{tuned}", "--texts", "passages,passages"], "names one source twice"),
    "a built-in set that is none": (["{base}", "{tuned}", "--texts", "requests:odd"], "allowed"),
    "a run of one": (["{base}", "--run", "{tuned}"], "a run with 1 checkpoint"),
    "into the model": (["{base}", "{tuned}", "--out", "{tuned}"], "would write over"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_is_one_line_before_anything_is_written(
    name: str, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    given = [word.format(base=pair[0], tuned=pair[1]) for word in words]
    ended = CliRunner().invoke(app, ["check", *given])
    assert isinstance(ended.exception, SpringbackError)
    assert message in str(ended.exception)
    assert "\n" not in str(ended.exception)
    assert list(tmp_path.iterdir()) == []


def test_plainly_wrong_input_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom springback.cli import main\n"
        "sys.argv = ['springback', 'check', 'smollm2-135m', './nowhere']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["2", "False"], done.stderr


def test_prompts_may_be_a_column_alone(pair: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"What is {n}?"}) + "\n" for n in range(9)))
    settings = replace(SMALL, base=pair[0], tuned=pair[1], prompts=(str(file),), harmful=())
    items = load_items(settings, lambda _: None)
    assert {r.prompt for r in items[-1].part.rows} < {f"What is {n}?" for n in range(9)}
    assert len(items[-1].part) == 4
    (tmp_path / "odd.jsonl").write_text('{"colour": "red"}\n')
    odd = replace(settings, prompts=(str(tmp_path / "odd.jsonl"),))
    with pytest.raises(DataError, match="fields not recognised"):
        load_items(odd, lambda _: None)


def test_the_file_reads_back(pair: tuple[str, str], tmp_path: Path) -> None:
    settings = replace(SMALL, base=pair[0], tuned=pair[1], texts=("passages",), choices=())
    result = check(settings, tmp_path / "out")
    found = read(read_json(tmp_path / "out" / "result.json"))
    assert found.kind == "check"
    assert found.verdict is not None
    assert found.verdict.text == result.verdict
