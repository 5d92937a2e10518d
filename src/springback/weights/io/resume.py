"""The growing result: kept beside its final place, found again after a kill, renamed when whole.

Layout of ``.<name>.partial/`` next to the output folder, closed to other users::

    .lock         held by the process at work
    state.json    settings, version; for each finished shard the hashes of what it was made
                  from, its own, and its sums
    folder/       what becomes the output folder
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from springback.errors import StoreError
from springback.results.provenance import package_version
from springback.results.store import (
    open_lock,
    own_folder,
    read_json,
    require_folder,
    require_plain,
    sync_folder,
    tell_damaged,
    write_json,
    write_refusal,
)
from springback.weights.arithmetic import Tally

STATE = "state.json"


@dataclass(frozen=True)
class Shard:
    """A finished shard: SHA-256 and size of the file, the digests of its source files, its sums."""

    sha256: str
    nbytes: int
    made_of: Mapping[str, str]
    tally: Tally


@dataclass
class Partial:
    """A result that is not whole yet."""

    root: Path
    key: Mapping[str, Any]
    shards: dict[str, Shard] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / "folder"

    def finish_shard(self, name: str, shard: Shard) -> None:
        """Record that ``name`` lies whole on the disk."""
        self.shards[name] = shard
        write_json(self.root / STATE, {"key": self.key, "shards": self.shards})

    def sweep(self) -> None:
        """Remove what is not a finished shard, to have its space back."""
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.rglob("*"):
            if not path.is_dir() and str(path.relative_to(self.folder)) not in self.shards:
                path.unlink()

    def publish(self, out: Path) -> None:
        """Give the folder its name.  ``out`` may be an empty folder, else must not exist."""
        for folder in (self.folder, *(p for p in self.folder.rglob("*") if p.is_dir())):
            sync_folder(folder)
        os.replace(self.folder, out)
        sync_folder(out.parent)
        shutil.rmtree(self.root, ignore_errors=True)

    def drop(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.root, ignore_errors=True)


def partial_root(out: Path) -> Path:
    """Where the result for ``out`` grows."""
    return out.parent / f".{out.name}.partial"


@contextlib.contextmanager
def open_partial(out: Path, settings: Mapping[str, Any]) -> Iterator[Partial]:
    """The partial result that an interrupted call with the same settings left, or a new one.

    Raises :class:`StoreError` while another process works on it and where a link, or something
    of another user's, lies in its place; :class:`SpaceError` when the disk turns out full; what is
    finished then stays for the next call.
    """
    root = partial_root(out)
    key = {"schema": 2, **settings, "springback": package_version("springback")}
    try:
        own_folder(root)
        with open_lock(root / ".lock") as handle:
            if not _lock(handle.fileno()):
                raise StoreError(
                    f"another springback process is writing {out}; "
                    "wait for it or choose another --out"
                )
            require_plain(root, own=True)
            partial = Partial(root, key, _load(root / STATE, key))
            try:
                partial.sweep()
                yield partial
            except BaseException:
                if not partial.shards:  # nothing to go on from
                    partial.drop()
                raise
    except OSError as error:
        raise write_refusal(error, out) from error


def drop_stale(out: Path) -> None:
    """Remove the partial folder of a finished ``out``, unless another process holds its lock."""
    root = partial_root(out)
    if root.is_dir():
        # What is not this user's stays: nothing is written there.
        with contextlib.suppress(OSError, StoreError):
            require_folder(root, own=True)
            with open_lock(root / ".lock") as handle:
                if _lock(handle.fileno()):
                    shutil.rmtree(root, ignore_errors=True)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _load(path: Path, key: Mapping[str, Any]) -> dict[str, Shard]:
    """Finished shards recorded under the same settings; anything else counts as none, with a
    warning where it is damaged."""
    if not path.exists():
        return {}
    try:
        state = read_json(path)
        if state["key"] != key:
            return {}
        shards = {}
        for name, entry in state["shards"].items():
            tally = Tally(**entry["tally"])
            Tally().add(tally)  # all numbers, or it raises
            sha256, nbytes = str(entry["sha256"]), int(entry["nbytes"])
            shards[name] = Shard(sha256, nbytes, dict(entry["made_of"]), tally)
        return shards
    except (StoreError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        tell_damaged(path, error)
        return {}
