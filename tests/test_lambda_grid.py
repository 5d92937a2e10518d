"""Variants that share their path give the tokens of decoding each alone, in fp64 on tiny models."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from decode_fixture import amateur, expert, tiny
from springback.decoding import (
    DecodeSettings,
    Speculation,
    contrast,
    decode,
    decode_fast,
    decode_variants,
)
from springback.decoding import lambda_grid as module
from springback.decoding.contrast import Gate, parse_gate
from springback.errors import SpringbackError
from test_decoding_fast import BASE, PROMPTS

LAMS = (0.0, 0.25, 1.0, 4.0)
GREEDY = replace(BASE, max_new_tokens=16, batch_size=6)


def alone(settings: DecodeSettings, lam: float) -> list[list[int]]:
    return decode(expert(), PROMPTS, replace(settings, lam=lam), amateur())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"alpha": 0.01, "batch_size": 16},
        {"stop_ids": (), "batch_size": 1},
        {"forbidden_ids": (3, 4)},
        {"gate": Gate("top", 0.7)},
        {"gate": Gate("entropy", 1.0)},
    ],
)
def test_every_variant_has_the_tokens_it_has_alone(change: dict[str, Any]) -> None:
    """Without known answers, with those of lambda 0, with cut ones and with wrong ones."""
    settings = replace(GREEDY, **change)
    expected = {lam: alone(settings, lam) for lam in LAMS}
    plain = expected[0.0]
    assert any(expected[lam] != plain for lam in LAMS), "the variants must differ somewhere"
    cut = [a[: i % 5] for i, a in enumerate(plain)]
    wrong = [[*a[:3], 9, *a[4:]] for a in plain]
    for known in (None, plain, cut, wrong, expected[4.0]):
        found, work = decode_variants((expert(), amateur()), PROMPTS, settings, LAMS, known)
        assert found == expected
        assert work.forks > 0


def test_prompts_that_begin_alike_have_the_tokens_they_have_alone() -> None:
    """With and without known answers; the beginning is read once by each model."""
    begin = [7, 5, 9, 11, 4, 6, 8, 10]
    asked = [[*begin, *p] for p in PROMPTS]
    settings = replace(GREEDY, batch_size=len(asked))
    expected = {lam: decode(expert(), asked, replace(settings, lam=lam), amateur()) for lam in LAMS}
    assert any(expected[lam] != expected[0.0] for lam in LAMS)
    for known in (None, expected[0.0]):
        found, _ = decode_variants((expert(), amateur()), asked, settings, LAMS, known)
        assert found == expected


def test_known_answers_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary too large for one block: four known tokens at a time."""
    monkeypatch.setattr(module, "BLOCK_LOGITS", 1)
    plain = alone(GREEDY, 0.0)
    pair = (expert(), amateur())
    found, _ = decode_variants(pair, PROMPTS, GREEDY, LAMS, plain)
    assert found == {lam: alone(GREEDY, lam) for lam in LAMS}


def test_a_shared_path_is_run_once() -> None:
    """Without a difference there is one row a prompt, and known answers cost one pass a batch."""
    plain = alone(GREEDY, 0.0)
    found, work = decode_variants((expert(), expert()), PROMPTS, GREEDY, LAMS)
    assert all(answers == plain for answers in found.values())
    assert work.forks == 0
    assert work.expert_rows <= 16 * len(PROMPTS)
    _, known = decode_variants((expert(), amateur()), PROMPTS, GREEDY, (0.0,), plain)
    assert known.expert_calls == math.ceil(len(PROMPTS) / GREEDY.batch_size)
    assert known.amateur_calls == 0


def test_variants_cost_less_than_each_alone() -> None:
    pair = (expert(), amateur())
    _, together = decode_variants(pair, PROMPTS, GREEDY, LAMS)
    single = [decode_variants(pair, PROMPTS, GREEDY, (lam,))[1] for lam in LAMS]
    assert together.expert_rows < 0.8 * sum(work.expert_rows for work in single)


def test_another_models_answers_help_and_change_nothing() -> None:
    """Answers of a neighbour in weight space, as in the search for mu."""
    near = tiny(0.003)
    expected = decode(near, PROMPTS, GREEDY)
    found, work = decode_variants((near, None), PROMPTS, GREEDY, (0.0,), alone(GREEDY, 0.0))
    assert found[0.0] == expected
    _, without = decode_variants((near, None), PROMPTS, GREEDY, (0.0,))
    assert work.expert_calls < without.expert_calls


def test_models_whose_cache_cannot_be_cropped_are_decoded_plainly() -> None:
    config = Gemma3TextConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=4,
    )
    torch.manual_seed(0)
    sliding: Any = Gemma3ForCausalLM(config).double()
    sliding.eval()
    settings = replace(GREEDY, max_new_tokens=4)
    found, work = decode_variants((sliding, sliding), PROMPTS[:3], settings, (0.0, 1.0))
    assert found[1.0] == decode(sliding, PROMPTS[:3], replace(settings, lam=1.0), sliding)
    assert work.expert_calls == 0


@pytest.mark.parametrize(
    "change", [{"temperature": 0.5}, {"repetition_penalty": 1.2}, {"stop_strings": ("x",)}]
)
def test_only_greedy_decoding_has_variants(change: dict[str, Any]) -> None:
    with pytest.raises(SpringbackError, match="greedy"):
        decode_variants((expert(), amateur()), PROMPTS, replace(GREEDY, **change), LAMS)


def test_a_gate_opens_where_the_expert_is_uncertain() -> None:
    """p = (0.8, 0.2): entropy 0.5004 nats.  p = (0.5, 0.5): ln 2 = 0.6931."""
    logits = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log()
    for gate, expected in {
        "top:0.7": [False, True],
        "top:0.81": [True, True],
        "entropy:0.6": [False, True],
        "entropy:0.5": [True, True],
        "entropy:0.7": [False, False],
    }.items():
        assert contrast.uncertain(logits, parse_gate(gate)).tolist() == expected, gate
    weak = torch.zeros(2, 2)
    held = contrast.gated(logits, weak, parse_gate("top:0.7"))
    assert torch.equal(held, torch.stack([logits[0], weak[0]]))
    assert str(parse_gate("top:0.7")) == "top:0.7"


@pytest.mark.parametrize("text", ["top", "top:2", "top:0", "entropy:-1", "entropy:inf", "odds:1"])
def test_a_gate_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(SpringbackError, match="--gate"):
        parse_gate(text)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_fast_decoder_keeps_to_the_gate(temperature: float) -> None:
    settings = replace(GREEDY, lam=1.0, temperature=temperature, gate=Gate("top", 0.6))
    expected = decode(expert(), PROMPTS, settings, amateur())
    assert expected != decode(expert(), PROMPTS, replace(settings, gate=None), amateur())
    for draft in ("none", "ngram", "amateur"):
        got = decode_fast(expert(), PROMPTS, settings, amateur(), speculation=Speculation(draft, 3))
        assert got.answers == expected
