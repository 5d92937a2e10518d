"""How far a model's weights lie from another's, by kind of module, streamed from their files.

Lengths are Euclidean, over all tensors of a group as one vector, in float64.  Equal lengths may
change behaviour much or little.  Memory does not depend on the model, but for adapters on the
widest of their modules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from springback.errors import ModelError, describe
from springback.progress import Progress, Silent
from springback.results.check_schema import Moved
from springback.weights.adapters.combining import norm_sq
from springback.weights.adapters.reading import open_adapter
from springback.weights.arithmetic import decode
from springback.weights.direction import group_of
from springback.weights.extrapolation import open_checkpoints
from springback.weights.io.aligning import sound
from springback.weights.io.folder import Weights, open_weights
from springback.weights.io.job import check_settings
from springback.weights.io.safetensors import FLOAT_BYTES
from springback.weights.io.stream import PIECE, Reader, Source

#: The group of all tensors together.
ALL = "all"


def moved(base: str | Path, tuned: str | Path, progress: Progress | None = None) -> list[Moved]:
    """Every group of ``tuned``, a model folder, against ``base``; all together first.

    Raises :class:`ModelError` for weights of other names or shapes, and for NaN and infinity.
    """
    first, second = open_checkpoints([Path(base), Path(tuned)])
    floats = [n for n, (_, t) in second.tensors.items() if t.code in FLOAT_BYTES and t.size]
    speaker = progress or Silent()
    speaker.stage("how far weights moved", len(floats))
    sums: dict[str, list[float]] = {}
    workers = check_settings("auto", None)
    with Reader() as reader, ThreadPoolExecutor(workers, "springback-moved") as pool:
        for name in floats:
            pair = (first.tensors[name], second.tensors[name])
            count = pair[1][1].size
            each = list(pool.map(partial(_piece, reader, pair), *zip(*_pieces(count), strict=True)))
            _add(sums, name, count, *(math.fsum(part) for part in zip(*each, strict=True)))
            speaker.advance(1, name)
    return _groups(sums)


def moved_by_adapter(base: str | Path, adapter: str | Path) -> list[Moved]:
    """:func:`moved` of a LoRA adapter on ``base``, without merging it.

    Raises :class:`ModelError` for an adapter that is not W + scaling * B A, or not of this base.
    """
    tuned, weights = open_adapter(adapter), sound(open_weights(base))
    changes: dict[str, float] = {}
    with Reader() as reader:
        for name in tuned.modules:
            factors = tuned.factors(reader, name)
            assert factors is not None
            changes[f"{name}.weight"] = norm_sq(*factors)
        for name, info in tuned.full.items():
            if name in tuned.copies:
                continue
            source = weights.tensors.get(name)
            if source is None or source[1].shape != info.shape:
                raise _other_base(str(adapter), name, weights)
            pair = (source, (tuned.weights.files[0], info))
            pieces = (_piece(reader, pair, *part)[0] for part in _pieces(info.size))
            changes[name] = math.fsum(pieces)
        if lacking := sorted(changes.keys() - weights.tensors.keys()):
            raise _other_base(str(adapter), lacking[0], weights)
        sums: dict[str, list[float]] = {}
        for name, source in weights.tensors.items():
            info = source[1]
            if info.code in FLOAT_BYTES and info.size:
                both = (source, source)
                size = math.fsum(_piece(reader, both, *part)[1] for part in _pieces(info.size))
                _add(sums, name, info.size, changes.get(name, 0.0), size)
    return _groups(sums)


def _other_base(adapter: str, name: str, weights: Weights) -> ModelError:
    return ModelError(
        describe(
            f"{adapter}, which changes {name}, with the base {weights.root}, which has none such",
            "an adapter of that base",
            "name the base that it was trained on",
        )
    )


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    """First element and number of each piece."""
    return ((first, min(PIECE, size - first)) for first in range(0, size, PIECE))


def _piece(
    reader: Reader, pair: tuple[Source, Source], first: int, count: int
) -> tuple[float, float]:
    """||b - a||^2 and ||a||^2 of a stretch of one tensor."""
    a, b = (decode(reader.read(s, first, count), s[1].code) for s in pair)
    with np.errstate(all="ignore"):
        change = b - a
        sums = float(change @ change), float(a @ a)
    if not all(map(math.isfinite, sums)):
        raise ModelError(
            f"{pair[1][1].name} holds NaN or infinity in one of the models; allowed: finite "
            "weights; take another checkpoint"
        )
    return sums


def _add(sums: dict[str, list[float]], name: str, count: int, change: float, size: float) -> None:
    for group in (ALL, group_of(name)):
        kept = sums.setdefault(group, [0, 0.0, 0.0])
        kept[0], kept[1], kept[2] = kept[0] + count, kept[1] + change, kept[2] + size


def _groups(sums: dict[str, list[float]]) -> list[Moved]:
    return [
        Moved(group, int(n), math.sqrt(c), math.sqrt(c / s) if s else None)
        for group, (n, c, s) in sums.items()
    ]
