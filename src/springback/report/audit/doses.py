"""Doses to undo: the share of the gain that is left, and doses by the amount of alignment."""

from __future__ import annotations

import math
from collections.abc import Sequence

from springback.report import figure, text
from springback.report.audit.more_alignment import size_axis, size_words
from springback.report.audit.rebound import AS_IT_IS
from springback.report.components import Section, there
from springback.report.estimate import Estimate
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series, Table, Value
from springback.results.audit_schema import (
    Audit,
    Curve,
    DosesToUndo,
    Finished,
    HalfDose,
    Probe,
    Rebound,
)
from springback.results.schema import Interval

ABOVE = "examples of the opposite (higher = more durable)"
NO_GAIN = "no gain to undo"
#: By key: name of the chart, title, what is counted.
KNOWN = {
    "half": (
        "dose-half",
        "Dose that undoes half",
        "Examples of the opposite after which half of what alignment gained in margin is lost.",
    ),
    "all": (
        "dose-all",
        "Dose that undoes all",
        "Examples of the opposite after which the margin is back at the start model's.",
    ),
    "kl": (
        "dose-kl",
        "Dose back to the start's distribution",
        "Examples of the opposite until the model says nearly what the start model says",
    ),
    "reverse_kl": (
        "dose-reverse-kl",
        "Dose back, on the model's own texts",
        "The same on texts that the model itself samples, so that it also counts what the start "
        "model would not say",
    ),
    "behaviour": (
        "dose-behaviour",
        "Dose that undoes half, by sampled answers",
        "The same for what sampled answers show",
    ),
}
#: Of a finished model, where it is told otherwise.
FINISHED = {
    "half": ("dose-half", "Dose that undoes half", "Examples of the opposite until it is lost"),
    "all": ("dose-all", "Dose that undoes all", "Examples of the opposite until it is lost"),
    "kl": (
        "dose-kl",
        "Dose back to the base model's distribution",
        "Examples of the opposite until the model says nearly what its base model says",
    ),
}


def dose_section(audit: Audit, rebound: Rebound) -> Section | None:
    """Of older files the dose of half the gain alone; None where nothing is known."""
    finished = audit.finished
    margin = rebound.probes.get(finished.outcome if finished else "margin")
    charts = [share_chart(margin, finished)] if margin else []
    notes: tuple[str, ...] = ()
    if audit.doses_to_undo is None:
        charts.append(half_dose_chart(rebound.half_dose, max(rebound.doses, default=None)))
    else:
        known = audit.doses_to_undo.known()
        charts += [to_undo_chart(key, d, finished is not None) for key, d in known.items()]
        reverse_kl = audit.doses_to_undo.reverse_kl
        # A trend that the verdict does not tell, for it has no part for this dose.
        if reverse_kl is not None and reverse_kl.trend and reverse_kl.trend.sentence:
            sentence = text.sentence(reverse_kl.trend.sentence)
            notes = (f"On the model's own texts: {sentence}",)
    lead = "How many examples of the opposite undo the alignment?"
    drawn = there(charts)
    return Section("dose", "Dose to undo", lead, drawn, notes) if drawn else None


def _shares(curve: Curve, start: float, gain: float) -> list[Interval | None]:
    """What is left of alignment's gain at each dose, percent of the mean gain: 100 at dose 0 and 0
    at the start model, with the curve's own intervals in the same units."""

    def share(value: float) -> float:
        return 100 * (value - start) / gain

    def scaled(known: Interval | None) -> Interval | None:
        if known is None or known.bounds is None:
            return known and Interval(share(known.mean))
        low, high = sorted(map(share, known.bounds))
        return Interval(share(known.mean), low, high)

    return [scaled(curve.at(dose)) for dose in curve.dose]


def _start_and_gain(
    probe: Probe, curve: Curve, finished: Finished | None
) -> tuple[float, float] | None:
    """None where alignment moved the probe by nothing, or the start is unknown.  Of a finished
    model the base model's value stands for the start's, or 0."""
    start = None if probe.start is None else probe.start.mean
    if finished is not None:
        start = finished.base or 0.0
    if start is None or not curve.mean or curve.dose[0] != 0:
        return None
    gain = curve.mean[0] - start
    if finished is not None and finished.outcome != "margin":  # it may be one that should fall
        gain = gain or math.nan
    elif gain <= 0:
        return None
    return (start, gain) if math.isfinite(gain) else None


def share_chart(probe: Probe, finished: Finished | None = None) -> Chart | None:
    """The share of the gain that is left against the dose, on a logarithmic axis."""
    series = [
        Series(
            AS_IT_IS if finished else f"{curve.n_pos:,}",
            _shares(curve, *scale),
            curve.dose,
            index=i,
            band=0.16,
        )
        for i, curve in enumerate(probe.curves)
        if (scale := _start_and_gain(probe, curve, finished)) is not None
    ]
    whole, above = "aligned model, 0 % the start model", "share of the gain in margin left, %"
    if finished:
        none = "the base model" if finished.base is not None else "none of it"
        whole, above = f"model as it is, 0 % {none}", f"share of {finished.lost} left, %"
    return figure.lines(
        Caption(
            "dose-share",
            "What is left of the alignment",
            f"100 % is the {whole}; the dashed line marks half undone, and where a line crosses "
            "it is the dose that undoes half. The share is a ratio of means over the seeds.",
            legend="model" if finished else "aligned on",
            intervals="Bands are the 95 % intervals of what is measured, in units of the mean gain."
            if any(curve.band for curve in probe.curves)
            else "No interval was computed, so no band is drawn.",
        ),
        Plot(
            above,
            series,
            Level(50.0, "half undone"),
            zero=True,
            hold=(105.0,),
            equal_decimals=True,
        ),
        Axis("examples of the opposite, logarithmic", head="dose", unit="examples", scale="doses"),
    )


def to_undo_chart(key: str, doses: DosesToUndo, finished: bool = False) -> Chart | None:
    """The mean dose over the seeds against ``n_pos``; None where it is defined nowhere."""
    name, title, counted = (FINISHED if finished and key in FINISHED else KNOWN)[key]
    means = [None if d.mean is None else Estimate.of(d.mean).above_zero() for d in doses.at]
    if finished or key in ("kl", "reverse_kl"):
        counted = f"{counted}: {doses.what}."
    if any(mean is not None and mean.low == 0 for mean in means):
        counted += " Intervals end at 0, since no dose lies below it."
    if any(d.before_first for d in doses.at):
        counted += " What was undone by the first dose measured is known to need at most that."
    rows = [
        (
            AS_IT_IS if finished else size_words(d.n_pos),
            "–" if mean is None else text.with_limits(mean),
            d.words if d.testable else f"{d.words}; alignment hardly took",
            _by_seed(doses, branch),
        )
        for branch, (d, mean) in enumerate(zip(doses.at, means, strict=True))
    ]
    if doses.trend is not None:
        slope = doses.trend.slope
        change = "–" if slope is None else text.with_limits(Estimate.of(slope), sign=True)
        rows.append(("change for each doubling", change, doses.trend.label, "–"))
    first = "model" if finished else "aligned on"
    head = (first, "mean over the seeds", "in words", "by seed")
    return _by_size(
        Caption(name, title, counted),
        Series("mean over the seeds", means, join=""),
        [d.n_pos for d in doses.at],
        doses.largest,
        Table(head, tuple(rows)),
    )


def _by_seed(doses: DosesToUndo, branch: int) -> str:
    """Every seed's dose: "12, ≤ 8, > 64"; a dash where alignment gained nothing."""
    texts = []
    for crossings in doses.by_seed.values():
        crossing = crossings[branch]
        if crossing.dose is None:
            beyond = "" if doses.largest is None else f"> {text.plain(doses.largest)}"
            texts.append(beyond if crossing.censored and beyond else "–")
        elif 0 < crossing.dose <= doses.first:
            texts.append(f"≤ {text.plain(doses.first)}")
        else:
            texts.append(text.number(crossing.dose))
    return ", ".join(texts) or "–"


def half_dose_chart(halves: Sequence[HalfDose], largest: float | None) -> Chart | None:
    """The dose that undoes half of the gain against ``n_pos``; open where none did.

    None where no alignment gained anything: there is nothing to undo then.
    """

    def value(half: HalfDose) -> Value:
        if half.censored:
            return Estimate(None, at_least=largest if half.value is None else half.value)
        if half.at_most:
            return Estimate(None, at_least=0.0, at_most=half.value)
        return NO_GAIN if half.value is None else half.value

    name, title, counted = KNOWN["half"]
    rows = tuple((f"{h.n_pos:,}", half_dose_words(h, largest)) for h in halves)
    return _by_size(
        Caption(name, title, counted, intervals=""),
        Series("of the mean curve", list(map(value, halves)), join=""),
        [h.n_pos for h in halves],
        largest if any(h.censored for h in halves) else None,
        Table(("aligned on", "dose that undoes half"), rows),
    )


def _by_size(
    caption: Caption, series: Series, sizes: Sequence[int], largest: float | None, table: Table
) -> Chart | None:
    level = None if largest is None else Level(largest, "largest dose tried")
    return figure.points(
        caption,
        Plot(ABOVE, [series], level, zero=True),
        size_axis(sizes),
        table=table,
    )


def half_dose_words(half: HalfDose, largest: float | None) -> str:
    """The dose in words: a number, or what is known where half was not lost."""
    if half.value is None and not half.censored:
        return NO_GAIN
    if half.censored or half.value is None:
        beyond = half.value if half.value is not None else largest
        return "not reached" if beyond is None else f"more than {text.plain(beyond)}"
    shown = text.number(half.value, 2 if half.value < 100 else 3)
    return f"at most {shown}" if half.at_most else shown
