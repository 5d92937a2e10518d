"""What docs/decoding.md says of other models: tiny random ones of each architecture, in fp64."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from decode_fixture import prompts
from springback.decoding import ContrastModel, DecodeSettings, Speculation, decode, decode_fast

PROMPTS = prompts(4)
SETTINGS = DecodeSettings(8, lam=1.0, alpha=0.05, keyed_noise=True, batch_size=4)
PLAIN = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**PLAIN, "intermediate_size": 64, "num_key_value_heads": 2}
WINDOW = {**GROUPED, "head_dim": 8, "sliding_window": 4}
STATE = {**PLAIN, "state_size": 4}
#: Configuration; whether the fast decoder can take tokens back.
KINDS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "GPT-2": ("gpt2", PLAIN, True),
    "GPT-NeoX": ("gpt_neox", {**PLAIN, "intermediate_size": 64}, True),
    "OPT": ("opt", {**PLAIN, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.5}, True),
    "Qwen2": ("qwen2", GROUPED, True),
    "Qwen3": ("qwen3", {**GROUPED, "head_dim": 8}, True),
    "Mistral": ("mistral", {**GROUPED, "sliding_window": None}, True),
    "Phi-3": ("phi3", GROUPED, True),
    "OLMo 2": ("olmo2", GROUPED, True),
    "SmolLM3": ("smollm3", GROUPED, True),
    "Mistral, window": ("mistral", {**GROUPED, "sliding_window": 5}, False),
    "Gemma 2": ("gemma2", WINDOW, False),
    "Gemma 3": ("gemma3_text", WINDOW, False),
    "Bloom": ("bloom", PLAIN, False),
    "Mamba": ("mamba", STATE, False),
    "Mamba 2": ("mamba2", {**STATE, "num_heads": 8, "head_dim": 8, "n_groups": 1}, False),
}


def generate(model: Any, texts: list[list[int]], **options: Any) -> list[list[int]]:
    longest = max(map(len, texts))
    ids = torch.tensor([[0] * (longest - len(t)) + t for t in texts])
    mask = torch.tensor([[0] * (longest - len(t)) + [1] * len(t) for t in texts])
    how = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    out = model.generate(ids, attention_mask=mask, **how, **options)
    found: list[list[int]] = out[:, longest:].tolist()
    return found


@pytest.mark.parametrize("name", KINDS)
def test_every_way_gives_the_plain_loops_tokens(name: str, tmp_path: Path) -> None:
    kind, sizes, croppable = KINDS[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **sizes)
    build: Any = AutoModelForCausalLM.from_config
    expert = build(config).double().eval()
    amateur = copy.deepcopy(expert)
    with torch.no_grad():
        for p in amateur.parameters():
            p.add_(0.01 * torch.randn_like(p))
    expected = decode(expert, PROMPTS, SETTINGS, amateur)
    for cache in ("dynamic", "static"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is decoded the plain way
            found = decode_fast(
                expert, PROMPTS, SETTINGS, amateur, speculation=Speculation("ngram", 3, cache=cache)
            )
        assert found.answers == expected
        assert found.plain != croppable
    model = ContrastModel.from_pair(expert, amateur, 1.0, 0.05)
    assert generate(model, PROMPTS) == expected
    assert generate(model, PROMPTS, use_cache=False) == expected
    if "Mamba" not in name:
        assert generate(model, PROMPTS[:1], prompt_lookup_num_tokens=3) == expected[:1]
    if name != "Bloom":
        static = {"cache_implementation": "static", "disable_compile": True}
        assert generate(model, PROMPTS, **static) == expected
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert generate(loaded, PROMPTS) == expected
