"""RLOO against a plain policy gradient, its KL, its noise under branches and resume."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune_runs import interrupted, recipe, same, weights
from springback.errors import DataError, TrainingError
from springback.models.loading import Model, Tokenizer, load_model, load_tokenizer, resolve
from springback.training import Examples, Marks, Prompt, Trained, finetune

RLOO = recipe("rloo", beta=0.0, batch_size=2, generations=4, new_tokens=5)


@pytest.fixture
def start(tiny_llama: Path) -> Model:
    return load_model(resolve(tiny_llama))


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


def vowels(prompts: list[str], texts: list[str]) -> list[float]:
    """The share of bytes that are ASCII letters from a to m."""
    return [sum("a" <= c <= "m" for c in t) / max(1, len(t)) for t in texts]


def examples(number: int, reward: Any = vowels) -> Examples:
    prompts = [Prompt((5 + n % 3, 40 + n, *range(60, 60 + n % 4)), f"{n}") for n in range(number)]
    return Examples(prompts, reward=reward)


def test_one_step_is_the_policy_gradient_with_the_others_as_baseline(
    start: Model, tokenizer: Tokenizer
) -> None:
    """loss = - mean over answers of (reward - mean reward of the prompt's others) * log p."""
    plain = copy.deepcopy(start)
    drawn: list[tuple[Tensor, Tensor]] = []
    given: list[tuple[list[str], list[float]]] = []
    generate: Any = start.generate

    def spy(*args: Any, **kwargs: Any) -> Any:
        drawn.append((kwargs["input_ids"], generate(*args, **kwargs)))
        return drawn[-1][1]

    def reward(prompts: list[str], texts: list[str]) -> list[float]:
        given.append((prompts, vowels(prompts, texts)))
        return given[-1][1]

    vars(start)["generate"] = spy
    done = finetune(start, tokenizer, examples(2, reward), RLOO)
    ((prompts, rewards),) = given
    assert prompts == ["0"] * 4 + ["1"] * 4
    assert done.rewards[0] == pytest.approx(sum(rewards) / 8)
    assert abs(done.losses[0]) < 1e-5  # leave-one-out advantages sum to 0

    ((asked, whole),) = drawn
    terms = []
    for at in range(8):
        prompt = [int(i) for i in asked[at] if int(i) != tokenizer.pad_token_id]
        answer = [int(i) for i in whole[at, asked.shape[1] :]]
        if tokenizer.eos_token_id in answer:  # which counts, and nothing after it
            answer = answer[: answer.index(tokenizer.eos_token_id) + 1]
        others = [rewards[i] for i in range(at // 4 * 4, at // 4 * 4 + 4) if i != at]
        logits = plain(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        logp = torch.log_softmax(logits, -1).gather(-1, torch.tensor(answer)[:, None]).sum()
        terms.append((rewards[at] - sum(others) / 3) * logp)
    loss: Any = -torch.stack(terms).mean()
    loss.backward()
    # AdamW's first step is the learning rate against the gradient's sign.
    checked = 0
    for name, p in plain.named_parameters():
        assert p.grad is not None
        clear = p.grad.abs() > 1e-3 * p.grad.abs().max()
        moved = dict(start.named_parameters())[name].detach() - p.detach()
        expected = -RLOO.learning_rate * p.grad.sign()
        assert torch.allclose(moved[clear], expected[clear], rtol=1e-2)
        checked += int(clear.sum())
    assert checked > 10_000


def test_the_reward_rises(start: Model, tokenizer: Tokenizer) -> None:
    r = recipe("rloo", learning_rate=1e-2, batch_size=4, generations=8, new_tokens=5)
    done = finetune(start, tokenizer, examples(64), r)
    assert sum(done.rewards[-4:]) > sum(done.rewards[:4]) + 4 * 0.1


def test_the_kl_is_to_the_start_and_is_nothing_at_first(start: Model, tokenizer: Tokenizer) -> None:
    strong = recipe("rloo", beta=1.0, batch_size=2, generations=4, new_tokens=5)
    after: list[dict[int, dict[str, Tensor]]] = []

    def at(examples: int, model: Model) -> None:
        after[-1][examples] = weights(model)

    for r, given in ((RLOO, None), (strong, None), (strong, start)):
        after.append({})
        rows = Examples(examples(4).rows, vowels, reference=given)
        finetune(copy.deepcopy(start), tokenizer, rows, r, Marks((2, 4), at))
    assert same(after[0][2], after[1][2])  # policy and reference agree: no penalty
    assert not same(after[0][4], after[1][4])
    assert same(after[1][4], after[2][4])  # the same whether kept by the run or given


def test_a_branch_point_equals_a_run_of_that_length(start: Model, tokenizer: Tokenizer) -> None:
    separate, found = copy.deepcopy(start), {}
    torch.rand(3)  # what was drawn before does not matter
    marks = Marks((4,), lambda n, m: found.update({n: weights(m)}))
    long = finetune(start, tokenizer, examples(6), RLOO, marks)
    short = finetune(separate, tokenizer, examples(4), RLOO)
    assert long.rewards[:2] == short.rewards
    assert same(found[4], weights(separate))


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_resume_ends_in_the_same_weights(
    start: Model, tokenizer: Tokenizer, tmp_path: Path, beta: float
) -> None:
    r = recipe("rloo", beta=beta, batch_size=2, generations=2, new_tokens=4)

    def run(model: Model, **how: Any) -> Trained:
        return finetune(model, tokenizer, examples(6), r, **how)

    (expected, whole), (done, again) = interrupted(start, run, tmp_path)
    assert done == expected
    assert done.tokens > 0
    assert same(weights(whole), weights(again))


def test_another_seed_draws_other_answers(start: Model, tokenizer: Tokenizer) -> None:
    rewards = {
        finetune(copy.deepcopy(start), tokenizer, examples(4), recipe(
            "rloo", seed=seed, batch_size=2, generations=2, new_tokens=5)).rewards
        for seed in (0, 1)
    }  # fmt: skip
    assert len(rewards) == 2


def test_a_reward_that_fails_is_refused(start: Model, tokenizer: Tokenizer) -> None:
    with pytest.raises(TrainingError, match="one finite number for each"):
        finetune(start, tokenizer, examples(2, lambda p, t: [float("nan")] * len(t)), RLOO)
    with pytest.raises(DataError, match="without a reward function"):
        finetune(start, tokenizer, examples(2).rows, RLOO)
