"""One case: an input is damaged, a command is given it, and what comes of it is judged.

Right is an answer (exit code 0) whose content is right, or a refusal (exit code 2, one line).
Wrong is everything else: a traceback, a hang, memory without bounds, something half-written, a
wrong output.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from springback.errors import SpringbackError

#: Seconds for one case; the slowest takes some three on a quiet core.
SECONDS = 30.0
#: Bytes by which one case may raise the most memory that the process ever held.
MEMORY = 400 << 20


class Fault(Exception):
    """What came of a case is wrong."""


class Hang(BaseException):
    """A case did not end in time; no handler of the product's may catch it."""


@dataclass(frozen=True)
class Trial:
    """A damaged input and what is done with it.

    ``act`` raises :class:`SpringbackError` to refuse.  ``verify`` is given what it returned, and
    raises :class:`Fault` where that is wrong.  ``absent``: what a refusal must not have written.
    """

    damage: str
    act: Callable[[], Any]
    verify: Callable[[Any], None] = lambda result: None
    absent: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """``result``: accepted, refused, or how it was wrong; ``detail`` says more of a wrong one."""

    kind: str
    seed: int
    damage: str
    result: str
    detail: str = ""

    @property
    def wrong(self) -> bool:
        return self.result not in ("accepted", "refused")


@dataclass
class Bench:
    """A folder with undamaged inputs, made when first asked for, and one for the case at hand."""

    root: Path
    _made: dict[str, Path] = field(default_factory=dict)

    def original(self, name: str, make: Callable[[Path], object]) -> Path:
        """The undamaged input ``name``, which nobody may change."""
        if name not in self._made:
            folder = self.root / "originals" / name
            folder.mkdir(parents=True, exist_ok=True)
            make(folder)
            self._made[name] = folder
        return self._made[name]

    def fresh(self) -> Path:
        """An empty folder for a case."""
        folder = self.root / "case"
        if folder.exists():
            os.chmod(folder, 0o700)
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def state(self) -> dict[str, tuple[int, int]]:
        """What would show that an original was written to."""
        found = {}
        for place, folders, files in os.walk(self.root / "originals"):
            for name in (*folders, *files):
                entry = os.lstat(os.path.join(place, name))
                found[os.path.join(place, name)] = entry.st_size, entry.st_mtime_ns
        return found


Make = Callable[[random.Random, Bench, Path], Trial]


@dataclass(frozen=True)
class Kind:
    """``share``: how many of 10,000 cases are of this kind."""

    make: Make
    share: int


KINDS: dict[str, Kind] = {}


def kind(name: str, share: int) -> Callable[[Make], Make]:
    """Enter a function that damages an input, given random numbers, originals and a folder."""

    def enter(make: Make) -> Make:
        KINDS[name] = Kind(make, share)
        return make

    return enter


def command(*words: object) -> str:
    """What ``springback WORDS`` prints, run in this process.

    Raises :class:`SpringbackError` with the line of a refusal, :class:`Fault` for an exit code or
    an error output that no refusal has, and whatever would have been a traceback.
    """
    from springback.cli.app import main

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(
        io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    before, code = sys.argv, 0
    sys.argv = ["springback", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.argv = before
    printed, errors = (s.buffer.getvalue().decode("utf-8") for s in (out, err))
    if code == 0:
        return str(printed)
    lines = [line for line in errors.splitlines() if line.lower().startswith("error: ")]
    if code != 2 or len(lines) != 1 or "Traceback" in errors:
        raise Fault(f"exit code {code}: {errors[-300:]}")
    raise SpringbackError(lines[0].partition(": ")[2])


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fork() -> int:
    """``os.fork``; that threads of libraries are not taken along, as Python warns, is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def most_memory() -> int:
    """The most bytes that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_case(name: str, seed: int, bench: Bench, seconds: float = SECONDS) -> Outcome:
    """The case ``seed`` of a kind; the same seed is the same damage."""
    rng = random.Random(f"{name}:{seed}")
    trial = KINDS[name].make(rng, bench, bench.fresh())
    before, held = bench.state(), most_memory()
    done = functools.partial(Outcome, name, seed, trial.damage)
    # Standing in a folder of the case, so that nothing relative is written elsewhere.
    with _standing_in(bench.root / "case"), warnings.catch_warnings():
        warnings.simplefilter("default")
        try:
            with _limited(seconds), _quiet_warnings():
                result = trial.act()
                trial.verify(result)
            verdict = done("accepted")
        except SpringbackError:
            if there := [path.name for path in trial.absent if os.path.lexists(path)]:
                return done("half-written", f"refused, and {', '.join(there)} is there")
            verdict = done("refused")
        except Fault as fault:
            return done("wrong", str(fault))
        except Hang:
            return done("hang", f"over {seconds:g} s")
        except MemoryError:
            return done("memory", _trace())
        except BaseException as error:
            return done("traceback", f"{type(error).__name__}: {error}"[:300] + _trace())
    if bench.state() != before:
        return done("wrong", "an input was written to")
    if (grown := most_memory() - held) > MEMORY:
        return done("memory", f"{grown >> 20} MB")
    return verdict


@contextlib.contextmanager
def _standing_in(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _quiet_warnings() -> Iterator[None]:
    """Warnings that are shown outside of :func:`command` go nowhere."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def _trace() -> str:
    """Where the error at hand came from: the last places in the package."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [f for f in frames if "springback" in f.filename] or frames
    return " at " + " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(ours[-3:]))


@contextlib.contextmanager
def bench(parent: Path | None = None) -> Iterator[Bench]:
    """A place to work at, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="springback-fuzz-", dir=parent) as folder:
        yield Bench(Path(folder).resolve())
