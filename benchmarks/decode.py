"""Contrastive decoding against plain generate of the fine-tuned model alone, in one run.

Claims: the fast decoder gives the plain two-model loop's tokens, at about the price of one model;
two adapters take the memory of one.  Without ``--model`` a pair is made: SmolLM2-135M fine-tuned
for two epochs on ``--train``, built-in word problems by default, extrapolated by mu 0.3.

Parts, each a JSON file of its own by ``--out``:

    time       milliseconds a token of every arm, ratios, calls, contested share; the block costs
    identity   tokens of 200 prompts against the plain loop, differences, excused near-ties
    settings   a handful of prompts in every other setting
    output     ratio as answers grow from 64 to 1,024 tokens
    contested  ratio as alpha falls and lambda changes
    adapters   memory and time of two adapters on one base
    profile    where the time goes: expert, amateur, head, the rest; a step without arithmetic
    peer       language-model-arithmetic, with --peer CLONE, beside ours

    python benchmarks/decode.py --part time --dtype bfloat16 --batch-size 16

The same table on a GPU, where static caches are replayed as CUDA graphs:

    python benchmarks/decode.py --part time --dtype bfloat16 --device cuda --cache static
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from decode_parts.arms import timed
from decode_parts.curves import adapters, block_costs, contested_curve, output_curve, peak_memory
from decode_parts.identity import compare, settings_table
from decode_parts.pairs import Subject, subject, with_limit
from decode_parts.peer import peers
from decode_parts.shares import shares
from springback.decoding import Speculation
from springback.models.loading import tune_allocator
from springback.results.provenance import now, provenance
from springback.results.store import write_json
from springback.settings import CACHES

PARTS = ("time", "identity", "settings", "output", "contested", "adapters", "profile", "peer")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, default="time")
    parser.add_argument("--model", help="boosted folder; without it, a pair is made in --folder")
    parser.add_argument("--tiny", action="store_true", help="a random tiny pair: overheads only")
    parser.add_argument("--folder", type=Path, default=Path("springback-decode"))
    parser.add_argument("--train", default="problems", help="what the made pair is trained on")
    parser.add_argument("--rows", type=int, default=250, help="of it")
    parser.add_argument("--source", default="problems", help="prompts: built-in, or a file")
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--lengths", default="64,128,256,512,1024", help="of part output")
    parser.add_argument("--arms", default="", help="only these, with | between")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="", help="cuda or cpu; empty: where models load to")
    parser.add_argument("--cache", choices=CACHES, default="dynamic", help="of the fast decoder")
    parser.add_argument("--peer", type=Path, help="clone of language-model-arithmetic")
    parser.add_argument("--out", type=Path, help="write a JSON file")
    return parser.parse_args()


def measured(args: argparse.Namespace) -> Any:
    """What the part asked for found."""
    if args.part == "adapters":
        return adapters(args.folder, args.repeats, args.max_new_tokens, args.source)
    whole = subject(args.model, args.tiny, args.folder, args.train, args.rows)
    whole.to(args.dtype, args.device)
    whole = replace(whole, cache=args.cache)
    found = with_limit(whole, args.max_new_tokens, args.batch_size)
    prompts = found.prompts(args.source, args.prompts)
    if args.part == "identity":
        return compare(found, prompts, found.settings, Speculation())
    if args.part == "settings":
        return settings_table(found, prompts)
    if args.part == "output":
        return output_curve(found, prompts, [int(n) for n in args.lengths.split(",")], args.repeats)
    if args.part == "contested":
        return contested_curve(found, prompts, args.repeats)
    if args.part == "profile":
        return shares(found, prompts, args.repeats)
    if args.part == "peer":
        if args.peer is None:
            raise SystemExit("--part peer needs --peer, a clone of language-model-arithmetic")
        return peers(args.peer, found, prompts, args.repeats)
    return table(found, args)


def table(found: Subject, args: argparse.Namespace) -> dict[str, Any]:
    only = [name.strip() for name in args.arms.split("|") if name.strip()]
    rows = timed(found, found.prompts(args.source, args.prompts), args.repeats, only)
    for row in rows:
        shown = {k: v for k, v in row.items() if k != "all_ms_per_token"}
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in shown.items()})
    blocks = block_costs(found, args.batch_size, max(args.repeats, 3))
    for row in blocks:
        print({k: round(v, 2) for k, v in row.items()})
    return {"arms": rows, "blocks": blocks}


def main() -> None:
    args = arguments()
    tune_allocator()
    started = now()
    found = measured(args)
    if args.part in ("identity", "adapters", "peer"):
        print(found)
    print(f"peak memory {peak_memory():.2f} GB")
    if args.out:
        inputs = {k: str(v) for k, v in vars(args).items()}
        made = provenance(started=started, finished=now())
        write_json(args.out, {"inputs": inputs, args.part: found, "provenance": made})


if __name__ == "__main__":
    main()
