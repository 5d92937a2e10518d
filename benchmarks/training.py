"""Training throughput against a bare loop, and the precision that probes need.

Two claims: (1) a run of ours trains at 0.95 or more of the speed of a bare PyTorch loop with the
same model, batches and precision, on short rows and on long ones; (2) probes under bf16 autocast
misread a model after a short fine-tuning.  Both on SmolLM2-135M-Instruct; (1) in turns within one
process, medians.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from springback.core import Recipe
from springback.data import load_slice
from springback.models.encoding import Encoded, encode_rows, pad_batch
from springback.models.loading import (
    Model,
    Tokenizer,
    copy_weights,
    load_model,
    load_tokenizer,
    resolve,
)
from springback.probes import Precision, SampleSettings, StartDistribution, margin, nll, sample
from springback.results.provenance import now, provenance
from springback.training import finetune

BATCH = 16
CLAIM = 0.95


def bare_loop(model: Model, rows: list[Encoded], pad: int) -> float:
    """Seconds that a plain loop takes: bf16 autocast, fp32 master weights, AdamW, clipping."""
    model.train(True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    begin = time.perf_counter()
    for at in range(0, len(rows), BATCH):
        batch = pad_batch(rows, range(at, at + BATCH), pad)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                labels=batch.labels,
                use_cache=False,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - begin


def ours(model: Model, tokenizer: Tokenizer, rows: list[Encoded]) -> float:
    recipe = Recipe(learning_rate=1e-5, batch_size=BATCH, max_tokens=320, precision="bf16-mixed")
    begin = time.perf_counter()
    finetune(model, tokenizer, rows, recipe)
    return time.perf_counter() - begin


def throughput(
    start: Model, tokenizer: Tokenizer, rounds: int, steps: int, together: int = 1
) -> dict[str, Any]:
    """Ratio of our throughput to the bare loop's, a round each in turns.

    ``together``: reviews a row; 64 tokens of each.
    """
    texts = load_slice("reviews:positive", limit=BATCH * steps * together).rows
    parts = [texts[i : i + together] for i in range(0, len(texts), together)]
    joined = [replace(p[0], response=" ".join(r.response for r in p)) for p in parts]
    rows = encode_rows(tokenizer, joined, 64 * together)
    model = copy.deepcopy(start)
    bare_loop(model, rows[:BATCH], tokenizer.pad_token_id)  # warm up
    seconds: dict[str, list[float]] = {"springback": [], "bare loop": []}
    for _ in range(rounds):
        copy_weights(start, model)
        seconds["springback"].append(ours(model, tokenizer, rows))
        copy_weights(start, model)
        seconds["bare loop"].append(bare_loop(model, rows, tokenizer.pad_token_id))
    pairs = zip(seconds["bare loop"], seconds["springback"], strict=True)
    ratio = statistics.median(bare / mine for bare, mine in pairs)
    return {
        "batch": BATCH,
        "steps": steps,
        "tokens": sum(len(r.ids) for r in rows),
        "seconds": seconds,
        "throughput_ratio": ratio,
        "holds": ratio >= CLAIM,
    }


def probe_precision(start: Model, tokenizer: Tokenizer) -> dict[str, Any]:
    """Margin and KL in fp32 and under bf16 autocast, after 160 rows at learning rate 1e-5."""
    model = copy.deepcopy(start)
    rows = encode_rows(tokenizer, load_slice("reviews:positive", limit=160).rows, 64)
    recipe = Recipe(learning_rate=1e-5, batch_size=8, max_tokens=64, precision="bf16-mixed")
    finetune(model, tokenizer, rows, recipe)
    held = {
        label: encode_rows(
            tokenizer, load_slice(f"reviews:{label}", limit=32, split="test").rows, 64
        )
        for label in ("positive", "negative")
    }
    prompts = [list(r.ids[:12]) for r in held["positive"]]
    answers = sample(start, tokenizer, prompts, SampleSettings(24, exact_length=True))
    texts = [Encoded((*p, *a), len(p), 0) for p, a in zip(prompts, answers, strict=True)]
    found: dict[str, Any] = {}
    for name in ("float32", "bf16-mixed"):
        precision = Precision(name)
        begin = time.perf_counter()
        wanted, unwanted = (nll(model, held[k], tokenizer, precision) for k in held)
        each = StartDistribution(start, texts, tokenizer, precision).kl(model)
        found[name] = {
            "margin": margin(wanted, unwanted),
            "kl": sum(each) / len(each),
            "seconds": time.perf_counter() - begin,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training.json"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16)
    options = parser.parse_args()
    started = now()
    checkpoint = resolve("smollm2-135m")
    tokenizer, start = load_tokenizer(checkpoint), load_model(checkpoint)
    result: dict[str, Any] = {
        "model": "smollm2-135m",
        "seed": 0,
        "claim": f"throughput at least {CLAIM} of a bare loop's",
        "throughput": throughput(start, tokenizer, options.rounds, options.steps),
        "throughput_long_rows": throughput(
            start, tokenizer, options.rounds, max(1, options.steps // 4), together=5
        ),
        "probe_precision": probe_precision(start, tokenizer),
    }
    result["provenance"] = provenance(started=started, finished=now())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
