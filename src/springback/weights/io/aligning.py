"""Checkpoints of one run that were saved differently, under one set of tensor names.

Wrappers of training code leave prefixes (``module.``, ``_orig_mod.``), versions of Transformers
name a language model inside another differently, some write a tied head or rotary buffers and some
do not.  What a loader would not take is refused here, before anything is written: tensors without
values, and names and shapes that do not fit the model's own config.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from springback.errors import ModelError
from springback.weights.arithmetic import decode
from springback.weights.direction import group_of
from springback.weights.io.folder import Weights, inside, readable_json
from springback.weights.io.safetensors import COPIED, FLOAT_BYTES, TensorInfo, dtype_name
from springback.weights.io.stream import PIECE, Reader, Source

CONFIG = "config.json"
_SHOWN = 3
#: Segments of a tensor's name that torch.compile, DistributedDataParallel, FSDP, activation
#: checkpoints, DeepSpeed and value heads put in.
WRAPPERS = frozenset(
    {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
    | {"pretrained_model"}
)
#: A tensor of an adapter that stands in a model, and the weight that it stands beside.
_UNMERGED = re.compile(r"\.(lora_[A-Za-z_]+|base_layer)\.")
#: What a causal language model's names begin with.
_ROOTS = frozenset({"model", "transformer", "gpt_neox", "backbone"})
_HEADS = frozenset({"lm_head", "embed_out"})
#: The language model inside a model of images and text.
_INNER = "language_model"
#: Values that a model computes when it is made; old versions stored them.
_BUFFER = re.compile(
    r"(^|\.)(rotary_emb\.\w+|inv_freq|masked_bias|position_ids|(attn|attention)\.bias)$"
)
EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|embeddings|lm_head|embed_out)\.weight$"
)
_LAYER = re.compile(r"(^|\.)(layers|h|blocks)\.(\d+)\.")
_FACTORED = ("word_embed_proj_dim", "embedding_size", "embedding_dim")


def without_wrappers(name: str) -> str:
    """A tensor's name without the segments that training code put in."""
    return ".".join(_without(name, WRAPPERS))


def _without(name: str, dropped: frozenset[str]) -> list[str]:
    *path, leaf = name.split(".")
    return [*(part for part in path if part not in dropped), leaf]


def refuse_empty(weights: Weights) -> None:
    """Raise :class:`ModelError` for tensors of size 0, which ZeRO-3 leaves if it does not gather.

    A tensor of more dimensions may have a 0 among them.
    """
    empty = [name for name, (_, t) in weights.tensors.items() if t.shape == (0,)]
    if empty:
        raise ModelError(
            f"{weights.root}: {empty[0]} is empty, shape [0] ({len(empty)} of "
            f"{len(weights.tensors)} tensors), as DeepSpeed ZeRO-3 leaves weights that are not "
            "gathered; allowed: whole weights; run the checkpoint's zero_to_fp32.py (python "
            "zero_to_fp32.py . OUT --safe_serialization), or train on with "
            "stage3_gather_16bit_weights_on_model_save"
        )


def refuse_unmerged(root: Path | str, names: Iterable[str]) -> None:
    """Raise :class:`ModelError` for a model saved with its adapter in it: loaders leave that out,
    and a product of two extrapolated factors is not the extrapolated product."""
    if beside := next((name for name in sorted(names) if _UNMERGED.search(name)), None):
        raise ModelError(
            f"{root} holds {beside}, of a LoRA adapter that is not merged; allowed: plain weights, "
            "or an adapter as PEFT saves it; merge it (merge_and_unload in PEFT) and save it again"
        )


def read_config(weights: Weights, *, lenient: bool = False) -> Mapping[str, Any]:
    """The folder's config.json, empty without one, or (``lenient``) if it cannot be read."""
    if not (weights.root / CONFIG).exists():
        return {}
    try:
        config = readable_json(inside(weights.root, CONFIG))
    except ModelError:
        if not lenient:
            raise
        return {}
    return config if isinstance(config, dict) else {}


def sound(weights: Weights, *, lenient: bool = False) -> Weights:
    """``weights`` under the names that a loader takes; raises for what none would take.

    ``lenient``: a config that cannot be read counts as none, since only the weights are used.
    """
    refuse_empty(weights)
    refuse_unmerged(weights.root, weights.tensors)
    config = read_config(weights, lenient=lenient)
    if _nested(config):  # of several models' names and shapes the config says too little
        return _named(weights, {name: without_wrappers(name) for name in weights.tensors})
    weights = _named(weights, _sound_names(weights.tensors, inner="model_type" not in config))
    _require_config(weights, config)
    return weights


def _nested(config: Mapping[str, Any]) -> bool:
    """Whether a config is of a model made of others, such as one of images and text."""
    return any(
        key.endswith("_config") and key != "quantization_config" and isinstance(value, dict)
        for key, value in config.items()
    )


def _sound_names(names: Iterable[str], inner: bool) -> dict[str, str]:
    """What a language model's loader calls its tensors; ``inner``: it may be inside another."""
    dropped = WRAPPERS if inner else WRAPPERS | {_INNER}
    parts = {name: _without(name, dropped) for name in names}
    common = _common(parts.values())
    following = {p[len(common)] for p in parts.values()}
    cut = next((i for i, part in enumerate(common) if part in _ROOTS), len(common))
    if following & _HEADS:  # everything hangs below one name: policy.model…, policy.lm_head
        cut = len(common)
    elif cut < len(common):  # model.model: the inner one is the model's own name
        while common[cut : cut + 1] == common[cut + 1 : cut + 2]:
            cut += 1
    elif not following & _ROOTS:
        cut = 0
    return {name: ".".join(p[cut:]) for name, p in parts.items()}


def _common(names: Iterable[Sequence[str]]) -> list[str]:
    """The segments that all names begin with; the last one of a name is not counted."""
    paths = [tuple(name[:-1]) for name in names]
    first, last = min(paths), max(paths)
    return [
        a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    ]


def _named(weights: Weights, names: Mapping[str, str]) -> Weights:
    """``weights`` renamed; what is not in ``names`` is left out."""
    before: dict[str, str] = {}
    for old, new in names.items():
        if new in before:
            raise ModelError(
                f"{weights.root} holds {new} twice, as {before[new]} and as {old}; allowed: each "
                "tensor once; save the model again without the wrapper's prefix"
            )
        before[new] = old
    return weights.renamed(names)


def _require_config(weights: Weights, config: Mapping[str, Any]) -> None:
    """Raise where embeddings or layers are not those that config.json speaks of."""
    if config.get("is_encoder_decoder"):
        return
    rows, width = (
        next((config[k] for k in keys if isinstance(config.get(k), int)), None)
        for keys in (("vocab_size",), ("hidden_size", "n_embd", "d_model"))
    )
    if any(key in config for key in _FACTORED):
        width = None
    for name, (_, info) in weights.tensors.items():
        if not EMBEDDING.search(name) or info.code not in FLOAT_BYTES:
            continue
        wanted = [rows, width]
        have: list[int | None] = list(info.shape)
        if len(have) != 2 or any(w not in (None, h) for w, h in zip(wanted, have, strict=True)):
            shown = ["?" if number is None else number for number in wanted]
            raise ModelError(
                f"{weights.root}: {name} is {list(info.shape)} and {CONFIG} says "
                f"[{shown[0]}, {shown[1]}] (vocab_size, hidden_size), so no loader takes it; "
                "allowed: weights that fit their config; save the model again with save_pretrained"
            )
    layers = next((config[k] for k in ("num_hidden_layers", "n_layer") if k in config), None)
    if not isinstance(layers, int) or "block_configs" in config:  # of which some may be empty
        return
    there = {int(m[3]) for name in weights.tensors if (m := _LAYER.search(name))}
    if there and (lacking := set(range(min(layers, 10_000))) - there):
        raise ModelError(
            f"{weights.root} has no tensor of layer {min(lacking)}, one of {layers} by {CONFIG}; "
            "allowed: a whole model; copy the folder again, or save it again"
        )


def align(checkpoints: Sequence[Weights]) -> list[Weights]:
    """The checkpoints under the last one's names; raises :class:`ModelError` where they differ.

    Each tensor keeps the dtype that it is stored in.  A head that equals its embedding and is not
    stored in all, and known buffers that are not, are no difference.
    """
    earlier = [sound(weights, lenient=True) for weights in checkpoints[:-1]]
    ft = sound(checkpoints[-1])
    for other in earlier:
        ft = _unprefixed(ft, other)
    earlier = [_loosely_named(_unprefixed(other, ft), ft) for other in earlier]
    everyone = [*earlier, ft]
    shared = set.intersection(*(set(w.tensors) for w in everyone))
    everyone = [
        w.renamed({n: n for n, (_, t) in w.tensors.items() if n in shared or not _is_buffer(t)})
        for w in everyone
    ]
    *earlier, ft = everyone
    earlier = [_with_tied(other, ft) for other in earlier]
    for other in earlier:
        require_same(other, ft)
    return [*earlier, ft]


def _is_buffer(info: TensorInfo) -> bool:
    mask = info.name.endswith((".attn.bias", ".attention.bias"))
    return bool(_BUFFER.search(info.name)) and (not mask or len(info.shape) == 4)


def _unprefixed(weights: Weights, other: Weights) -> Weights:
    """``weights`` without a prefix of all its names, if the other's names have none in common."""
    if weights.tensors.keys() & other.tensors.keys():
        return weights
    parts = {name: name.split(".") for name in weights.tensors}
    for cut in range(1, len(common := _common(parts.values())) + 1):
        if common[cut - 1] in _ROOTS:  # of the two, this one has a model's own names
            break
        names = {name: ".".join(p[cut:]) for name, p in parts.items()}
        if set(names.values()) & other.tensors.keys():
            return _named(weights, names)
    return weights


def _loosely_named(weights: Weights, ft: Weights) -> Weights:
    """``weights`` with ft's names where these differ in the model around a language model only."""
    if weights.tensors.keys() == ft.tensors.keys():
        return weights
    theirs = {loose_name(name): name for name in ft.tensors if name not in weights.tensors}
    names = {n: n if n in ft.tensors else theirs.get(loose_name(n), n) for n in weights.tensors}
    fits = len(set(names.values())) == len(names)
    return weights.renamed(names) if fits else weights


def loose_name(name: str) -> str:
    parts = [part for part in name.split(".") if part != _INNER]
    while len(parts) > 1 and parts[0] in _ROOTS:
        del parts[0]
    return ".".join(parts)


def is_tied(weights: Weights, *, lenient: bool = False) -> bool:
    """Whether a model uses one tensor as input and output embedding.

    By its config; where that has no such key, a model that stores one embedding matrix does.
    """
    config = read_config(weights, lenient=lenient)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and isinstance(tied := part.get("tie_word_embeddings"), bool):
            return tied
    return sum(bool(EMBEDDING.search(name)) for name in weights.tensors) < 2


def _with_tied(early: Weights, ft: Weights) -> Weights:
    """``early`` with ft's embeddings, where one tensor stands for two in early or in both.

    A head equal to its embedding need not be stored in both, nor under the same name; a head that
    ft has untied was early's embedding.
    """
    tensors = dict(early.tensors)
    ft_one = _one_embedding(ft)
    one = _one_embedding(early) if ft_one is not None or not is_tied(ft) else None
    for name in ft.tensors.keys() - early.tensors.keys():
        twin = _equal_embedding(ft, name)
        if twin is not None and twin in early.tensors:
            tensors[name] = early.tensors[twin]
        elif one is not None and EMBEDDING.search(name):
            tensors[name] = early.tensors[one]
    for name in early.tensors.keys() - ft.tensors.keys():
        if (name == one and ft_one is not None) or _equal_embedding(early, name) is not None:
            del tensors[name]
    return replace(early, tensors=tensors)


def _one_embedding(weights: Weights) -> str | None:
    """The embedding that a model whose config ties them stores; None where that is not so."""
    stored = [name for name in weights.tensors if EMBEDDING.search(name)]
    tied = len(stored) == 1 and (weights.root / CONFIG).exists() and is_tied(weights, lenient=True)
    return stored[0] if tied else None


def _equal_embedding(weights: Weights, name: str) -> str | None:
    """Another embedding of the same values, None without one."""
    source = weights.tensors[name]
    if group_of(name) != "embeddings" or len(source[1].shape) != 2:
        return None
    with Reader() as reader:
        for other, twin in weights.tensors.items():
            same = group_of(other) == "embeddings" and twin[1].shape == source[1].shape
            if other != name and same and equal_values(reader, source, twin):
                return other
    return None


def equal_values(reader: Reader, one: Source, other: Source) -> bool:
    """Whether two tensors hold the same values, whatever their dtypes; ends at the first other."""
    a, b = one[1], other[1]
    if a.shape != b.shape or (a.code != b.code and {a.code, b.code} - FLOAT_BYTES.keys()):
        return False
    for first in range(0, a.size, PIECE):
        count = min(PIECE, a.size - first)
        here, there = reader.read(one, first, count), reader.read(other, first, count)
        if a.code == b.code:
            same = np.array_equal(here, there)
        else:
            same = np.array_equal(decode(here, a.code), decode(there, b.code))
        if not same:
            return False
    return True


def require_different(checkpoints: Sequence[Weights]) -> None:
    """Raise :class:`ModelError` if all hold the same values: there is no direction then."""
    *earlier, ft = checkpoints
    with Reader() as reader:
        for name, source in ft.tensors.items():
            if not all(equal_values(reader, w.tensors[name], source) for w in earlier):
                return
    stale = "".join(
        f"; {w.root} holds one file and an index of shards, and the one file is read"
        for w in checkpoints
        if w.index is None and list(w.root.glob("*.safetensors.index.json"))
    )
    raise ModelError(
        f"{earlier[0].root} and {ft.root} hold the same weights, so there is no step to take"
        f"{stale}; allowed: two checkpoints that differ; give an earlier one of the run"
    )


def require_same(early: Weights, ft: Weights) -> None:
    """Raise :class:`ModelError` naming the first differences in names and shapes."""
    differences, dtypes, mend = [], 0, ""
    for name in sorted(early.tensors.keys() | ft.tensors.keys()):
        if name not in ft.tensors:
            differences.append(f"{name} is only in {early.root}")
            continue
        if name not in early.tensors:
            differences.append(f"{name} is only in {ft.root}")
            continue
        (_, a), (_, b) = early.tensors[name], ft.tensors[name]
        if (a.shape, a.code) != (b.shape, b.code):
            first, second = (f"{dtype_name(t.code)} {list(t.shape)}" for t in (a, b))
            differences.append(f"{name} is {first} in one and {second} in the other")
            dtypes += a.shape == b.shape and {a.code, b.code} <= FLOAT_BYTES.keys()
            mend = mend or _resizing(early, ft, name)
        elif a.code not in FLOAT_BYTES and a.code not in COPIED:
            raise ModelError(
                f"{name} is {dtype_name(a.code)}, which is not extrapolated; allowed: float32, "
                "bfloat16, float16, float64 and equal integers; dequantise both models first"
            )
    if len(differences) > dtypes:  # floats of several dtypes alone are no difference
        more = len(differences) - _SHOWN
        rest = f" and {more} more" if more > 0 else ""
        raise ModelError(
            f"{early.root} and {ft.root} do not fit: {'; '.join(differences[:_SHOWN])}{rest}; "
            f"allowed: two checkpoints of one run{mend or ', saved in the same way'}"
        )


def _resizing(early: Weights, ft: Weights, name: str) -> str:
    """What mends embeddings of another number of rows."""
    (_, a), (_, b) = early.tensors[name], ft.tensors[name]
    rows = len(a.shape) == len(b.shape) == 2 and a.shape[1] == b.shape[1]
    if group_of(name) != "embeddings" or not rows:
        return ""
    smaller, number = (early, b.shape[0]) if a.shape[0] < b.shape[0] else (ft, a.shape[0])
    return (
        f"; tokens were added between them: load {smaller.root} in Transformers, "
        f"resize_token_embeddings({number}), save_pretrained"
    )
