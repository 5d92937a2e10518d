"""The fast decoder draws the plain loop's tokens: every combination, 50 prompts each, in fp64."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import product

import pytest

from decode_fixture import adapters, amateur, expert, prompts
from springback.decoding import DecodeSettings, Speculation, decode, decode_fast

PROMPTS = prompts(50)
STRENGTHS = list(product((0.25, 1.0, 4.0), (0.01, 0.1, 0.5)))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(("lam", "alpha"), STRENGTHS)
@pytest.mark.parametrize("kind", ["full weights", "adapters"])
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_tokens_are_those_of_the_plain_loop(
    batch: int, kind: str, lam: float, alpha: float, temperature: float
) -> None:
    pair = adapters() if kind == "adapters" else (expert(), amateur())
    settings = DecodeSettings(
        max_new_tokens=12,
        lam=lam,
        alpha=alpha,
        temperature=temperature,
        batch_size=batch,
        stop_ids=(7, 19, 23),
        seed=11,
        keyed_noise=True,
    )
    expected = decode(pair[0], PROMPTS, settings, pair[1])
    assert len({len(a) for a in expected}) > 3, "rows must end at different times"
    ways = [Speculation("ngram", 3), Speculation("amateur", 3)]
    if temperature:
        ways = ways[:1]
    elif batch == 4:
        ways.append(Speculation())  # drafts depend on time, tokens must not
    for speculation in ways:
        found = decode_fast(pair[0], PROMPTS, settings, pair[1], speculation=speculation)
        assert found.answers == expected, speculation


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler for CPUs needs g++")
def test_compiled_models_draw_the_plain_loops_tokens() -> None:
    """The code that a GPU runs with ``cache="compiled"``, here compiled for the CPU."""
    settings = DecodeSettings(
        max_new_tokens=12, lam=1.0, batch_size=2, stop_ids=(7, 19, 23), keyed_noise=True
    )
    for temperature in (0.0, 0.8):
        held = replace(settings, temperature=temperature)
        expected = decode(expert(), PROMPTS[:6], held, amateur())
        found = decode_fast(
            expert(),
            PROMPTS[:6],
            held,
            amateur(),
            speculation=Speculation("ngram", 3, cache="compiled"),
        )
        assert found.answers == expected
