"""Extrapolation of a sharded model over Ray workers: a task for each shard.

Each worker streams its shard from the checkpoints into the folder that grows beside ``out``, as
:func:`springback.weights.extrapolate_along` does here; so both have to be on a path that every
worker sees, and what comes out is the same to the byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from springback.integrations.ray.scheduler import run_tasks
from springback.integrations.ray.settings import ExecutorSettings
from springback.integrations.ray.tasks import Task
from springback.progress import Progress, Silent
from springback.weights import Extrapolation, ExtrapolationReport
from springback.weights.extrapolation import along_job
from springback.weights.io.job import make_shard, run
from springback.weights.io.resume import Shard


def write_shard(
    checkpoints: tuple[str, ...], how: Extrapolation, name: str, folder: str, progress: Progress
) -> Shard:
    """On the worker: one shard into ``folder``."""
    progress.stage(name, 1)
    job = along_job(checkpoints, how, folder)
    return make_shard(job, name, Path(folder))


def extrapolate_on_ray(
    checkpoints: Sequence[str | Path],
    how: Extrapolation,
    out: str | Path,
    executor: ExecutorSettings,
    progress: Progress | None = None,
) -> ExtrapolationReport:
    """:func:`springback.weights.extrapolate_along` with shards made on Ray; resumes as it does.

    A lost worker's shard is begun again.  Raises as the two that it is made of.
    """
    speaker = progress or Silent()
    places = tuple(os.path.realpath(folder) for folder in checkpoints)

    def spread(names: list[str], folder: Path) -> Iterable[tuple[str, Shard]]:
        tasks = [
            Task(
                name,
                f"shard {name}",
                partial(write_shard, places, how, name, str(folder)),
                cpus=executor.run_cpus,
                gpus=executor.run_gpus,
                memory=int(executor.run_memory * 1e9) or 500_000_000,
            )
            for name in names
        ]
        for outcome in run_tasks(tasks, executor, speaker):
            yield outcome.key, outcome.value

    return run(along_job(places, how, out, speaker, spread))
