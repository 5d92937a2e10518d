"""What the life-cycle study says: does elasticity grow with size and volume; is there a threshold?

Seeds are the units: a seed draws the pre-training's text, weights and order and the study's rows.
Trends are least squares within a seed over all its cells, in doublings of size and of volume at
once; thresholds are paired differences to the smallest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from springback.core import Measurement
from springback.elasticity.seed_tests import t_pvalue
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.papers import claims
from springback.jobs.papers.scale.settings import BEGIN, NAME, ScaleSettings
from springback.results.paper_schema import (
    Entry,
    Figures,
    LifeCell,
    LifeCycle,
    LifeStep,
    LifeTrend,
    Reproduction,
    Threshold,
    Titled,
)
from springback.results.schema import Part, Verdict
from springback.stats import Interval, holm, mean_interval

Cells = Sequence[Mapping[str, Any]]
Tested = TypeVar("Tested", LifeTrend, LifeStep)
UNTESTED = "one seed, no interval"
#: The quantities of a cell, in words.
QUANTITIES = {
    "gain": Titled("Gained by alignment", "nats/token"),
    "fall": Titled("Fall at the largest dose", "nats/token"),
    "share_lost": Titled("Share of the gain lost", "share"),
}
AXES = {"parameters": "size", "volume": "volume"}
CLAIM = claims.Claim(
    question="Does elasticity grow with model size and with pre-training volume, and is there a "
    "threshold?",
    finding="Elasticity grew with size (Qwen 0.5B to 7B) and with volume (TinyLlama 0.1T to 3T "
    "tokens); barely there at 0.1T.",
    unknown="The paper has figures for this, of finished models; their numbers could not be had.",
    ours="Sizes, volumes, text, recipes and doses are ours: no paper pre-trained models for this.",
    begin=BEGIN,
)


def analyse(
    scale: str, settings: ScaleSettings, study: AuditSettings, cells: Cells
) -> Reproduction:
    """The ``analysis`` part of the result file (docs/result_schema.md)."""
    rows = [_cell(cells, size, volume) for size in settings.sizes for volume in settings.volumes]
    both = [(axis, quantity) for axis in AXES for quantity in ("fall", "share_lost")]
    steps = _adjusted([step for pair in both for step in _steps(cells, *pair)])
    life = LifeCycle(
        seeds=study.seeds,
        sizes=settings.sizes,
        volumes=settings.volumes,
        n_pos=max(study.n_pos),
        dose=max(study.doses),
        quantities=QUANTITIES,
        cells=tuple(rows),
        trends=tuple(_adjusted(_trends(cells))),
        steps=tuple(steps),
        thresholds=tuple(_threshold(steps, AXES[axis], quantity) for axis, quantity in both),
    )
    return claims.record(NAME, scale, CLAIM, _measured(rows), life_cycle=life)


def _cell(cells: Cells, size: str, volume: int) -> LifeCell:
    """One size and volume over the seeds; a share needs a gain, so it may have fewer."""
    chosen = claims.select(cells, size=size, volume=volume)

    def mean(quantity: str) -> Interval | None:
        values = [float(c[quantity]) for c in chosen if c[quantity] is not None]
        return mean_interval(values) if values else None

    return LifeCell(
        size=size,
        parameters=chosen[0]["parameters"],
        volume=volume,
        n=len(chosen),
        censored=sum(bool(c["censored"]) for c in chosen),
        half_doses=tuple(c["half_dose"] for c in chosen),
        before_first=sum(bool(c.get("before_first")) for c in chosen),
        gain=mean("gain"),
        fall=mean("fall"),
        share_lost=mean("share_lost"),
        neutral_nll=mean("neutral_nll"),
    )


def _trends(cells: Cells) -> list[LifeTrend]:
    """Change of each quantity for each doubling of size and of volume, both in one fit a seed."""
    trends = []
    for quantity in QUANTITIES:
        slopes: dict[str, list[float]] = {axis: [] for axis in AXES}
        for seed in dict.fromkeys(c["seed"] for c in cells):
            known = [c for c in claims.select(cells, seed=seed) if c[quantity] is not None]
            design = np.array([[1.0, *(math.log2(c[axis]) for axis in AXES)] for c in known])
            if len(known) < 3 or np.linalg.matrix_rank(design) < 3:
                continue
            values = np.array([c[quantity] for c in known])
            fit = np.linalg.lstsq(design, values, rcond=None)[0]
            for axis, slope in zip(AXES, fit[1:], strict=True):
                slopes[axis].append(float(slope))
        for axis, by_seed in slopes.items():
            if by_seed:
                mean, p = mean_interval(by_seed), t_pvalue(by_seed)
                trends.append(LifeTrend(quantity, AXES[axis], mean, p, None, UNTESTED))
    return trends


def _steps(cells: Cells, axis: str, quantity: str) -> list[LifeStep]:
    """Mean over the other axis at each step minus that at the smallest, paired by seed.

    Only what is known at both in a seed is averaged, so that no gap makes a difference.
    """
    places = sorted({c[axis] for c in cells})
    other = next(a for a in AXES if a != axis)
    steps = []
    for place in places[1:]:
        changes = []
        for seed in dict.fromkeys(c["seed"] for c in cells):
            here, first = (
                {c[other]: c[quantity] for c in claims.select(cells, seed=seed, **{axis: step})}
                for step in (place, places[0])
            )
            both = [k for k in here if here[k] is not None and first.get(k) is not None]
            if both:
                changes.append(sum(here[k] - first[k] for k in both) / len(both))
        if changes:
            difference, p = mean_interval(changes), t_pvalue(changes)
            steps.append(
                LifeStep(quantity, AXES[axis], place, places[0], difference, p, None, UNTESTED)
            )
    return steps


def _adjusted(rows: Sequence[Tested]) -> list[Tested]:
    """Holm over all rows; the label says what stands after it."""
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else _labelled(row, next(adjusted)) for row in rows]


def _labelled(row: Tested, p: float) -> Tested:
    change = row.slope if isinstance(row, LifeTrend) else row.difference
    label = "undecided" if p > 0.05 else "grows" if change.mean > 0 else "shrinks"
    return replace(row, p_holm=p, label=label)


def _threshold(steps: Sequence[LifeStep], axis: str, quantity: str) -> Threshold:
    """The smallest step from which on all are above the first; None where there is none."""
    threshold = None
    for step in reversed([s for s in steps if (s.axis, s.quantity) == (axis, quantity)]):
        if step.label != "grows":
            break
        threshold = step.at
    return Threshold(axis, quantity, threshold)


def _measured(rows: Sequence[LifeCell]) -> Figures:
    columns = ("size", "rows of pre-training", *(q.title for q in QUANTITIES.values()))
    means = ((row, (row.gain, row.fall, row.share_lost)) for row in rows)
    return Figures(columns, tuple((row.size, f"{row.volume:,}", *three) for row, three in means))


def verdict(life: LifeCycle) -> Verdict:
    """One line, and the questions it answers."""
    parts = []
    for trend in life.trends:
        about = QUANTITIES[trend.quantity]
        question = f"{about.title}: does it grow with {trend.axis}?"
        label = {"grows": "yes", "shrinks": "no, it shrinks"}.get(trend.label, trend.label)
        text = f"Each doubling of {trend.axis} changes it by {trend.slope.mean:+.4f} {about.unit}"
        parts.append(Part(question, label, f"{text}{_bounds(trend.slope)}."))
    for row in life.thresholds:
        title = QUANTITIES[row.quantity].title
        what = "rows" if row.axis == "volume" else "weights outside the embeddings"
        label = "none seen"
        text = "At no step is it above the smallest from there on (Holm over all steps)."
        if row.at is not None:
            label = f"from {row.at:,} {what}"
            text = f"From {row.at:,} {what} on it is above the smallest at every step."
        question = f"{title}: is there a threshold in {row.axis}?"
        parts.append(Part(question, label, text))
    trends = [f"with {t.axis} {t.label}" for t in life.trends if t.quantity == "fall"]
    text = (
        f"Over {len(life.sizes)} sizes and {len(life.volumes)} volumes the fall "
        f"{', '.join(trends) or 'has no trend that could be fitted'} "
        f"({len(life.seeds)} seed(s), all tests adjusted)."
    )
    return Verdict("; ".join(trends) or "not fitted", text, tuple(parts))


def _bounds(interval: Interval) -> str:
    if interval.bounds is None:
        return " (no interval)"
    low, high = interval.bounds
    return f" (95 % interval {low:+.4f} to {high:+.4f})"


def _shown(value: Entry) -> str:
    """A cell of the measured table: a text, or a mean with its bounds; empty where it is None."""
    if isinstance(value, Interval):
        return f"{value.mean:.4f}{_bounds(value)}"
    return str(value or "")


def measurements(cells: Cells) -> list[Measurement]:
    """Every quantity of every cell and seed."""
    return [
        Measurement(
            quantity,
            f"{cell['size']}, {cell['volume']} rows",
            "held-out",
            float(cell[quantity]),
            about.unit,
            tags={k: cell[k] for k in ("size", "parameters", "volume", "seed")},
        )
        for cell in cells
        for quantity, about in QUANTITIES.items()
        if cell[quantity] is not None
    ]


def page(analysis: Reproduction, verdict: Verdict) -> str:
    """``reproduce.md``."""
    trends = [f"- {part.question} {part.label}. {part.text}" for part in verdict.parts]
    return "\n".join([*claims.page(analysis, _shown), "## Trends", "", *trends, ""])
