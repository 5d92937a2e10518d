"""What a study takes from accelerate's config file: how many processes, and where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from springback.errors import SpringbackError, describe
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.config import read_study
from springback.training.launch import Launch


def read_launch(path: str) -> Launch:
    """Raises :class:`SpringbackError` where the file is not there, names no processes, or spreads
    anything but rows (DDP) and weights (FSDP) over one machine's."""
    config = read_study(path)
    processes = config.get("num_processes")
    if not isinstance(processes, int) or isinstance(processes, bool) or processes < 1:
        raise _refused(
            path, f"num_processes {processes!r}", "1 or more", "write one: accelerate config"
        )
    kind = str(config.get("distributed_type"))
    if kind not in ("NO", "FSDP") and not kind.startswith("MULTI_"):
        raise _refused(path, f"distributed_type {kind}", "MULTI_CPU, MULTI_GPU, FSDP", "change it")
    if (machines := config.get("num_machines") or 1) != 1:
        raise _refused(
            path, f"num_machines {machines}", "1", "spread runs over machines by --executor ray"
        )
    if config.get("parallelism_config"):
        raise _refused(path, "a parallelism_config", "none: every process has rows", "leave it out")
    cpu, port = config.get("use_cpu") is True, config.get("main_process_port")
    version = _fsdp_version(config.get("fsdp_config"))
    if kind == "FSDP" and cpu and version != 2:
        raise _refused(
            path,
            f"fsdp_version {version} with use_cpu",
            "2 (version 1 is for devices)",
            "write fsdp_version: 2 into fsdp_config",
        )
    return Launch(Path(path).absolute(), processes, cpu, kind == "FSDP", port)


def sharding(settings: AuditSettings) -> Launch | None:
    """The processes over which weights lie of a study that trains all of them, by FSDP; None: any
    other.  A model's files may still have every process hold it whole."""
    if settings.accelerate is None or settings.lora_rank:
        return None
    launch = read_launch(settings.accelerate)
    return launch if launch.sharded else None


def _fsdp_version(config: Any) -> Any:
    """Of the part ``fsdp_config``, as accelerate reads it; 1 where none is given."""
    version = config.get("fsdp_version", 1) if isinstance(config, Mapping) else 1
    return int(version) if str(version).isdigit() else version


def _refused(path: str, given: str, allowed: str, do: str) -> SpringbackError:
    return SpringbackError(f"--accelerate {path}: " + describe(given, allowed, do))
