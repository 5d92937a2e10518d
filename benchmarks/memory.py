"""Peak of anonymous memory (RssAnon) of full-weight runs on SmolLM2-135M.

Claims: (1) an SFT run takes at most weights + gradients + optimiser state + 1.5 GB, Python and its
libraries included; (2) each of the five algorithms, with the audit's default settings, stays under
8 GB.  On a CPU.  Every case is a run in a process of its own, in the precision that is the default
on this machine (and SFT's long rows in fp32 too); sampled every 20 ms.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from springback.core import Recipe, Row
from springback.data import load_slice
from springback.jobs.audit.settings import AuditSettings
from springback.models.encoding import encode_rows
from springback.models.loading import (
    Tokenizer,
    default_precision,
    load_model,
    load_tokenizer,
    resolve,
)
from springback.probes import load_scorer
from springback.results.provenance import now, provenance
from springback.results.store import write_json
from springback.training import (
    Examples,
    encode_labelled,
    encode_preferences,
    encode_prompts,
    finetune,
    labelled_rows,
    preference_rows,
)

RESULT = Path(__file__).parent / "results" / "memory.json"
SETTINGS = AuditSettings()
SPARE, MOST = 1_500_000_000, 8_000_000_000
STEPS = 3


def joined(each: Callable[[int], int], rows: int) -> list[Row]:
    """Rows that are some reviews one after the other: ``each(i)`` of them in row i."""
    texts = iter(load_slice("reviews:positive", limit=rows * 12).rows)
    found = []
    for at in range(rows):
        parts = [next(texts) for _ in range(each(at))]
        found.append(replace(parts[0], response=" ".join(p.response for p in parts)))
    return found


def sft(tokenizer: Tokenizer, recipe: Recipe, rows: list[Row]) -> tuple[Any, Recipe]:
    return encode_rows(tokenizer, rows, recipe.max_tokens), recipe


def study(tokenizer: Tokenizer, algorithm: str, precision: str) -> tuple[Any, Recipe]:
    """What an audit with default settings trains on, for a few steps."""
    recipe = replace(SETTINGS, precision=precision).recipe(0, algorithm)
    n = STEPS * recipe.batch_size
    wanted, unwanted = (load_slice(f"reviews:{k}", limit=n).rows for k in ("positive", "negative"))
    if algorithm == "sft":
        return sft(tokenizer, recipe, [*wanted])
    if algorithm == "kto":
        half = labelled_rows(wanted[: n // 2], unwanted[: n // 2])
        return Examples(encode_labelled(tokenizer, half, recipe.max_tokens)), recipe
    if algorithm == "rloo":
        scorer = load_scorer(SETTINGS.reward)
        prompts = encode_prompts(tokenizer, wanted, SETTINGS.prompt_tokens)
        return Examples(prompts, reward=lambda p, t: [*scorer.score(p, t)]), recipe
    pairs = preference_rows(wanted, unwanted)
    return Examples(encode_preferences(tokenizer, pairs, recipe.max_tokens)), recipe


def case(name: str, tokenizer: Tokenizer) -> tuple[Any, Recipe]:
    """Rows and recipe of a case by its name."""
    kind, _, precision = name.partition(", ")
    precision = precision or default_precision()
    if kind == "long":
        recipe = Recipe(max_tokens=320, precision=precision)
        return sft(tokenizer, recipe, joined(lambda _: 6, recipe.batch_size))
    if kind == "mixed":
        draw, recipe = random.Random(0), Recipe(max_tokens=320, precision=precision)
        return sft(tokenizer, recipe, joined(lambda _: draw.randint(1, 6), 2 * 16))
    return study(tokenizer, kind, precision)


#: ``long``: batches of 16 rows of 320 tokens; ``mixed``: of 16 rows of 50 to 320 tokens.
CASES = ("sft", "dpo", "kto", "simpo", "rloo", "mixed", "long", "long, float32")


@contextmanager
def peak_anonymous() -> Iterator[list[int]]:
    """The largest RssAnon (bytes) while the block runs, sampled every 20 ms."""
    found, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    found[0] = max(found[0], 1024 * int(line.split()[1]))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def measured(name: str) -> dict[str, Any]:
    """One run, in a process that holds nothing else."""
    checkpoint = resolve(SETTINGS.model)
    tokenizer, model = load_tokenizer(checkpoint), load_model(checkpoint)
    state = 16 * int(model.num_parameters())  # weights, gradients, two moments in fp32
    rows, recipe = case(name, tokenizer)
    with peak_anonymous() as peak:
        finetune(model, tokenizer, rows, recipe)
    allowed = state + SPARE if recipe.algorithm == "sft" else MOST
    return {
        "algorithm": recipe.algorithm,
        "precision": recipe.precision,
        "batch": recipe.batch_size,
        "max_tokens": recipe.max_tokens,
        "peak_anonymous": peak[0],
        "above_state": peak[0] - state,
        "allowed": allowed,
        "holds": peak[0] <= allowed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(options.child)))
        return
    started = now()
    found = {}
    for name in options.cases:
        command = [sys.executable, __file__, "--child", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        gigabytes = (found[name][k] / 1e9 for k in ("peak_anonymous", "above_state"))
        print(f"{name}: peak {next(gigabytes):.2f} GB, {next(gigabytes):.2f} above the state")
        result = {
            "claim": "SFT takes at most weights, gradients, optimiser state, 1.5 GB; others 8 GB",
            "holds": all(one["holds"] for one in found.values()),
            "model": SETTINGS.model,
            "seed": 0,
            "cases": found,
            "provenance": provenance(started=started, finished=now()),
        }
        write_json(options.out, result)  # after every case: a cut-off run keeps what it has
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
