"""What the springs study says: elongations against k, beside the exact prediction and the noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from springback import theory
from springback.jobs.papers.claims import select
from springback.jobs.papers.theory import springs_arms
from springback.jobs.papers.theory.settings import SpringsSettings
from springback.results.schema import Part, Verdict
from springback.results.writing import geometric
from springback.stats import Interval, mean_interval
from springback.theory import Elongation

Rows = Sequence[Mapping[str, Any]]
ARMS = ("joint", "sequence")
#: An elongation below this many times its noise is marked as not resolved.
RESOLVED = 2.0


def analyse(s: SpringsSettings, joint: Rows, sequence: Rows) -> dict[str, Any]:
    """All tables, under ``springs`` of a result file's analysis (docs/result_schema.md)."""
    by_arm = {"joint": [r for r in joint if r["l"]], "sequence": list(sequence)}
    noise = [row for arm in ARMS for row in _noise(s, arm, by_arm[arm])]
    floor = {(n["arm"], n["arrangement"], n["k"]): n["changes"] for n in noise}
    cells, scaling = [], []
    for arm in ARMS:
        for arrangement in s.arrangements:
            rows = select(by_arm[arm], repeat=0, arrangement=arrangement)
            for l in s.doses:  # noqa: E741
                made = [
                    _cell(s, arm, select(rows, k=k, l=l), floor[arm, arrangement, k]) for k in s.k
                ]
                cells += made
                scaling.append(_scaling(made, arm, arrangement, l))
    gaps = [r["gap"] for r in joint]
    return {
        "at": {"l": min(s.doses), "k": list(s.k), "doses": list(s.doses), "seeds": list(s.seeds)},
        "arrangements": list(s.arrangements),
        "cells": cells,
        "scaling": scaling,
        "controls": _controls(s),
        "noise": noise,
        "gap": {"median": float(np.median(gaps)), "largest": max(gaps), "trainings": len(gaps)},
        "bounds": _bounds(by_arm["joint"], floor),
    }


def elongation(row: Mapping[str, Any]) -> Elongation:
    one, two, three = row["changes"]
    return Elongation((row["k"], 1.0, row["l"]), (one, two, three))


def _predicted(s: SpringsSettings, row: Mapping[str, Any], order: int) -> Elongation:
    sets = springs_arms.sources(s, row["arrangement"], row["seed"])
    paths = theory.responses(s.symbols, s.length)
    return theory.predicted(sets, row["k"], row["l"], paths, order)


def _cell(
    s: SpringsSettings, arm: str, rows: Rows, floor: Sequence[float] | None
) -> dict[str, Any]:
    """One arm, arrangement, k and l over the seeds; ``predicted`` is the joint optimum's."""
    measured = [elongation(r) for r in rows]
    exact = [_predicted(s, r, s.length - 1) for r in rows]
    first = rows[0]
    cell = {
        "arm": arm,
        "arrangement": first["arrangement"],
        "k": first["k"],
        "l": first["l"],
        "seeds": [r["seed"] for r in rows],
        **_summary(measured),
        "predicted": _summary(exact),
        "resolved": None,
    }
    if floor is not None:
        means = [change.mean for change in cell["changes"]]
        cell["resolved"] = [abs(m) > RESOLVED * f for m, f in zip(means, floor, strict=True)]
    return cell


def _summary(elongations: Sequence[Elongation]) -> dict[str, Any]:
    """Over seeds: changes and products of the three sets, and what they make of k."""
    return {
        "changes": [_mean(e.changes[i] for e in elongations) for i in range(3)],
        "products": [_mean(e.products[i] for e in elongations) for i in range(3)],
        "fitted_k": geometric(e.fitted_k for e in elongations),
        "by_seed": [e.fitted_k if math.isfinite(e.fitted_k) else None for e in elongations],
        "opposite": sum(e.fitted_k > 0 for e in elongations) / len(elongations),
        "balance": _mean(e.balance for e in elongations),
        "total": _mean(e.total for e in elongations),
        "third": geometric(e.third for e in elongations),
    }


def _mean(values: Iterable[float]) -> Interval:
    return mean_interval(list(values))


def _scaling(cells: Rows, arm: str, arrangement: str, l: float) -> dict[str, Any]:  # noqa: E741
    """Exponent of the fitted k in k: 1 where the invariant holds, 0 where k does not matter.

    A slope for each seed over the k whose elongations of D1 and D2 are above the noise; None
    with fewer than two of them, or where a sign in one of them is not opposite.
    """
    known = [c for c in cells if c["resolved"] is None or all(c["resolved"][:2])]
    row = {
        "arm": arm,
        "arrangement": arrangement,
        "l": l,
        "k": [c["k"] for c in known],
        "exponent": None,
        "opposite": float(np.mean([c["opposite"] for c in cells])),
    }
    values = np.array([c["by_seed"] for c in known], dtype=np.float64)  # (k, seeds), None is NaN
    if len(known) > 1 and bool((values > 0).all()):
        x = np.log([c["k"] for c in known])
        slopes = [np.polyfit(x, np.log(column), 1)[0] for column in values.T]
        row["exponent"] = _mean(float(v) for v in slopes)
    return row


def _noise(s: SpringsSettings, arm: str, rows: Rows) -> list[dict[str, Any]]:
    """Noise of one elongation, nats a response: the first seed's sets with other weights and order.

    Root mean square over the doses of the difference between the two, over the root of 2.
    """
    noise = []
    for arrangement in s.arrangements:
        for k in s.k:
            cell = {"arrangement": arrangement, "k": k}
            first, second = (
                [r["changes"] for r in select(rows, seed=s.seeds[0], repeat=repeat, **cell)]
                for repeat in (0, springs_arms.REPEAT)
            )
            apart = (np.array(first) - np.array(second)) / math.sqrt(2)  # (doses, 3)
            size = np.sqrt((apart**2).mean(axis=0)).tolist()
            noise.append({"arm": arm, **cell, "changes": size})
    return noise


def _controls(s: SpringsSettings) -> list[dict[str, Any]]:
    """Best unigram, bigram, ... up to no bound at all, in closed form: no training, no noise."""
    controls = []
    for arrangement in s.arrangements:
        for order in range(s.length):
            for k in s.k:
                for l in s.doses:  # noqa: E741
                    cell = {"arrangement": arrangement, "k": k, "l": l}
                    exact = [_predicted(s, {**cell, "seed": seed}, order) for seed in s.seeds]
                    controls.append({"order": order, **cell, **_summary(exact)})
    return controls


def _bounds(rows: Rows, floor: Mapping[tuple[str, str, float], Sequence[float]]) -> dict[str, Any]:
    """How often the optima's two inequalities fail, in the joint arm, by more than the noise."""
    first = second = 0
    for row in rows:
        e = elongation(row)
        noise = [
            n * f
            for n, f in zip(e.volumes, floor["joint", row["arrangement"], row["k"]], strict=True)
        ]
        first += sum(e.products[:2]) < -RESOLVED * math.hypot(*noise[:2])
        second += sum(e.products) > RESOLVED * math.hypot(*noise)
    return {"cells": len(rows), "two_below_zero": first, "three_above_zero": second}


def verdict(analysis: Mapping[str, Any]) -> Verdict:
    """One part for each arm and arrangement, at the smallest dose."""
    l = analysis["at"]["l"]  # noqa: E741
    parts = [
        _part(row, select(analysis["cells"], arm=row["arm"], arrangement=row["arrangement"], l=l))
        for row in select(analysis["scaling"], l=l)
    ]
    joint, sequence = (
        "; ".join(p.label for p in parts if p.question.startswith(start))
        for start in ("Joint", "One after the other")
    )
    text = (
        f"The invariant says that -d2 / d1 grows as k to the power of 1. Trained jointly: {joint}. "
        f"Trained one after the other: {sequence}. (l = {l:g}; d1 and d2 are the changes of NLL of "
        "D1 and D2 when D3 comes.)"
    )
    return Verdict(f"joint optimum: {joint}", text, tuple(parts))


def _part(row: Mapping[str, Any], cells: Rows) -> Part:
    arm = "Joint training" if row["arm"] == "joint" else "One after the other"
    exponent = row["exponent"]
    if exponent is None and row["opposite"] == 1:
        label = f"{row['arrangement']}: no exponent (too few k above the noise)"
    elif exponent is None:
        label = f"{row['arrangement']}: no power law (signs opposite in {row['opposite']:.0%})"
    else:
        label = f"{row['arrangement']}: exponent {exponent.with_bounds('.2f')}"
    ends = [cells[0], cells[-1]]
    text = "; ".join(
        f"k = {c['k']:g}: -d2 / d1 {_fitted(c)}, predicted {_fitted(c['predicted'])}, "
        f"balance {c['balance'].with_bounds('.2f')}"
        for c in ends
    )
    resolved = f"{len(row['k'])} of {len(cells)} k above the noise"
    question = f"{arm}, {row['arrangement']}: does -d2 / d1 follow k?"
    return Part(question, label, f"{text}; {resolved}.")


def _fitted(summary: Mapping[str, Any]) -> str:
    if summary["fitted_k"] is None:
        return f"not above 0 in all seeds (opposite in {summary['opposite']:.0%})"
    fitted: Interval = summary["fitted_k"]
    return fitted.with_bounds(".3g")
