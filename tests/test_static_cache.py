"""Caches of fixed shape give the plain loop's tokens; what a GPU replays is run here on the CPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from decode_fixture import adapters, amateur, expert, prompts, tiny
from springback.decoding import DecodeSettings, Speculation, decode, decode_fast, static_cache
from springback.errors import SpringbackError

PROMPTS = prompts(5)
BASE = DecodeSettings(
    max_new_tokens=12, lam=1.0, batch_size=4, stop_ids=(7, 19, 23), keyed_noise=True, seed=11
)


def fast(pair: tuple[Any, Any], settings: DecodeSettings, **how: Any) -> list[list[int]]:
    speculation = Speculation(cache="static", **how)
    return decode_fast(pair[0], PROMPTS, settings, pair[1], speculation=speculation).answers


@pytest.mark.parametrize("kind", ["full weights", "adapters"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_tokens_are_those_of_the_plain_loop(kind: str, temperature: float) -> None:
    """Batches of 4 and 1: rows end at different times, and a smaller batch uses the same slots."""
    pair = adapters() if kind == "adapters" else (expert(), amateur())
    settings = replace(BASE, temperature=temperature)
    expected = decode(pair[0], PROMPTS, settings, pair[1])
    assert len({len(a) for a in expected}) > 1
    for draft in ("ngram", "amateur"):
        assert fast(pair, settings, draft=draft, length=3) == expected, draft


@pytest.mark.parametrize("kind", ["gpt2", "opt", "qwen3"])
def test_other_architectures(kind: str) -> None:
    """Learned positions, positions with an offset, rotary ones with normed queries."""
    same = {"vocab_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
    more: dict[str, dict[str, Any]] = {
        "gpt2": {"initializer_range": 0.5},
        "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.5},
        "qwen3": {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8},
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **same, **more[kind])
    build: Any = AutoModelForCausalLM.from_config
    pair = [build(config).double().eval() for _ in range(2)]
    settings = replace(BASE, max_new_tokens=8)
    expected = decode(pair[0], PROMPTS, settings, pair[1])
    assert fast((pair[0], pair[1]), settings, draft="ngram", length=3) == expected


def test_a_model_that_drafts_may_be_the_amateur_itself() -> None:
    """Each role has slots of its own, also where two roles are one model."""
    expected = decode(expert(), PROMPTS, BASE, amateur())
    assert fast((expert(), amateur()), BASE, draft="model", length=2, model=amateur()) == expected


def test_what_is_recorded_reads_and_writes_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a CUDA graph does: Python runs once for each width, later calls only redo the tensor work.

    The recording here notes every call of the model and replays it on the same tensors, so a new
    input in another place, or a mask or a target made outside the pass, would give other tokens.
    Warm-up runs a pass three times, which must not matter.
    """
    recorded: list[tuple[int, ...]] = []

    def record(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        for _ in range(2):
            run()
        found = run()
        recorded.append(tuple(found.shape))

        def again() -> Tensor:
            found.copy_(run())
            return found

        return again

    monkeypatch.setattr(static_cache, "as_it_is", record)
    pair = tiny(0.0), tiny(0.01)
    expected = decode(pair[0], PROMPTS, BASE, pair[1])
    for _ in range(2):  # the first pass of all, a prompt's, makes the buffers and is not recorded
        assert fast(pair, BASE, draft="ngram", length=3) == expected
    count = len(recorded)
    assert 2 <= count <= 2 * len(static_cache.WIDTHS)
    assert {shape[0] for shape in recorded} == {4}, "always all rows"
    assert fast(pair, BASE, draft="ngram", length=3) == expected
    assert len(recorded) == count, "another run of this shape records nothing"


def test_slots_do_not_keep_a_model_alive() -> None:
    model: Any = tiny(0.0)
    gone = weakref.ref(model)
    settings = replace(BASE, lam=0.0, max_new_tokens=3)
    decode_fast(model, PROMPTS[:1], settings, speculation=Speculation(cache="static"))
    del model
    gc.collect()
    assert gone() is None


def test_eager_attention_gets_a_mask_that_is_added() -> None:
    """Its softmax is in fp32, so logits agree to that, not to the last bit."""
    model: Any = tiny(0.0)
    model.set_attn_implementation("eager")
    half = static_cache.CachedModels("static", 2, 20).one(model, 2)
    texts = [[5, 9, 14, 22, 31, 6], [8, 3, 40]]
    half.run([0, 1], [texts[0][:4], texts[1][:2]], 1)
    found = half.run([0, 1], [texts[0][4:], texts[1][2:]], 1)[:, -1]
    for row, text in enumerate(texts):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([text])).logits[0, -1]
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(SpringbackError, match="allowed: attn_implementation sdpa or eager"):
        static_cache.CachedModels("static", 1, 20).one(model, 1)


def test_an_unknown_cache_is_refused() -> None:
    with pytest.raises(SpringbackError, match="allowed: dynamic, static, compiled"):
        decode_fast(expert(), PROMPTS, BASE, amateur(), speculation=Speculation(cache="big"))
