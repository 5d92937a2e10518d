"""Result folders: named by content hash, written whole or not at all, found again on resume.

Layout below a job's output folder::

    runs/<kind>-<id>/run.json     inputs and results of one finished run (small; commit these)
    runs/<kind>-<id>/made.json    when and on what it was made; nothing depends on it
    checkpoints/<kind>-<id>/...   weights that a run left behind
    partial/<kind>-<id>/...       state of a run that was cut off
    result.json, report.html      what the job as a whole found

A run counts as done when its ``run.json`` is there, on whatever machine it was made.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from springback.core import Run, to_jsonable
from springback.errors import SpaceError, SpringbackError, StoreError
from springback.results.provenance import origin

RUN_FILE = "run.json"
MADE_FILE = "made.json"


def sync_folder(path: Path) -> None:
    """Have the names in a folder reach the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with tmp.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(tmp, path)
    except OSError as error:
        tmp.unlink(missing_ok=True)
        raise write_refusal(error, path) from error
    sync_folder(path.parent)


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


def write_refusal(error: OSError, path: Path) -> SpaceError | StoreError:
    """What to raise when the system refuses to write ``path``: a full disk has its own class."""
    if error.errno == errno.ENOSPC:
        return SpaceError(
            f"no space left on the disk of {path}; free some and run the same command again"
        )
    return StoreError(f"cannot write {path}: {error}; check the folder and its permissions")


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block has ended without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        tmp.mkdir()
        yield tmp
        if path.exists():
            shutil.rmtree(path)
        os.replace(tmp, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_refusal(error, path) from error
    except Exception as error:
        # What writes safetensors has an error of its own for a full disk, and tells it in words.
        if os.strerror(errno.ENOSPC) in str(error):
            raise write_refusal(OSError(errno.ENOSPC, str(error)), path) from error
        raise
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file, open for writing and reading, that appears under its name only when the
    block has ended without an error; until then what was there before stays."""
    tmp = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tmp.open("x+b") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(tmp, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_refusal(error, path) from error
    finally:
        tmp.unlink(missing_ok=True)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise :class:`SpaceError` unless ``needed`` bytes are free where ``folder`` will be."""
    probe = folder.absolute()
    while not probe.exists():
        probe = probe.parent
    free = shutil.disk_usage(probe).free
    if free < needed:
        raise SpaceError(
            f"{what} needs {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free at {probe}; "
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

    @contextlib.contextmanager
    def locked(self) -> Iterator[Store]:
        """Hold the folder for one process; the lock ends with the process, however that ends.

        A folder that was made for a job which is then refused, and that holds nothing, goes again.
        """
        new = not self.root.exists()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / ".lock").open("w")
        except OSError as error:
            raise write_refusal(error, self.root) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
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

    def _sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for folder in (self.root, self.runs, self.checkpoints, self.partials):
            if folder.is_dir():
                for stale in folder.glob(".*.tmp"):
                    if stale.is_dir():
                        shutil.rmtree(stale, ignore_errors=True)
                    else:
                        stale.unlink(missing_ok=True)

    def results(self, run: Run) -> dict[str, Any] | None:
        """What the run found, or None if it is not done."""
        path = self.runs / run.name / RUN_FILE
        if not path.exists():
            return None
        found = read_json(path)
        if found.get("id") != run.id:
            raise StoreError(f"{path} belongs to another run; delete the folder {path.parent}")
        self._used.setdefault(run.name, False)
        results: dict[str, Any] = found["results"]
        return results

    def commit(self, run: Run, results: Mapping[str, Any]) -> dict[str, Any]:
        """Record a run as done, drop its partial state, return the results as read back."""
        record = {"kind": run.kind, "id": run.id, "inputs": run.inputs, "results": results}
        with whole_folder(self.runs / run.name) as tmp:
            write_json(tmp / RUN_FILE, record)
            write_json(tmp / MADE_FILE, origin())
        self._used[run.name] = True
        self.drop_partial(run)
        plain: dict[str, Any] = to_jsonable(results)
        return plain

    def origins(self) -> dict[str, Any]:
        """Of the runs used: how many were ``made`` here and how many were ``read``, of how many
        nobody knows (``unknown``), when the ``first`` and the ``last`` were finished, and the
        ``machines`` and ``revisions`` that made them."""
        files = (self.runs / name / MADE_FILE for name in self._used)
        told = [read_json(file) for file in files if file.exists()]
        times = sorted(facts["finished"] for facts in told)
        made = sum(self._used.values())
        return {
            "made": made,
            "read": len(self._used) - made,
            "unknown": len(self._used) - len(told),
            "first": times[0] if times else None,
            "last": times[-1] if times else None,
            "machines": sorted({_machine(facts) for facts in told}),
            "revisions": sorted({f["git_revision"] or f["springback"] or "?" for f in told}),
        }

    def partial(self, run: Run) -> Path:
        """Where the run keeps the state it resumes from."""
        return self.partials / run.name

    def drop_partial(self, run: Run) -> None:
        shutil.rmtree(self.partial(run), ignore_errors=True)

    def checkpoint(self, run: Run, label: str) -> Path:
        """Where the run keeps the weights called ``label``."""
        return self.checkpoints / run.name / label

    def drop_checkpoint(self, run: Run, label: str) -> None:
        shutil.rmtree(self.checkpoint(run, label), ignore_errors=True)

    def drop_checkpoints(self, run: Run) -> None:
        shutil.rmtree(self.checkpoints / run.name, ignore_errors=True)


def _machine(facts: Mapping[str, Any]) -> str:
    """What made a run, in words: the GPU first, where there was one."""
    threads = f"{facts['cpu']}, {facts['threads']} thread{'s' * (facts['threads'] != 1)}"
    return f"{gpu}, {threads}" if (gpu := facts.get("gpu")) else threads
