"""What a study takes from accelerate's config file: how many processes, and where."""

from __future__ import annotations

from pathlib import Path

from springback.errors import SpringbackError, describe
from springback.finetune.apart import Launch
from springback.jobs.config import read_study


def read_launch(path: str) -> Launch:
    """Raises :class:`SpringbackError` where the file is not there or names no processes."""
    found = read_study(path)
    processes = found.get("num_processes")
    if not isinstance(processes, int) or isinstance(processes, bool) or processes < 1:
        raise SpringbackError(
            f"--accelerate {path}: "
            + describe(f"num_processes {processes!r}", "1 or more", "write one: accelerate config")
        )
    return Launch(Path(path).absolute(), processes, found.get("use_cpu") is True)
