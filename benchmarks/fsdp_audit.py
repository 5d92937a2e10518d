"""A tiny audit of SmolLM2-135M by one process and by two that share its weights (FSDP2).

Claim: what two processes train and measure sharded equals one process's (the start model to the
bit, what was trained to the rounding of its gradients' sums), while each holds half of the weights
and the study's own process none.  On a CPU, by gloo, all probes that read the models; beside the
values the weights that each process holds and the anonymous memory of the study's process, sampled
every 50 ms, before and at the peak.

    OMP_NUM_THREADS=1 python benchmarks/fsdp_audit.py

Each study is made in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.models.loading import count_parameters, resolve
from springback.probes.sharded import ShardedMeter
from springback.progress import Silent
from springback.results.provenance import now, provenance
from springback.results.store import write_json

RESULT = Path(__file__).parent / "results" / "fsdp_audit.json"
CONFIG = """\
distributed_type: FSDP
num_processes: 2
use_cpu: true
fsdp_config: {fsdp_version: 2, fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP}
"""
SETTINGS = AuditSettings(
    model="smollm2-135m",
    n_pos=(16,),
    doses=(8,),
    seeds=(0,),
    max_tokens=48,
    holdout=4,
    prompts=4,
    prompt_tokens=8,
    sample_tokens=8,
    resistance_rows=0,
    controls=(),
    probes=("margin", "kl", "reverse_kl", "weight_change", "way_back"),
    precision="float32",
    device="cpu",
)


def anonymous() -> int:
    """Bytes of this process's memory that are no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return 0


def one_study(config: str) -> dict[str, Any]:
    """By this process, or with a config by those that it describes."""
    held: list[int] = []
    end = ShardedMeter.close

    def close(meter: ShardedMeter) -> None:
        held.extend(meter.held())
        end(meter)

    setattr(ShardedMeter, "close", close)  # noqa: B010  (mypy: a method)
    before, peak, over = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="springback-bench-") as folder:
        settings = replace(SETTINGS, accelerate=config) if config else SETTINGS
        data = audit(settings, folder, Silent()).data
    over.set()
    thread.join()
    return {
        "values": [
            {k: m[k] for k in ("probe", "checkpoint", "slice", "value")}
            for m in data["measurements"]
        ],
        "seconds": round(time.monotonic() - began, 1),
        "weights_held": held,
        "memory_before": before,
        "memory_peak": peak[0],
    }


def in_a_process(config: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--study", config]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def compared(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """The largest differences, of the start model and of what was trained."""
    values = [
        {(m["probe"], m["checkpoint"], m["slice"]): m["value"] for m in study["values"]}
        for study in (one, two)
    ]
    assert values[0].keys() == values[1].keys()
    differences = {key: abs(values[1][key] - value) for key, value in values[0].items()}
    start = {key: d for key, d in differences.items() if key[1] == "start"}
    trained = {key: d for key, d in differences.items() if key[1] != "start"}
    worst = max(trained, key=lambda key: trained[key])
    return {
        "start_values": len(start),
        "start_equal": not any(start.values()),
        "trained_values": len(trained),
        "trained_largest_difference": trained[worst],
        "of": " ".join(worst),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default=None, help="Internal: one study, with this config.")
    given = parser.parse_args()
    if given.study is not None:
        torch.set_num_threads(1)
        print(json.dumps(one_study(given.study)))
        return
    started = now()
    with tempfile.TemporaryDirectory(prefix="springback-bench-") as folder:
        config = Path(folder) / "two.yaml"
        config.write_text(CONFIG, encoding="utf-8")
        one, two = in_a_process(""), in_a_process(str(config))
    found = compared(one, two)
    write_json(
        RESULT,
        {
            "provenance": provenance(started=started, finished=now()),
            "weights": count_parameters(resolve(SETTINGS.model)),
            "compared": found,
            "one_process": one,
            "two_processes": two,
        },
    )
    for name, study in (("one process", one), ("two, FSDP2", two)):
        above = study["memory_peak"] - study["memory_before"]
        print(
            f"{name}: {study['seconds']:.0f} s, {above / 1e6:.0f} MB above what the libraries take "
            f"in the study's process, weights held by those that measure: {study['weights_held']}"
        )
    print(found)


if __name__ == "__main__":
    main()
