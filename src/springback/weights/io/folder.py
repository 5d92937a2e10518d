"""A model folder's weights: which files they are, what is in them, the hash of their content."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from springback.core import content_hash
from springback.errors import FreedError, ModelError
from springback.weights.io.safetensors import (
    TensorFile,
    TensorInfo,
    dtype_name,
    encode_header,
    read_file,
)

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
#: What stays of weights that were freed (:func:`springback.weights.io.freed.free_weights`).
FREED = "weights_freed.json"
PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """The weight files of one folder, sorted by name, and where each tensor lies.

    ``paths``: the files by name, where ``files`` are not all of them as they are.
    """

    root: Path
    files: tuple[TensorFile, ...]
    tensors: Mapping[str, tuple[TensorFile, TensorInfo]]
    index: Path | None
    paths: Mapping[str, Path] | None = None

    def hashed(self) -> dict[str, Path]:
        """The files that :func:`hash_weights` covers, by name."""
        paths = dict(self.paths or {file.name: file.path for file in self.files})
        if list(paths) == [ADAPTER]:
            paths[ADAPTER_CONFIG] = inside(self.root, ADAPTER_CONFIG)
        return paths

    def renamed(self, names: Mapping[str, str]) -> Weights:
        """The same tensors under other names; what is not in ``names`` is left out.

        The files are as they would be written: a header of these names, no file without any.
        """
        if all(names.get(name) == name for name in self.tensors):
            return self
        return self.changed(lambda t: [replace(t, name=names[t.name])] if t.name in names else [])

    def changed(self, change: Callable[[TensorInfo], Sequence[TensorInfo]]) -> Weights:
        """The same files with what ``change`` gives in the place of each tensor."""
        files, where = [], {}
        for file in self.files:
            kept = tuple(new for t in file.tensors for new in change(t))
            if not kept:
                continue
            sizes = [(t.name, t.code, t.shape, t.nbytes) for t in kept]
            file = replace(file, tensors=kept, header=encode_header(sizes, file.metadata))
            files.append(file)
            where.update({t.name: (file, t) for t in kept})
        return replace(self, files=tuple(files), tensors=where, paths=self.hashed())


def open_weights(folder: str | Path) -> Weights:
    """Read the headers of ``folder``'s weights.

    Takes ``model.safetensors``, else the shards of ``model.safetensors.index.json``, else
    (with ``adapter_config.json``) ``adapter_model.safetensors``.  Raises :class:`ModelError`
    when there are none, only pickled ones, or when an index does not fit its shards.
    """
    root = _root(folder)
    names, index = _weight_names(root)
    listed = _weight_map(index) if index else {}
    files = tuple(read_file(inside(root, name), name) for name in names)
    tensors: dict[str, tuple[TensorFile, TensorInfo]] = {}
    for file in files:
        for info in file.tensors:
            if info.name in tensors:
                both = f"{tensors[info.name][0].name} and {file.name}"
                raise ModelError(f"{root}: tensor {info.name} is in {both}; save the model again")
            tensors[info.name] = (file, info)
    for name, shard in listed.items():
        if name not in tensors or tensors[name][0].name != shard:
            raise ModelError(
                f"{root / INDEX} says {name} is in {shard}, which does not have it; "
                "copy the folder again"
            )
    if index and (unlisted := sorted(tensors.keys() - listed.keys())):
        raise ModelError(
            f"{root / INDEX} does not list {unlisted[0]}, which "
            f"{tensors[unlisted[0]][0].name} holds; copy the folder again, or save the model again"
        )
    if not tensors:
        raise ModelError(f"{root}: {', '.join(names)} holds no tensors; save the model again")
    return Weights(root, files, tensors, index)


def weight_files(folder: str | Path) -> list[Path]:
    """The weight files that a loader reads, sorted by name, and no others that lie beside them."""
    root = _root(folder)
    return [inside(root, name) for name in _weight_names(root)[0]]


def tensor_names(folder: str | Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape, dtype name such as ``bfloat16``) of every tensor stored in ``folder``.

    Reads headers only.  Tied weights appear once, as in the file.
    """
    if record := freed_record(folder):
        return {name: (tuple(shape), dtype) for name, (shape, dtype) in record["tensors"].items()}
    tensors = open_weights(folder).tensors
    return {name: (t.shape, dtype_name(t.code)) for name, (_, t) in tensors.items()}


def hash_weights(folder: str | Path) -> str:
    """Content hash (hex) of the weight files in ``folder``, streamed.

    SHA-256 over the sorted file names, each with the SHA-256 of the file's bytes (which is
    what ``sha256sum`` and the hub show).  For an adapter its ``adapter_config.json`` counts
    too, since rank and alpha scale what the file holds.  Of freed weights it is the one recorded.
    """
    root = _root(folder)
    if record := freed_record(root):
        return str(record["content_hash"])
    names = [ADAPTER_CONFIG, ADAPTER]  # also where its merged model lies beside it
    if not all((root / name).exists() for name in names):
        names, _ = _weight_names(root)
    paths = [inside(root, name) for name in names]
    with ThreadPoolExecutor(max_workers=4) as pool:
        return combine(dict(zip(names, pool.map(file_digest, paths), strict=True)))


def freed_record(folder: str | Path) -> dict[str, Any] | None:
    """``content_hash`` and ``tensors`` of the weights that were freed from ``folder``; None where
    it has weights, or never had any."""
    root = Path(folder)
    if not (root / FREED).is_file() or any((root / n).exists() for n in (SINGLE, INDEX, ADAPTER)):
        return None
    record = readable_json(root / FREED)
    if not (isinstance(record, dict) and {"content_hash", "tensors"} <= record.keys()):
        raise ModelError(
            f"{root / FREED} does not say what the weights were; remove the folder {root} and run "
            "the command again that made it"
        )
    return record


def combine(digests: Mapping[str, str]) -> str:
    """The content hash of a folder from the digest of each weight file by name."""
    return content_hash(sorted(digests.items()))


def file_digest(path: Path, stop: threading.Event | None = None) -> str:
    """SHA-256 (hex) of a file's bytes.  ``stop`` ends it early, with the hash of a part."""
    sha, block = hashlib.sha256(), bytearray(_BLOCK)
    view = memoryview(block)
    with path.open("rb", buffering=0) as handle:
        while count := handle.readinto(block):
            sha.update(view[:count])
            if stop is not None and stop.is_set():
                break
    return sha.hexdigest()


def inside(root: Path, name: str) -> Path:
    """``root / name`` with links followed, if that stays in the folder.

    A folder of the hub's cache (``snapshots/<revision>``) may also link into the ``blobs``
    beside it.  Raises :class:`ModelError` for a missing file and for one that leads elsewhere.
    """
    try:
        path = (root / name).resolve(strict=True)
    # A loop of links is a RuntimeError before 3.13; half characters and NUL are a ValueError.
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{root / name} is missing; copy the folder again") from error
    homes = [root]
    if root.parent.name == "snapshots":
        homes.append((root.parent.parent / "blobs").resolve())
    if not any(path.is_relative_to(home) for home in homes):
        raise ModelError(
            f"{root / name} leads to {path}, outside of the model folder; copy that file into it"
        )
    if not path.is_file():
        raise ModelError(f"{root / name} is not a file; copy the folder again")
    return path


def readable_json(path: Path, complain: Callable[[str], Exception] = ModelError) -> Any:
    """The JSON in ``path``; a broken file is the error that ``complain`` makes of one line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise complain(f"cannot read {path}: {error}; copy that file again") from error


def _root(folder: str | Path) -> Path:
    root = Path(folder)
    if not root.is_dir():
        kind = "a file" if root.exists() else "not there"
        raise ModelError(
            f"given: {folder}, which is {kind}; allowed: a model folder with {SINGLE} or {INDEX}; "
            "name one"
        )
    return root.resolve()


def _weight_names(root: Path) -> tuple[list[str], Path | None]:
    """Sorted names of the weight files and the index, chosen as Transformers chooses them."""
    if (root / SINGLE).exists():
        return [SINGLE], None
    if (root / INDEX).exists():
        index = inside(root, INDEX)
        return sorted(set(_weight_map(index).values())), index
    if (root / ADAPTER_CONFIG).exists() and (root / ADAPTER).exists():
        return [ADAPTER], None
    if freed_record(root):
        raise FreedError(root)
    pickled = sorted(p.name for p in root.iterdir() if p.suffix in PICKLED)
    if pickled:
        raise ModelError(
            f"{root} holds pickled weights only ({pickled[0]}), and reading those can run code; "
            f"allowed: {SINGLE}; save the model as safetensors with save_pretrained"
        )
    raise ModelError(
        f"no weights in {root}; allowed: {SINGLE} or {INDEX} with its shards{_elsewhere(root)}"
    )


def _elsewhere(root: Path) -> str:
    """What makes weights of the parts that a trainer left in ``root``, or where there are some."""
    names = sorted(p.name for p in root.iterdir())
    if parts := [n for n in names if n.startswith("pytorch_model_fsdp") or n.endswith(".distcp")]:
        where = root if parts[0].endswith(".distcp") else root / parts[0]
        return f"; these are parts of FSDP: accelerate merge-weights {where} OUT"
    if any(n == "zero_to_fp32.py" or n.startswith("global_step") for n in names):
        script = f"python zero_to_fp32.py {root} OUT --safe_serialization"
        return f"; these are parts of DeepSpeed: {script}"
    inner = [n for n in names if any((root / n / f).is_file() for f in (SINGLE, INDEX, ADAPTER))]
    if inner:  # of checkpoint-900 and checkpoint-1000 the later one
        last = max(inner, key=lambda n: [int(d) for d in re.findall(r"\d+", n)])
        return f"; name {root / last}, which has some"
    if ADAPTER in names:
        return f"; {ADAPTER} needs its {ADAPTER_CONFIG} beside it: copy that file too"
    if other := [n for n in names if n.endswith((".gguf", ".safetensors"))]:
        return f"; it holds {other[0]}, which no loader takes: write it anew by save_pretrained"
    return "; name a folder written by save_pretrained"


def _weight_map(index: Path) -> dict[str, str]:
    table = readable_json(index)
    shards = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise ModelError(f"{index} has no weight_map; copy that file again")
    for shard in shards.values():
        _check_shard_name(index, shard)
    return shards


def _check_shard_name(index: Path, shard: object) -> None:
    """Refuse names that could point out of the folder or at something that is no weight file."""
    if isinstance(shard, str) and shard.endswith(".safetensors"):
        path = PurePosixPath(shard)
        hidden = any(part.startswith((".", "/")) for part in path.parts)
        if str(path) == shard and not hidden and not {"\\", "\0"} & set(shard):
            return
    raise ModelError(
        f"{index} names the shard {shard!r}; allowed: .safetensors files inside the folder; "
        "do not use this folder unless you know why it says so"
    )
