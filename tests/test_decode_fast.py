"""The fast decoder draws the plain loop's tokens, without exception, in fp64 on tiny models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from springback.decode import DecodeSettings, Hooks, Speculation, Work, decode, decode_fast
from springback.decode.drafts import NgramIndex, Pace
from springback.errors import SpringbackError

STOPS = (7, 19, 23, 101)
WORDS = random.Random(0)
#: Lengths 3 to 18, each with a repetition, so that look-up finds something.
PROMPTS = [
    (lambda words: words + words)([WORDS.randrange(300) for _ in range(WORDS.randrange(2, 10))])[1:]
    for _ in range(16)
]
BASE = DecodeSettings(max_new_tokens=14, stop_ids=STOPS, keyed_noise=True, seed=11)


def tiny(perturb: float, seed: int = 0) -> Any:
    """A random Llama in fp64; ``perturb`` moves its weights, the same seed the same way."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            initializer_range=0.7,
        )
        model = LlamaForCausalLM(config).double().eval()
        torch.manual_seed(seed + 1)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(perturb * torch.randn_like(p))
    return model


@cache
def expert() -> Any:
    return tiny(0.0)


@cache
def amateur() -> Any:
    return tiny(0.05)


@cache
def truth(settings: DecodeSettings) -> tuple[tuple[int, ...], ...]:
    found = decode(expert(), PROMPTS, replace(settings, batch_size=16), amateur())
    return tuple(map(tuple, found))


def fast(
    settings: DecodeSettings, prompts: Sequence[Sequence[int]] = PROMPTS, **speculation: Any
) -> tuple[tuple[tuple[int, ...], ...], Work]:
    found = decode_fast(
        expert(), prompts, settings, amateur(), speculation=Speculation(**speculation)
    )
    assert found.work is not None
    return tuple(map(tuple, found.answers)), found.work


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(("lam", "alpha"), list(product((0.25, 1.0, 4.0), (0.01, 0.1, 0.5))))
def test_tokens_are_those_of_the_plain_loop(lam: float, alpha: float, temperature: float) -> None:
    settings = replace(BASE, lam=lam, alpha=alpha, temperature=temperature)
    expected = truth(settings)
    assert len({len(a) for a in expected}) > 1, "rows must end at different times"
    for batch, count in ((1, 2), (4, 8), (16, 16)):
        for draft, length in (("none", 0), ("ngram", 3), ("amateur", 3)):
            held = replace(settings, batch_size=batch)
            got, _ = fast(held, PROMPTS[:count], draft=draft, length=length)
            assert got == expected[:count], (batch, draft)


def test_the_pair_is_contested_as_often_as_real_ones() -> None:
    """The tests above mean something if 20 to 40 % of positions are contested and drafts hold."""
    settings = replace(BASE, lam=1.0, batch_size=4, max_new_tokens=40, stop_ids=())
    _, lazy = fast(settings, draft="none")
    print(lazy)
    assert 0.2 < lazy.contested / lazy.tokens < 0.4
    _, look_up = fast(settings, draft="ngram", length=3)
    print(look_up)
    assert look_up.accepted > 0 and look_up.accepted < look_up.drafted
    assert look_up.expert_calls < lazy.expert_calls
    _, by_amateur = fast(settings, draft="amateur", length=3)
    print(by_amateur)
    assert by_amateur.accepted > 0.5 * by_amateur.drafted
