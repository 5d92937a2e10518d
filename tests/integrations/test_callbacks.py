"""Callbacks in real trainers: the early checkpoint stays, elasticity reaches the tracker."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="trl is not installed (extra train)")

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

import springback
from springback.core import Row
from springback.decoding import DecodeSettings, decode
from springback.errors import SpringbackError
from springback.integrations.trainer_callbacks import (
    AccuracyCallback,
    Asked,
    ElasticityCallback,
    Held,
    KeepEarly,
)
from springback.jobs.boost.questions import question_format
from springback.models.encoding import encode_prompt, encode_rows, stop_ids
from springback.models.loading import load_model, resolve
from springback.probes import StartDistribution, margin, nll

# TRL's default still sets the name that Transformers is leaving.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

WANTED = ["the thing in the", "in the thing", "a thing in the thing"]
UNWANTED = ["1 1 1 he", " 11 er 1", "er 1 er 1 he"]
NEUTRAL = ["a er in", "the ing"]
ROWS = [{"text": f"the thing in {i} the"} for i in range(12)]
PAIRS = [{"prompt": f"the {i}", "chosen": " thing in the", "rejected": " 1 1 1"} for i in range(12)]


def sft(tiny_llama: Path, out: Path, **options: Any) -> SFTTrainer:
    """Six steps of two rows, saved at every step; only the last checkpoint is kept."""
    peft_config = options.pop("peft_config", None)
    held: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "save_steps": 1,
        "save_total_limit": 1,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "max_length": 32,
    }
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=SFTConfig(str(out), **{**held, **options}),
        train_dataset=Dataset.from_list(ROWS[:6]),
        processing_class=AutoTokenizer.from_pretrained(tiny_llama),
        peft_config=peft_config,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(resolve(folder)).state_dict())


class Copies(TrainerCallback):
    """The weights after every step."""

    def __init__(self) -> None:
        self.at: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.at[state.global_step] = {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("when", [{"step": 2}, {"epoch": 1}, {"share": 0.34}])
def test_the_early_checkpoint_outlives_the_limit(
    tiny_llama: Path, tmp_path: Path, when: dict[str, Any]
) -> None:
    trainer = sft(tiny_llama, tmp_path)
    keep, copies = KeepEarly(**when), Copies()
    trainer.add_callback(keep)
    trainer.add_callback(copies)
    trainer.train()
    step = 3 if "epoch" in when else 2  # 3 steps an epoch; 0.34 * 6 = 2.04
    assert {p.name for p in tmp_path.glob("checkpoint-*")} == {"checkpoint-6"}
    assert keep.folder == tmp_path / f"early-{step}"
    assert not list(keep.folder.glob("*.pt")) + list(keep.folder.glob("*.bin"))
    kept = weights(keep.folder)
    assert all(torch.equal(kept[k], v) for k, v in copies.at[step].items())
    # What it is for: both ends of the step that boost extrapolates along.
    report = springback.extrapolate(keep.folder, tmp_path / "checkpoint-6", 0.5, tmp_path / "out")
    assert report.changed_share > 0.9
    assert springback.generate(tmp_path / "out", ["the"], max_new_tokens=3)


def test_it_saves_where_the_trainer_would_not(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = sft(tiny_llama, tmp_path, save_strategy="no")
    keep = KeepEarly(step=2)
    trainer.add_callback(keep)
    trainer.train()
    assert keep.folder is not None
    assert (keep.folder / "config.json").exists()


def test_adapters_are_kept_too(tiny_llama: Path, tmp_path: Path) -> None:
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    trainer = sft(tiny_llama, tmp_path, peft_config=lora)
    keep = KeepEarly(step=2)
    trainer.add_callback(keep)
    trainer.train()
    assert keep.folder is not None
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert PeftModel.from_pretrained(base, str(keep.folder)).peft_config


@pytest.mark.parametrize("when", [{}, {"step": 1, "epoch": 1}, {"share": 1.0}, {"step": 0}])
def test_a_moment_is_named_once(when: dict[str, Any]) -> None:
    with pytest.raises(SpringbackError, match="allowed: one of step, epoch"):
        KeepEarly(**when)


def test_a_moment_that_never_comes_is_refused_at_the_start(
    tiny_llama: Path, tmp_path: Path
) -> None:
    for keep in (KeepEarly(step=6), KeepEarly(epoch=2)):
        trainer = sft(tiny_llama, tmp_path)
        trainer.add_callback(keep)
        with pytest.raises(SpringbackError, match="before the end: 6 steps, 2 epochs"):
            trainer.train()


def expected(tiny_llama: Path, folder: Path) -> dict[str, float]:
    """Margin and KL by our own probes, from files."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    model, start = load_model(resolve(folder)), load_model(resolve(tiny_llama))
    wanted, unwanted, neutral = (
        encode_rows(tokenizer, [springback.Row("text", "", t) for t in texts], 128)
        for texts in (WANTED, UNWANTED, NEUTRAL)
    )
    scores = [nll(model, rows, tokenizer) for rows in (wanted, unwanted)]
    each = StartDistribution(start, neutral, tokenizer).kl(model)
    return {
        "elasticity/margin": margin(*scores),
        "elasticity/kl": sum(each) / len(each),
    }


def logged(trainer: Trainer) -> dict[int, dict[str, float]]:
    """What was logged of elasticity, by step."""
    return {
        int(line["step"]): {k: v for k, v in line.items() if k.startswith("elasticity/")}
        for line in trainer.state.log_history
        if any(k.startswith("elasticity/") for k in line)
    }


def watch(trainer: Trainer, tiny_llama: Path, every: int = 2) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    ElasticityCallback(tokenizer, Held(WANTED, UNWANTED, NEUTRAL), every=every).watch(trainer)


def test_sft_logs_margin_and_kl(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = sft(tiny_llama, tmp_path)
    watch(trainer, tiny_llama, every=4)
    trainer.train()
    found = logged(trainer)
    assert sorted(found) == [0, 4, 6]
    assert found[0]["elasticity/kl"] == pytest.approx(0, abs=1e-6)
    assert found[6] == pytest.approx(expected(tiny_llama, tmp_path / "checkpoint-6"), rel=1e-4)
    assert found[6]["elasticity/margin"] > found[0]["elasticity/margin"], "it learned WANTED's kind"
    assert found[6]["elasticity/kl"] > 0.01


def test_watching_changes_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    ends = []
    for name in ("plain", "watched"):
        trainer = sft(tiny_llama, tmp_path / name)
        if name == "watched":
            watch(trainer, tiny_llama, every=1)
        trainer.train()
        ends.append(weights(tmp_path / name / "checkpoint-6"))
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        assert len(losses) == 6
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


def test_dpo_with_an_adapter_logs_and_keeps(tiny_llama: Path, tmp_path: Path) -> None:
    args = DPOConfig(
        str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=4,
        learning_rate=1e-2,
        save_steps=1,
        save_total_limit=1,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        max_length=32,
    )
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=args,
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=AutoTokenizer.from_pretrained(tiny_llama),
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    watch(trainer, tiny_llama)
    keep = KeepEarly(step=2)
    trainer.add_callback(keep)
    trainer.train()
    found = logged(trainer)
    assert sorted(found) == [0, 2, 4]
    assert found[0]["elasticity/kl"] == pytest.approx(0, abs=1e-6)
    assert found[4]["elasticity/kl"] > 0
    rewards = [line for line in trainer.state.log_history if "rewards/margins" in line]
    assert len(rewards) == 4, "TRL's own numbers are all there"
    assert keep.folder is not None
    assert {p.name for p in tmp_path.glob("checkpoint-*")} == {"checkpoint-4"}


def test_a_run_that_goes_on_measures_from_the_start(tiny_llama: Path, tmp_path: Path) -> None:
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    whole = sft(tiny_llama, tmp_path / "whole", peft_config=lora)
    watch(whole, tiny_llama)
    whole.train()
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    trainer = sft(tiny_llama, tmp_path / "cut", peft_config=lora, num_train_epochs=3)
    watch(trainer, tiny_llama)
    trainer.train(resume_from_checkpoint=True)
    assert logged(trainer)[6] == pytest.approx(logged(whole)[6], rel=1e-4)


def test_it_reaches_the_trackers_that_the_trainer_reports_to(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (make integrations)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    trainer = sft(tiny_llama, tmp_path / "out", report_to="tensorboard")
    watch(trainer, tiny_llama)
    trainer.train()
    held = EventAccumulator(str(tmp_path / "logs"))
    held.Reload()
    margins = held.Scalars("train/elasticity/margin")
    assert [event.step for event in margins] == [0, 2, 4, 6]
    found = logged(trainer)
    for event in margins:
        assert event.value == pytest.approx(found[event.step]["elasticity/margin"], rel=1e-5)


def test_what_cannot_be_measured_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    for held in (Held(), Held(wanted=WANTED)):
        with pytest.raises(SpringbackError, match="allowed: wanted and unwanted, or neutral"):
            ElasticityCallback(tokenizer, held)
    trainer = Trainer(
        AutoModelForCausalLM.from_pretrained(tiny_llama),
        TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, max_steps=1),
        train_dataset=Dataset.from_list([{"input_ids": [1, 2], "labels": [1, 2]}]),
    )
    trainer.add_callback(ElasticityCallback(tokenizer, Held(neutral=NEUTRAL)))
    with pytest.raises(SpringbackError, match="watch\\(trainer\\)"):
        trainer.train()


#: The first letter of an answer counts.
ASKED = Asked(metric="exact", prompt_template="Say: {question}", extract=r"(\w)", max_new_tokens=6)


def questions_for(tiny_llama: Path) -> list[Row]:
    """Two that the start model answers right, two that nothing does."""
    rows = [Row("qa", f"the thing {i}", "", answer="~") for i in range(4)]
    form = question_format(springback.BoostSettings(metric="exact", extract=ASKED.extract))
    read = form.readings(rows, answers_of(tiny_llama, rows))
    assert all(read[:2]), "both answers hold a letter"
    return [replace(r, answer=c) for r, c in zip(rows[:2], read, strict=False)] + rows[2:]


def answers_of(folder: Path, rows: list[Row]) -> list[str]:
    """As a boost decodes them."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_model(resolve(folder))
    put = [replace(row, prompt=f"Say: {row.prompt}") for row in rows]
    how = DecodeSettings(
        max_new_tokens=6,
        stop_ids=stop_ids(tokenizer, put[0], model),
        pad_id=tokenizer.pad_token_id,
    )
    ids = decode(model, [encode_prompt(tokenizer, row) for row in put], how)
    return [str(tokenizer.decode(each, skip_special_tokens=True)) for each in ids]


@pytest.mark.parametrize("lora", [False, True])
def test_accuracy_is_that_of_a_boost_and_training_is_the_same(
    tiny_llama: Path, tmp_path: Path, lora: bool
) -> None:
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", lora_dropout=0.1)
    rows, ends, tokenizer = questions_for(tiny_llama), [], AutoTokenizer.from_pretrained(tiny_llama)
    for name in ("plain", "watched"):
        torch.manual_seed(0)
        trainer = sft(tiny_llama, tmp_path / name, **({"peft_config": config} if lora else {}))
        if name == "watched":
            AccuracyCallback(tokenizer, rows, every=4, asked=ASKED).watch(trainer)
        trainer.train()
        file = "adapter_model.safetensors" if lora else "model.safetensors"
        ends.append(load_file(tmp_path / name / "checkpoint-6" / file))
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])
    lines = {
        line["step"]: line["accuracy/correct"]
        for line in trainer.state.log_history
        if "accuracy/correct" in line
    }
    assert sorted(lines) == [0, 4, 6]
    assert lines[0] == 0.5
    if not lora:
        form = question_format(springback.BoostSettings(metric="exact", extract=ASKED.extract))
        texts = answers_of(tmp_path / "watched/checkpoint-6", rows)
        assert lines[6] == sum(form.grade(rows, texts)) / 4


def test_accuracy_takes_sources_and_tasks_and_refuses_what_cannot_be(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    callback = AccuracyCallback(tokenizer, "problems", rows=3, asked=Asked(max_new_tokens=2))
    assert callback.measure(load_model(resolve(tiny_llama))).keys() == {
        "accuracy/correct",
        "accuracy/unread",
    }
    assert Asked(task="gsm8k").filled().metric == "number"
    rows = [Row("qa", "2 + 3?", "", answer="five")]
    for given, asked, words in (
        (rows, Asked(), "five"),
        ([], Asked(), "no questions"),
        (rows, Asked(metric="bleu"), "bleu"),
        (rows, Asked(prompt_template="Say"), "question"),
    ):
        with pytest.raises(SpringbackError, match=words):
            AccuracyCallback(tokenizer, given, asked=asked)
