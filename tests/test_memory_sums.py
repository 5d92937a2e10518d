"""Sums of memory: shapes read without torch, caches by hand and against Transformers' own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, Qwen3Config

from springback.errors import ModelError
from springback.models.loading import load_model, resolve
from springback.models.memory import (
    Architecture,
    architecture_of,
    cache_bytes,
    item_bytes,
    logits_bytes,
    pass_bytes,
    read_architecture,
    states_bytes,
    weight_bytes,
)
from springback.results import provenance

LLAMA_2_7B = LlamaConfig(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=32, vocab_size=32000,
)  # fmt: skip


def test_a_folder_at_hand_is_read_without_torch(tiny_llama: Path) -> None:
    model = load_model(resolve(tiny_llama))
    shape = read_architecture(tiny_llama)
    assert shape.weights == sum(p.numel() for p in model.parameters())
    assert weight_bytes(tiny_llama, "bfloat16") == 2 * shape.weights
    assert weight_bytes(tiny_llama, torch.float32) == 4 * shape.weights
    code = (
        "import sys; from springback.models.memory import read_architecture as read; "
        f"read({str(tiny_llama)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_cache_has_the_bytes_that_it_takes(tiny_llama: Path) -> None:
    model = load_model(resolve(tiny_llama))
    cache = DynamicCache(config=model.config)
    ids = torch.ones(3, 7, dtype=torch.long)
    model(input_ids=ids, past_key_values=cache, use_cache=True)
    layers: Any = cache.layers
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    assert cache_bytes(model.config, 3, 7) == held
    assert cache_bytes(read_architecture(tiny_llama), 3, 7) == held


def test_known_shapes_by_hand() -> None:
    shape = architecture_of(LLAMA_2_7B)
    assert shape.weights == 6_738_415_616  # Llama 2 7B
    # 2 x 32 layers x 4096 numbers x 2 bytes: half a megabyte a token
    assert cache_bytes(shape, 1, 1, "bfloat16") == 524_288
    assert logits_bytes(shape, 10) == 10 * 32000 * 4
    assert states_bytes(shape, 10, "bfloat16") == 10 * 4096 * 2
    assert pass_bytes(shape, 1, "float32") == 4 * (8 * 4096 + 3 * 11008)
    assert shape.adapter_weights(16) == 16 * 32 * (4 * 8192 + 3 * (4096 + 11008))


def test_windows_and_layers_with_states() -> None:
    given = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
        "sliding_window": 10,
        "layer_types": ["sliding_attention", "full_attention", "linear_attention"],
    }  # fmt: skip
    shape = architecture_of({"text_config": given})
    assert shape.windows == (10, None, 0)
    token = 2 * 2 * 16 * 4
    assert cache_bytes(shape, 5, 40) == 5 * token * (10 + 40)
    assert cache_bytes(shape, 5, 40, windows=False) == 5 * token * (40 + 40)
    assert not architecture_of(Qwen3Config(num_hidden_layers=2)).windows
    with pytest.raises(ModelError, match="hidden_size"):
        architecture_of({})


def test_a_mixture_counts_all_its_experts() -> None:
    given = {
        "hidden_size": 8, "intermediate_size": 100, "moe_intermediate_size": 4,
        "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10, "num_experts": 3,
        "tie_word_embeddings": True,
    }  # fmt: skip
    assert architecture_of(given).weights == 8 * (4 * 8 + 3 * 4 * 3 + 2) + 10 * 8 + 8


def test_an_architecture_stays_and_dtypes_have_two_spellings() -> None:
    shape = Architecture("toy", 5, 1, 8)
    assert architecture_of(shape) is shape
    assert item_bytes(torch.bfloat16) == item_bytes("bfloat16") == 2


def test_a_container_has_what_its_limit_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_CGROUP_LIMIT", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200000\nactive_file 100000\n")
    assert provenance.available_memory() == 400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert provenance.available_memory() > 1_000_000
