"""The safetensors file: where each tensor's bytes lie, and the header of a file to be written.

The safetensors package checks the header (known dtypes, no overlap, no hole, nothing past
the end); here it is only read for the byte ranges, which the package does not give.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from springback.errors import ModelError

#: Bytes of one element of the floating dtypes that arithmetic is done on, by safetensors code.
FLOAT_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
#: Codes of the dtypes that are compared and copied.
COPIED = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
    "BOOL": "bool",
    **{f"{c}{n}": f"{w}{n}" for c, w in (("U", "uint"), ("I", "int")) for n in (8, 16, 32, 64)},
}
LFS_POINTER = b"version https://git-lfs"


def dtype_name(code: str) -> str:
    """The usual name of a safetensors dtype code: ``BF16`` is ``bfloat16``."""
    return _NAMES.get(code, code.lower())


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: safetensors dtype code, shape, first byte in the file, bytes."""

    name: str
    code: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TensorFile:
    """One safetensors file.  ``header`` is everything before the first tensor's bytes."""

    path: Path
    name: str
    header: bytes = field(repr=False)
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]


def read_file(path: Path, name: str) -> TensorFile:
    """The header of ``path``, tensors in the order of their bytes.

    Raises :class:`ModelError` if it is no sound safetensors file.
    """
    try:
        with path.open("rb") as handle:
            if handle.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ModelError(f"{path} is a git-lfs pointer, not weights; run: git lfs pull")
            with safe_open(str(path), framework="numpy"):
                pass
            handle.seek(0)
            length = int.from_bytes(handle.read(8), "little")
            raw = handle.read(length)
        table: dict[str, Any] = json.loads(raw)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"cannot read {path}: {error}; allowed: a whole safetensors file; copy it again"
        ) from error
    base = 8 + length
    metadata = table.pop("__metadata__", None) or {}
    tensors = [
        TensorInfo(
            key,
            entry["dtype"],
            tuple(entry["shape"]),
            base + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for key, entry in table.items()
    ]
    tensors.sort(key=lambda t: (t.start, t.start + t.nbytes))
    header = length.to_bytes(8, "little") + raw
    return TensorFile(path, name, header, tuple(tensors), metadata)


@dataclass(frozen=True)
class Layout:
    """A file to be written: its header, and for each tensor its source, dtype code and place."""

    header: bytes = field(repr=False)
    entries: tuple[tuple[TensorInfo, str, int], ...]
    nbytes: int


def plan_layout(source: TensorFile, dtype: str) -> Layout:
    """``source`` with its float tensors in ``dtype`` (a code, or ``auto`` to keep each one's).

    Without a change of dtype the header is the source's, byte for byte.
    """
    codes = [dtype if dtype != "auto" and t.code in FLOAT_BYTES else t.code for t in source.tensors]
    if all(code == t.code for code, t in zip(codes, source.tensors, strict=True)):
        header = source.header
        sizes = [t.nbytes for t in source.tensors]
    else:
        sizes = [
            t.size * FLOAT_BYTES[code] if code in FLOAT_BYTES else t.nbytes
            for code, t in zip(codes, source.tensors, strict=True)
        ]
        shapes = [
            (t.name, code, t.shape, size)
            for t, code, size in zip(source.tensors, codes, sizes, strict=True)
        ]
        header = encode_header(shapes, source.metadata)
    entries, place = [], len(header)
    for info, code, size in zip(source.tensors, codes, sizes, strict=True):
        entries.append((info, code, place))
        place += size
    return Layout(header, tuple(entries), place)


def encode_header(
    tensors: Sequence[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str]
) -> bytes:
    """Everything before the first tensor's bytes, for tensors (name, code, shape, bytes) in order.

    Their bytes follow each other without a gap.
    """
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, code, shape, size in tensors:
        end = start + size
        table[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    raw = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)  # the format asks for tensor data at a multiple of 8
    return len(raw).to_bytes(8, "little") + raw
