"""Tokens a second of a pair in vLLM beside those of one model, at batch 1, 8 and 40, in one run.

Every arm is an engine in a process of its own; arms take turns, ``--rounds`` times, so that what
the machine does else falls on all of them.  Greedy, ``--tokens`` new tokens for each of so many
prompts as the batch, whatever they are; a first call that is not counted warms the engine up.

    plain      the weak (fine-tuned) model, as vLLM serves any
    pair       the boosted folder; the amateur's head left out where it cannot change the choice
    pair-all   the same with the amateur's head at every token
    ngram      pair, with n-gram speculation of 4 tokens
    plain-ngram  plain, with the same speculation
    twin       two random LoRA adapters of rank 8 on one base
    compiled   pair and plain with torch.compile, where --compiled is given

    python benchmarks/vllm_throughput.py --out benchmarks/results/vllm_throughput.json

Without ``--model`` a pair is made as ``benchmarks/decode.py`` makes it (needs the extra train).
Needs vLLM: run it with ``~/.cache/springback/vllm/bin/python``, which ``make vllm`` makes, and
PYTHONPATH=src.  Without vLLM (``make bench``) it says so and ends.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from springback.integrations.vllm.folder import LAZY_KEY, open_folder
from springback.results.provenance import now, provenance
from springback.results.store import write_json

ARMS = ("plain", "pair", "pair-all", "plain-ngram", "ngram", "twin")
COMPILED = ("plain-compiled", "pair-compiled")
_MARK = "measured:"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="boosted folder")
    parser.add_argument("--folder", type=Path, default=Path("springback-vllm"), help="what is made")
    parser.add_argument("--rows", type=int, default=250, help="of problems, to train the pair on")
    parser.add_argument("--batches", default="1,8,40")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--arms", default="", help="only these, with commas")
    parser.add_argument("--compiled", action="store_true", help="also with torch.compile")
    parser.add_argument("--out", type=Path, help="write a JSON file")
    parser.add_argument("--arm", help=argparse.SUPPRESS)  # this process is one engine
    parser.add_argument("--twin", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def engine_of(args: argparse.Namespace) -> Any:
    """The engine of one arm."""
    from vllm import LLM

    kind, _, how = args.arm.partition("-")
    found = open_folder(args.twin if kind == "twin" else args.model)
    overrides = found.overrides()
    if args.arm == "pair-all":
        overrides[LAZY_KEY] = False
    options: dict[str, Any] = {"hf_overrides": overrides}
    if "ngram" in args.arm:
        drafts = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}
        options["speculative_config"] = drafts
    model = found.amateur if kind == "plain" else found.model
    if kind == "plain":
        options.pop("hf_overrides")
    return LLM(
        model=str(model),
        dtype=args.dtype,
        enforce_eager=how != "compiled",
        max_model_len=1024,
        max_num_seqs=max(batches(args)),
        enable_prefix_caching=False,  # the same prompts come again
        load_format="safetensors",
        seed=0,
        **options,
    )


def batches(args: argparse.Namespace) -> list[int]:
    return [int(n) for n in args.batches.split(",")]


def one_arm(args: argparse.Namespace) -> dict[str, float]:
    """Tokens a second by batch."""
    from vllm import SamplingParams

    from springback.data import load_slice

    engine = engine_of(args)
    rows = load_slice("problems", limit=max(batches(args)), seed=0, split="test").rows
    chats = [[{"role": "user", "content": row.prompt}] for row in rows]
    how = SamplingParams(temperature=0.0, max_tokens=args.tokens, ignore_eos=True)
    found = {}
    for size in batches(args):
        asked = [chats[i % len(chats)] for i in range(size)]
        engine.chat(asked[:1], SamplingParams(temperature=0.0, max_tokens=4), use_tqdm=False)
        began = time.perf_counter()
        told = engine.chat(asked, how, use_tqdm=False)
        taken = time.perf_counter() - began
        found[str(size)] = sum(len(o.outputs[0].token_ids) for o in told) / taken
    return found


def start(args: argparse.Namespace, arm: str, twin: Path) -> dict[str, float]:
    """One engine in a process of its own."""
    words = [sys.executable, __file__, "--arm", arm, "--model", str(args.model)]
    words += ["--twin", str(twin), "--batches", args.batches, "--tokens", str(args.tokens)]
    quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    quiet |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run(
        [*words, "--dtype", args.dtype],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**quiet, **os.environ},
    )
    lines = [x for x in done.stdout.splitlines() if x.startswith(_MARK)]
    if done.returncode or not lines:
        raise SystemExit(f"{arm} ended with status {done.returncode}; its words are above")
    found: dict[str, float] = json.loads(lines[-1].removeprefix(_MARK))
    return found


def table(runs: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Median tokens a second by arm and batch, and their ratio to plain's of the same kind."""
    rows = []
    for arm, found in runs.items():
        suffix = "".join(f"-{s}" for s in ("ngram", "compiled") if s in arm)
        beside = runs.get(f"plain{suffix}") or runs["plain"]
        for size in found[0]:
            speeds = [run[size] for run in found]
            ratio = median(a / b[size] for a, b in zip(speeds, beside, strict=True))
            row = {"arm": arm, "batch": int(size), "tokens_per_second": median(speeds)}
            rows.append({**row, "of_plain": ratio, "all": speeds})
    return rows


def main() -> None:
    args = arguments()
    if args.arm:
        print(_MARK + json.dumps(one_arm(args)))
        return
    if importlib.util.find_spec("vllm") is None:
        print("vLLM is not installed here: left out (see the head of this file)")
        return
    from decode_parts.pairs import adapter_pair, trained_pair

    started = now()
    args.model = args.model or trained_pair(args.folder, "problems", args.rows)
    twin = adapter_pair(args.folder)[1]
    arms = tuple(a for a in args.arms.split(",") if a) or ARMS
    arms += COMPILED if args.compiled else ()
    if "plain" not in arms:
        arms = ("plain", *arms)
    runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for _ in range(args.rounds):
        for arm in arms:
            runs[arm].append(start(args, arm, twin))
            print(arm, {k: round(v, 1) for k, v in runs[arm][-1].items()}, flush=True)
    rows = table(runs)
    for row in rows:
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})
    if args.out:
        made = provenance(started=started, finished=now())
        inputs = {k: str(v) for k, v in vars(args).items() if k not in ("arm", "twin")}
        write_json(args.out, {"inputs": inputs, "throughput": rows, "provenance": made})


if __name__ == "__main__":
    main()
