"""Two seeds of ``reproduce epicode-main`` on Ray, a node killed on the way: what one process finds?

The built-in model and the smallest settings that train, search and test: each seed a task, two
nodes of one core, one of which is killed once a seed has scored its first arm.  One thread a run in
both.  Both nodes share this machine, so the wall times say little about speed; ``cpus`` in the raw
file says how many there were.

    python benchmarks/ray_boost.py --out benchmarks/results/ray_boost.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ray_executor import SMALL, found
from springback.integrations.ray import ExecutorSettings
from springback.jobs.papers.epicode.job import reproduce_epicode
from springback.progress import Lines
from springback.results.provenance import now, provenance
from springback.results.store import read_json, write_json

RAY = ExecutorSettings("ray", run_memory=4.0)
GIVEN: dict[str, Any] = {
    "seeds": (0, 1),
    "train_rows": 16,
    "validation_rows": 6,
    "test_rows": 8,
    "mu": (0.2,),
    "lam": (0.5,),
    "lam_cd": (0.2,),
    "max_new_tokens": 24,
    "max_tokens": 128,
    "train_batch_size": 8,
    "batch_size": 8,
}


class Killer(Lines):
    """Kills the node of a seed that has scored an arm."""

    def __init__(self, cluster: Any, work: Path) -> None:
        super().__init__()
        self.cluster, self.work, self.killed = cluster, work, 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        super().advance(steps, note)
        if not self.killed and any(self.work.glob("*/runs/score-*/run.json")):
            self.killed += 1
            others = [n for n in self.cluster.list_all_nodes() if n != self.cluster.head_node]
            self.cluster.remove_node(others[0], allow_graceful=False)


def measure(cluster: Any, folder: Path) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    began = time.perf_counter()
    reproduce_epicode("epicode-main", "small", folder / "here", GIVEN, Lines())
    here = time.perf_counter() - began
    killer = Killer(cluster, folder / "there" / "work")
    reproduce_epicode("epicode-main", "small", folder / "there", GIVEN, killer, RAY)
    record = read_json(folder / "there" / "executor.json")
    return {
        "settings": GIVEN,
        "nodes": 2,
        "killed_nodes": killer.killed,
        "lost_workers": record["lost_workers"],
        "one_process_seconds": here,
        "ray_wall_seconds": record["wall_seconds"],
        "ray_work_seconds": record["run_seconds"],
        "same_results": found(folder / "here") == found(folder / "there"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ray_boost.json"))
    asked = parser.parse_args()
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ModuleNotFoundError:
        print("ray is not installed (pip install 'springback[ray]'): not measured")
        return
    started = now()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **SMALL)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        with tempfile.TemporaryDirectory() as folder:
            data = measure(cluster, Path(folder))
    finally:
        ray.shutdown()
        cluster.shutdown()
    data["provenance"] = provenance(started=started, finished=now())
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked.out, data)
    print({key: value for key, value in data.items() if key != "provenance"})
    if not data["lost_workers"]:
        sys.exit("no seed was lost with the killed node, so nothing was shown: run it again")
    if not data["same_results"]:
        sys.exit("a claim does not hold")


if __name__ == "__main__":
    main()
