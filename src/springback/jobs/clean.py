"""What a job's folder holds that can be made again: listed with its cost, freed, made when needed.

Results, reports, boosted folders and everything that the user put there stay.  Of a job's own
checkpoints the weights go, and what tells which they were stays
(:mod:`springback.weights.io.freed`), so the same command still shows its finished result.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

from springback.errors import FreedError, StoreError
from springback.progress import Progress
from springback.results.places import RESULT_FILE
from springback.results.store import (
    MADE_FILE,
    RUN_FILE,
    Store,
    below,
    clear_folder,
    facts_of,
    open_lock,
    read_json,
    require_file,
    require_named,
    require_plain,
)
from springback.weights import is_adapter
from springback.weights.io.freed import free_weights, weight_files

_T = TypeVar("_T")
#: How the store names what belongs to a run: its kind and its id.
_RUN = re.compile(r"([a-z][a-z-]*)-[0-9a-f]{20}")
#: Kinds of runs whose jobs know freed weights by what stays of them, and what making them again is.
_REMADE = {"train": "fine-tuning", "pretrain": "pre-training", "merge": "merging, no training"}
_WEIGHTS = ("weights", "merged copy")
#: Folders of a store in which no other store lies.
_INNER = ("runs", "checkpoints", "partial", "charts", "model")


@dataclass(frozen=True)
class Spare:
    """Something that may go.

    ``again``: what making it again is, in words; ``seconds``: how long its run took, None where
    that was not recorded, 0 where nothing needs it.  ``bytes``: what is freed; a file that has
    other names too frees nothing.
    """

    path: Path
    what: str
    bytes: int
    again: str
    seconds: float | None


@dataclass(frozen=True)
class Found:
    """``kept``: what would be spare, but was named as input by the user."""

    spare: tuple[Spare, ...]
    kept: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.spare)


def find(folder: str | Path) -> Found:
    """What may go in a job's folder and the jobs' folders within it; changes nothing.

    Raises :class:`StoreError` for a folder that is no job's, a link, a folder in which a job is
    running, and for links or other users' files where a job's own would be.
    """
    roots = _roots(Path(folder))
    for root in roots:
        _require_idle(root)
    return _found(roots)


def free(folder: str | Path) -> Found:
    """Free what :func:`find` lists, and return that.

    The folders are locked meanwhile.  After a kill every checkpoint is whole or counts as freed,
    and the same call goes on.
    """
    before, roots = find(folder), _roots(Path(folder))
    with ExitStack() as locks:
        for root in roots:
            locks.enter_context(Store(root).locked())
        for one in _found(roots).spare:  # half-written files went when the folders were locked
            if one.what in _WEIGHTS and _kind(one.path.parent) in _REMADE:
                free_weights(one.path)
            else:
                gone = one.path.with_name(f".{one.path.name}.{uuid.uuid4().hex[:8]}.tmp")
                os.replace(one.path, gone)
                clear_folder(gone)
    return before


def remaking(out: str | Path, progress: Progress, job: Callable[[], _T]) -> _T:
    """What ``job`` returns; where it needs weights below ``out`` that were freed, they are made
    again first, by the job itself, which goes on from its finished runs."""
    while True:
        try:
            return job()
        except FreedError as freed:
            place = Path(os.path.realpath(out)) / "checkpoints"
            folder = Path(os.path.realpath(freed.folder))
            if not folder.is_relative_to(place) or folder == place:
                raise
            again = _REMADE.get(_kind(folder.parent), "its run")
            progress.note(f"the weights of {folder} were freed and are needed: {again} again")
            clear_folder(below(place, *folder.relative_to(place).parts))


def _kind(run: Path) -> str:
    """The kind of run that a folder is named after; empty where it is none's."""
    match = _RUN.fullmatch(run.name)
    return match[1] if match else ""


def _roots(folder: Path) -> list[Path]:
    """The folder and every job's folder below it; links are not followed."""
    require_named(folder)
    allowed = "allowed: a folder that a springback job wrote (--out)"
    if folder.is_symlink():
        raise StoreError(f"{folder} is a link; {allowed}; name the folder that it leads to")
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "not there"
        raise StoreError(f"{folder} is {kind}; {allowed}; name one")
    folder = Path(os.path.realpath(folder))
    if not _is_store(folder):
        raise StoreError(f"{folder} is no job's folder; {allowed}; name one")
    roots = []
    for place, folders, _ in os.walk(folder):
        if _is_store(Path(place)):
            roots.append(Path(place))
            folders[:] = sorted(name for name in folders if name not in _INNER)
    return roots


def _is_store(root: Path) -> bool:
    """Whether a job wrote it: a result of ours, or a lock beside runs named as ours are."""
    if _result(root):
        return True
    lock = root / ".lock"
    if lock.is_symlink() or not lock.is_file():
        return False
    places = [root / name for name in ("runs", "checkpoints", "partial")]
    return any(_kind(p) for place in places if place.is_dir() for p in place.iterdir())


def _result(root: Path) -> Mapping[str, Any]:
    """The result file of a job's folder; empty where there is none of ours."""
    path = root / RESULT_FILE
    if path.is_symlink() or not path.is_file():
        return {}
    try:
        data = read_json(path)
    except StoreError:
        return {}
    ours = isinstance(data, dict) and {"schema_version", "kind", "provenance"} <= data.keys()
    return data if ours else {}


def _require_idle(root: Path) -> None:
    path = root / ".lock"
    require_file(path)
    if not path.exists():
        return
    with open_lock(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(
                f"another springback process is writing to {root}; wait for it, or stop it"
            ) from error


def _found(roots: list[Path]) -> Found:
    named = [name for root in roots for name in _named(root)]
    spare, kept, removed = [], [], Counter[tuple[int, int]]()
    for path, what, again, seconds in (one for root in roots for one in _spare(root)):
        if any(_is_named(path, name) for name in named):
            kept.append(path)
            continue
        spare.append(Spare(path, what, _freed_bytes(path, what, removed), again, seconds))
    return Found(tuple(spare), tuple(kept))


def _spare(root: Path) -> Iterator[tuple[Path, str, str, float | None]]:
    """Path, what it is, what making it again is, and seconds of that, of one job's folder."""
    store = Store(root)
    for folder in (root, *(store.below(name) for name in ("runs", "checkpoints", "partial"))):
        for path in sorted(folder.glob(".*.tmp")):
            if not path.is_symlink():
                require_plain(path, own=True) if path.is_dir() else require_file(path)
                yield path, "half-written", "nothing needs it", 0.0
    for place in _of_runs(store, "partial"):
        if (store.runs / place.name / RUN_FILE).exists():
            yield place, "partial state", "nothing needs it: its run is done", 0.0
            continue
        steps = sorted(p.name for p in place.glob("step-*") if not p.name.endswith(".tmp"))
        until = f"up to step {int(steps[-1][5:])}" if steps and steps[-1][5:].isdigit() else "begun"
        yield place, "partial state", f"training {until}, if that run is asked for again", None
    for run in _of_runs(store, "checkpoints"):
        kind, seconds = _kind(run), _seconds(store, run.name)
        if kind in _REMADE:
            for place in sorted(p for p in run.iterdir() if p.is_dir()):
                if place.name.startswith("."):
                    yield place, "half-written", "nothing needs it", 0.0
                    continue
                if not weight_files(place) or is_adapter(place):  # small, and read at once
                    continue
                what = "merged copy" if kind == "merge" else "weights"
                yield place, what, f"{_REMADE[kind]}, only if they are needed", seconds
        elif kind != "tokenizer":
            yield run, "weights", "training, only if a run that is left needs them", seconds


def _of_runs(store: Store, name: str) -> list[Path]:
    """Folders of runs below ``name``; raises :class:`StoreError` for a link or what is not the
    user's in them.  What is not named as a run's is not ours and stays."""
    folders = [p for p in sorted(store.below(name).glob("*")) if _kind(p)]
    for folder in folders:
        require_plain(folder, own=True)
    return [folder for folder in folders if folder.is_dir()]


def _seconds(store: Store, run: str) -> float | None:
    """How long a run took, where that was recorded."""
    file = store.below("runs", run) / MADE_FILE
    seconds = (facts_of(file) or {}).get("seconds") if file.exists() else None
    return float(seconds) if isinstance(seconds, int | float) else None


def _freed_bytes(path: Path, what: str, removed: Counter[tuple[int, int]]) -> int:
    """Bytes that removing it frees; ``removed`` counts the names of each file that go."""
    if path.is_file():
        files = [path]
    elif what in _WEIGHTS and _kind(path.parent) in _REMADE:
        files = weight_files(path)
    else:
        files = [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
    total = 0
    for entry in (file.lstat() for file in files):
        removed[entry.st_dev, entry.st_ino] += 1
        if removed[entry.st_dev, entry.st_ino] == entry.st_nlink:
            total += entry.st_size
    return total


def _named(root: Path) -> list[str]:
    """What the user named as input of the job in ``root``, as it was typed."""
    data = _result(root)
    command = (data.get("provenance") or {}).get("command") or []
    if "reproduce" in command[1:2]:  # its studies name models that it made itself
        return []
    inputs = data.get("inputs")
    return list(_texts((inputs or {}).get("settings"))) if isinstance(inputs, dict) else []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from {value, *(re.split(r"[?#]", part)[0] for part in value.split("+"))} - {""}
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _is_named(path: Path, name: str) -> bool:
    """Whether ``name`` is ``path``, lies in it, or holds it.

    A relative name was typed in a folder that is not known any more: then the end of the path
    decides.
    """
    if "\0" in name:
        return False
    place = Path(os.path.realpath(name))
    if place.exists() and (path.is_relative_to(place) or place.is_relative_to(path)):
        return True
    parts = tuple(part for part in PurePath(name).parts if part not in ("..", "."))
    ends = (path, *path.parents)
    return (
        not Path(name).is_absolute()
        and len(parts) > 1
        and any(end.parts[-len(parts) :] == parts for end in ends)
    )


__all__ = ["Found", "Spare", "find", "free", "remaking"]
