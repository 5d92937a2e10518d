"""The Ray executor: what a run costs beside its work, and a study with a node killed on the way.

Two claims: (1) 500 runs that do nothing cost under 50 ms each; (2) a study of 12 runs and the start
on three nodes of one core, one of them killed, finds what one process finds.  Beside (2) the wall
times of both and the share of the nodes' time that was work.  A small Llama from scratch, one
thread a run in both.  On fewer than four cores the three nodes share them, so the wall time says
little about speed; ``cpus`` in the raw file says how many there were.

    python benchmarks/ray_executor.py --out benchmarks/results/ray_executor.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from springback.integrations.ray import ExecutorSettings, Task
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.progress import Lines, Progress, Silent
from springback.results.provenance import now, provenance
from springback.results.store import read_json, write_json

CLAIM_MS = 50.0
RAY = ExecutorSettings("ray", run_memory=0.5)
SMALL: dict[str, Any] = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


def nothing(progress: Progress) -> None:
    """A run without work."""


def overhead(runs: int) -> dict[str, Any]:
    """Milliseconds a run, workers started before; the median of three rounds."""
    from springback.integrations.ray.scheduler import run_tasks

    run_tasks([Task(f"warm-{i}", "warm", nothing) for i in range(8)], RAY, Silent())
    rounds = []
    for at in range(3):
        tasks = [Task(f"{at}-{i}", "nothing", nothing) for i in range(runs)]
        began = time.perf_counter()
        run_tasks(tasks, RAY, Silent())
        rounds.append(1000 * (time.perf_counter() - began) / runs)
    middle = sorted(rounds)[1]
    return {"runs": runs, "ms_a_run": rounds, "median": middle, "holds": middle < CLAIM_MS}


def small_model(folder: Path) -> Path:
    from springback.core import Checkpoint
    from springback.data import load_slice
    from springback.models.from_scratch import Shape, fresh_model, save_model, small_tokenizer
    from springback.models.loading import load_tokenizer

    texts = [row.response for row in load_slice("reviews:positive", limit=500).rows]
    small_tokenizer(texts, 1024, folder / "tokenizer")
    tokenizer = load_tokenizer(Checkpoint(str(folder / "tokenizer")))
    save_model(fresh_model(tokenizer, Shape(192, 5, 12), 0), tokenizer, folder / "model")
    return folder / "model"


class Killer(Lines):
    """Kills a node at work once the third run is done.

    Its run may end just before the blow: if no run was lost two runs later, the next one falls,
    and another node takes the place of the first.
    """

    def __init__(self, cluster: Any) -> None:
        super().__init__()
        self.cluster, self.ended, self.killed, self.lost = cluster, 0, 0, False

    def note(self, text: str) -> None:
        super().note(text)
        self.lost = self.lost or "begins again" in text

    def advance(self, steps: int = 1, note: str = "") -> None:
        super().advance(steps, note)
        self.ended += steps
        due = self.ended >= 3 + 2 * self.killed and self.killed < 3
        if due and not self.lost and (busy := self._busy()):
            if self.killed:
                self.cluster.add_node(num_cpus=1, **SMALL)
            self.killed += 1
            self.cluster.remove_node(busy[0], allow_graceful=False)

    def _busy(self) -> list[Any]:
        from ray._private.state import available_resources_per_node

        free = available_resources_per_node()
        nodes = [n for n in self.cluster.list_all_nodes() if n != self.cluster.head_node]
        return [n for n in nodes if n.node_id in free and free[n.node_id].get("CPU", 0) < 1]


def found(folder: Path) -> dict[str, Any]:
    """All that a study found, times aside."""
    whole = read_json(folder / "result.json")
    del whole["provenance"]
    return {
        "result": whole,
        "runs": {p.parent.name: read_json(p) for p in folder.glob("runs/*/run.json")},
    }


def study(cluster: Any, folder: Path, rows: int) -> dict[str, Any]:
    import torch

    settings = AuditSettings(
        model=str(small_model(folder)),
        n_pos=(rows // 4, rows // 2, rows),
        doses=(rows // 4, rows // 2),
        seeds=(0, 1, 2),
        learning_rate=1e-3,
        experiments=("rebound",),
        resistance_rows=0,
        probes=("margin", "kl"),
        precision="float32",
    )
    torch.set_num_threads(1)
    began = time.perf_counter()
    audit(settings, folder / "here", Silent())
    here = time.perf_counter() - began
    killer = Killer(cluster)
    audit(settings, folder / "there", killer, RAY)
    record = read_json(folder / "there" / "executor.json")
    work = record["run_seconds"]
    return {
        "runs": len(record["runs"]),
        "nodes": 3,
        "killed_nodes": killer.killed,
        "lost_workers": record["lost_workers"],
        "one_process_seconds": here,
        "ray_wall_seconds": record["wall_seconds"],
        "ray_work_seconds": work,
        "share_of_three_nodes": work / (3 * record["wall_seconds"]),
        "estimated_seconds": record["estimated_seconds"],
        "same_results": found(folder / "here") == found(folder / "there"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ray_executor.json"))
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--rows", type=int, default=512)
    asked = parser.parse_args()
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ModuleNotFoundError:
        print("ray is not installed (pip install 'springback[ray]'): not measured")
        return
    started = now()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
    for _ in range(3):
        cluster.add_node(num_cpus=1, **SMALL)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        data: dict[str, Any] = {"overhead": overhead(asked.runs)}
        with tempfile.TemporaryDirectory() as folder:
            data["study"] = study(cluster, Path(folder), asked.rows)
    finally:
        ray.shutdown()
        cluster.shutdown()
    data["provenance"] = provenance(started=started, finished=now())
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked.out, data)
    print(f"overhead: {data['overhead']['median']:.1f} ms a run (claim: under {CLAIM_MS:g})")
    print(f"study: {data['study']}")
    if not data["study"]["lost_workers"]:
        sys.exit("no run was lost with the killed nodes, so nothing was shown: run it again")
    if not (data["overhead"]["holds"] and data["study"]["same_results"]):
        sys.exit("a claim does not hold")


if __name__ == "__main__":
    main()
