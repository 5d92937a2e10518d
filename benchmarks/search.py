"""Time of the search over 5 mu and 5 lambda, against a full decode at each point.

Claims: at most 0.7 of the plain way's time with the identical choice, and at most 0.4 with
narrowing by NLL (``--narrow 2``); reported beside them, the validation accuracy that narrowing
costs, over seeds.

For each seed a pair is trained as the demo does it (or ``--early`` and ``--ft`` are taken), then
the ways search in turn, each in a fresh folder: ``plain`` decodes every point by the plain loop
with both models; ``shared`` is what ``boost`` does; ``narrowed`` is ``boost --narrow 2``.  All
three score the reference solutions as well.  Finished seeds are kept in --out and a second call
with the same settings goes on from there; seeds measured elsewhere can be joined.  Beside the wall
clock stands the processor time, which means something on a busy machine too.  ``same answers`` is
the share of completions that equal the plain way's: in fp32 a block and a step may round
differently, which can tip a near-tie.

    python benchmarks/search.py --seeds 10
    python benchmarks/search.py --seeds 10 --first 5 --out half.json  # elsewhere; then --join it
    python benchmarks/search.py --tiny --out /tmp/search.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from springback.core import Checkpoint, Slice, to_jsonable
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.epochs import train_epochs
from springback.jobs.boost.job import Arm, Boost
from springback.jobs.boost.search import Tried
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.demo import BOOST
from springback.models.loading import load_tokenizer, resolve
from springback.progress import Silent
from springback.results.provenance import now, provenance
from springback.results.store import Store, read_json, write_json

RESULT = Path(__file__).parent / "results" / "search.json"
MU, LAM = (0.0, 0.1, 0.2, 0.4, 0.8), (0.0, 0.25, 0.5, 1.0, 2.0)
SHARED, NARROWED = 0.7, 0.4
QUESTIONS = 64


class Plain(Boost):
    """Every candidate decoded and its solutions read by itself, from first token to last."""

    reuse = False

    def score_all(self, arms: Sequence[Arm], questions: Slice, part: str) -> list[Tried]:
        return [self.score(arm, questions, part) for arm in arms]


WAYS: dict[str, tuple[type[Boost], int]] = {
    "plain": (Plain, 0),
    "shared": (Boost, 0),
    "narrowed": (Boost, 2),
}


def settings_of(options: argparse.Namespace, seed: int) -> BoostSettings:
    # No search for CD only: its candidates are 0 alone.
    settings = replace(BOOST, mu=MU, lam=LAM, lam_cd=(), seed=seed, precision="float32")
    settings = replace(settings, validation_rows=options.questions)
    if options.early:
        settings = replace(settings, early=options.early, ft=options.ft, model=None, train=None)
    return check_settings(settings)


def tiny_pair(folder: Path) -> tuple[Checkpoint, Checkpoint]:
    """Two random models with the built-in model's tokenizer: a look at the overheads."""
    tokenizer = load_tokenizer(resolve(BOOST.model or ""))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    made = []
    model: Any = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)  # uneven odds, as a real model's are
    for name in ("early", "ft"):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        made.append(resolve(folder / name))
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.02 * p.std() * torch.randn_like(p))
    return made[0], made[1]


def pair_of(
    options: argparse.Namespace, settings: BoostSettings, work: Path
) -> tuple[Checkpoint, Checkpoint]:
    if options.tiny:
        return tiny_pair(work)
    if settings.early and settings.ft:
        return resolve(settings.early), resolve(settings.ft)
    train = load_data(settings).train
    assert train is not None
    start = resolve(settings.model or "")
    with Store(work).locked() as store:
        points = train_epochs(
            start, train, settings.recipe(), store, Silent(), settings.system
        ).points
    return points[-2].checkpoint, points[-1].checkpoint


def search(
    way: str, settings: BoostSettings, pair: tuple[Checkpoint, Checkpoint], validation: Slice
) -> dict[str, Any]:
    """Seconds of one search (models loaded before), what it chose, and every completion."""
    kind, narrow = WAYS[way]
    with tempfile.TemporaryDirectory() as tmp, Store(tmp).locked() as store:
        job = kind(replace(settings, narrow=narrow), pair, store, Silent())
        begin, busy = time.perf_counter(), time.process_time()
        arms, searched = job.choose(validation)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - busy
        runs = {
            f"{f['inputs']['mu']:g}/{f['inputs']['lam']:g}": f["results"]["completions"]
            for f in map(read_json, store.runs.glob("score-*/run.json"))
        }
    best = arms["EpiCoDe"]
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "choice": [best.mu, best.lam],
        "accuracy": searched["lambda"].chosen.accuracy,
        "completions": runs,
    }


def same(a: dict[str, list[str]], b: dict[str, list[str]]) -> float:
    """The share of completions of points in both that are equal."""
    equal = [x == y for key in a.keys() & b.keys() for x, y in zip(a[key], b[key], strict=True)]
    return fmean(equal)


def one_seed(options: argparse.Namespace, seed: int, work: Path) -> dict[str, Any]:
    settings = settings_of(options, seed)
    pair = pair_of(options, settings, work)
    validation = load_data(settings).validation
    turns = [
        {way: search(way, settings, pair, validation) for way in WAYS}
        for _ in range(options.repeats)
    ]
    found: dict[str, Any] = {"seed": seed}
    for way in WAYS:
        mine = turns[0][way]
        found[way] = {
            "seconds": [round(t[way]["seconds"], 2) for t in turns],
            "ratio": median(t[way]["seconds"] / t["plain"]["seconds"] for t in turns),
            "cpu_ratio": median(t[way]["cpu_seconds"] / t["plain"]["cpu_seconds"] for t in turns),
            "choice": mine["choice"],
            "accuracy": mine["accuracy"],
            "same_answers": same(turns[0]["plain"]["completions"], mine["completions"]),
        }
    return found


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for way, limit in (("shared", SHARED), ("narrowed", NARROWED)):
        ratio = median(s[way]["ratio"] for s in seeds)
        identical = [s[way]["choice"] == s["plain"]["choice"] for s in seeds]
        found[way] = {
            "claim": f"at most {limit} of the plain way's time",
            "ratio": ratio,
            "holds": ratio <= limit,
            "cpu_ratio": median(s[way]["cpu_ratio"] for s in seeds),
            "identical_choices": sum(identical),
            "seeds": len(seeds),
            "accuracy_lost": fmean(s["plain"]["accuracy"] - s[way]["accuracy"] for s in seeds),
            "same_answers": fmean(s[way]["same_answers"] for s in seeds),
        }
    return found


def finished_seeds(out: Path, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """What calls with the same settings have measured before."""
    before = read_json(out) if out.exists() else {}
    if before and {key: before.get(key) for key in asked} != asked:
        raise SystemExit(f"{out} was measured with other settings; give another --out or delete it")
    return list(before.get("by_seed", []))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="The first of the seeds.")
    parser.add_argument("--join", type=Path, nargs="*", default=[], help="Result files to add.")
    parser.add_argument("--repeats", type=int, default=1, help="Searches of each way a seed.")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--early", help="Instead of training: the earlier checkpoint of a run …")
    parser.add_argument("--ft", help="… and its last one.")
    parser.add_argument("--tiny", action="store_true", help="Random models, to see it run.")
    options = parser.parse_args()
    asked = {
        "mu": list(MU),
        "lambda": list(LAM),
        "settings": to_jsonable(replace(settings_of(options, 0), early=None, ft=None)),
        "models": "tiny" if options.tiny else options.ft or BOOST.model,
        "repeats": options.repeats,
    }
    done = {
        found["seed"]: found
        for file in (*options.join, options.out)
        for found in finished_seeds(file, asked)
    }

    def write() -> dict[str, Any]:
        seeds = [done[seed] for seed in sorted(done)]
        found = summary(seeds)
        write_json(options.out, {**found, "by_seed": seeds, **asked})
        return found

    for seed in range(options.first, options.seeds):
        if seed in done:
            continue
        started = now()
        with tempfile.TemporaryDirectory() as tmp:
            found = one_seed(options, seed, Path(tmp))
        done[seed] = {**found, "provenance": provenance(started=started, finished=now())}
        write()  # after every seed: a long run may be cut
        print(f"seed {seed}: { ({way: done[seed][way]['seconds'] for way in WAYS}) }", flush=True)
    for way, facts in write().items():
        print(f"{way}: {facts}")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
