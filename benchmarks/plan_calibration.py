"""What ``audit plan --size`` rests on: speed of training and scoring at several sizes.

Claim: seconds are in proportion to weights within a factor of two from 20 to 190 million weights,
so a plan scales up from what was measured.  Llamas from scratch with random weights, tokens drawn
at random; FLOP a second by 6 N a trained and 2 N a scored token.

    python benchmarks/plan_calibration.py --out benchmarks/results/plan_calibration.json
    python benchmarks/plan_calibration.py --large --out benchmarks/results/plan_calibration_gpu.json

``--large`` is for a GPU: 188 million to 1.2 billion weights, rows of 512 tokens.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from springback.core import Recipe
from springback.models.encoding import Encoded
from springback.models.from_scratch import Shape, fresh_model
from springback.models.loading import (
    default_precision,
    load_tokenizer,
    product_speed,
    release_memory,
    resolve,
)
from springback.models.placement import accelerator
from springback.probes import Precision, nll
from springback.results.provenance import now, provenance
from springback.results.store import write_json
from springback.training import finetune

#: Width and depth; with the vocabulary of SmolLM2 (49,152) 21, 47, 109 and 188 million weights.
SHAPES = (Shape(256, 8, 4), Shape(384, 12, 6), Shape(512, 20, 8), Shape(576, 30, 9))
#: For a GPU, with the same vocabulary: 188, 319 million, and 1.17 billion weights.
LARGE = (Shape(576, 30, 9), Shape(1024, 16, 16), Shape(2048, 16, 32))
BATCH, STEPS, ROUNDS = 8, 8, 3


def measured(shape: Shape, length: int, tokenizer: Any, precision: str) -> dict[str, Any]:
    """Seconds of so many steps, and of scoring as many rows; medians."""
    model = fresh_model(tokenizer, shape, 0)
    weights = sum(p.numel() for p in model.parameters())
    rng = random.Random(0)
    rows = [
        Encoded(tuple(rng.randrange(len(tokenizer)) for _ in range(length)), 1, length)
        for _ in range(BATCH * STEPS)
    ]
    recipe = Recipe(batch_size=BATCH, max_tokens=length, precision=precision)
    finetune(model, tokenizer, rows[:BATCH], recipe)  # warm up
    train, score = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        finetune(model, tokenizer, rows, recipe)
        train.append(time.perf_counter() - began)
        began = time.perf_counter()
        nll(model, rows, tokenizer, Precision("float32"))
        score.append(time.perf_counter() - began)
    tokens = len(rows) * length
    del model
    release_memory()
    return {
        "shape": shape.name,
        "weights": weights,
        "tokens": tokens,
        "train_seconds": train,
        "score_seconds": score,
        "train_flops": 6 * weights * tokens / statistics.median(train),
        "score_flops": 2 * weights * tokens / statistics.median(score),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/plan_calibration.json")
    )
    parser.add_argument(
        "--shapes", type=int, default=len(SHAPES), help="only so many, the smallest; 2 or more"
    )
    parser.add_argument("--large", action="store_true", help="sizes and rows for a GPU")
    asked = parser.parse_args()
    shapes, length = (LARGE, 512) if asked.large else (SHAPES, 64)
    if not 2 <= asked.shapes <= len(SHAPES):
        sys.exit(f"--shapes is {asked.shapes}; give 2 to {len(SHAPES)}: sizes are compared")
    started = now()
    precision = default_precision()
    products = {name: product_speed(name) for name in dict.fromkeys((precision, "float32"))}
    tokenizer = load_tokenizer(resolve("smollm2-135m"))
    rows = []
    for shape in shapes[: asked.shapes]:
        row = measured(shape, length, tokenizer, precision)
        rows.append(row)
        print(
            f"{row['weights'] / 1e6:.0f}M weights: {row['train_flops'] / 1e12:.3g} TFLOP/s trained "
            f"({precision}), {row['score_flops'] / 1e12:.3g} scored (float32)"
        )
    # What `audit plan` without --size takes for SHARE of the speed of a product, of the largest.
    shares = {
        "train": rows[-1]["train_flops"] / products[precision],
        "score": rows[-1]["score_flops"] / products["float32"],
    }
    print(f"of a product's speed: {shares['train']:.2f} trained, {shares['score']:.2f} scored")
    spread = {
        key: max(r[key] for r in rows) / min(r[key] for r in rows)
        for key in ("train_flops", "score_flops")
    }
    holds = all(value <= 2 for value in spread.values())
    data = {
        "device": str(accelerator()),
        "length": length,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "products": products,
        "shares": shares,
        "sizes": rows,
        "spread": spread,
        "holds": holds,
        "provenance": provenance(started=started, finished=now()),
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked.out, data)
    if not holds:
        sys.exit(f"work is not in proportion to weights within a factor of two: {spread}")


if __name__ == "__main__":
    main()
