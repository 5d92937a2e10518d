"""The pair as one Transformers model: what works on a causal language model works on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    pipeline,
)

import springback
from springback.decoding import ContrastModel, DecodeSettings, decode
from springback.decoding.contrast import contest, stepped
from springback.errors import ModelError
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.models.placement import Placement

PROMPTS = [[10, 20, 30, 10, 20], [40, 50, 60, 70, 80, 90, 40], [12, 13]]


@pytest.fixture(scope="module")
def pair(tiny_llama: Path) -> ContrastModel:
    expert = load_model(resolve(tiny_llama), Placement(torch.float64))
    amateur = load_model(resolve(tiny_llama), Placement(torch.float64))
    torch.manual_seed(3)
    with torch.no_grad():
        for p in amateur.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return ContrastModel.from_pair(expert, amateur, lam=1.5, alpha=0.05)


def generate(model: Any, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    """New tokens of ``model.generate`` on a left-padded batch; ends are not treated."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[3] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    options = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, **options}
    out = model.generate(ids, attention_mask=mask, pad_token_id=3, **options)
    found: list[list[int]] = out[:, longest:].tolist()
    return found


def plain(model: ContrastModel, prompts: list[list[int]]) -> list[list[int]]:
    settings = DecodeSettings(10, lam=model.config.lam, alpha=model.config.alpha)
    return decode(model.expert, prompts, settings, model.amateur)


def test_logits_are_the_combined_ones(pair: ContrastModel) -> None:
    ids = torch.tensor([PROMPTS[1]])
    with torch.no_grad():
        strong, weak = pair.expert(ids).logits, pair.amateur(ids).logits
        found = pair(ids, labels=ids)
    assert torch.equal(found.logits, stepped(strong, weak, 1.5, 0.05))
    logp = contest(strong, weak, 1.5)[:, :-1].log_softmax(-1)  # unmasked
    nll = -logp.gather(-1, ids[:, 1:, None]).mean()
    torch.testing.assert_close(found.loss, nll, check_dtype=False)


def test_unmasked_logits_on_request(pair: ContrastModel) -> None:
    ids = torch.tensor([PROMPTS[1]])
    pair.config.masked = False
    try:
        with torch.no_grad():
            strong, weak = pair.expert(ids).logits, pair.amateur(ids).logits
            assert torch.equal(pair(ids).logits, contest(strong, weak, 1.5))
    finally:
        pair.config.masked = True


def test_generate_gives_the_plain_loops_tokens(pair: ContrastModel) -> None:
    expected = plain(pair, PROMPTS)
    assert expected != decode(pair.expert, PROMPTS, DecodeSettings(10)), "contrast must matter"
    assert generate(pair, PROMPTS) == expected
    assert generate(pair, PROMPTS, use_cache=False) == expected


def test_a_cache_of_the_callers_holds_both_halves(pair: ContrastModel) -> None:
    cache = DynamicCache()
    assert generate(pair, PROMPTS[:1], past_key_values=cache) == plain(pair, PROMPTS[:1])
    assert len(cache.layers) == 4  # two layers of each half


def test_static_cache_and_beams_work(pair: ContrastModel) -> None:
    expected = plain(pair, PROMPTS[:1])
    static = {"cache_implementation": "static", "disable_compile": True}
    assert generate(pair, PROMPTS[:1], **static) == expected
    assert generate(pair, PROMPTS, **static) == plain(pair, PROMPTS), "padding stays masked"
    beams = {"num_beams": 3, "max_new_tokens": 6}
    assert generate(pair, PROMPTS, **beams) == generate(pair, PROMPTS, **beams, use_cache=False)


def test_assisted_generation_rolls_both_caches_back(pair: ContrastModel) -> None:
    expected = plain(pair, PROMPTS[:1])
    assert generate(pair, PROMPTS[:1], prompt_lookup_num_tokens=3) == expected
    assert generate(pair, PROMPTS[:1], assistant_model=pair.amateur) == expected


def test_streaming_hands_out_the_same_tokens(pair: ContrastModel) -> None:
    class Streamer:
        tokens: list[int] = []  # noqa: RUF012

        def put(self, value: torch.Tensor) -> None:
            self.tokens.extend(value.flatten().tolist())

        def end(self) -> None:
            pass

    streamer = Streamer()
    expected = generate(pair, PROMPTS[:1], streamer=streamer)[0]
    assert streamer.tokens == PROMPTS[0] + expected


def test_saved_and_loaded_it_is_the_same_model(pair: ContrastModel, tmp_path: Path) -> None:
    pair.save_pretrained(tmp_path / "pair")
    facts = json.loads((tmp_path / "pair" / "springback.json").read_text())
    assert facts == {"kind": "contrast", "lambda": 1.5, "alpha": 0.05}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pair", dtype=torch.float64)
    assert isinstance(loaded, ContrastModel)
    assert (loaded.config.lam, loaded.config.alpha) == (1.5, 0.05)
    ids = torch.tensor([PROMPTS[1]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, pair(ids).logits)
    head, embedding = loaded.amateur.lm_head.weight, loaded.amateur.model.embed_tokens.weight
    assert head is embedding, "tied weights stay tied"
    assert not torch.equal(embedding, loaded.expert.model.embed_tokens.weight)


def test_pipelines_and_springback_take_the_folder(
    pair: ContrastModel, tmp_path: Path, tiny_llama: Path
) -> None:
    folder = tmp_path / "pair"
    pair.save_pretrained(folder)
    tokenizer = load_tokenizer(resolve(tiny_llama))
    tokenizer.save_pretrained(folder)
    settings = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    pipe = pipeline("text-generation", model=str(folder), dtype=torch.float32)
    [said] = pipe("the thing", **settings)
    assert springback.generate(folder, ["the thing"], raw=True, max_new_tokens=6) == [
        said["generated_text"]
    ]


def test_models_that_do_not_match_are_refused(pair: ContrastModel) -> None:
    other = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    )
    with pytest.raises(ModelError, match="same names and shapes"):
        ContrastModel.from_pair(pair.expert, other, 1.0)


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=100, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.5),
        Mamba2Config(
            vocab_size=100,
            hidden_size=16,
            state_size=4,
            num_hidden_layers=2,
            num_heads=4,
            head_dim=8,
            n_groups=1,
            initializer_range=0.5,
        ),
    ],
    ids=["eager attention only", "state space"],
)
def test_other_kinds_of_halves_generate_and_are_loaded(config: Any, tmp_path: Path) -> None:
    """Halves without SDPA, and halves whose cache is a state, which generate is told not to use."""
    torch.manual_seed(0)
    build: Any = AutoModelForCausalLM.from_config
    halves = [build(config).double().eval() for _ in range(2)]
    model = ContrastModel.from_pair(halves[0], halves[1], lam=1.0, alpha=0.05)
    expected = plain(model, PROMPTS)
    assert generate(model, PROMPTS) == expected
    model.save_pretrained(tmp_path / "pair")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pair", dtype=torch.float64)
    assert generate(loaded, PROMPTS) == expected
