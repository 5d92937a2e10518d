"""What decoding in 16 bits does to tokens, accuracy and NLL, against float32 on the same questions.

Greedy answers to built-in problems, and the NLL of their reference solutions, once in each dtype.
A noise floor, not a claim: what differs by less than this between two models in that dtype may be
rounding.  ``again`` is the same dtype in batches of a third of the size (of half of the prompts):
what rounding between batches does there.  Tokens are compared up to the first that differs, after
which an answer goes its own way.  A boosted folder is decoded with its contrast.  Seconds are of
one pass, dtypes in turn, on a machine that may be busy (``load``).

    python benchmarks/dtype_noise.py
    python benchmarks/dtype_noise.py --model qwen2.5-coder-0.5b-q5 --rows 12
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import torch

from springback.core import Row, to_jsonable
from springback.data import load_slice
from springback.data.grading import grade
from springback.decoding import DecodeSettings, decode_fast
from springback.inference import Loaded, load
from springback.models.encoding import answer_text, encode_answer, encode_prompt, stop_ids
from springback.models.loading import release_memory, tune_allocator
from springback.probes.likelihood import Precision, pair_nll
from springback.results.provenance import now, provenance
from springback.results.store import read_json, write_json
from springback.stats import paired_interval

RESULT = Path(__file__).parent / "results" / "dtype_noise.json"
BATCH_TOKENS = 1024


def measured(loaded: Loaded, rows: Sequence[Row], batch: int, new: int) -> dict[str, Any]:
    """Token ids, right or wrong, NLL a token of the solutions, and again in smaller batches."""
    tokenizer = loaded.tokenizer
    prompts = [encode_prompt(tokenizer, row, loaded.system) for row in rows]
    ends = stop_ids(tokenizer, rows[0], loaded.expert)
    texts = [encode_answer(tokenizer, row, row.response, loaded.system) for row in rows]
    both = loaded.expert, loaded.amateur or loaded.expert

    def answers(size: int, of: int) -> tuple[list[list[int]], float]:
        how = DecodeSettings(
            new,
            lam=loaded.lam,
            alpha=loaded.alpha,
            batch_size=size,
            stop_ids=ends,
            pad_id=tokenizer.pad_token_id,
        )
        begin = time.perf_counter()
        tokens = decode_fast(loaded.expert, prompts[:of], how, loaded.amateur).answers
        return tokens, time.perf_counter() - begin

    def nll(batch_tokens: int) -> list[float]:
        precision = Precision(batch_tokens=batch_tokens)
        scored = pair_nll(*both, texts, tokenizer, [loaded.lam], precision)
        return [text.per_token for text in scored[loaded.lam]]

    warm = DecodeSettings(4, batch_size=1, pad_id=tokenizer.pad_token_id)
    decode_fast(loaded.expert, prompts[:1], warm)
    tokens, seconds = answers(batch, len(rows))
    again, _ = answers(max(1, batch // 3), -(-len(rows) // 2))
    begin = time.perf_counter()
    scored = nll(BATCH_TOKENS)
    return {
        "tokens": tokens,
        "right": [
            float(grade("number", answer_text(tokenizer, ids), str(row.answer)))
            for ids, row in zip(tokens, rows, strict=True)
        ],
        "nll": scored,
        "tokens_again": again,
        "score_seconds": time.perf_counter() - begin,
        "nll_again": nll(BATCH_TOKENS // 3),
        "seconds": seconds,
        "tokens_per_second": sum(map(len, tokens)) / seconds,
    }


def equal_tokens(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Up to where answers part: share of answers that never do, and of tokens before that."""
    firsts = []
    for x, y in zip(a, b, strict=True):
        same = next((i for i, (s, t) in enumerate(zip(x, y, strict=False)) if s != t), None)
        firsts.append(min(len(x), len(y)) if same is None and len(x) != len(y) else same)
    parted = [n for n in firsts if n is not None]
    compared = sum(len(x) if n is None else n + 1 for x, n in zip(a, firsts, strict=True))
    return {
        "answers": len(a),
        "answers_equal": len(a) - len(parted),
        "tokens_compared": compared,
        "differences": len(parted),
        "tokens_to_a_difference": compared / len(parted) if parted else None,
        "first_differences": parted,
    }


def differences(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Of NLL a token of each text: mean with sign, mean and 95th percentile without, largest."""
    each = [y - x for x, y in zip(a, b, strict=True)]
    sizes = [abs(d) for d in each]
    return {
        "mean": fmean(each),
        "mean_absolute": fmean(sizes),
        "p95_absolute": quantiles(sizes, n=20, method="inclusive")[-1],
        "largest": max(sizes),
    }


def compared(exact: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        "tokens": equal_tokens(exact["tokens"], other["tokens"]),
        "tokens_again": equal_tokens(
            other["tokens"][: len(other["tokens_again"])], other["tokens_again"]
        ),
        "accuracy": fmean(other["right"]),
        "accuracy_change": paired_interval(other["right"], exact["right"]),
        "questions_changed": sum(
            a != b for a, b in zip(exact["right"], other["right"], strict=True)
        ),
        "nll": fmean(other["nll"]),
        "nll_difference": differences(exact["nll"], other["nll"]),
        "nll_difference_again": differences(other["nll"], other["nll_again"]),
        "tokens_per_second": other["tokens_per_second"],
        "speed_ratio": other["tokens_per_second"] / exact["tokens_per_second"],
        "scoring_speed_ratio": exact["score_seconds"] / other["score_seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m", help="what springback.load takes")
    parser.add_argument("--name", help="what the result calls it; default: the model's name")
    parser.add_argument("--dtypes", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--level", default="1", help="of the problems, 1 to 3")
    parser.add_argument("--seed", type=int, default=0, help="which problems are drawn")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    tune_allocator()
    started = now()
    rows = load_slice(f"problems:{args.level}", limit=args.rows, seed=args.seed, split="test").rows
    found: dict[str, Any] = {}
    for dtype in ("float32", *args.dtypes.split(",")):
        loaded = load(args.model, dtype=dtype, device=args.device)
        found[dtype] = measured(loaded, rows, args.batch_size, args.max_new_tokens)
        del loaded
        release_memory()
        found[dtype]["compared"] = compared(found["float32"], found[dtype])
        print(dtype, to_jsonable(found[dtype]["compared"]))
    inputs = {k: v for k, v in vars(args).items() if k not in ("out", "name", "model")}
    entry = {
        "inputs": {**inputs, "threads": torch.get_num_threads()},
        "load": os.getloadavg(),
        "dtypes": {
            name: {**kept["compared"], "seconds": kept["seconds"], "right": kept["right"]}
            for name, kept in found.items()
        },
        "provenance": provenance(started=started, finished=now()),
    }
    # One file for several models, each made by a call of its own.
    before = read_json(args.out) if args.out.exists() else {}
    write_json(args.out, {**before, args.name or args.model: to_jsonable(entry)})


if __name__ == "__main__":
    main()
