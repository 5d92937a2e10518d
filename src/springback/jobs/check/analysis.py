"""Both models' scores as a table of what got better and worse.  Pure: lists of numbers in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from springback.results.check_schema import (
    AlongRun,
    CheckedMeasure,
    CheckedModel,
    Finding,
    RunPoint,
)
from springback.stats import (
    Interval,
    bootstrap_interval,
    holm,
    mean_interval,
    paired_clusters,
    paired_interval,
    paired_p,
    verdict,
)

#: What "same" means, in bits per byte, shares and probabilities alike.
TOLERANCE = 0.01
#: Title, unit and better side of a measure by its name; others are scores of lm-eval's.
MEASURES = {
    "bits per byte": ("bits per byte", "bits per byte", "lower"),
    "accuracy": ("accuracy", "share", "higher"),
    "probability of the right letter": ("P(right letter)", "probability", "higher"),
}
_WORDS: dict[str, Finding] = {
    "gain": "better", "harm": "worse", "no gain": "same", "undecided": "undecided",
}  # fmt: skip


@dataclass(frozen=True)
class Paired:
    """One measure of one item, both models' scores in the order of its rows."""

    source: str
    kind: str
    measure: str
    purpose: str
    base: Sequence[float]
    tuned: Sequence[float]
    clusters: Sequence[str] = ()
    shared: str = ""


def compared(pair: Paired) -> CheckedMeasure:
    """The row of the table, with no word yet: that takes all tests together."""
    title, unit, better = _words_of(pair)
    notes = []
    p: float | None
    if pair.clusters:
        difference, p = paired_clusters(pair.tuned, pair.base, pair.clusters)
        method = f"t over {difference.n} clusters by {pair.shared}"
        notes.append(f"rows of one {pair.shared} are alike, so whole clusters are compared")
    else:
        difference = paired_interval(pair.tuned, pair.base)
        p = paired_p(pair.tuned, pair.base) if difference.bounds is not None else None
        binary = all(v in (0.0, 1.0) for v in (*pair.tuned, *pair.base))
        method = "exact McNemar" if binary else "paired t"
    labels = list(pair.clusters) or None
    base, tuned = (
        bootstrap_interval(list(values), clusters=labels) for values in (pair.base, pair.tuned)
    )
    return CheckedMeasure(
        pair.source, title, unit, better, pair.purpose, len(pair.base), base, tuned, difference, p,
        None, method, "undecided", tuple(notes),
    )  # fmt: skip


def _words_of(pair: Paired) -> tuple[str, str, str]:
    """Title, unit, better side."""
    if pair.measure == "refusals":
        harmful = pair.kind == "harmful"
        title = "refusals" if harmful else "over-refusals"
        return title, "share", "higher" if harmful else "lower"
    return MEASURES.get(pair.measure, (pair.measure, "score", "higher"))


def labelled(models: Sequence[CheckedModel]) -> tuple[CheckedModel, ...]:
    """The models with Holm's correction over every test of all of them, and the words."""
    tested = [m.p for model in models for m in model.measures if m.p is not None]
    adjusted = iter(holm(tested))

    def rows(model: CheckedModel) -> Iterator[CheckedMeasure]:
        for row in model.measures:
            p = None if row.p is None else next(adjusted)
            yield replace(row, p_holm=p, label=_label(row, p))

    return tuple(replace(model, measures=tuple(rows(model))) for model in models)


def _label(row: CheckedMeasure, p: float | None) -> Finding:
    gain = row.difference
    if row.better == "lower" and gain.bounds is not None:
        low, high = gain.bounds
        gain = replace(gain, mean=-gain.mean, low=-high, high=-low)
    return _WORDS[verdict(gain, tolerance=TOLERANCE, p=p)]


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint's scores: gain on each row of the task, rise in bits per byte of each kept
    text, both over the base."""

    name: str
    learned: Sequence[float]
    lost: Sequence[float]
    worse: int


def along_run(task: str, measure: str, unit: str, run: Sequence[Checkpoint]) -> AlongRun:
    """Which checkpoint has the task and has lost least.

    The best is the one that learned most on average.  Those whose shortfall, paired by row, is
    within one standard error of it count as having learned as much; of these the one whose kept
    texts rose least is chosen, the earlier of equal ones.
    """
    best = max(run, key=lambda c: fmean(c.learned))
    near = [c for c in run if _behind(best, c) <= _error(best, c)]
    chosen = min(near, key=lambda c: fmean(c.lost))
    points = tuple(_point(c, run, best, chosen) for c in run)
    return AlongRun(
        task, measure, unit, points, best.name, chosen.name, _sentence(points, best, chosen, unit)
    )


def _behind(best: Checkpoint, other: Checkpoint) -> float:
    return fmean(best.learned) - fmean(other.learned)


def _error(best: Checkpoint, other: Checkpoint) -> float:
    """Standard error of the shortfall, paired by row."""
    gaps = [a - b for a, b in zip(best.learned, other.learned, strict=True)]
    return stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0


def _point(
    one: Checkpoint, run: Sequence[Checkpoint], best: Checkpoint, chosen: Checkpoint
) -> RunPoint:
    values = (fmean(one.learned), -fmean(one.lost))
    front = not any(
        all(a >= b for a, b in zip(others, values, strict=True)) and others != values
        for others in ((fmean(c.learned), -fmean(c.lost)) for c in run)
    )
    return RunPoint(
        one.name,
        mean_interval(one.learned),
        _difference(best.learned, one.learned, best is one),
        mean_interval(one.lost),
        _difference(one.lost, chosen.lost, chosen is one),
        front,
        one.worse,
    )


def _difference(a: Sequence[float], b: Sequence[float], same: bool) -> Interval:
    if same:
        return Interval(0.0, None, None, len(a), "the checkpoint itself")
    return mean_interval([x - y for x, y in zip(a, b, strict=True)])


def _sentence(points: Sequence[RunPoint], best: Checkpoint, chosen: Checkpoint, unit: str) -> str:
    by_name = {p.name: p for p in points}
    mine = by_name[chosen.name]
    text = (
        f"Take {chosen.name}: it is {mine.learned.with_bounds('+.3g')} better at the task ({unit}),"
        f" and its kept texts changed by {mine.lost.with_bounds('+.3g')} bits per byte."
    )
    if chosen is not best:
        more = by_name[best.name].lost_more
        text += (
            f" {best.name} learned most, {mine.behind.with_bounds('+.3g')} more, which is within a "
            f"standard error; it lost {more.with_bounds('+.3g')} bits per byte more."
        )
    rivals = [p.name for p in points if p.name != chosen.name and _undecided(p)]
    if rivals:
        text += f" Within noise it is no better than {', '.join(rivals)}."
    if mine.learned.bounds is None or mine.learned.bounds[0] <= 0:
        text += " That the task was learned at all is not shown."
    return text


def _undecided(point: RunPoint) -> bool:
    """Whether neither what it learned less nor what it lost more lies beyond noise."""
    behind, more = point.behind.bounds, point.lost_more.bounds
    return (behind is None or behind[0] <= 0) and (more is None or more[0] <= 0)


def verdict_words(model: CheckedModel) -> tuple[str, str]:
    """A label of a few words; and sentences, the first of which says what got worse, what better
    and what is undecided."""
    kept = {name: model.labelled(name) for name in ("worse", "better", "undecided", "same")}
    task = [m for m in model.measures if m.purpose == "task"]
    if not any(kept.values()) and not task:
        return "nothing tested", "Nothing was tested."
    label = ", ".join(f"{len(rows)} {name}" for name, rows in kept.items() if rows)
    parts = [f"worse beyond noise: {_named(kept['worse'])}", f"better: {_named(kept['better'])}"]
    parts += [f"undecided: {_named(kept['undecided'])}"]
    parts += [f"unchanged within {TOLERANCE:g}: {_named(kept['same'])}"] * bool(kept["same"])
    first = "; ".join(parts)
    text = f"{first[:1].upper()}{first[1:]}." if any(kept.values()) else ""
    numbers = [f"{row.words} {_change(row)}" for row in (*kept["worse"], *kept["better"])]
    text += f" In numbers: {'; '.join(numbers)}." if numbers else ""
    text += "".join(f" The task, {row.words}: {row.label}, {_change(row)}." for row in task)
    return label or "the task alone", text.strip()


def _named(rows: Sequence[CheckedMeasure]) -> str:
    return ", ".join(row.words for row in rows) or "nothing"


def _change(row: CheckedMeasure) -> str:
    """``0.62 to 0.70 (+0.08, 95 % +0.03 to +0.13)``."""
    inside = row.difference.bounds
    bounds = "" if inside is None else f", 95 % {inside[0]:+.3f} to {inside[1]:+.3f}"
    return f"{row.base.mean:.3f} to {row.tuned.mean:.3f} ({row.difference.mean:+.3f}{bounds})"


def gains(measure: CheckedMeasure, pair: Paired) -> list[float]:
    """By row, how much better the tuned model is."""
    sign = 1.0 if measure.better == "higher" else -1.0
    return [sign * (t - b) for b, t in zip(pair.base, pair.tuned, strict=True)]
