"""Tiny weight folders for the tests of springback.weights: written and read by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
#: A tensor as (safetensors dtype code, array); BF16 arrays hold their bits as uint16.
Tensor = tuple[str, Array]

_CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL", "int64": "I64"}


def plain(array: Array) -> Tensor:
    """A tensor of numpy's own dtype."""
    return _CODES[array.dtype.name], array


def bf16(values: Any) -> Tensor:
    """Values that bfloat16 holds exactly, as their bits: the upper half of a float32."""
    wide = np.asarray(values, np.float32).view(np.uint32)
    assert not (wide & 0xFFFF).any(), "not a bfloat16 value"
    return "BF16", (wide >> 16).astype(np.uint16)


def write_file(path: Path, tensors: Mapping[str, Tensor], metadata: bool = True) -> None:
    """A safetensors file: eight bytes of header length, JSON, the bytes in the order given."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}} if metadata else {}
    data = b""
    for name, (code, array) in tensors.items():
        raw = array.tobytes()
        table[name] = {
            "dtype": code,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    header = json.dumps(table).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def write_model(folder: Path, *shards: Mapping[str, Tensor]) -> Path:
    """One shard: ``model.safetensors``.  More: numbered files and an index."""
    if len(shards) == 1:
        write_file(folder / "model.safetensors", shards[0])
        return folder
    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(folder / name, tensors)
        weight_map.update(dict.fromkeys(tensors, name))
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def read_model(folder: Path) -> dict[str, Tensor]:
    """All tensors of all safetensors files in ``folder``."""
    kinds = {code: np.dtype(name) for name, code in _CODES.items()} | {"BF16": np.dtype("uint16")}
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        table = json.loads(raw[8 : 8 + length])
        table.pop("__metadata__", None)
        for name, entry in table.items():
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            array = np.frombuffer(raw[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
            found[name] = entry["dtype"], array
    return found


def values(tensor: Tensor) -> Array:
    """The numbers of a tensor, bfloat16 as float32."""
    code, array = tensor
    return (array.astype(np.uint32) << 16).view(np.float32) if code == "BF16" else array


def pair(
    root: Path, shape: tuple[int, ...] = (40, 25), names: str = "abcd", seed: int = 0
) -> tuple[Path, Path]:
    """Two float32 models, ft in two shards with half of ``names`` each, early in one file."""
    rng = np.random.default_rng(seed)
    early = {n: rng.standard_normal(shape).astype(np.float32) for n in names}
    ft = {n: a + 0.1 * rng.standard_normal(shape).astype(np.float32) for n, a in early.items()}
    half = len(names) // 2
    shards = [{n: plain(ft[n]) for n in part} for part in (names[:half], names[half:])]
    return (
        write_model(root / "early", {n: plain(a) for n, a in early.items()}),
        write_model(root / "ft", *shards),
    )
