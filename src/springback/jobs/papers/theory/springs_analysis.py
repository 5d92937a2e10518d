"""What the springs study says: elongations against k, beside the exact prediction and the noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from springback import theory
from springback.jobs.papers.claims import select
from springback.jobs.papers.theory import springs_arms, theorem
from springback.jobs.papers.theory.settings import SpringsSettings
from springback.results.schema import Part, Verdict
from springback.results.theory_schema import (
    Bounds,
    Control,
    Elongations,
    Gap,
    ModelFirst,
    Noise,
    Scaling,
    Springs,
    SpringsAt,
    SpringsCell,
)
from springback.results.writing import geometric
from springback.stats import Interval, mean_interval
from springback.theory import Elongation

Rows = Sequence[Mapping[str, Any]]
Three = tuple[float, float, float]
ARMS = ("joint", "sequence")
#: An elongation below this many times its noise is marked as not resolved.
RESOLVED = 2.0


def analyse(s: SpringsSettings, joint: Rows, sequence: Rows) -> Springs:
    """All tables, under ``springs`` of a result file's analysis (docs/result_schema.md)."""
    by_arm = {"joint": [r for r in joint if r["l"]], "sequence": list(sequence)}
    noise = [row for arm in ARMS for row in _noise(s, arm, by_arm[arm])]
    floor = {(n.arm, n.arrangement, n.k): n.changes for n in noise}
    cells: list[SpringsCell] = []
    scaling = []
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
    return Springs(
        at=SpringsAt(min(s.doses), s.k, s.doses, s.seeds),
        arrangements=s.arrangements,
        cells=tuple(cells),
        scaling=tuple(scaling),
        controls=tuple(_controls(s)),
        noise=tuple(noise),
        gap=Gap(float(np.median(gaps)), max(gaps), len(gaps)),
        bounds=_bounds(by_arm["joint"], floor),
        model_first=tuple(_model_first(s)),
    )


def elongation(row: Mapping[str, Any]) -> Elongation:
    one, two, three = row["changes"]
    return Elongation((row["k"], 1.0, row["l"]), (one, two, three))


def _predicted(s: SpringsSettings, row: Mapping[str, Any], order: int) -> Elongation:
    sets = springs_arms.sources(s, row["arrangement"], row["seed"])
    paths = theory.responses(s.symbols, s.length)
    return theory.predicted(sets, row["k"], row["l"], paths, order)


def _cell(s: SpringsSettings, arm: str, rows: Rows, noise: Three) -> SpringsCell:
    """One arm, arrangement, k and l over the seeds; ``predicted`` is the joint optimum's."""
    measured = [elongation(r) for r in rows]
    exact = [_predicted(s, r, s.length - 1) for r in rows]
    first = rows[0]
    summary = _summary(measured)
    one, two, three = (
        abs(c.mean) > RESOLVED * n for c, n in zip(summary.changes, noise, strict=True)
    )
    return SpringsCell(
        **vars(summary),
        arm=arm,
        arrangement=first["arrangement"],
        k=first["k"],
        l=first["l"],
        seeds=tuple(r["seed"] for r in rows),
        predicted=_summary(exact),
        resolved=(one, two, three),
        premises=theorem.inside_premises(first["arrangement"], first["l"]),
    )


def _summary(elongations: Sequence[Elongation]) -> Elongations:
    """Over seeds: changes and products of the three sets, and what they make of k."""
    fitted = [e.fitted_k for e in elongations]
    return Elongations(
        changes=_means([e.changes for e in elongations]),
        products=_means([e.products for e in elongations]),
        fitted_k=geometric(fitted),
        by_seed=tuple(k if math.isfinite(k) else None for k in fitted),
        opposite=sum(k > 0 for k in fitted) / len(fitted),
        balance=_mean(e.balance for e in elongations),
        total=_mean(e.total for e in elongations),
        third=geometric(e.third for e in elongations),
    )


def _means(values: Sequence[Three]) -> tuple[Interval, Interval, Interval]:
    one, two, three = (_mean(column) for column in zip(*values, strict=True))
    return one, two, three


def _mean(values: Iterable[float]) -> Interval:
    return mean_interval(list(values))


def _scaling(
    cells: Sequence[SpringsCell],
    arm: str,
    arrangement: str,
    l: float,  # noqa: E741
) -> Scaling:
    """Exponent of the fitted k in k: 1 where the invariant holds, 0 where k does not matter.

    A slope for each seed over the k whose elongations of D1 and D2 are above the noise; None
    with fewer than two of them, or where a sign in one of them is not opposite.
    """
    known = [c for c in cells if c.resolved is None or all(c.resolved[:2])]
    exponent = None
    values = np.array([c.by_seed for c in known], dtype=np.float64)  # (k, seeds), None is NaN
    if len(known) > 1 and bool((values > 0).all()):
        x = np.log([c.k for c in known])
        slopes = [np.polyfit(x, np.log(column), 1)[0] for column in values.T]
        exponent = _mean(float(v) for v in slopes)
    opposite = float(np.mean([c.opposite for c in cells]))
    return Scaling(arm, arrangement, l, tuple(c.k for c in known), exponent, opposite)


def _noise(s: SpringsSettings, arm: str, rows: Rows) -> list[Noise]:
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
            one, two, three = np.sqrt((apart**2).mean(axis=0)).tolist()
            noise.append(Noise(arm, arrangement, k, (one, two, three)))
    return noise


def _controls(s: SpringsSettings) -> list[Control]:
    """Best unigram, bigram, ... up to no bound at all, in closed form: no training, no noise."""
    controls = []
    for arrangement in s.arrangements:
        for order in range(s.length):
            for k in s.k:
                for l in s.doses:  # noqa: E741
                    cell: dict[str, Any] = {"arrangement": arrangement, "k": k, "l": l}
                    exact = [_predicted(s, {**cell, "seed": seed}, order) for seed in s.seeds]
                    controls.append(Control(**vars(_summary(exact)), order=order, **cell))
    return controls


def _model_first(s: SpringsSettings) -> Iterator[ModelFirst]:
    """The paper's elongations, the model first, which need no training either."""
    for arrangement in s.arrangements:
        sets = [springs_arms.sources(s, arrangement, seed) for seed in s.seeds]
        for k in s.k:
            for l in s.doses:  # noqa: E741
                every = [theory.model_first(of_seed, k, l) for of_seed in sets]
                one, two, three = (
                    _mean(column) if all(map(math.isfinite, column)) else None
                    for column in zip(*every, strict=True)
                )
                fitted = geometric(-d2 / d1 if d1 else math.nan for d1, d2, _ in every)
                inside = theorem.inside_premises(arrangement, l)
                yield ModelFirst(arrangement, k, l, inside, (one, two, three), fitted)


def _bounds(rows: Rows, floor: Mapping[tuple[str, str, float], Three]) -> Bounds:
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
    return Bounds(len(rows), first, second)


def verdict(springs: Springs) -> Verdict:
    """One part for each arm and arrangement, at the smallest dose."""
    l = springs.at.l  # noqa: E741
    parts = [
        _part(row, [c for c in springs.cells if (c.arm, c.arrangement, c.l) == place])
        for row in springs.scaling
        if (place := (row.arm, row.arrangement, row.l))[2] == l
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


def _part(row: Scaling, cells: Sequence[SpringsCell]) -> Part:
    arm = "Joint training" if row.arm == "joint" else "One after the other"
    if row.exponent is not None:
        label = f"{row.arrangement}: exponent {row.exponent.with_bounds('.2f')}"
    elif row.opposite == 1:
        label = f"{row.arrangement}: no exponent (too few k above the noise)"
    else:
        label = f"{row.arrangement}: no power law (signs opposite in {row.opposite:.0%})"
    text = "; ".join(
        f"k = {c.k:g}: -d2 / d1 {_fitted(c)}, predicted {_fitted(c.predicted)}, "
        f"balance {c.balance.with_bounds('.2f') if c.balance else '–'}"
        for c in (cells[0], cells[-1])
    )
    resolved = f"{len(row.k)} of {len(cells)} k above the noise"
    question = f"{arm}, {row.arrangement}: does -d2 / d1 follow k?"
    return Part(question, label, f"{text}; {resolved}.")


def _fitted(summary: Elongations) -> str:
    if summary.fitted_k is None:
        return f"not above 0 in all seeds (opposite in {summary.opposite:.0%})"
    return summary.fitted_k.with_bounds(".3g")
