"""Noise of many rows at once is the noise of each: same numbers, on any device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from springback.decoding import philox
from springback.decoding.sampling import Answer, Chooser, KeyedNoise, RowStreams
from springback.decoding.settings import NO_HOOKS, DecodeSettings

CPU = torch.device("cpu")
PLACES = [(0, 0), (3, 0), (3, 1), (70_000, 511), (1, 2**40)]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 257, 49_152])
def test_philox_in_torch_is_numpys_to_the_bit(width: int) -> None:
    key = [2**64 - 5, 0x0123456789ABCDEF]
    made = philox.raw(key, PLACES, width, CPU)
    for (row, position), numbers in zip(PLACES, made, strict=True):
        counter = np.array([0, 0, position, row], np.uint64)
        raw = np.random.Philox(key=np.array(key, np.uint64), counter=counter).random_raw(width)
        assert np.array_equal(numbers.numpy().view(np.uint64), raw)


def test_keyed_noise_of_rows_is_that_of_each() -> None:
    noise, tokens = KeyedNoise(7), torch.arange(1001)
    together = noise.gumbel_rows(PLACES, 1001, CPU)
    assert together.dtype == torch.float64
    for place, row in zip(PLACES, together, strict=True):
        torch.testing.assert_close(row, noise.gumbel(*place, 1001, tokens), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("width", [317, 1000, 49_152])
def test_streams_of_rows_are_those_of_each_to_the_bit(width: int) -> None:
    """Also of the candidates alone, which is how they were once drawn."""
    one, many = RowStreams(5), RowStreams(5)
    tokens = (torch.arange(width) % 7 > 0).nonzero()[:, 0]
    for position in range(3):
        rows = [0, 2, 9] if position < 2 else [2]
        together = many.gumbel_rows([(row, position) for row in rows], width, CPU)
        for row, noise in zip(rows, together, strict=True):
            assert torch.equal(noise[tokens], one.gumbel(row, position, width, tokens))


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(
    "filters", [{}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 40, "top_p": 0.9, "min_p": 0.02}]
)
def test_rows_drawn_at_once_draw_what_each_draws(keyed: bool, filters: dict[str, float]) -> None:
    settings = DecodeSettings(temperature=0.8, seed=3, keyed_noise=keyed, **filters)  # type: ignore[arg-type]
    scores = torch.randn(6, 500, generator=torch.Generator().manual_seed(0))
    scores[:, ::3] = -torch.inf
    answers = [Answer(row, [1, 2, 3]) for row in range(6)]
    kind = KeyedNoise if keyed else RowStreams
    one, many = (Chooser(settings, NO_HOOKS, kind(3)) for _ in range(2))
    assert many._draw_all(scores, answers) == [
        one._draw(row, answer) for row, answer in zip(scores, answers, strict=True)
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="draws on a GPU need one")
@pytest.mark.parametrize("keyed", [False, True])
def test_a_gpu_draws_what_a_cpu_draws(keyed: bool) -> None:
    settings = DecodeSettings(temperature=1.0, seed=3, keyed_noise=keyed)
    scores = torch.randn(8, 1000, generator=torch.Generator().manual_seed(1))
    answers = [Answer(row, [1, 2]) for row in range(8)]
    kind = KeyedNoise if keyed else RowStreams
    here, there = (Chooser(settings, NO_HOOKS, kind(3)) for _ in range(2))
    assert here.next_tokens(scores, None, answers) == there.next_tokens(
        scores.cuda(), None, answers
    )
