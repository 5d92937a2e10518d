"""Utility: NLL of neutral texts, and multiple choice by likelihood against a plain reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from springback import probes
from springback.core import Row
from springback.data import bare_question, choice_problems, problem_texts
from springback.errors import DataError
from springback.models.encoding import encode_answer, encode_rows
from springback.models.loading import Model, Tokenizer, load_model, load_tokenizer, resolve
from springback.probes import ChoiceScore


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


@pytest.fixture(scope="module")
def bare_tokenizer(tiny_llama: Path) -> Tokenizer:
    """Without a chat template."""
    found = load_tokenizer(resolve(tiny_llama))
    found.chat_template = None
    return found


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Model:
    return load_model(resolve(tiny_llama))


@torch.no_grad()
def log_likelihood(model: Model, tokenizer: Tokenizer, prompt: str, answer: str) -> float:
    """Of ``answer`` behind ``prompt``, in fp64: the plain way."""
    head = tokenizer(prompt)["input_ids"]
    ids = head + tokenizer(answer)["input_ids"]
    logp = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return float(sum(logp[i - 1, ids[i]] for i in range(len(head), len(ids))))


def test_neutral_nll_is_the_nll_a_token_of_each_text(model: Model, tokenizer: Tokenizer) -> None:
    rows = encode_rows(tokenizer, problem_texts(4).rows, 64)
    scores = probes.nll(model, rows, tokenizer)
    found = probes.neutral_nll(model, rows, tokenizer)
    assert found == [s.nats / s.tokens for s in scores]


QUESTION = Row("qa", "What hears?\nA. the heron\nB. thing", "", "B", choices=("the heron", "thing"))


def test_choices_are_scored_behind_the_question_without_their_list(
    model: Model, tokenizer: Tokenizer, bare_tokenizer: Tokenizer
) -> None:
    (found,) = probes.choice_scores(model, [QUESTION], bare_tokenizer)
    plain = [
        log_likelihood(model, bare_tokenizer, "Question: What hears?\nAnswer:", answer)
        for answer in (" the heron", " thing")
    ]
    assert found.log_likelihoods == pytest.approx(plain, rel=1e-5)
    assert found.text_bytes == (9, 5)
    assert found.answer == 1
    # With a chat template: the template's prompt, no space, no end of turn.
    (found,) = probes.choice_scores(model, [QUESTION], tokenizer, system="the")
    head = (
        "<|im_start|>system\nthe<|im_end|>\n<|im_start|>user\nWhat hears?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    plain = [log_likelihood(model, tokenizer, head, answer) for answer in QUESTION.choices]
    assert found.log_likelihoods == pytest.approx(plain, rel=1e-5)


def test_built_in_questions_are_scored_in_order_whatever_the_batch(
    model: Model, tokenizer: Tokenizer
) -> None:
    rows = choice_problems(6).rows
    small = probes.choice_scores(model, rows, tokenizer, probes.Precision(batch_tokens=1))
    large = probes.choice_scores(model, rows, tokenizer, probes.Precision(batch_tokens=4096))
    assert [s.answer for s in large] == ["ABCD".index(str(r.answer)) for r in rows]
    for a, b, row in zip(small, large, rows, strict=True):
        assert a.log_likelihoods == pytest.approx(b.log_likelihoods, rel=1e-5)
        one = encode_answer(tokenizer, replace(row, prompt=bare_question(row)), row.choices[2])
        (score,) = probes.nll(model, [one], tokenizer)
        assert b.log_likelihoods[2] == pytest.approx(-score.nats, rel=1e-5)


def test_accuracy_both_ways_by_hand() -> None:
    """Summed: -4 beats -6 and -5; a byte: -4 / 2 = -2, -6 / 6 = -1, -5 / 4 = -1.25."""
    likelihoods, sizes = (-4.0, -6.0, -5.0), (2, 6, 4)
    scores = [ChoiceScore(likelihoods, sizes, answer) for answer in (0, 1, 2, 0)]
    assert [s.correct for s in scores] == [True, False, False, True]
    assert [s.correct_by_bytes for s in scores] == [False, True, False, False]
    assert probes.choice_accuracy(scores) == 0.5
    assert probes.choice_accuracy(scores, by_bytes=True) == 0.25


def test_bytes_are_utf8_bytes(model: Model, tokenizer: Tokenizer) -> None:
    row = Row("qa", "Which?", "", "A", choices=("é", "漢字"))
    (found,) = probes.choice_scores(model, [row], tokenizer)
    assert found.text_bytes == (2, 6)


def test_a_model_that_knows_the_answers_is_right(model: Model, tokenizer: Tokenizer) -> None:
    """A few steps on the right choice of one question make it the likeliest."""
    import copy

    row = choice_problems(1, seed=3).rows[0]
    wanted = "ABCD".index(str(row.answer))
    one = encode_answer(tokenizer, replace(row, prompt=bare_question(row)), row.choices[wanted])
    taught = copy.deepcopy(model)
    optimizer = torch.optim.SGD(taught.parameters(), lr=0.1)
    labels = torch.tensor([[-100] * one.start + list(one.ids[one.start :])])
    for _ in range(20):
        loss = taught(input_ids=torch.tensor([one.ids]), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    (score,) = probes.choice_scores(taught, [row], tokenizer)
    assert score.correct
    assert score.correct_by_bytes
    # Each question has its own answer: another one named right makes the same scores wrong.
    other = "ABCD"[(wanted + 1) % 4]
    (score,) = probes.choice_scores(taught, [replace(row, answer=other)], tokenizer)
    assert not score.correct


@pytest.mark.parametrize(
    "row",
    [
        Row("qa", "What?", "", "B"),
        Row("qa", "What?", "", "C", choices=("a", "b")),
        Row("qa", "What?", "", None, choices=("a", "b")),
        Row("qa", "What?", "", "AB", choices=("a", "b")),
        Row("qa", "What?", "", "", choices=("a", "b")),
        Row("qa", "What?", "", "A", choices=("a",)),
    ],
)
def test_a_row_that_is_no_multiple_choice_is_refused(
    model: Model, tokenizer: Tokenizer, row: Row
) -> None:
    with pytest.raises(DataError, match="allowed: two or more, and a letter that names one"):
        probes.choice_scores(model, [row], tokenizer)


def test_an_empty_choice_is_refused(model: Model, tokenizer: Tokenizer) -> None:
    row = Row("qa", "What?", "", "A", choices=("a", ""))
    with pytest.raises(DataError, match="has no tokens"):
        probes.choice_scores(model, [row], tokenizer)
