"""Which rule should choose a step along the line: regret of several rules on simulated truths.

Nothing is trained.  Answers at eleven steps s from 0 to 1.6 are drawn with a latent normal, as in
``springback.stats.nulls``: hard questions are hard at every step, neighbouring steps agree more
than distant ones.  The true accuracy at s is ``accuracy + shape(s)`` (nine shapes), and the mean
NLL falls where accuracy rises (``agrees``), rises there (``opposes``) or rises steadily whatever
accuracy does (``apart``).  Each rule sees ``questions`` validation answers at each step and the
mean NLL, and chooses a step; its regret is the best step's true accuracy less that of its choice.
Halving decodes all steps on an eighth of the questions, the better half on a quarter, and so on;
the others decode everything.  False gains: under truths without any gain, the chosen step is
tested on ``TEST`` fresh questions with the verdict's own rule (paired interval and McNemar).

    python benchmarks/choosing.py            # writes benchmarks/results/choosing.json
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from springback.jobs.boost.search import Tried, choice_of, choose_first
from springback.results.provenance import now, provenance
from springback.results.store import write_json
from springback.stats import mcnemar_exact, paired_interval, verdict
from springback.stats.nulls import NEIGHBOURS, Null, shared_part
from springback.stats.values import Floats

RESULT = Path(__file__).parent / "results" / "choosing.json"
STEPS = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6])
QUESTIONS = (32, 64, 200, 500)
ACCURACIES = (0.1, 0.3, 0.5, 0.7)
TEST = 200
#: Gain or loss in accuracy along the line (a share of questions).
SHAPES: dict[str, Callable[[Floats], Floats]] = {
    "null": lambda s: 0 * s,
    "gain, growing": lambda s: 0.03 * s / 1.6,
    "gain, peak at 0.4": lambda s: np.maximum(0.03 * (1 - ((s - 0.4) / 0.4) ** 2), -0.1),
    "gain, peak at 0.8": lambda s: 0.03 * (1 - ((s - 0.8) / 0.8) ** 2),
    "gain of 6, peak at 0.8": lambda s: 0.06 * (1 - ((s - 0.8) / 0.8) ** 2),
    "gain, then flat": lambda s: 0.03 * (1 - np.exp(-s / 0.2)),
    "harm, steady": lambda s: -0.05 * s / 1.6,
    "harm, late": lambda s: -0.06 * np.maximum(s - 0.8, 0) / 0.8,
    "harm, at once": lambda s: -0.03 * (1 - np.exp(-s / 0.2)),
}
NLL = ("agrees", "opposes", "apart")
Rule = Callable[[Floats, Floats], int]


def answers(accuracy: float, gains: Floats, questions: int, rng: np.random.Generator) -> Floats:
    """Right (1) or wrong (0), [steps, questions], of steps with these true gains."""
    null = Null(accuracy=accuracy, discordance=min(0.12, 1.2 * accuracy * (1 - accuracy)))
    shared = shared_part(null)
    index = np.arange(len(gains))
    lower = np.linalg.cholesky(NEIGHBOURS ** np.abs(np.subtract.outer(index, index)))
    latent = math.sqrt(shared) * rng.standard_normal((1, questions))
    latent = latent + math.sqrt(1 - shared) * (lower @ rng.standard_normal((len(gains), questions)))
    edges = [NormalDist().inv_cdf(min(max(accuracy + g, 0.005), 0.995)) for g in gains]
    return (latent < np.array(edges)[:, None]).astype(np.float64)


def mean_nll(kind: str, gains: Floats, questions: int, rng: np.random.Generator) -> Floats:
    """Mean NLL at each step: 0.01 nats a token for a point of accuracy, or apart from it.

    Per-question differences between steps spread as they did on the built-in problems: about 0.04
    nats a token at s = 1, growing with s, mostly common to neighbouring steps.
    """
    truth = {"agrees": -1.0 * gains, "opposes": 1.0 * gains, "apart": 0.03 * STEPS}[kind]
    by_question = 0.04 * STEPS[:, None] * rng.standard_normal((1, questions))
    own = 0.01 * np.sqrt(STEPS)[:, None] * rng.standard_normal((len(STEPS), questions))
    noisy: Floats = truth + (by_question + own).mean(axis=1)
    return noisy


def by_halving(correct: Floats, nll: Floats) -> int:
    """All steps on an eighth of the questions, the better half of them on a quarter, ..."""
    left, n = list(range(len(correct))), correct.shape[1]
    for part in (8, 4, 2):
        scores = correct[left, : max(n // part, 1)].mean(axis=1)
        order = sorted(range(len(left)), key=lambda i: (-scores[i], i))
        left = sorted(left[i] for i in order[: max(len(left) // 2, 1)])
    return left[choose_first([correct[i].tolist() for i in left])]


def by(rule: str, one_se: bool = False) -> Rule:
    """A rule of the product, as a boost applies it."""

    def choose(correct: Floats, nll: Floats) -> int:
        tried = [
            Tried(s, tuple(map(bool, row)), (float(n),))
            for s, row, n in zip(STEPS.tolist(), correct, nll, strict=True)
        ]
        return choice_of(tried, STEPS.tolist(), rule, one_se).index

    return choose


RULES: dict[str, Rule] = {
    "best": by("best"),
    "one_se": by("best", one_se=True),
    "halving": by_halving,
    "nll": by("nll"),
    "accuracy": by("accuracy"),
    "auto": by("auto"),
}


def gain_shown(accuracy: float, gain: float, rng: np.random.Generator) -> bool:
    """Whether fresh test questions call the chosen step, truly no better, a gain."""
    both = answers(accuracy, np.array([0.0, gain]), TEST, rng)
    difference = paired_interval(both[1], both[0])
    return verdict(difference, tolerance=0.01, p=mcnemar_exact(both[1], both[0])) == "gain"


def cell(
    shape: str, kind: str, accuracy: float, questions: int, draws: int
) -> dict[str, dict[str, float]]:
    """By rule its mean regret, its standard error, and the share of false gains (if any can be)."""
    gains = np.asarray(SHAPES[shape](STEPS), np.float64)
    names = (*SHAPES, *NLL)
    rng = np.random.default_rng(
        [names.index(shape), names.index(kind), questions, int(100 * accuracy)]
    )
    regret: dict[str, list[float]] = {name: [] for name in RULES}
    false: dict[str, list[bool]] = {name: [] for name in RULES}
    for _ in range(draws):
        correct = answers(accuracy, gains, questions, rng)
        nll = mean_nll(kind, gains, questions, rng)
        chosen = {name: rule(correct, nll) for name, rule in RULES.items()}
        for name, step in chosen.items():
            regret[name].append(float(gains.max() - gains[step]))
        if gains.max() <= 0:
            shown = {i: i > 0 and gain_shown(accuracy, gains[i], rng) for i in set(chosen.values())}
            for name, step in chosen.items():
                false[name].append(shown[step])
    found = {}
    for name, values in regret.items():
        error = float(np.std(values, ddof=1) / math.sqrt(draws))
        found[name] = {"regret": float(np.mean(values)), "standard_error": error}
        if false[name]:
            found[name]["false_gains"] = float(np.mean(false[name]))
    return found


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean regret by rule: over all, by questions, by accuracy, by what NLL does; false gains."""
    means: dict[str, Any] = {}
    for name in RULES:
        rows = [(c, c["rules"][name]) for c in cells]

        def mean(of: list[dict[str, float]], key: str = "regret") -> float:
            return round(float(np.mean([r[key] for r in of])), 5)

        means[name] = {
            "regret": mean([r for _, r in rows]),
            "worst_cell": round(max(r["regret"] for _, r in rows), 5),
            "by_questions": {
                q: mean([r for c, r in rows if c["questions"] == q]) for q in QUESTIONS
            },
            "by_accuracy": {
                a: mean([r for c, r in rows if c["accuracy"] == a]) for a in ACCURACIES
            },
            "by_nll": {k: mean([r for c, r in rows if c["nll"] == k]) for k in NLL},
            "by_truth": {t: mean([r for c, r in rows if c["truth"] == t]) for t in SHAPES},
            "false_gains": mean([r for _, r in rows if "false_gains" in r], "false_gains"),
        }
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=200, help="simulated boosts a cell")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    started, cells = now(), []
    for shape in SHAPES:
        for kind in NLL:
            for accuracy in ACCURACIES:
                for questions in QUESTIONS:
                    rules = cell(shape, kind, accuracy, questions, options.draws)
                    where = {
                        "truth": shape,
                        "nll": kind,
                        "accuracy": accuracy,
                        "questions": questions,
                    }
                    cells.append({**where, "rules": rules})
        print(shape, flush=True)
    result = {"draws": options.draws, "steps": STEPS.tolist(), "summary": summary(cells)}
    result |= {"cells": cells, "provenance": provenance(started=started, finished=now())}
    write_json(options.out, result)
    for name, row in result["summary"].items():
        points = 100 * row["regret"]
        print(f"{name:32} regret {points:.2f} points, false gains {row['false_gains']:.3%}")


if __name__ == "__main__":
    main()
