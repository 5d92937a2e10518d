"""DPO, KTO, SimPO and ORPO against their formulas; branches, resume, and what is left behind."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from finetune_runs import (
    Killer,
    Rows,
    Stop,
    interrupted,
    log_p,
    pairs_for,
    recipe,
    rows_for,
    same,
    weights,
)
from springback.core import Recipe
from springback.errors import DataError, MissingExtraError, SpringbackError
from springback.models.loading import Model, Tokenizer, load_model, load_tokenizer, resolve
from springback.training import Examples, Labelled, Marks, Preference, Resume, Trained, finetune

ALGORITHMS = ("dpo", "kto", "simpo", "orpo")


@pytest.fixture
def start(tiny_llama: Path) -> Model:
    return load_model(resolve(tiny_llama))


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


def plain_loss(model: Model, start: Model, batch: Rows, r: Recipe) -> float:
    """The loss as the papers write it."""
    beta, each = r.beta or 0.0, []
    if r.algorithm == "kto":
        lone = [row for row in batch if isinstance(row, Labelled)]
        before = [lone[-1], *lone[:-1]]
        gap = [
            log_p(model, x.prompt, y.completion) - log_p(start, x.prompt, y.completion)
            for x, y in zip(lone, before, strict=True)
        ]
        z = torch.stack(gap).mean().clamp(min=0)
        for row in lone:
            reward = log_p(model, row.prompt, row.completion)
            reward = reward - log_p(start, row.prompt, row.completion)
            if row.desirable:
                each.append(r.desirable_weight * (1 - torch.sigmoid(beta * (reward - z))))
            else:
                each.append(r.undesirable_weight * (1 - torch.sigmoid(beta * (z - reward))))
        return float(torch.stack(each).mean())
    texts, tokens = torch.zeros(()), 0
    for pair in (row for row in batch if isinstance(row, Preference)):
        good, bad = log_p(model, pair.prompt, pair.chosen), log_p(model, pair.prompt, pair.rejected)
        if r.algorithm == "dpo":
            good = good - log_p(start, pair.prompt, pair.chosen)
            bad = bad - log_p(start, pair.prompt, pair.rejected)
            each.append(-F.logsigmoid(beta * (good - bad)))
        elif r.algorithm == "orpo":
            odds = [
                p / (1 - p)
                for p in (torch.exp(good / len(pair.chosen)), torch.exp(bad / len(pair.rejected)))
            ]
            each.append(-beta * F.logsigmoid(torch.log(odds[0] / odds[1])))
            whole = (*pair.prompt, *pair.chosen)
            texts, tokens = texts - log_p(model, whole[:1], whole[1:]), tokens + len(whole) - 1
        else:
            gap_a_token = good / len(pair.chosen) - bad / len(pair.rejected)
            each.append(-F.logsigmoid(beta * gap_a_token - r.gamma))
    return float(torch.stack(each).mean() + texts / max(1, tokens))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_losses_are_the_papers_formula(start: Model, tokenizer: Tokenizer, algorithm: str) -> None:
    weighed = {"desirable_weight": 2.0, "undesirable_weight": 0.5} if algorithm == "kto" else {}
    r = recipe(algorithm, **weighed)
    rows, frozen = rows_for(algorithm, 12), copy.deepcopy(start)
    expected: list[float] = []

    def at(examples: int, model: Model) -> None:
        expected.append(plain_loss(model, frozen, rows[examples : examples + 4], r))

    done = finetune(start, tokenizer, rows, r, Marks((0, 4, 8), at))
    assert done.losses == pytest.approx(expected, rel=1e-5)
    if algorithm == "dpo":
        assert done.losses[0] == pytest.approx(math.log(2), abs=1e-7)
    if algorithm == "kto":  # model and reference agree: sigmoid(0), 2 + 2 rows a label
        assert done.losses[0] == pytest.approx((2.0 * 2 + 0.5 * 2) / 4 / 2, abs=1e-7)
    assert len(set(expected)) == 3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_lowers_the_loss_and_prefers_the_wanted_answer(
    start: Model, tokenizer: Tokenizer, algorithm: str
) -> None:
    held_out = pairs_for(9)

    def margin(model: Model) -> float:
        gaps = [
            log_p(model, p.prompt, p.chosen) / len(p.chosen)
            - log_p(model, p.prompt, p.rejected) / len(p.rejected)
            for p in held_out
        ]
        return float(torch.stack(gaps).mean())

    before = margin(start)
    # ORPO's loss is mostly the NLL of random texts, which takes longer.
    r = recipe(algorithm, learning_rate=1e-2, epochs=2 if algorithm == "orpo" else 1)
    done = finetune(start, tokenizer, rows_for(algorithm, 32), r)
    assert sum(done.losses[-2:]) < 0.9 * sum(done.losses[:2])
    assert margin(start) > before + 0.3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_branch_point_equals_a_run_of_that_length(
    start: Model, tokenizer: Tokenizer, algorithm: str
) -> None:
    separate, rows = copy.deepcopy(start), rows_for(algorithm, 12)
    found: dict[int, dict[str, Tensor]] = {}
    marks = Marks((0, 8), lambda n, model: found.update({n: weights(model)}))
    long = finetune(start, tokenizer, rows, recipe(algorithm), marks)
    short = finetune(separate, tokenizer, rows[:8], recipe(algorithm))
    assert long.losses[:2] == short.losses
    assert same(found[8], weights(separate))
    assert not same(found[0], found[8])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_resume_ends_in_the_same_weights(
    start: Model, tokenizer: Tokenizer, tmp_path: Path, algorithm: str
) -> None:
    rows, r = rows_for(algorithm, 10), recipe(algorithm, epochs=2)
    marks = Marks((4, 8), lambda n, m: float(next(m.parameters()).detach().sum()))

    def run(model: Model, **how: Any) -> Trained:
        return finetune(model, tokenizer, rows, r, marks, **how)

    (expected, whole), (done, again) = interrupted(start, run, tmp_path, steps=4)
    assert done == expected
    assert same(weights(whole), weights(again))


def test_a_given_reference_is_used_and_left_alone(start: Model, tokenizer: Tokenizer) -> None:
    rows, other = rows_for("dpo", 4), copy.deepcopy(start)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.9)
    before = weights(other)
    expected = plain_loss(start, other, rows, recipe("dpo"))
    done = finetune(start, tokenizer, Examples(rows, reference=other), recipe("dpo"))
    assert done.losses == pytest.approx([expected], rel=1e-5)
    assert expected != pytest.approx(math.log(2), abs=1e-3)
    assert same(before, weights(other))
    assert "forward" not in vars(other)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_autocast_keeps_fp32_weights_and_nearly_the_loss(
    start: Model, tokenizer: Tokenizer, algorithm: str
) -> None:
    rows, plain = rows_for(algorithm, 4), copy.deepcopy(start)
    expected = finetune(plain, tokenizer, rows, recipe(algorithm)).losses
    done = finetune(start, tokenizer, rows, recipe(algorithm, precision="bf16-mixed"))
    assert {p.dtype for p in start.parameters()} == {torch.float32}
    assert done.losses == pytest.approx(expected, rel=0.05)


def test_nothing_is_left_in_the_model_or_the_folder_and_nothing_is_sent(
    start: Model, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trl.trainer.base_trainer as base

    sent: list[Any] = []
    monkeypatch.setattr(base, "send_telemetry", lambda *a, **k: sent.append((a, k)))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(tmp_path)
    start.config.pad_token_id = 7
    kept = set(vars(start))
    seen: list[bool] = []
    marks = Marks((4,), lambda n, m: seen.append("forward" in vars(m)))
    for algorithm in ALGORITHMS:
        finetune(start, tokenizer, rows_for(algorithm, 8), recipe(algorithm), marks)
    assert set(vars(start)) - kept <= {"_is_accelerate_prepared"}  # as after any Trainer
    assert start.config.pad_token_id == 7
    assert seen == [False] * len(ALGORITHMS)  # nor at a mark
    assert list(tmp_path.iterdir()) == []
    assert sent == []


def test_tokens_count_the_answers(start: Model, tokenizer: Tokenizer) -> None:
    pairs = [Preference((5, 6), (7, 8, 9), (10, 11)), Preference((5,), (7,), (10, 11))]
    for algorithm in ("dpo", "simpo"):
        assert finetune(start, tokenizer, pairs, recipe(algorithm)).tokens == 3 + 2 + 1 + 2
    lone = [Labelled((5, 6), (7, 8, 9), True), Labelled((5,), (7,), False)]
    assert finetune(start, tokenizer, lone, recipe("kto")).tokens == 3 + 1


@pytest.mark.parametrize("algorithm", ["dpo", "kto"])
def test_a_run_killed_before_its_first_save_keeps_the_references_pass(
    start: Model, tokenizer: Tokenizer, tmp_path: Path, algorithm: str
) -> None:
    def run(model: Model, **how: Any) -> Trained:
        return finetune(model, tokenizer, rows_for(algorithm, 8), recipe(algorithm), **how)

    whole, killed, again = (copy.deepcopy(start) for _ in range(3))
    expected = run(whole)
    resume = Resume(tmp_path / "state", save_every=1e9)
    with pytest.raises(Stop):
        run(killed, resume=resume, progress=Killer(0))
    (saved,) = (tmp_path / "state").glob("step-*")
    assert saved.name == "step-00000000"
    assert run(again, resume=resume) == expected
    assert same(weights(whole), weights(again))


def test_kto_refuses_a_batch_of_one(start: Model, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="every batch needs two rows"):
        finetune(start, tokenizer, rows_for("kto", 9), recipe("kto"))


def test_rows_of_another_algorithm_are_refused(start: Model, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="given: Labelled rows with algorithm dpo"):
        finetune(start, tokenizer, rows_for("kto", 4), recipe("dpo"))
    with pytest.raises(DataError, match="no rows"):
        finetune(start, tokenizer, [], recipe("dpo"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gamma": 0.5}, "gamma 0.5 with algorithm dpo"),
        ({"generations": 8}, "with rloo"),
        ({"beta": 0.0}, "above 0"),
        ({"lora_rank": 4}, "call add_lora"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    start: Model, tokenizer: Tokenizer, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpringbackError, match=said):
        finetune(start, tokenizer, rows_for("dpo", 4), recipe("dpo", **change))


def test_without_trl_the_extra_is_named(
    start: Model, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import springback.training

    monkeypatch.delattr(springback.training, "preference", raising=False)
    monkeypatch.delitem(sys.modules, "springback.training.preference", raising=False)
    for name in [n for n in sys.modules if n.startswith("trl.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(MissingExtraError, match=r"springback\[train\]"):
        finetune(start, tokenizer, rows_for("dpo", 4), recipe("dpo"))
