"""Is contrast more than a longer step?  NLL of three families at equal effective steps, over seeds.

To first order in the weights a contrasted pair with mu and lambda is one plain model at
s = mu (1 + lambda), and contrast of the fine-tuned with the early model is s = lambda
(docs/theory.md).  For each seed a pair is trained as ``reproduce epicode-main`` does it, and the
reference solutions of its test questions are scored under ME(s), EpiCoDe(mu, s / mu - 1) for two
mu, and CD only(s), at each s.  Nothing is chosen and nothing decoded, so nothing is opened.

Finished seeds are kept in --out; a second call goes on from there, and seeds measured elsewhere
can be joined.  ``--early`` and ``--ft`` measure a pair of one's own (adapters with ``--model``).

    python benchmarks/equal_step.py --seeds 10
    python benchmarks/equal_step.py --early A --ft B --test gsm8k.jsonl --out one.json
    python benchmarks/equal_step.py --searches docs/results/epicode-main/result.json

The last compares, in the searches of a finished ``reproduce epicode-main``, the candidates that
stand at an effective step that ME was tried at, and measures nothing.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from springback.jobs.boost.arm import Arm
from springback.jobs.boost.checkpoints import make_pair
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.scoring import Scoring
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.papers.epicode.settings import SMALL
from springback.progress import Silent
from springback.results.provenance import now, provenance
from springback.results.store import Store, read_json, write_json
from springback.stats import mean_interval, paired_interval

RESULT = Path(__file__).parent / "results" / "equal_step.json"
STEPS = (0.2, 0.4, 0.8, 1.6, 3.0)
MUS = (0.1, 0.2)


def arms_at(step: float) -> dict[str, Arm]:
    """Every family at one effective step."""
    arms = {"ME": Arm("ME", step, 0, None)}
    for mu in MUS:
        if step > mu:
            arms[f"EpiCoDe, mu {mu:g}"] = Arm("EpiCoDe", mu, round(step / mu - 1, 9), "ft")
    arms["CD"] = Arm("CD only", 0, step, "early")
    return arms


def one_seed(settings: BoostSettings, folder: Path) -> dict[str, Any]:
    """NLL of every question by family and step, nats a token; ``0`` is the fine-tuned model.

    ``folder``: where the pair is trained.
    """
    started, settings = now(), check_settings(settings)
    data = load_data(settings)
    with Store(folder).locked() as store:
        pair = make_pair(settings, data.train, store, Silent())
        job = Scoring(settings, pair.line, store, Silent(), pair.weak, data.train)
        plain = Arm("fine-tuned", 0, 0, None)
        found: dict[str, Any] = {"0": job.nll_all([plain], data.test, "test")[0]}
        # One pass of a pair of models gives every lambda.
        every = {(name, step): arm for step in STEPS for name, arm in arms_at(step).items()}
        scores = job.nll_all(list(every.values()), data.test, "test")
        for (name, step), nll in zip(every, scores, strict=True):
            found.setdefault(name, {})[f"{step:g}"] = nll
    return {
        "seed": settings.seed,
        "trained_in": None if settings.early else settings.precision,
        "early": pair.early.content_hash,
        "ft": pair.ft.content_hash,
        "nll": found,
        "provenance": provenance(started=started, finished=now()),
    }


def table(seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By step: mean NLL of ME, and each family's difference to it with a 95 % interval.

    Over several seeds Student's t of the seeds' means; of one seed paired by question.
    """
    rows = []
    for step in STEPS:
        key = f"{step:g}"
        plain = [s["nll"]["ME"][key] for s in seeds]
        base = fmean(fmean(s["nll"]["0"]) for s in seeds)
        row: dict[str, Any] = {"step": step, "fine_tuned": base, "ME": fmean(map(fmean, plain))}
        for name in ("CD", *(f"EpiCoDe, mu {mu:g}" for mu in MUS)):
            if not all(key in s["nll"].get(name, {}) for s in seeds):
                continue
            theirs = [s["nll"][name][key] for s in seeds]
            if len(seeds) == 1:
                difference = paired_interval(theirs[0], plain[0])
            else:
                gaps = [fmean(a) - fmean(b) for a, b in zip(theirs, plain, strict=True)]
                difference = mean_interval(gaps)
            row[name] = difference.to_dict()
        rows.append(row)
    return rows


def in_searches(result: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Family, and its validation NLL and accuracy less those of ME at the same effective step."""
    found = []
    for cell in result["analysis"]["cells"]:
        for seed in cell["search"]:
            plain = {round(t["value"], 9): t for t in seed["mu"]["tried"]}
            mu = seed["mu"]["chosen"]
            tried = [("EpiCoDe", mu * (1 + t["value"]), t) for t in seed["lambda"]["tried"]]
            tried += [("CD", t["value"], t) for t in seed["cd_lambda"]["tried"]]
            for family, step, t in tried:
                if (me := plain.get(round(step, 9))) is not None:
                    gaps = (t[name] - me[name] for name in ("nll", "accuracy"))
                    found.append((family, *gaps))
    return found


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """NLL over the effective step, a line a family."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    steps = [row["step"] for row in rows]
    base = rows[0]["fine_tuned"]
    axes.plot([0, *steps], [base, *(r["ME"] for r in rows)], "o-", label="extrapolated, ME(s)")
    for name, mark in (("CD", "s--"), *((f"EpiCoDe, mu {mu:g}", "^:") for mu in MUS)):
        kept = [(r["step"], r["ME"] + r[name]["mean"]) for r in rows if name in r]
        axes.plot(*zip(*kept, strict=True), mark, label=name)
    axes.set_xlabel("effective step s = mu (1 + lambda)")
    axes.set_ylabel("NLL, nats a token")
    axes.legend()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument(
        "--join", type=Path, nargs="*", default=[], help="results of other machines"
    )
    for flag in ("early", "ft", "model", "test", "dtype", "precision"):
        parser.add_argument(f"--{flag}")
    parser.add_argument("--rows", type=int, help="test questions")
    parser.add_argument("--searches", type=Path, help="only compare what these searches tried")
    parser.add_argument("--work", type=Path, help="keep the pairs here, in problems-SEED")
    options = parser.parse_args()
    if options.searches:
        found = in_searches(read_json(options.searches))
        for family in ("EpiCoDe", "CD"):
            nll, accuracy = zip(*((n, a) for name, n, a in found if name == family), strict=True)
            worst = max(map(abs, nll)), max(map(abs, accuracy))
            print(f"{family}: {len(nll)} points, NLL {worst[0]:.5f}, accuracy {worst[1]:.4f}")
        return
    base: BoostSettings = SMALL.one(0, SMALL.model, None)
    if options.early:
        base = replace(base, early=options.early, ft=options.ft, model=options.model, train=None)
        base = replace(base, validation=options.test or base.validation, validation_rows=1)
        base = replace(base, system=None, max_tokens=512)
    given = {name: getattr(options, name) for name in ("test", "dtype", "precision")}
    given["test_rows"] = options.rows
    base = replace(base, **{name: value for name, value in given.items() if value})
    kept = [read_json(f)["seeds"] for f in (options.out, *options.join) if f.exists()]
    seeds = {s["seed"]: s for one in kept for s in one}
    for seed in range(options.first, options.first + (1 if options.early else options.seeds)):
        if seed not in seeds:
            with tempfile.TemporaryDirectory() as scratch:
                folder = (options.work or Path(scratch)) / f"problems-{seed}"
                seeds[seed] = one_seed(replace(base, seed=seed), folder)
            print(f"seed {seed}: fine-tuned {fmean(seeds[seed]['nll']['0']):.4f}", flush=True)
        done = [seeds[s] for s in sorted(seeds)]
        rows = table(done)
        write_json(options.out, {"table": rows, "steps": list(STEPS), "seeds": done})
    draw(rows, options.out.with_suffix(".svg"))
    for row in rows:
        parts = [f"{n} {row[n]['mean']:+.5f}" for n in row if isinstance(row[n], dict)]
        print(f"s {row['step']:g}: ME {row['ME']:.4f}; {'; '.join(parts)}")
        assert math.isfinite(row["ME"])


if __name__ == "__main__":
    main()
