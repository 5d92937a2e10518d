"""Free the weights of a checkpoint that can be made again; what tells which they were stays."""

from __future__ import annotations

from pathlib import Path

from springback.results.store import require_plain, write_json
from springback.weights.io.folder import (
    FREED,
    INDEX,
    freed_record,
    hash_weights,
    tensor_names,
)


def weight_files(folder: Path) -> list[Path]:
    """What :func:`free_weights` removes, the index first: without it no shard counts."""
    index = folder / INDEX
    return [*([index] if index.exists() else []), *sorted(folder.glob("*.safetensors"))]


def free_weights(folder: Path) -> None:
    """Remove the weights of ``folder``; their hash, names and shapes stay, as does the config.

    :func:`springback.weights.hash_weights` then answers as before, so that finished runs are still
    known, and what needs the weights raises :class:`springback.errors.FreedError`.  After a kill in
    between the folder is whole, or counts as freed; the same call goes on.  Raises
    :class:`springback.errors.StoreError` where something in it is a link or another user's.
    """
    require_plain(folder, own=True)
    if not (files := weight_files(folder)):
        return
    if freed_record(folder) is None:
        record = {"content_hash": hash_weights(folder), "tensors": tensor_names(folder)}
        write_json(folder / FREED, record)
    for path in files:
        path.unlink()
