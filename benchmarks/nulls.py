"""How often does a boost say "gain" where there is none?  The verdict code on simulated nulls.

Selection included: mu, lambda and CD's lambda are chosen on simulated validation questions, then
the arms are judged once on test questions, by the functions that a boost itself calls
(``springback.jobs.papers.nulls``).  Conditions: share of questions on which two arms differ, number
of test questions, with 0 among the candidates or without; one seed, and 2 to 10 seeds with
questions of their own or with the same ones, with and without an effect of the seed.

Nominal: 2.5 % false gains, 95 % coverage.  With n nulls the standard error is 0.5 points of the
first and 0.7 of the second at n = 1,000, so among the hundred cells some lie 1.5 points above their
own rate: ``--nulls`` for more.  Half a minute a condition and 1,000 nulls on one core.  Finished
conditions are kept in --out, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from springback.jobs.papers.nulls import Sizes, count, one_boost, seeded_boost
from springback.results.provenance import now, provenance
from springback.results.store import read_json, write_json
from springback.stats.nulls import Null

RESULT = Path(__file__).parent / "results" / "nulls.json"
ONE = [
    {"accuracy": accuracy, "discordance": discordance, "test": test, "positive": positive}
    for accuracy in (0.4, 0.08)
    for discordance in (0.06, 0.12, 0.2)
    if discordance < 2 * accuracy * (1 - accuracy)
    for test in (100, 400)
    for positive in (False, True)
]
SEEDED = [
    {"seeds": seeds, "same": same, "seed_effect": effect, "discordance": 0.12, "positive": True}
    for same in (False, True)
    for effect in (0.0, 0.02)
    for seeds in (2, 3, 5, 10)
]


def measure(condition: dict[str, Any], nulls: int, seed: int) -> dict[str, Any]:
    """Counts over ``nulls`` simulated boosts under one condition."""
    rng = np.random.default_rng(seed)
    null = Null(
        accuracy=condition.get("accuracy", 0.4),
        discordance=condition["discordance"],
        seed_effect=condition.get("seed_effect", 0.0),
    )
    sizes = Sizes(test=condition.get("test", 150), positive=condition["positive"])
    tables: list[dict[str, Any]]
    if "seeds" in condition:
        seeds, same = condition["seeds"], condition["same"]
        tables = [dict(seeded_boost(null, sizes, seeds, same, rng)) for _ in range(nulls)]
    else:
        tables = [dict(one_boost(null, sizes, rng)) for _ in range(nulls)]
    return {**condition, "methods": count(tables)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--nulls", type=int, default=1000)
    options = parser.parse_args()
    before = read_json(options.out) if options.out.exists() else {}
    conditions = [*ONE, *SEEDED]
    found = before["conditions"] if before.get("nulls") == options.nulls else []
    if [{k: v for k, v in f.items() if k != "methods"} for f in found] != conditions[: len(found)]:
        raise SystemExit(f"{options.out} has other conditions; give another --out or delete it")
    for at, condition in enumerate(conditions):
        if at < len(found):
            continue
        started = now()
        found.append(measure(condition, options.nulls, at))
        told = found[-1]["methods"]["EpiCoDe"]
        print(condition, {key: told[key] for key in ("gain", "coverage")}, flush=True)
        made = provenance(started=started, finished=now())
        write_json(options.out, record(options.nulls, found) | {"provenance": made})


def record(nulls: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The result file: summary first, then every condition."""
    rows = [(r, m) for r in found for m in ("ME only", "CD only", "EpiCoDe")]
    cells = [r["methods"][m] for r, m in rows]
    several = [c for c, (r, _) in zip(cells, rows, strict=True) if "seeds" in r]
    single = [c for c, (r, _) in zip(cells, rows, strict=True) if "seeds" not in r]

    def told(of: list[dict[str, Any]]) -> dict[str, Any] | None:
        coverage = [c["coverage"] for c in of if c["coverage"] is not None]
        return {
            "largest_false_gain": max(c["gain"] for c in of),
            "mean_false_gain": sum(c["gain"] for c in of) / len(of),
            "smallest_coverage": min(coverage),
            "largest_coverage": max(coverage),
        } if of else None  # fmt: skip

    return {
        "nulls": nulls,
        "one_seed": told(single),
        "several_seeds": told(several),
        "conditions": found,
    }


if __name__ == "__main__":
    main()
