"""The files of an extrapolated adapter: which tensors they hold, their bytes, the settings."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from springback.errors import ModelError
from springback.progress import Progress
from springback.weights.adapters.combining import AdapterSum, cut_rank, norm_sq
from springback.weights.adapters.reading import PREFIX
from springback.weights.arithmetic import Floats, decode, encode, place
from springback.weights.io.safetensors import FLOAT_BYTES, encode_header
from springback.weights.io.stream import Reader

#: A tensor to be written: name, dtype code, shape, bytes.
Entry = tuple[str, str, tuple[int, ...], int]


@dataclass
class Sums:
    """Squares of norms over all that is written."""

    error: float = 0.0
    step: float = 0.0
    cut: float = 0.0
    whole: float = 0.0
    worst: tuple[str, float] | None = None


def entries(
    total: AdapterSum, rank: int, asked: str
) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Name, dtype code, shape and bytes of every tensor to be written, in order."""
    factors = "F32" if asked == "auto" else asked
    tensors: list[tuple[str, str, tuple[int, ...]]] = []
    for name in total.modules:
        wide, high = widths(total, name)
        a, b = _factor_names(total, name)
        tensors += [(a, factors, (rank, wide)), (b, factors, (high, rank))]
        if total.has_bias():
            tensors.append((f"{PREFIX}{name}.lora_B.bias", factors, (high,)))
    for name in total.full:
        info = next(a.full[name] for a in reversed(total.adapters) if name in a.full)
        module, _, leaf = name.rpartition(".")
        inner = "base_layer." if module in total.modules else ""
        code = info.code if asked == "auto" else asked
        tensors.append((f"{PREFIX}{module}.{inner}{leaf}", code, info.shape))
    return [(n, code, shape, math.prod(shape) * FLOAT_BYTES[code]) for n, code, shape in tensors]


def widths(total: AdapterSum, name: str) -> tuple[int, int]:
    """(in, out) of a module's LoRA."""
    module = next(a.modules[name] for a in total.adapters if name in a.modules)
    return module.a.shape[1], module.b.shape[0]


def _factor_names(total: AdapterSum, name: str) -> tuple[str, str]:
    module = next(a.modules[name] for a in total.adapters if name in a.modules)
    return (
        (f"{PREFIX}{name}.lora_embedding_A", f"{PREFIX}{name}.lora_embedding_B")
        if module.embedding
        else (f"{PREFIX}{name}.lora_A.weight", f"{PREFIX}{name}.lora_B.weight")
    )


def write_tensors(
    total: AdapterSum,
    svd_rank: int | None,
    rank: int,
    listed: Sequence[Entry],
    target: Path,
    speaker: Progress,
) -> Sums:
    """The adapter's weight file, one module at a time."""
    sums, codes = Sums(), iter([code for _, code, _, _ in listed])
    with target.open("xb") as file, Reader() as reader:
        file.write(encode_header(listed, {"format": "pt"}))
        for name in total.modules:
            left, right = total.product(reader, name)
            if svd_rank:
                left, right = _cut(sums, name, left, right, rank)
            a, b = np.zeros((rank, right.shape[1])), np.zeros((left.shape[0], rank))
            a[: right.shape[0]], b[:, : left.shape[1]] = right, left
            new_a, new_b = (_put(file, values, next(codes), name) for values in (a, b))
            # B'A' - BA without cancellation: (B' - B) A' + B (A' - A).
            sums.error += norm_sq(np.hstack([new_b - b, b]), np.vstack([new_a, new_a - a]))
            sums.step += total.step(reader, name)
            if total.has_bias():
                _put(file, total.bias(reader, name), next(codes), name)
            speaker.advance(1, name)
        for name in total.full:
            _put_whole(file, sums, name, total.whole(reader, name), next(codes))
            speaker.advance(1, name)
        file.flush()
        os.fsync(file.fileno())
    return sums


def _cut(sums: Sums, name: str, left: Floats, right: Floats, rank: int) -> tuple[Floats, Floats]:
    left, right, cut, whole = cut_rank(left, right, rank)
    sums.cut += cut
    sums.whole += whole
    share = math.sqrt(cut / whole) if whole else 0.0
    if sums.worst is None or share > sums.worst[1]:
        sums.worst = name, share
    return left, right


def _put(file: BinaryIO, values: Floats, code: str, name: str) -> Floats:
    """Write values rounded to ``code``; gives them back as written."""
    out = np.empty(values.size * FLOAT_BYTES[code], np.uint8)
    with np.errstate(all="ignore"):
        encode(values.reshape(-1), code, out)
        written = decode(out, code).reshape(values.shape)
    _require_finite(name, written)
    file.write(out.data)
    return written


def _put_whole(
    file: BinaryIO, sums: Sums, name: str, values: tuple[Floats, Floats], code: str
) -> None:
    """Write a tensor that is saved whole: ft and its step, rounded once."""
    before, move = (v.reshape(-1) for v in values)
    out = np.empty(before.size * FLOAT_BYTES[code], np.uint8)
    with np.errstate(all="ignore"):
        tally = place(before, move, out, code, still=not move.any())
    if not tally.finite:
        _require_finite(name, np.array([np.inf]))
    sums.error += tally.error_sq
    sums.step += tally.step_sq
    file.write(out.data)


def _require_finite(name: str, values: Floats) -> None:
    if not np.isfinite(values).all():
        raise ModelError(
            f"{name} comes out as NaN or infinity; allowed: finite weights; check that both are "
            "checkpoints of one run, take a smaller mu or --dtype float32"
        )


def config(total: AdapterSum, rank: int) -> dict[str, Any]:
    """ft's settings with one rank, scaling 1, and the modules that are there."""
    config = dict(total.ft.config)
    config.update(
        r=rank,
        lora_alpha=rank,
        use_rslora=False,
        use_dora=False,
        rank_pattern={},
        alpha_pattern={},
        init_lora_weights=True,
        loftq_config={},
        lora_bias=total.has_bias(),
    )
    config.update(dict.fromkeys(("corda_config", "eva_config", "lora_ga_config", "velora_config")))
    if set(total.modules) != set(total.ft.modules):  # else ft's own words name just these
        config.update(target_modules=list(total.modules), exclude_modules=None)
        config.update(layers_to_transform=None, layers_pattern=None)
    saved = [m for a in total.adapters for m in a.config.get("modules_to_save") or []]
    config["modules_to_save"] = list(dict.fromkeys(saved)) or None
    biases = {str(a.config.get("bias") or "none") for a in total.adapters}
    config["bias"] = next((b for b in ("all", "lora_only") if b in biases), "none")
    return config
