"""Embeddings that adapters hold whole: of more rows than the base's, or no longer tied.

For new tokens PEFT saves both embeddings beside the LoRA matrices.  On a base with one tensor for
two they may have become two, or still be one that is saved twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from springback.errors import ModelError
from springback.weights.adapters.reading import Adapter
from springback.weights.direction import group_of
from springback.weights.io.aligning import EMBEDDING, equal_values, is_tied
from springback.weights.io.folder import Weights
from springback.weights.io.safetensors import FLOAT_BYTES, TensorInfo
from springback.weights.io.stream import Reader

HEAD = "lm_head.weight"


def fit_embeddings(
    adapters: list[Adapter], base: Weights
) -> tuple[list[Adapter], Weights, dict[str, Any]]:
    """Adapters, the base as it is written, and what its config.json has to say differently.

    A head that equals its embedding in every adapter is left out where the base ties them; where
    adapters hold one of the two whole and they differ, the base is given a head of its own.
    Embeddings that all adapters hold whole take the rows that they have there.
    """
    config: dict[str, Any] = {}
    if is_tied(base):
        adapters, base = _untied(adapters, base, config)
    return adapters, _resized(adapters, base, config), config


def _untied(
    adapters: list[Adapter], base: Weights, config: dict[str, Any]
) -> tuple[list[Adapter], Weights]:
    base = _without_copy(base)
    stored = [name for name in base.tensors if EMBEDDING.search(name)]
    touched = {m for a in adapters for m in a.modules if group_of(f"{m}.weight") == "embeddings"}
    if len(stored) != 1 or touched:  # LoRA on a tied layer: refused by what comes after
        return adapters, base
    name = stored[0]
    heads = {n for a in adapters for n in a.full if EMBEDDING.search(n) and n != name} or {HEAD}
    if len(heads) > 1 or not any(n in a.full for a in adapters for n in (name, *heads)):
        return adapters, base
    head = heads.pop()
    with Reader() as reader:
        if all(_one(reader, adapter, name, head) for adapter in adapters):
            without = [
                replace(a, full={n: t for n, t in a.full.items() if n != head}) for a in adapters
            ]
            return without, base
    config["tie_word_embeddings"] = False
    return adapters, base.changed(lambda t: [t, replace(t, name=head)] if t.name == name else [t])


def _without_copy(base: Weights) -> Weights:
    """A tied base without the copy of its embedding that some tools store as the head."""
    both = [base.tensors[name] for name in base.tensors if EMBEDDING.search(name)]
    heads = [info.name for _, info in both if info.name.endswith((HEAD, "embed_out.weight"))]
    if len(both) != 2 or len(heads) != 1:
        return base
    with Reader() as reader:
        if not equal_values(reader, *both):
            return base
    return base.renamed({name: name for name in base.tensors if name != heads[0]})


def _one(reader: Reader, adapter: Adapter, name: str, head: str) -> bool:
    """Whether an adapter's two embeddings are still one."""
    whole = [adapter.full.get(n) for n in (name, head)]
    if whole[0] is None or whole[1] is None:
        both = whole[0] is whole[1]
        return both or (whole[1] is None and bool(adapter.config.get("ensure_weight_tying")))
    file = adapter.weights.files[0]
    return equal_values(reader, (file, whole[0]), (file, whole[1]))


def _resized(adapters: Sequence[Adapter], base: Weights, config: dict[str, Any]) -> Weights:
    """``base`` with the rows that the adapters' own embeddings have."""
    new: dict[str, TensorInfo] = {}
    rows: set[tuple[int, int]] = set()
    for name, (_, info) in base.tensors.items():
        whole = [a.full[name].shape for a in adapters if name in a.full]
        if group_of(name) != "embeddings" or not whole or set(whole) == {info.shape}:
            continue
        shape = whole[-1]
        if set(whole) != {shape} or shape[1:] != info.shape[1:] or info.code not in FLOAT_BYTES:
            continue  # refused with both shapes by what comes after
        if len(whole) < len(adapters):
            raise ModelError(
                f"{name} is {list(shape)} in one adapter and not saved in another, whose rows the "
                f"base would have to give, and it has {info.shape[0]}; resize the base first"
            )
        size = FLOAT_BYTES[info.code]
        for number in shape:
            size *= number
        new[name] = replace(info, shape=shape, nbytes=size)
        rows.add((info.shape[0], shape[0]))
    if not new:
        return base
    left = [n for n in base.tensors if EMBEDDING.search(n) and n not in new]
    if len(rows) > 1 or any(base.tensors[n][1].shape[0] == next(iter(rows))[0] for n in left):
        raise ModelError(
            f"{next(iter(new))} has {next(iter(rows))[1]} rows in the adapters and "
            f"{', '.join(left) or 'another one'} does not; resize the base first"
        )
    config["vocab_size"] = next(iter(rows))[1]
    return base.changed(lambda t: [new.get(t.name, t)])
