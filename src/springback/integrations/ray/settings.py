"""Settings of the executor, each once with its help.  Light to import."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass

from springback.errors import MissingExtraError, SpringbackError, describe
from springback.settings import Settings, setting

EXECUTORS = ("process", "ray")


@dataclass(frozen=True)
class ExecutorSettings(Settings, group="Executor"):
    """``process``: one run after the other, here.  ``ray``: each run a task of its own."""

    executor: str = setting("process", "process (this one) or ray (each run a task).")
    address: str | None = setting(
        None, "Of a running Ray, HOST:PORT or auto; without it one is started here."
    )
    run_cpus: int = setting(1, "CPU cores, and threads, of each run on Ray.")
    run_gpus: float = setting(0.0, "GPUs of each run on Ray, or a share of one.")
    run_memory: float = setting(0.0, "GB of memory of each run on Ray; 0: what the plan says.")
    retries: int = setting(3, "How often a run is begun again after its worker was lost.")
    shared: str | None = setting(
        None,
        "Where workers exchange runs and weights if they do not see --out: any fsspec address, "
        "such as s3://bucket/folder.",
    )

    def checked(self) -> ExecutorSettings:
        """These settings; raises :class:`SpringbackError` on what cannot be."""
        if self.executor not in EXECUTORS:
            raise SpringbackError(f"--executor is {self.executor}; allowed: {', '.join(EXECUTORS)}")
        lowest = {"run-cpus": 1, "run-gpus": 0, "run-memory": 0, "retries": 0}
        for flag, least in lowest.items():
            value = getattr(self, flag.replace("-", "_"))
            if not (math.isfinite(value) and value >= least):
                raise SpringbackError(
                    f"--{flag}: " + describe(f"{value}", f"{least} or more", "change it")
                )
        if self.executor == "process" and (self.address or self.shared):
            given = "--address" if self.address else "--shared"
            raise SpringbackError(f"{given} without --executor ray; add it, or leave {given} out")
        return self


def on_ray(executor: ExecutorSettings | None) -> bool:
    """Whether runs go to Ray; checks the settings, and that Ray is installed."""
    if executor is None or executor.checked().executor != "ray":
        return False
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "ray", "--executor ray")
    return True
