"""Extrapolating two checkpoints: ours against a script that loads both models, and mergekit.

Generates a pair of Llamas, runs the programs as whole processes in turns on the same files (in
the disk cache), compares the results, and writes wall seconds and peak resident memory to --out.
mergekit takes part where --mergekit names its executable (mergekit-yaml, in an environment of its
own): a linear merge with weights 1 + mu and -mu, computed in float32.  Everything else goes to a
temporary folder, which is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from springback.results.provenance import now, provenance
from springback.results.store import write_json

MU = 0.3
OURS = """
import sys
from springback.weights import extrapolate
extrapolate(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4])
"""
#: What one would write by hand.  Parameters, not the state dict: tied weights are then one.
LOAD_BOTH = """
import sys, torch
from transformers import AutoModelForCausalLM
early = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
ft = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype="auto")
before = dict(early.named_parameters())
with torch.no_grad():
    for name, weight in ft.named_parameters():
        wide = weight.float()
        weight.copy_(wide + float(sys.argv[3]) * (wide - before[name].float()))
ft.save_pretrained(sys.argv[4], max_shard_size=sys.argv[5])
"""
OURS_NAME, PLAIN_NAME = "springback", "load both models"
GENERATE = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
root, layers, dtype, shard = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=32000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=layers,
    num_attention_heads=16, tie_word_embeddings=True, dtype=dtype)).to(getattr(torch, dtype))
model.save_pretrained(root + "/early", max_shard_size=shard)
with torch.no_grad():
    for weight in model.parameters():
        weight.add_(1e-3 * torch.randn(weight.shape, dtype=torch.float32).to(weight.dtype))
model.save_pretrained(root + "/ft", max_shard_size=shard)
"""
EMBEDDING, LAYER = 32000 * 1024, 4 * 1024**2 + 3 * 1024 * 4096  # parameters


def measure(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes (file pages included) of one whole process."""
    start = time.perf_counter()
    child = os.posix_spawn(command[0], command, {**os.environ, "HF_HUB_OFFLINE": "1"})
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"failed with status {os.waitstatus_to_exitcode(status)}: {command[:3]}")
    return seconds, usage.ru_maxrss / 1024


def version_of(mergekit: str | None) -> str | None:
    """mergekit's version, asked of the Python beside its executable."""
    if mergekit is None:
        return None
    code = "from importlib.metadata import version; print(version('mergekit'))"
    python = str(Path(mergekit).parent / "python")
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def largest_difference(one: Path, two: Path) -> float:
    """Largest |a - b| over the tensors that both folders hold, which must have the same names."""
    from safetensors import safe_open

    found = [
        {name: path for path in folder.glob("*.safetensors") for name in _names(path)}
        for folder in (one, two)
    ]
    if found[0].keys() != found[1].keys():
        raise SystemExit(f"tensor names differ: {sorted(found[0].keys() ^ found[1].keys())[:3]}")
    largest = 0.0
    for name in found[0]:
        pair = []
        for paths in found:
            with safe_open(paths[name], framework="pt") as file:
                pair.append(file.get_tensor(name).float())
        largest = max(largest, float((pair[0] - pair[1]).abs().max()))
    return largest


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return list(file.keys())


def commands(root: Path, dtype: str, shard: str, mergekit: str | None) -> dict[str, list[str]]:
    """What to run, by name; each program writes to ``out <name>`` in ``root``."""
    found = {}
    sources = [str(root / "early"), str(root / "ft"), str(MU)]
    for name, code in ((OURS_NAME, OURS), (PLAIN_NAME, LOAD_BOTH)):
        found[name] = [sys.executable, "-c", code, *sources, str(root / f"out {name}"), shard]
    if mergekit is not None:
        weights = {sources[1]: 1 + MU, sources[0]: -MU}
        models = [{"model": m, "parameters": {"weight": w}} for m, w in weights.items()]
        merge = {"merge_method": "linear", "parameters": {"normalize": False}, "models": models}
        config = root / "mergekit.yml"  # JSON is YAML
        config.write_text(json.dumps({**merge, "dtype": "float32", "out_dtype": dtype}))
        out = str(root / "out mergekit")
        found["mergekit"] = [mergekit, str(config), out, "--no-copy-tokenizer"]
    return found


def compare(root: Path, rounds: int, programs: dict[str, list[str]]) -> dict[str, Any]:
    """Seconds and megabytes of each program on the pair in ``root``, in turns A B A B."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    megabytes: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, command in programs.items():
            shutil.rmtree(root / f"out {name}", ignore_errors=True)
            wall, peak = measure(command)
            seconds[name].append(round(wall, 3))
            megabytes[name].append(round(peak, 1))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ours = medians[OURS_NAME]
    return {
        "median_seconds": medians,
        "share_of_time": {n: round(ours / m, 4) for n, m in medians.items() if n != OURS_NAME},
        "median_peak_megabytes": {n: statistics.median(v) for n, v in megabytes.items()},
        "seconds": seconds,
        "peak_megabytes": megabytes,
        "largest_difference": max(
            largest_difference(root / f"out {OURS_NAME}", root / f"out {name}")
            for name in programs
            if name != OURS_NAME
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=0.5, help="of each checkpoint")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--shard-megabytes", type=int, default=5000, help="largest weight file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mergekit", help="path of mergekit-yaml, if it is to take part")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    asked = parser.parse_args()
    started = now()
    width = 4 if asked.dtype == "float32" else 2
    layers = max(1, round((asked.gigabytes * 1e9 / width - EMBEDDING) / LAYER))
    shard = f"{asked.shard_megabytes}MB"
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        measure([sys.executable, "-c", GENERATE, tmp, str(layers), asked.dtype, shard])
        weights = list((root / "ft").glob("*.safetensors"))
        result = {
            "checkpoint_bytes": sum(path.stat().st_size for path in weights),
            "files": len(weights),
            "dtype": asked.dtype,
            "mu": MU,
            "rounds": asked.rounds,
            "mergekit": version_of(asked.mergekit),
            **compare(root, asked.rounds, commands(root, asked.dtype, shard, asked.mergekit)),
            "provenance": provenance(started=started, finished=now()),
        }
    write_json(asked.out, result)
    for name, median in result["median_seconds"].items():
        print(f"{name}: {median:.2f} s, {result['median_peak_megabytes'][name]:.0f} MB")
    shares = [f"{share:.2f} of {name}" for name, share in result["share_of_time"].items()]
    print(f"time: {', '.join(shares)}; written to {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
