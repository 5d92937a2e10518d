"""Bytes that a model, its caches and its training take: sums over its shape; nothing is loaded.

Light: torch is asked only for the memory of a GPU.  Dtypes are torch's or their names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from springback.errors import ModelError, describe
from springback.results.provenance import available_memory
from springback.results.store import read_json
from springback.weights import tensor_names

ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "uint8": 1}
#: Kinds of a layer (``layer_types`` of a config) that keep no keys and values, but a state.
_STATES = ("linear_attention", "mamba", "conv", "recurrent")


def item_bytes(dtype: Any) -> int:
    """Bytes of one number of a dtype: torch's, or its name."""
    return ITEM_BYTES[str(dtype).removeprefix("torch.")]


@dataclass(frozen=True)
class Architecture:
    """What memory and work of a decoder depend on.

    ``weights``: numbers of all tensors, those that are tied counted once.  ``query``, ``key`` and
    ``value``: numbers a token has in a layer of each kind, over all its heads (of keys and values
    as the cache holds them).  ``hidden``: width of the feed-forward layer.  ``windows``: for each
    layer how many tokens it looks back, None for all of them; 0 where it caches nothing.  Empty:
    every layer sees all.
    """

    name: str
    weights: float
    layers: int
    width: int
    hidden: int = 0
    query: int = 0
    key: int = 0
    value: int = 0
    vocabulary: int = 0
    tied: bool = False
    windows: tuple[int | None, ...] = ()

    def adapter_weights(self, rank: int) -> float:
        """Numbers of a LoRA adapter on every linear layer but the head."""
        attention = 2 * (self.width + self.query) + 2 * self.width + self.key + self.value
        return float(rank * self.layers * (attention + 3 * (self.width + self.hidden)))


def architecture_of(config: Any, name: str = "", weights: float | None = None) -> Architecture:
    """Of a config: Transformers', or a mapping as ``config.json`` has it; an architecture stays.

    ``weights``: where they are known; else those of a Llama of this shape.
    """
    if isinstance(config, Architecture):
        return config
    get = _reader(config)
    width, layers = int(get("hidden_size", "n_embd")), int(get("num_hidden_layers", "n_layer"))
    heads = int(get("num_attention_heads", "n_head"))
    head = int(get("head_dim", default=None) or width // heads)
    shared = int(get("num_key_value_heads", default=None) or heads)
    # Multi-head latent attention caches what it expands: keys of two parts, values of another size.
    rotary = get("qk_rope_head_dim", default=0)
    key = int(get("qk_nope_head_dim", default=0)) + int(rotary) if rotary else head
    value = int(get("v_head_dim", default=0) or head)
    found = Architecture(
        name or str(get("model_type", default="model")),
        0.0,
        layers,
        width,
        int(get("intermediate_size", "n_inner", "ffn_dim", default=None) or 4 * width),
        heads * key,
        shared * key,
        shared * value,
        int(get("vocab_size")),
        bool(get("tie_word_embeddings", default=False)),
        _windows(get, layers),
    )
    return replace(found, weights=weights if weights is not None else _weights(found, get))


def read_architecture(folder: str | Path, name: str = "") -> Architecture:
    """Of a model folder: its ``config.json`` and the headers of its weights.

    Raises :class:`ModelError` where its shape cannot be read.
    """
    weights = sum(math.prod(shape) for shape, _ in tensor_names(folder).values())
    config = read_json(Path(folder) / "config.json")
    return architecture_of(config, name or Path(folder).name, float(weights))


def weight_bytes(model: Any, dtype: Any) -> int:
    """Of all weights in ``dtype``; ``model``: a config, an architecture, or a model folder."""
    folder = isinstance(model, (str, Path))
    shape = read_architecture(model) if folder else architecture_of(model)
    return int(shape.weights) * item_bytes(dtype)


def held_bytes(shape: Architecture, dtype: Any, quantize: str | None = None) -> int:
    """Of all weights as they are held: in ``dtype``, or with linear layers but the head in 4 bit.

    Of these a block of 64 has a scale of a byte, and 256 scales have one of 4 bytes.
    """
    if not quantize:
        return int(shape.weights) * item_bytes(dtype)
    tables = shape.vocabulary * shape.width * (1 if shape.tied else 2)
    return int((shape.weights - tables) * (1 / 2 + 1 / 64 + 4 / (64 * 256))) + tables * item_bytes(
        dtype
    )


def cache_bytes(
    config: Any, rows: int, columns: int, dtype: Any = "float32", windows: bool = True
) -> int:
    """Keys and values of ``rows`` of ``columns`` tokens each.

    ``windows``: layers that look back a number of tokens keep no more of them; False for caches
    that keep all, such as those of :mod:`springback.decoding.ragged_cache`.
    """
    shape = architecture_of(config)
    seen: tuple[int | None, ...] = shape.windows or (None,) * shape.layers
    kept = sum(
        columns if window is None or (window and not windows) else min(columns, window)
        for window in seen
    )
    return rows * kept * (shape.key + shape.value) * item_bytes(dtype)


def logits_bytes(config: Any, positions: int, dtype: Any = "float32") -> int:
    """Of one tensor of logits over so many positions."""
    return positions * architecture_of(config).vocabulary * item_bytes(dtype)


def states_bytes(config: Any, positions: int, dtype: Any = "float32") -> int:
    """Of the last hidden states of so many positions."""
    return positions * architecture_of(config).width * item_bytes(dtype)


def pass_bytes(config: Any, tokens: int, dtype: Any = "float32") -> int:
    """What a forward pass without gradients takes beside weights, cache and logits.

    One layer's tensors are there at a time: hidden states, queries, keys and values (repeated for
    every head), and three of the feed-forward layer's width.
    """
    shape = architecture_of(config)
    return tokens * (4 * shape.width + 4 * shape.query + 3 * shape.hidden) * item_bytes(dtype)


def available_bytes(device: str = "cpu") -> int:
    """Bytes that can be had: on a GPU its free memory and what torch holds unused, else the
    machine's, within its container's limit."""
    if not device.startswith("cuda"):
        return available_memory()
    import torch

    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def _reader(config: Any) -> Any:
    """Values of the text model's config by the first name that is there."""
    values: Mapping[str, Any] | None = None
    text: Any = None
    if isinstance(config, Mapping):
        inner = config.get("text_config")
        values = {**config, **inner} if isinstance(inner, Mapping) else config
    else:
        text = config.get_text_config()

    def find(name: str) -> Any:
        return getattr(text, name, None) if values is None else values.get(name)

    def get(*names: str, default: Any = ...) -> Any:
        for name in names:
            if (value := find(name)) is not None:
                return value
        if default is ...:
            raise ModelError(
                describe(f"a config without {names[0]}", "a decoder's config", "see config.json")
            )
        return default

    return get


def _windows(get: Any, layers: int) -> tuple[int | None, ...]:
    """For each layer how far it looks back; empty where all see everything."""
    window, kinds = get("sliding_window", default=None), get("layer_types", default=None)
    if kinds is None:
        used = window is not None and get("use_sliding_window", default=True)
        return (int(window),) * layers if used else ()
    far: dict[str, int | None] = {"sliding_attention": window}
    far["chunked_attention"] = get("attention_chunk_size", default=window)
    far |= dict.fromkeys(_STATES, 0)
    seen = tuple(far.get(kind) for kind in kinds)
    return seen if any(one is not None for one in seen) else ()


def _weights(shape: Architecture, get: Any) -> float:
    """Of a Llama, or of a mixture of experts, of this shape."""
    experts = 1
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        experts = int(get(name, default=None) or experts)
    hidden = shape.hidden
    if experts > 1:
        hidden = int(get("moe_intermediate_size", default=None) or hidden)
    attention = 2 * shape.query + shape.key + shape.value
    layer = shape.width * (attention + 3 * hidden * experts + 2)
    tables = shape.vocabulary * shape.width * (1 if shape.tied else 2)
    return float(shape.layers * layer + tables + shape.width)
