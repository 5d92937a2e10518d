"""What a boost chooses by the rule of before (``best``) and by the default (``auto``), and what the
choice brings: two studies with built-in word problems, seed by seed, on one trained pair each.

``problems``: the recipe and rows of ``reproduce epicode-main`` (seeds 0 to 9), with the candidates
that a boost has by default (0 among them).  ``demo``: the demo's boost on its five reporting seeds
and five new ones, 128 test questions each.  For each seed a pair is trained once, both rules see
the same validation answers, and what they choose is decoded on the test questions beside the
fine-tuned model, in the demo also beside extrapolation by the largest mu, the gain that is there to
be found.  What is the same is decoded once.

Finished seeds are kept in --out.  With --work, pairs that ``equal_step.py --work`` left are used.

    python benchmarks/choice_rules.py          # writes benchmarks/results/choice_rules.json
    python benchmarks/choice_rules.py --study problems --first 3 --seeds 1 --work folder
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from springback.jobs.boost.arm import Arm
from springback.jobs.boost.checkpoints import make_pair
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.job import Boost
from springback.jobs.boost.search import Searched, Tried
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.demo import BOOST
from springback.jobs.papers.epicode.settings import SMALL
from springback.progress import Lines
from springback.results.provenance import now, provenance
from springback.results.store import Store, read_json, write_json
from springback.stats import mcnemar_exact, mean_interval, paired_interval, verdict

RESULT = Path(__file__).parent / "results" / "choice_rules.json"
RULES = ("best", "auto")
PLAIN, FAR = "fine-tuned", "largest mu"


@dataclass(frozen=True)
class Study:
    """``farthest``: whether the largest mu is tested too, whatever is chosen."""

    settings: BoostSettings
    first: int
    farthest: bool = False


_DEFAULT = BoostSettings()
STUDIES = {
    "problems": Study(
        replace(
            SMALL.one(0, SMALL.model, None),
            positive=False,
            mu=_DEFAULT.mu,
            lam=_DEFAULT.lam,
            lam_cd=(),
        ),
        0,
    ),
    "demo": Study(replace(BOOST, lam_cd=(), test_rows=128), 100, farthest=True),
}


def one_seed(settings: BoostSettings, folder: Path, farthest: bool) -> dict[str, Any]:
    """Choices by rule with the answers they were made from, and the test under each of them."""
    started, settings = now(), check_settings(settings)
    data = load_data(settings)
    with Store(folder).locked() as store:
        pair = make_pair(settings, data.train, store, Lines())
        job = Boost(settings, pair.line, store, Lines(), pair.weak, data.train)
        chosen: dict[str, Arm] = {PLAIN: Arm(PLAIN, 0, 0, None)}
        searches: dict[str, dict[str, Searched]] = {}
        for rule in RULES:  # answers are kept in the store, so the second rule reads the first's
            job.settings = replace(settings, choose_by=rule)
            arms, searches[rule] = job.choose(data.validation)
            chosen[rule] = arms["EpiCoDe"]
        if farthest:
            chosen[FAR] = Arm(FAR, max(settings.mu), 0, None)
        tested = job.score_all(list(chosen.values()), data.test, "test")
    return {
        "seed": settings.seed,
        "trained_in": settings.precision,
        "computed_in": str(job.sweep.place.dtype),
        "validation": {rule: _searches(found) for rule, found in searches.items()},
        "chosen": {
            name: {"mu": arm.mu, "lambda": arm.key()["lam"], "step": arm.step}
            for name, arm in chosen.items()
        },
        "test": {name: _scores(one) for name, one in zip(chosen, tested, strict=True)},
        "provenance": provenance(started=started, finished=now()),
    }


def _searches(found: dict[str, Searched]) -> dict[str, Any]:
    return {
        name: {
            "chosen": search.chosen.value,
            "expected_gains": search.choice.gains if search.choice else None,
            "slope": search.choice.slope if search.choice else None,
            "tried": [{"value": t.value, **_scores(t)} for t in search.points],
        }
        for name, search in found.items()
        if name in ("mu", "lambda")
    }


def _scores(tried: Tried) -> dict[str, Any]:
    """A digit a question, 1 where the answer is right, and the mean NLL of the solutions."""
    correct = "".join(str(int(c)) for c in tried.correct)
    return {"correct": correct, "nll": fmean(tried.nll)}


def summary(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By rule the means over seeds and the words seed by seed; the new rule less the old one."""
    found: dict[str, Any] = {"seeds": len(seeds), PLAIN: _means(seeds, PLAIN)}
    for name in (*RULES, FAR):
        if having := [s for s in seeds if name in s["test"]]:
            found[name] = _against(having, name, PLAIN)
    old, new = RULES
    found["new less old"] = {
        "same choice": sum(s["chosen"][old] == s["chosen"][new] for s in seeds),
        **_differences(seeds, new, old),
        "step": mean_interval(
            [s["chosen"][new]["step"] - s["chosen"][old]["step"] for s in seeds]
        ).to_dict(),
    }
    return found


def answers(seed: dict[str, Any], name: str) -> list[int]:
    return [int(c) for c in seed["test"][name]["correct"]]


def _means(seeds: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
    return {
        "correct": fmean(fmean(answers(s, name)) for s in seeds),
        "nll": fmean(s["test"][name]["nll"] for s in seeds),
    }


def _gaps(seeds: Sequence[dict[str, Any]], new: str, old: str) -> list[float]:
    return [fmean(answers(s, new)) - fmean(answers(s, old)) for s in seeds]


def _differences(seeds: Sequence[dict[str, Any]], new: str, old: str) -> dict[str, Any]:
    nll = [s["test"][new]["nll"] - s["test"][old]["nll"] for s in seeds]
    return {
        "accuracy_difference": mean_interval(_gaps(seeds, new, old)).to_dict(),
        "nll_difference": mean_interval(nll).to_dict(),
    }


def _against(seeds: Sequence[dict[str, Any]], name: str, base: str) -> dict[str, Any]:
    words = [word(answers(s, name), answers(s, base)) for s in seeds]
    steps = [s["chosen"][name]["step"] for s in seeds]
    gaps = _gaps(seeds, name, base)
    return {
        "seeds": len(seeds),
        **_means(seeds, name),
        "steps": steps,
        "moved": sum(step > 0 for step in steps),
        "better": sum(gap > 0 for gap in gaps),
        "worse": sum(gap < 0 for gap in gaps),
        "words": {w: words.count(w) for w in sorted(set(words))},
        **_differences(seeds, name, base),
    }


def word(new: Sequence[int], old: Sequence[int]) -> str:
    """A boost's verdict on one seed's test: ``gain``, ``harm``, ``no gain`` or ``undecided``."""
    difference = paired_interval([float(c) for c in new], [float(c) for c in old])
    p = mcnemar_exact(new, old)
    return verdict(difference, tolerance=BOOST.tolerance, p=p)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--study", choices=tuple(STUDIES), action="append")
    parser.add_argument("--first", type=int, help="of the seeds (0 of problems, 100 of the demo)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--work", type=Path, help="where pairs lie, in STUDY-SEED")
    parser.add_argument("--precision", default="float32", help="of training")
    parser.add_argument("--dtype", default="auto", help="of decoding")
    options = parser.parse_args()
    how = {"precision": options.precision, "dtype": options.dtype}
    kept = read_json(options.out) if options.out.exists() else {}
    for name in options.study or STUDIES:
        study = STUDIES[name]
        first = study.first if options.first is None else options.first
        seeds = {s["seed"]: s for s in kept.get(name, {}).get("seeds", [])}
        for seed in range(first, first + options.seeds):
            if seed in seeds:
                continue
            folder = (options.work or Path(tempfile.mkdtemp())) / f"{name}-{seed}"
            seeds[seed] = one_seed(
                replace(study.settings, seed=seed, **how), folder, study.farthest
            )
            shutil.rmtree(folder)
            done = [seeds[s] for s in sorted(seeds)]
            enough = len(done) > 1
            kept[name] = {"summary": summary(done) if enough else None, "seeds": done}
            write_json(options.out, kept)
            print(name, seed, seeds[seed]["chosen"], flush=True)


if __name__ == "__main__":
    main()
