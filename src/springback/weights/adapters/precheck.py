"""Numbers along the line of two adapters on one base, from their factors: nothing is merged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from springback.errors import ModelError
from springback.progress import Progress, Silent
from springback.weights.adapters.combining import AdapterSum, cut_rank
from springback.weights.adapters.reading import Adapter, open_adapter
from springback.weights.arithmetic import Floats, decode
from springback.weights.direction import checkpoint_steps
from springback.weights.io.aligning import sound
from springback.weights.io.folder import open_weights
from springback.weights.io.safetensors import FLOAT_BYTES
from springback.weights.io.stream import PIECE, Reader, Source
from springback.weights.precheck import Precheck, summary


def check_adapters(
    adapters: Sequence[str | Path], base: str | Path, progress: Progress | None = None
) -> Precheck:
    """:func:`springback.weights.check_line` of two adapters of LoRA on linear layers, each in its
    base.

    Raises :class:`ModelError` for factors or weights that hold NaN or infinity.
    """
    folders = [Path(folder) for folder in adapters]
    total = AdapterSum([open_adapter(folder) for folder in folders], 1.0, (1.0,), None)
    weights, speaker = sound(open_weights(base)), progress or Silent()
    floats = {n: s for n, s in weights.tensors.items() if s[1].code in FLOAT_BYTES and s[1].size}
    speaker.stage("checking the line", len(floats) + len(total.modules))
    moved = first = norm = 0.0
    with Reader() as reader:
        for name in total.modules:
            direction = total.direction(reader, name)
            if direction is not None:
                _, _, cut, whole = cut_rank(*direction, 1)
                moved, first = moved + whole, first + whole - cut
            speaker.advance(1, name)
        for name, source in floats.items():
            norm += _norm_sq(reader, source, total.ft, name.removesuffix(".weight"))
            speaker.advance(1, name)
    speaker.close()
    if not np.isfinite(moved + norm):
        raise ModelError(
            f"{folders[0]}, {folders[1]} or {base} holds NaN or infinity; allowed: finite "
            "weights; take other checkpoints"
        )
    gram = np.array([[moved, 0.0], [0.0, 0.0]])
    parameters = sum(info.size for _, info in floats.values())
    steps = checkpoint_steps(folders, None)
    return summary(gram, norm, steps, parameters, first / moved if moved else None)


def adapter_products(adapters: Sequence[str | Path]) -> Floats:
    """:func:`springback.weights.precheck.inner_products` of adapters, from their factors.

    <B A, D C> = sum((B^T D) * (A C^T)), so nothing is merged.
    """
    opened = [open_adapter(folder) for folder in adapters]
    count = len(opened)
    products = np.zeros((count, count))
    with Reader() as reader:
        for name in sorted({name for adapter in opened for name in adapter.modules}):
            factors = [adapter.factors(reader, name) for adapter in opened]
            for i, one in enumerate(factors):
                for j, other in enumerate(factors[: i + 1]):
                    if one is not None and other is not None:
                        value = float(((one[0].T @ other[0]) * (one[1] @ other[1].T)).sum())
                        products[i, j] += value
    products += np.tril(products, -1).T
    if not np.isfinite(products).all():
        raise ModelError(
            f"one of {', '.join(map(str, adapters))} holds NaN or infinity; allowed: finite "
            "weights; take other checkpoints"
        )
    change = np.eye(count)[:-1] - np.eye(count)[-1]
    gram: Floats = change @ products @ change.T
    return gram


def _norm_sq(reader: Reader, source: Source, adapter: Adapter, module: str) -> float:
    """||W + B A||^2 of a tensor of the base, a block of rows at a time."""
    info, factors = source[1], adapter.factors(reader, module)
    columns = info.shape[-1] if factors is not None else 1
    total, block = 0.0, max(1, PIECE // columns) * columns
    for first in range(0, info.size, block):
        count = min(block, info.size - first)
        values = decode(reader.read(source, first, count), info.code)
        if factors is not None:
            rows = slice(first // columns, (first + count) // columns)
            values += (factors[0][rows] @ factors[1]).reshape(-1)
        total += float(values @ values)
    return total
