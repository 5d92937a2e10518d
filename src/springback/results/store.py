"""Result folders: named by content hash, written whole or not at all, found again on resume.

Layout below a job's output folder::

    runs/<kind>-<id>/run.json     inputs and results of one finished run (small; commit these)
    runs/<kind>-<id>/made.json    when and on what it was made, in how long; nothing depends on it
    checkpoints/<kind>-<id>/...   weights that a run left behind
    partial/<kind>-<id>/...       state of a run that was cut off
    result.json, report.html      what the job as a whole found

A run counts as done when its ``run.json`` is there, on whatever machine it was made.

Others may write where results go (/tmp, a group's disk) and plant links there: what springback
makes itself is looked at without following links before anything is locked, swept or written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import shutil
import stat
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from springback.core import Run, byte_size, content_hash, to_jsonable
from springback.errors import SpaceError, SpringbackError, SpringbackWarning, StoreError
from springback.results.provenance import origin
from springback.results.timing import Timer, sum_of_parts

RUN_FILE = "run.json"
MADE_FILE = "made.json"
#: What a folder with a model or an adapter has.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


def sync_folder(path: Path) -> None:
    """Have the names in a folder reach the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    # A path that is not UTF-8 has half characters, which JSON knows as \udc80 and the like.
    with whole_file(path) as out:
        out.write(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """:func:`write_text` of indented JSON; NaN is written as null."""
    write_text(path, json.dumps(to_jsonable(value), indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(
            f"cannot read {path}: {error}; delete that file and run the same command again"
        ) from error


def tell_damaged(path: Path, error: Exception) -> None:
    """Warn that ``path`` counts for nothing; the caller makes it again."""
    cause = error.__cause__ or error
    reason = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
    line = f"{path} is damaged and counts for nothing; what it held is made again ({reason})"
    warnings.warn(line, SpringbackWarning, stacklevel=2)


def full_disk(error: BaseException | None) -> str | None:
    """What the system says where ``error`` comes of a full disk or a used up quota, else None.

    What writes safetensors, and others, have errors of their own for it, which tell it in words.
    """
    known = {code: os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT)}
    while error is not None:
        if isinstance(error, OSError) and error.errno in known:
            return known[error.errno]
        if words := next((text for text in known.values() if text in str(error)), None):
            return words
        error = error.__cause__ or error.__context__
    return None


def write_refusal(error: BaseException, path: Path) -> SpaceError | StoreError:
    """What to raise when the system refuses to write ``path``: a full disk has its own class."""
    if words := full_disk(error):
        what = "no space left" if words == os.strerror(errno.ENOSPC) else "quota used up"
        return SpaceError(f"{what} on the disk of {path}; free some and run the same command again")
    return StoreError(f"cannot write {path}: {error}; check the folder and its permissions")


def _look(path: Path) -> os.stat_result | None:
    """What lies at ``path`` itself, links not followed; None if nothing can be seen there."""
    try:
        return path.lstat()
    except OSError:  # what cannot be looked at cannot be written to either
        return None


def _planted(path: Path, entry: os.stat_result, allowed: str) -> StoreError:
    """The refusal of what lies at ``path``."""
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
    kind = kinds.get(stat.S_IFMT(entry.st_mode), "a pipe, socket or device")
    owner = "" if entry.st_uid == os.geteuid() else f" of another user (uid {entry.st_uid})"
    shown = str(path) if str(path).isprintable() else ascii(str(path))  # others chose the name
    return StoreError(
        f"{shown} is {kind}{owner}; allowed: {allowed}; look who made it, then remove it or "
        "choose another folder"
    )


def require_named(path: Path) -> None:
    """Raise :class:`StoreError` where a path that the user named leads through a planted link.

    Links of the user's and of root's are followed; those above ``path`` also where the folder that
    holds them is not open to everyone.
    """
    for place in (path, *path.parents):
        entry = _look(place)
        if entry is None or not stat.S_ISLNK(entry.st_mode):
            continue
        if entry.st_uid not in (os.geteuid(), 0) and (
            place == path or place.parent.stat().st_mode & stat.S_IWOTH
        ):
            raise _planted(place, entry, "a folder, or a link that you made")


def real_out(out: str | Path) -> Path:
    """The folder that the user named, with links followed.  Raises :class:`StoreError` for planted
    ones (:func:`require_named`) and for one that leads nowhere."""
    path = Path(out)
    require_named(path)
    entry = _look(path)
    if entry is not None and not path.exists():
        raise _planted(path, entry, "a folder, or a link to one that is there")
    return Path(os.path.realpath(path))


def require_folder(path: Path, *, own: bool = False) -> None:
    """Raise :class:`StoreError` unless ``path`` is a folder, and no link to one, or not there.

    In a folder that everyone may write to it must be the user's, root's or that folder's owner's;
    with ``own`` it must be the user's wherever it lies.
    """
    entry = _look(path)
    if entry is None or (stat.S_ISDIR(entry.st_mode) and entry.st_uid == os.geteuid()):
        return
    around = path.parent.stat()
    if own:
        known = stat.S_ISDIR(entry.st_mode) and entry.st_uid == _owner_of_new(path.parent)
    else:
        known = entry.st_uid in (0, around.st_uid) or not around.st_mode & stat.S_IWOTH
    if not (known and stat.S_ISDIR(entry.st_mode)):
        raise _planted(path, entry, "a folder of your own")


def _owner_of_new(folder: Path) -> int | None:
    """Whom a new entry of ``folder`` belongs to: not the user on disks that give all files one
    owner (NFS with squashed ids, FAT).  None if there can be none."""
    probe = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        probe.mkdir()
        owner = probe.lstat().st_uid
        probe.rmdir()
    except OSError:
        return None
    return owner


def require_file(path: Path) -> None:
    """Raise :class:`StoreError` unless ``path`` is a plain file, or not there."""
    entry = _look(path)
    if entry is not None and not stat.S_ISREG(entry.st_mode):
        raise _planted(path, entry, "a plain file")


def require_plain(folder: Path, *, own: bool = False) -> None:
    """Raise :class:`StoreError` unless ``folder``, if it is there, holds folders and plain files
    only, all the way down; with ``own`` all of the owner of ``folder``."""
    require_folder(folder)
    for place, folders, files in os.walk(folder):
        owner = folder.lstat().st_uid
        for path in (Path(place, name) for name in (*folders, *files)):
            entry = path.lstat()
            plain = stat.S_ISDIR(entry.st_mode) or stat.S_ISREG(entry.st_mode)
            if not plain or (own and entry.st_uid != owner):
                raise _planted(path, entry, "plain files of your own")


def below(root: Path, *names: str) -> Path:
    """``root/names...``, where no step is a link (:func:`require_folder`); it need not be there."""
    path = root
    for part in PurePath(*names).parts:
        path = path / part
        require_folder(path)
    return path


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link to a file that nobody writes to again; a copy where the disk has no links."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def own_folder(path: Path) -> None:
    """Make the folder ``path``, or take one that the user made, and close it to others: whoever
    may write into it may plant links.  Raises :class:`StoreError` for anything else there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    require_folder(path, own=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            with contextlib.suppress(PermissionError):  # a disk without permissions of its own
                os.fchmod(descriptor, mode & ~0o077)
    finally:
        os.close(descriptor)


def clear_folder(path: Path) -> None:
    """Remove the folder ``path``, if it is there.  Raises :class:`StoreError` where it is a link
    or cannot be removed, so that nothing is written through what stayed."""
    require_folder(path)
    try:
        if _look(path) is not None:
            shutil.rmtree(path)
    except OSError as error:
        raise write_refusal(error, path) from error


def open_lock(path: Path) -> BinaryIO:
    """A file to lock, made if need be, its content left as it is.  Raises :class:`StoreError` for
    a link, a pipe or a folder, and OSError where the system refuses."""
    require_file(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
    if not stat.S_ISREG((entry := os.fstat(handle.fileno())).st_mode):
        handle.close()
        raise _planted(path, entry, "a plain file")
    return handle


def _hold(handle: BinaryIO, patience: float) -> None:
    """Lock it; raises OSError where another process still holds it after ``patience`` seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.2)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block has ended without an error.  What
    killed processes left of the same folder goes.

    Raises :class:`StoreError` for a link under that name.
    """
    require_folder(path)
    tmp = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_beside(path)
        tmp.mkdir()
        lock = os.open(tmp, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield tmp
        if path.exists():
            shutil.rmtree(path)
        os.replace(tmp, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_refusal(error, path) from error
    except Exception as error:
        if full_disk(error) and not isinstance(error, SpringbackError):
            raise write_refusal(error, path) from error
        raise
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file, open for writing and reading, that appears under its name only when the
    block has ended without an error; until then what was there before stays.  What killed
    processes left of the same file goes."""
    tmp = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_beside(path)
        with tmp.open("x+b") as out:
            with contextlib.suppress(OSError):  # a disk without locks
                fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(tmp, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_refusal(error, path) from error
    finally:
        tmp.unlink(missing_ok=True)


def _sweep_beside(path: Path) -> None:
    """Remove what killed processes left of :func:`whole_file` and :func:`whole_folder`; a living
    one holds its lock."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
    for stale in (p for p in path.parent.iterdir() if name.fullmatch(p.name)):
        with contextlib.suppress(OSError, StoreError):  # what cannot be removed is not in the way
            if stale.is_dir() and not stale.is_symlink():
                _sweep_folder(stale)
                continue
            require_file(stale)
            with open_lock(stale) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stale.unlink()


def _sweep_folder(stale: Path) -> None:
    require_folder(stale, own=True)
    handle = os.open(stale, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(stale)
    finally:
        os.close(handle)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise :class:`SpaceError` unless ``needed`` bytes are free where ``folder`` will be."""
    probe = folder.absolute()
    while not probe.exists():
        probe = probe.parent
    free = shutil.disk_usage(probe).free
    if free < needed:
        raise SpaceError(
            f"{what} needs {byte_size(needed)} of disk, {byte_size(free)} are free at {probe}; "
            "free some or choose another folder with --out"
        )


class Store:
    """The result folder of one job."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"--out {self.root} is a file; name a folder")
        self.runs = self.root / "runs"
        self.checkpoints = self.root / "checkpoints"
        self.partials = self.root / "partial"
        #: The runs whose results were asked for or recorded, and whether this process made them.
        self._used: dict[str, bool] = {}
        self._since = time.monotonic()
        #: What jobs on this folder say of their time; a run keeps what passed since the one before.
        self.timer = Timer()

    def require_place(self) -> None:
        """Raise :class:`StoreError` where no folder for results can be: below a file, behind a link
        that leads nowhere, or among the files of a model.  Nothing is written."""
        real_out(self.root)
        for folder in (place := self.root.absolute(), *place.parents):
            if folder.is_file():
                raise StoreError(f"--out {self.root} lies in {folder}, a file; name a folder")
            if kept := next((name for name in _WEIGHTS if (folder / name).exists()), None):
                where = "is" if folder == place else "lies in"
                raise StoreError(
                    f"--out {self.root} {where} a model folder ({folder / kept}); choose another "
                    "folder for results"
                )

    @contextlib.contextmanager
    def locked(self, patience: float = 0.0) -> Iterator[Store]:
        """Hold the folder for one process; the lock ends with the process, however that ends.

        ``patience``: seconds to wait for another process to let go.  A folder that was made for a
        job which is then refused, and that holds nothing, goes again.
        """
        self.require_place()
        new = not self.root.exists()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = open_lock(self.root / ".lock")
        except OSError as error:
            raise write_refusal(error, self.root) from error
        with handle:
            try:
                _hold(handle, patience)
            except OSError as error:
                raise StoreError(
                    f"another springback process is writing to {self.root}; "
                    "wait for it or choose another --out"
                ) from error
            self._sweep()
            try:
                yield self
            except SpringbackError:
                kept = (p for p in self.root.rglob("*") if not p.is_dir())
                if new and all(p == self.root / ".lock" for p in kept):
                    shutil.rmtree(self.root, ignore_errors=True)
                raise
            except Exception as error:  # wherever a job, or a library for it, writes
                if full_disk(error):
                    raise write_refusal(error, self.root) from error
                raise

    def _sweep(self) -> None:
        """Remove what a killed process left half-written; links are refused, not followed."""
        self.below("charts")  # made at the end, refused at the beginning
        for folder in (self.root, *map(self.below, ("runs", "checkpoints", "partial"))):
            for stale in folder.glob(".*.tmp"):
                if stale.is_dir() and not stale.is_symlink():
                    shutil.rmtree(stale, ignore_errors=True)
                else:  # of a link the link itself
                    with contextlib.suppress(OSError):
                        stale.unlink()

    def below(self, *names: str) -> Path:
        """A folder of the store; raises :class:`StoreError` where a link leads out of it."""
        return below(self.root, *names)

    def results(self, run: Run) -> dict[str, Any] | None:
        """What the run found, or None if it is not done or its file is damaged (with a warning).

        Raises :class:`StoreError` for a file that cannot be opened or is another run's.
        """
        path = self.below("runs", run.name) / RUN_FILE
        require_file(path)
        if not path.exists():
            return None
        try:
            record = read_json(path)
            identity, results = record["id"], dict(record["results"])
            if record.get("results_hash", hashed := content_hash(results)) != hashed:
                raise ValueError("the results are not those that were written")
        except (StoreError, LookupError, TypeError, ValueError) as error:
            if isinstance(error.__cause__, OSError):
                raise
            tell_damaged(path, error)
            return None
        if identity != run.id:
            raise StoreError(f"{path} belongs to another run; delete the folder {path.parent}")
        self._used.setdefault(run.name, False)
        return results

    def commit(self, run: Run, results: Mapping[str, Any]) -> dict[str, Any]:
        """Record a run as done, drop its partial state, return the results as read back."""
        record = {"kind": run.kind, "id": run.id, "inputs": run.inputs, "results": results}
        record["results_hash"] = content_hash(results)
        parts = {name: round(seconds, 3) for name, seconds in self.timer.take().items()}
        with whole_folder(self.below("runs", run.name)) as tmp:
            write_json(tmp / RUN_FILE, record)
            seconds = round(time.monotonic() - self._since, 1)
            write_json(tmp / MADE_FILE, {**origin(), "seconds": seconds, "parts": parts})
        self._since = time.monotonic()
        self._used[run.name] = True
        self.drop_partial(run)
        plain: dict[str, Any] = to_jsonable(results)
        return plain

    def origins(self) -> dict[str, Any]:
        """Of the runs used: how many were ``made`` here and how many were ``read``, of how many
        nobody knows (``unknown``), when the ``first`` and the ``last`` were finished, and the
        ``machines`` and ``revisions`` that made them."""
        files = [self.runs / name / MADE_FILE for name in self._used]
        facts_of_runs = [facts for file in files if (facts := facts_of(file))]
        times = sorted(facts["finished"] for facts in facts_of_runs)
        made = sum(self._used.values())
        return {
            "made": made,
            "read": len(self._used) - made,
            "unknown": len(self._used) - len(facts_of_runs),
            "first": times[0] if times else None,
            "last": times[-1] if times else None,
            "machines": sorted({_machine(facts) for facts in facts_of_runs}),
            "revisions": sorted(
                {f["git_revision"] or f["springback"] or "?" for f in facts_of_runs}
            ),
        }

    def time_by_part(self) -> dict[str, float]:
        """Seconds by part: of the runs used, whoever made them, and of this process besides.

        Of a run that was cut off the time since it went on; of runs made before there were parts,
        none.
        """
        runs = (_parts_in(facts_of(self.runs / name / MADE_FILE) or {}) for name in self._used)
        return sum_of_parts([self.timer.take(), *runs])

    def partial(self, run: Run) -> Path:
        """Where the run keeps the state it resumes from."""
        return self.below("partial", run.name)

    def drop_done_partials(self) -> None:
        """Drop the partial states of runs that are done: a kill may have left some."""
        for place in self.below("partial").glob("*"):
            if (self.runs / place.name / RUN_FILE).exists() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)

    def drop_partial(self, run: Run) -> None:
        shutil.rmtree(self.partial(run), ignore_errors=True)

    def checkpoint(self, run: Run, label: str) -> Path:
        """Where the run keeps the weights called ``label``."""
        return self.below("checkpoints", run.name, label)

    def drop_checkpoint(self, run: Run, label: str) -> None:
        shutil.rmtree(self.checkpoint(run, label), ignore_errors=True)

    def drop_checkpoints(self, run: Run) -> None:
        shutil.rmtree(self.below("checkpoints", run.name), ignore_errors=True)


def facts_of(file: Path) -> dict[str, Any] | None:
    """What stands in a ``made.json``; None where there is none or it is damaged."""
    require_file(file)
    try:
        facts: dict[str, Any] = read_json(file)
        _machine(facts)
        texts = (facts["finished"], facts["git_revision"] or "", facts["springback"] or "")
        if not all(isinstance(text, str) for text in texts):
            return None
    except (StoreError, LookupError, TypeError):
        return None
    return facts


def _parts_in(facts: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by part in a ``made.json``; what is not a number of seconds is left out."""
    parts = facts.get("parts")
    return {
        str(name): float(seconds)
        for name, seconds in (parts.items() if isinstance(parts, Mapping) else ())
        if isinstance(seconds, int | float) and 0 <= seconds < math.inf
    }


def _machine(facts: Mapping[str, Any]) -> str:
    """What made a run, in words: the GPU first, where there was one."""
    threads = f"{facts['cpu']}, {facts['threads']} thread{'s' * (facts['threads'] != 1)}"
    return f"{gpu}, {threads}" if (gpu := facts.get("gpu")) else threads
