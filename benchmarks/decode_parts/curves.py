"""Cost of a block, cost as output grows and as more positions are contested, memory of adapters."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from decode_parts.arms import timed
from decode_parts.pairs import Answers, Subject, adapter_pair, subject_of, with_limit
from springback.decoding.cpu_matmul import fast_products
from springback.decoding.lora_pair import twin_of
from springback.decoding.ragged_cache import CachedModel
from springback.inference import load

OURS = "deferred, n-gram"
BLOCKS = (1, 2, 3, 4, 6, 8, 12, 16)


@torch.inference_mode()
def block_costs(subject: Subject, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of a block of so many tokens a row after 128 others, and in blocks of one.

    This is what draft lengths and catching up are paid with.  ``linear``: with PyTorch's own
    products; the others with those that the fast decoder found to be faster
    (decoding/cpu_matmul.py).
    """
    past = [[1 + i % 1000 for i in range(128)] for _ in range(batch)]
    half = CachedModel(subject.expert, batch)
    half.run(range(batch), past, 1)

    def milliseconds(n: int) -> float:
        begin = time.perf_counter()
        half.run(range(batch), [[5] * n] * batch, n)
        found = 1e3 * (time.perf_counter() - begin)
        for row in range(batch):
            half.roll_back(row, 128)
        return found

    turns: list[dict[str, dict[int, float]]] = []
    for _ in range(repeats + 1):
        turns.append({"linear_ms": {n: milliseconds(n) for n in BLOCKS}})
        with fast_products([subject.expert]):
            turns[-1]["ms"] = {n: milliseconds(n) for n in BLOCKS}
    medians = {
        way: {n: statistics.median(turn[way][n] for turn in turns[1:]) for n in BLOCKS}
        for way in ("ms", "linear_ms")
    }
    return [
        {
            "tokens": n,
            **{way: of[n] for way, of in medians.items()},
            "blocks_of_one": medians["ms"][n] / medians["ms"][1],
            "linear_blocks_of_one": medians["linear_ms"][n] / medians["linear_ms"][1],
        }
        for n in BLOCKS
    ]


def output_curve(
    subject: Subject, prompts: Answers, lengths: Sequence[int], repeats: int
) -> list[dict[str, Any]]:
    """Ratio to one model at answers of exactly so many tokens."""
    found = []
    for n in lengths:
        rows = timed(with_limit(subject, n, endless=True), prompts, repeats, [OURS])
        found += [{"new_tokens": n, **row} for row in rows]
        _show(found[-len(rows) :], "new_tokens")
    return found


def contested_curve(subject: Subject, prompts: Answers, repeats: int) -> list[dict[str, Any]]:
    """Ratio to one model as alpha falls, so that more positions are contested; then lambda."""
    found = []
    points = [(1.0, a) for a in (0.9, 0.5, 0.2, 0.1, 0.03, 0.01, 0.001)]
    for lam, alpha in [*points, (0.25, 0.1), (4.0, 0.1)]:
        here = replace(subject, settings=replace(subject.settings, lam=lam, alpha=alpha))
        rows = timed(here, prompts, repeats, ["lazy", OURS])
        found += [{"lam": lam, "alpha": alpha, **row} for row in rows]
        _show(found[-len(rows) :], "alpha")
    return found


def _show(rows: Sequence[dict[str, Any]], key: str) -> None:
    for row in rows:
        shown = {k: row.get(k) for k in (key, "arm", "ratio_to_one_model", "contested")}
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in shown.items()}, flush=True)


HELD = """
import sys
import torch
from springback.inference import load
from springback.models.loading import load_model, resolve
if sys.argv[1] != "imports":
    loaded = load(sys.argv[2]) if sys.argv[1] == "pair" else None
    models = (loaded.expert, loaded.amateur) if loaded else (load_model(resolve(sys.argv[2])),)
    with torch.inference_mode():
        for model in models:
            model(input_ids=torch.tensor([[1, 2, 3]]))
lines = [line.split() for line in open("/proc/self/status")]
print(*(words[1] for words in lines if words[0] in ("RssAnon:", "RssFile:")))
"""


def adapters(folder: Path, repeats: int, tokens: int, source: str) -> dict[str, Any]:
    """Memory of a pair of adapters against one model's, and its time a token.

    ``weights``: bytes of parameters, each counted once.  ``resident_kib``: of a fresh process that
    has loaded it and run it once; own memory and pages of files apart, medians over repeats.
    Weights are mapped from their files, so it is the sum that counts, and on a machine short of
    memory pages of files go missing: ``spread`` is the range of the sum.
    """
    base, pair = adapter_pair(folder)
    loaded = load(pair)
    both = twin_of(loaded.expert, loaded.amateur)
    models = [m for m in (loaded.expert, loaded.amateur, both) if m is not None]
    alone = load(base).expert
    sizes = [_bytes(models), _bytes([alone])]
    paths = {"imports": base, "one": base, "pair": pair}
    held = {kind: _resident(kind, path, max(repeats, 3)) for kind, path in paths.items()}
    sums = {kind: row["own"] + row["files"] for kind, row in held.items()}
    subject = with_limit(subject_of(loaded), tokens)
    rows = timed(subject, subject.prompts(source, 4), repeats, [OURS, "ContrastModel"])
    return {
        "weights_pair": sizes[0],
        "weights_one": sizes[1],
        "weights_ratio": sizes[0] / sizes[1],
        "resident_kib": held,
        "resident_ratio": (sums["pair"] - sums["imports"]) / (sums["one"] - sums["imports"]),
        "arms": rows,
    }


def _bytes(models: Sequence[Any]) -> int:
    parts = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
        for model in models
        for p in model.parameters()
    }
    return sum(parts.values())


def _resident(kind: str, path: Path, repeats: int) -> dict[str, int]:
    """KiB of fresh processes: own and of files, medians; and how far their sums lie apart."""
    words = [sys.executable, "-c", HELD, kind, str(path)]
    runs = []
    for _ in range(repeats):
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        runs.append([int(word) for word in said.split()[-2:]])
    own, files = (int(statistics.median(column)) for column in zip(*runs, strict=True))
    sums = [sum(run) for run in runs]
    return {"own": own, "files": files, "spread": max(sums) - min(sums)}


def peak_memory() -> float:
    """GB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
