"""Time a token of contrastive decoding, against plain generate of the expert alone.

Claim: the fast decoder costs about as much as the fine-tuned model alone, where the plain
two-model loop costs twice as much; every arm but ``one model`` gives the same tokens.

All arms answer the same prompts in turn, in one process, and the turns are repeated, so that a
slow phase of the machine falls on all of them.  Reported for each: the median over repeats of
milliseconds a token, the median of the ratio to Transformers' ``generate`` of the expert in the
same repeat, and the models' calls a token.  ``one model, fast`` is speculation without contrast,
the fair price to compare with where a text repeats itself.

``same`` is the share of answers that equal the plain loop's token by token: in fp32 a block and a
single step may round differently, which can tip a near-tie.

    python benchmarks/decoding.py --model springback-boost/model
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from springback.core import Row
from springback.decode import DecodeSettings, Speculation, Work, decode, decode_fast
from springback.encode import encode_prompt, stop_ids
from springback.inference import load
from springback.provenance import provenance
from springback.slices import load_slice
from springback.store import write_json

Answers = list[list[int]]


def tiny_pair() -> tuple[Any, Any]:
    """A random pair, for a look at the overheads: the models cost next to nothing."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        initializer_range=0.3,
    )
    pair: list[Any] = [LlamaForCausalLM(config) for _ in range(2)]
    pair[1].load_state_dict(pair[0].state_dict())
    with torch.no_grad():
        for p in pair[1].parameters():
            p.add_(0.003 * torch.randn_like(p))
        for model in pair:
            model.model.norm.weight.mul_(4)  # uneven odds: some positions are contested, not all
    for model in pair:
        model.eval()
    return pair[0], pair[1]


def plain_generate(model: Any, prompts: Answers, settings: DecodeSettings) -> Answers:
    """Transformers' own generate, one batch at a time, as a user of one model runs it."""
    found: Answers = []
    for at in range(0, len(prompts), settings.batch_size):
        chunk = prompts[at : at + settings.batch_size]
        longest = max(map(len, chunk))
        ids = torch.tensor([[settings.pad_id] * (longest - len(p)) + p for p in chunk])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in chunk])
        out = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            eos_token_id=list(settings.stop_ids) or None,
            pad_token_id=settings.pad_id,
        )
        for row in out[:, longest:].tolist():
            ends = [i for i, token in enumerate(row) if token in settings.stop_ids]
            found.append(row[: ends[0]] if ends else row)
    return found


def arms(
    pair: tuple[Any, Any], prompts: Answers, settings: DecodeSettings
) -> dict[str, Callable[[], tuple[Answers, Work | None]]]:
    """What is timed, by name."""
    expert, amateur = pair
    alone = replace(settings, lam=0.0)

    def fast(draft: str, how: DecodeSettings) -> tuple[Answers, Work | None]:
        found = decode_fast(expert, prompts, how, amateur, speculation=Speculation(draft))
        return found.answers, found.work

    return {
        "one model": lambda: (plain_generate(expert, prompts, settings), None),
        "one model, fast": lambda: fast("ngram", alone),
        "plain pair": lambda: (decode(expert, prompts, settings, amateur), None),
        "lazy": lambda: fast("none", settings),
        "lazy, n-gram": lambda: fast("ngram", settings),
        "lazy, amateur drafts": lambda: fast("amateur", settings),
    }


def measure(
    pair: tuple[Any, Any], prompts: Answers, settings: DecodeSettings, repeats: int
) -> list[dict[str, Any]]:
    """One row an arm."""
    jobs = arms(pair, prompts, settings)
    times: dict[str, list[float]] = {name: [] for name in jobs}
    last: dict[str, tuple[Answers, Work | None]] = {}
    for repeat in range(repeats + 1):  # the first is for warming up
        for name, job in jobs.items():
            begin = time.perf_counter()
            last[name] = job()
            tokens = sum(len(a) + 1 for a in last[name][0])  # the stop token is decoded too
            if repeat:
                times[name].append(1e3 * (time.perf_counter() - begin) / tokens)
    truth = last["plain pair"][0]
    rows = []
    for name, (answers, work) in last.items():
        tokens = sum(len(a) + 1 for a in answers)
        ratios = [a / b for a, b in zip(times[name], times["one model"], strict=True)]
        row: dict[str, Any] = {
            "arm": name,
            "ms_per_token": statistics.median(times[name]),
            "ratio_to_one_model": statistics.median(ratios),
            "same": sum(a == b for a, b in zip(answers, truth, strict=True)) / len(truth),
        }
        if work is not None:
            row["expert_calls_per_token"] = work.expert_calls / tokens
            row["amateur_calls_per_token"] = work.amateur_calls / tokens
            row["contested"] = work.contested / tokens
            row["accepted"] = work.accepted / work.drafted if work.drafted else None
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="folder that boost wrote; without it, a random tiny pair")
    parser.add_argument("--source", default="problems", help="where prompts come from")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--lam", type=float, default=1.0, help="of the tiny pair")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, help="write a JSON file")
    args = parser.parse_args()
    settings = DecodeSettings(args.max_new_tokens, lam=args.lam, batch_size=args.batch_size)
    if args.model:
        loaded = load(args.model)
        rows = load_slice(args.source, limit=args.prompts, seed=0).rows
        prompts = [encode_prompt(loaded.tokenizer, r, loaded.system) for r in rows]
        stops = stop_ids(loaded.tokenizer, Row("pair", "", ""))
        settings = replace(settings, lam=loaded.lam, alpha=loaded.alpha, stop_ids=stops)
        settings = replace(settings, pad_id=loaded.tokenizer.pad_token_id)
        pair: tuple[Any, Any] = (loaded.expert, loaded.amateur)
    else:
        pair = tiny_pair()
        torch.manual_seed(1)
        prompts = [torch.randint(0, 2048, (24,)).tolist() for _ in range(args.prompts)]
    if pair[1] is None:
        parser.error(f"{args.model} has lambda 0: there is no pair to decode with")
    for model in pair:
        model.to(getattr(torch, args.dtype))
    started = datetime.now(UTC).isoformat()
    found = measure(pair, prompts, settings, args.repeats)
    for row in found:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    if args.out:
        inputs = {k: str(v) for k, v in vars(args).items()}
        made = provenance(started=started, finished=datetime.now(UTC).isoformat())
        write_json(args.out, {"inputs": inputs, "arms": found, "provenance": made})


if __name__ == "__main__":
    main()
