"""The step that codes and decodes: shapes, integer probabilities, exact handing over."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from springback.compression import coder as steps
from springback.errors import ModelError
from springback.models.loading import fixed_threads


def test_chunks_are_as_few_as_fit_and_equally_long() -> None:
    # 10 tokens in chunks of at most 4: three chunks, 4 + 3 + 3; two groups of 2 and 1.
    assert steps.plan(10, chunk=4, batch=2) == [(4, 3), (3,)]
    assert steps.plan(8, chunk=4, batch=2) == [(4, 4)]
    assert steps.plan(1, chunk=1024, batch=64) == [(1,)]
    assert steps.plan(0, chunk=4, batch=2) == []


def test_every_plan_holds_all_tokens_within_its_limits() -> None:
    for tokens in range(1, 200):
        for chunk, batch in ((1, 3), (7, 2), (16, 64), (300, 1)):
            groups = steps.plan(tokens, chunk, batch)
            flat = [length for group in groups for length in group]
            assert sum(flat) == tokens
            assert len(flat) == math.ceil(tokens / chunk)
            assert max(map(len, groups)) <= batch
            assert flat == sorted(flat, reverse=True)  # rows leave a batch from the last one up
            assert max(flat) - min(flat) <= 1


def test_probabilities_are_integers_that_sum_to_2_to_the_24() -> None:
    logits = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0)) * 6
    logits[0, 0] = 500.0  # all the mass on one token
    weights = steps.quantise(logits)
    assert weights.dtype == np.float64
    assert (weights == np.floor(weights)).all()
    assert (weights >= 0).all()
    assert ((weights + 1).sum(1) == 2**24).all()
    # Half and half, by hand: (2**24 - 2) / 2 each, so each has probability exactly 1/2.
    assert steps.quantise(torch.zeros(1, 2)).tolist() == [[2**23 - 1, 2**23 - 1]]


def test_quantising_costs_at_most_the_mass_of_the_vocabulary() -> None:
    logits = torch.randn(50, 5000, generator=torch.Generator().manual_seed(1)) * 4
    q = (steps.quantise(logits) + 1) / 2**24
    p = torch.softmax(logits.double(), -1).numpy()
    lost = (p * (np.log2(p) - np.log2(q))).sum(1)  # bits a token: KL(p || q)
    assert lost.min() >= -1e-6  # p sums to one up to rounding
    assert lost.max() < -math.log2(1 - 5000 / 2**24) + 1e-6


def test_logits_that_are_no_numbers_are_refused() -> None:
    for bad in (math.nan, math.inf):
        logits = torch.zeros(2, 4)
        logits[1, 2] = bad
        with pytest.raises(ModelError, match="not all finite"):
            steps.quantise(logits)


def test_the_range_coder_takes_the_integers_as_they_are() -> None:
    """Its boundaries between symbols are exactly the sums of w + 1, with nothing rescaled.

    A range decoder of two words at the start has lower = 0 and range = 2**64 - 1; it decodes the
    symbol in which point / (range >> 24) falls.
    """
    coder = steps.coder_library()
    logits = torch.randn(1, 500, generator=torch.Generator().manual_seed(2)) * 5
    weights = steps.quantise(logits)
    lefts = np.concatenate([[0], np.cumsum(weights[0] + 1)]).astype(int).tolist()
    assert lefts[-1] == 2**24
    scale = (2**64 - 1) >> 24
    family = coder.stream.model.Categorical(perfect=False)

    def decode(point: int) -> int:
        words = np.array([point >> 32, point & 0xFFFFFFFF], dtype=np.uint32)
        return int(coder.stream.queue.RangeDecoder(words).decode(family, weights)[0])

    for symbol in range(500):
        assert decode(lefts[symbol] * scale) == symbol
        assert decode(lefts[symbol + 1] * scale - 1) == symbol


def test_a_stream_is_as_long_as_its_probabilities_say() -> None:
    coder = steps.coder_library()
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(4000, 300)) * 3)
    weights = steps.quantise(logits)
    symbols = np.array([rng.choice(300, p=(w + 1) / 2**24) for w in weights], dtype=np.int32)
    bits = -np.log2((weights[np.arange(4000), symbols] + 1) / 2**24).sum()
    encoder = coder.stream.queue.RangeEncoder()
    encoder.encode(symbols, coder.stream.model.Categorical(perfect=False), weights)
    assert bits <= encoder.num_bits() <= bits + 64


def test_threads_are_set_and_put_back() -> None:
    before = torch.get_num_threads()
    with fixed_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
