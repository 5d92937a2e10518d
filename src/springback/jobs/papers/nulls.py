"""The verdict code of a boost on simulated nulls: how often it says "gain" where nothing is.

What runs is what a boost runs by the rule ``best``: ``search.choose`` on validation questions (ties
to the smaller value), the chosen arms on test questions once, ``analysis.methods.compared``; over
seeds, ``analysis.seeds.across``.  Only the answers are simulated (:mod:`springback.stats.nulls`).
False gains of the other rules are in ``benchmarks/choosing.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from springback.jobs.boost.analysis.methods import compared
from springback.jobs.boost.analysis.seeds import Answers, SeedResult, across
from springback.jobs.boost.search import Tried, choose
from springback.results.boost_schema import ComparedMethod, Method, SeedsMethod
from springback.stats.nulls import Null, answers
from springback.stats.values import Floats

MUS = (0.0, 0.1, 0.2, 0.4, 0.8)
LAMBDAS = (0.0, 0.5, 1.0, 2.0)
CD_LAMBDAS = (0.0, 0.1, 0.2, 0.5)
#: Arms in a chain of neighbours: CD only from strong to weak, fine-tuned, mu rising, then lambda.
ARMS = len(CD_LAMBDAS) - 1 + len(MUS) + len(LAMBDAS) - 1
PLAIN = len(CD_LAMBDAS) - 1


@dataclass(frozen=True)
class Sizes:
    """Questions to choose and to judge on; ``positive``: 0 is no candidate, as in the paper."""

    validation: int = 100
    test: int = 150
    positive: bool = False


def _tried(value: float, right: Floats) -> Tried:
    return Tried(value, tuple(bool(r) for r in right), (0.0,) * right.size)


def chosen_arms(right: Floats, positive: bool) -> dict[str, tuple[int, float, float]]:
    """By method: row of ``right`` [arms, validation questions], mu and lambda, as boost chooses."""
    first = 1 if positive else 0

    def pick(rows: Mapping[float, int]) -> float:
        return choose([_tried(value, right[row]) for value, row in rows.items()]).value

    by_mu = {mu: PLAIN + i for i, mu in enumerate(MUS)}
    mu = pick(dict(list(by_mu.items())[first:]))
    # Against itself (mu = 0) the weak model changes nothing.
    last = PLAIN + len(MUS) - 1
    by_lam = {lam: by_mu[mu] if lam == 0 or mu == 0 else last + i for i, lam in enumerate(LAMBDAS)}
    lam = pick(dict(list(by_lam.items())[first:]))
    by_cd = {lam: PLAIN - i for i, lam in enumerate(CD_LAMBDAS)}
    cd = pick(dict(list(by_cd.items())[first:]))
    return {
        "fine-tuned": (PLAIN, 0.0, 0.0),
        "ME only": (by_mu[mu], mu, 0.0),
        "CD only": (by_cd[cd], 0.0, cd),
        "EpiCoDe": (by_lam[lam], mu, lam),
    }


def one_boost(null: Null, sizes: Sizes, rng: np.random.Generator) -> dict[str, ComparedMethod]:
    """The table of one simulated boost: a row for each method that is not the fine-tuned model."""
    arms = chosen_arms(answers(null, ARMS, sizes.validation, rng)[0], sizes.positive)
    test = answers(null, ARMS, sizes.test, rng)[0]
    base = _tried(0, test[PLAIN])
    return {
        name: compared(Method(name), _tried(0, test[row]), base, 0.01)
        for name, (row, _, _) in arms.items()
        if row != PLAIN
    }


def seeded_boost(
    null: Null, sizes: Sizes, seeds: int, same: bool, rng: np.random.Generator
) -> dict[str, SeedsMethod]:
    """Likewise over seeds, each with a choice of its own; ``same``: tested on the same questions.

    A seed's effect is its training run's, so it holds for validation and test alike: the two are
    drawn together.  With one, use ``positive``: were 0 a candidate, choosing would find the seeds
    that gain.
    """
    together = sizes.validation + sizes.test
    if same:
        drawn = answers(null, ARMS, together, rng, seeds, PLAIN)
    else:
        drawn = np.concatenate([answers(null, ARMS, together, rng, 1, PLAIN) for _ in range(seeds)])
    results = []
    for seed in range(seeds):
        arms = chosen_arms(drawn[seed][:, : sizes.validation], sizes.positive)
        test = drawn[seed][:, sizes.validation :]
        keys = tuple(f"{0 if same else seed}/{i}" for i in range(sizes.test))
        methods = {
            name: Answers(mu, lam, tuple(test[row]), (0.0,) * sizes.test, row == PLAIN)
            for name, (row, mu, lam) in arms.items()
        }
        results.append(SeedResult(seed, keys, (1.0,) * sizes.test, methods))
    rows = across(results)["methods"]
    return {row.method: row for row in rows if row.difference is not None}


def count(tables: Sequence[Mapping[str, Method | SeedsMethod]]) -> dict[str, dict[str, Any]]:
    """By method: verdicts, share of false gains among all nulls, coverage of 0 by the intervals.

    ``gain`` counts a method that is the fine-tuned one by choice as no gain; ``gain_if_chosen``
    and ``coverage`` are of the nulls in which it is not.  ``any``: some method of the table.
    """
    counted: dict[str, dict[str, Any]] = {}
    for name in ("ME only", "CD only", "EpiCoDe"):
        rows = [table[name] for table in tables if name in table]
        known = [r.difference.bounds for r in rows if r.difference and r.difference.bounds]
        words = Counter(str(r.verdict) for r in rows)
        counted[name] = {
            "verdicts": dict(sorted(words.items())) | {"same": len(tables) - len(rows)},
            "gain": words["gain"] / len(tables),
            "gain_if_chosen": words["gain"] / len(rows) if rows else None,
            "coverage": sum(low <= 0 <= high for low, high in known) / len(known)
            if known
            else None,
            "intervals": len(known),
        }
    gains = [any(r.verdict == "gain" for r in table.values()) for table in tables]
    counted["any"] = {"gain": sum(gains) / len(tables)}
    return counted
