"""Charts of doses to undo by the amount of alignment, those that were not reached left open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.audit.more_alignment import size_axis
from springback.report.audit.rebound import sizes_legend
from springback.report.components import there
from springback.report.figure import (
    Chart,
    LegendItem,
    Table,
    mark,
    number_axis,
    open_item,
    panel,
    style,
)
from springback.report.findings import DoseAt, Doses
from springback.report.schema import Audit, Curve, HalfDose, Probe, Rebound
from springback.report.theme import LIGHT, series
from springback.report.values import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
}


def to_undo_chart(doses: Doses) -> Chart | None:
    """The mean dose over the seeds against ``n_pos``; None where it is defined nowhere."""
    name, title, counted = KNOWN[doses.key]
    shown = [(i, at.found.above_zero()) for i, at in enumerate(doses.at) if at.found is not None]
    if not any(found.known for _, found in shown):
        return None
    reached = [f for _, f in shown if f.value is not None]
    legend = [LegendItem("mean over the seeds", *series(0), lone=True)] if reached else []
    if len(reached) < len(shown):
        legend.append(open_item())
    if doses.largest is not None:
        legend.append(LegendItem("largest dose tried", LIGHT["muted"], None))
    with style(name):
        above = "examples of the opposite (higher = more durable)"
        figure, (axes,) = panel(title, above, legend)
        numbers = [v for _, found in shown for v in found.known]
        axes.set_ylim(0, 1.15 * max(*numbers, doses.largest or 0.0, 1e-9))
        size_axis(axes, [at.n_pos for at in doses.at])
        number_axis(axes.yaxis)
        if doses.largest is not None:
            axes.axhline(doses.largest, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
        for place, found in shown:
            mark(axes, place, found, 0)
    table = _table(doses)
    if doses.key in ("kl", "reverse_kl"):
        counted = f"{counted}: {doses.what}."
    return Chart(
        name,
        title,
        f"Dot chart of the examples of the opposite, {doses.what}, against examples of alignment. "
        + "; ".join(f"aligned on {row[0]}: {row[1]}" for row in table.rows[: len(doses.at)])
        + ".",
        counted + _how(shown),
        table,
        figure,
    )


def _how(shown: list[tuple[int, Estimate]]) -> str:
    limits = [f for _, f in shown if f.low is not None or f.high is not None]
    text = " Whiskers are 95 % intervals over the seeds." if limits else " There are no intervals."
    if any(f.low == 0 for f in limits):
        text += " They end at 0, since no dose lies below it."
    return text


def _table(doses: Doses) -> Table:
    rows = [(f"{at.n_pos:,}", _mean(at), at.words) for at in doses.at]
    if doses.trend is not None:
        slope = doses.trend.slope
        text = "–" if slope is None else formatting.with_limits(slope, sign=True)
        rows.append(("change for each doubling", text, doses.trend.label))
    return Table(("aligned on", "mean over the seeds", "median over the seeds"), tuple(rows))


def _mean(at: DoseAt) -> str:
    return "–" if at.found is None else formatting.with_limits(at.found.above_zero())


def dose_charts_of(audit: Audit, rebound: Rebound) -> tuple[Chart, ...]:
    """Doses to undo by the amount of alignment; of older files that of half the gain alone."""
    if audit.doses:
        return there([to_undo_chart(doses) for doses in audit.doses])
    return there([half_dose_chart(rebound.half_dose, max(rebound.doses, default=None))])


def dose_notes(audit: Audit) -> tuple[str, ...]:
    """Trends that the verdict does not tell, for it has no part for this dose."""
    return tuple(
        f"On the model's own texts: {formatting.sentence(d.trend.sentence)}"
        for d in audit.doses
        if d.key == "reverse_kl" and d.trend is not None and d.trend.sentence
    )


def share_left(probe: Probe, curve: Curve) -> tuple[float, ...] | None:
    """What is left of alignment's gain at each dose, 1 at dose 0 and 0 at the start model.

    The ratio of the curve's means, (m(dose) - start) / (m(0) - start); None where alignment
    moved the probe by nothing, or the start is unknown.
    """
    if probe.start is None or not curve.mean or curve.dose[0] != 0:
        return None
    gain = curve.mean[0] - probe.start.mean
    if not math.isfinite(gain) or gain <= 0:
        return None
    return tuple((m - probe.start.mean) / gain for m in curve.mean)


def dose_chart(probe: Probe) -> Chart | None:
    """The share of the gain that is left against the dose, on a logarithmic axis."""
    shares = [(c, s) for c in probe.curves if (s := share_left(probe, c)) is not None]
    if not shares:
        return None
    legend = sizes_legend((c.n_pos, probe.curves.index(c)) for c, _ in shares)
    legend.append(LegendItem("half undone", LIGHT["muted"], None))
    name = "dose-share"
    with style(name):
        title = "What is left of the alignment"
        figure, (axes,) = panel(title, "share of the gain in margin left, %", legend)
        for curve, share in shares:
            colour, marker = series(probe.curves.index(curve))
            axes.plot(
                curve.dose,
                [100 * s for s in share],
                color=colour,
                marker=marker,
                markersize=5.5,
                linewidth=2,
            )
        axes.axhline(50, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0), max(high, 105))
        number_axis(axes.yaxis)
        _dose_axis(axes, sorted({d for c, _ in shares for d in c.dose}))
        axes.set_xlabel("examples of the opposite, logarithmic")
    rows = tuple(
        (formatting.plain(d), *(_share_at(c, s, d) for c, s in shares))
        for d in sorted({d for c, _ in shares for d in c.dose})
    )
    return Chart(
        name,
        title,
        "Line chart of the share of the margin's gain that is left against examples of the "
        "opposite. "
        + "; ".join(
            f"aligned on {c.n_pos:,}: {formatting.number(100 * s[-1])} % left at "
            f"{formatting.plain(c.dose[-1])} examples"
            for c, s in shares
        )
        + ".",
        "100 % is the aligned model, 0 % the start model; the dashed line marks half undone, and "
        "where a line crosses it is the dose that undoes half. The share is a ratio of the means "
        "in the chart above, so it has no band.",
        Table(("dose", *(f"aligned on {c.n_pos:,}" for c, _ in shares)), rows),
        figure,
    )


def _share_at(curve: Curve, share: Sequence[float], dose: float) -> str:
    found = [s for d, s in zip(curve.dose, share, strict=True) if d == dose]
    return formatting.number(100 * found[0]) + " %" if found and math.isfinite(found[0]) else "–"


def _dose_axis(axes: Axes, doses: Sequence[float]) -> None:
    """Doses by their logarithm with 0 one step to the left, each labelled where there is room."""
    positive = [d for d in doses if d > 0]
    if not positive:
        return
    axes.set_xscale("symlog", linthresh=positive[0], linscale=1.0, base=2)
    axes.set_xlim(left=-positive[0] * 0.35 if 0 in doses else None)
    every = -(-len(doses) // 8)
    shown = list(doses)[::-1][::every][::-1]
    axes.set_xticks(shown, [formatting.plain(d) for d in shown])
    axes.minorticks_off()


def half_dose_chart(halves: Sequence[HalfDose], largest: float | None) -> Chart | None:
    """The dose that undoes half of the gain against ``n_pos``; open where none did.

    None where no alignment gained anything: there is nothing to undo then.
    """
    if not any(h.censored or h.value is not None for h in halves):
        return None
    name, title = "dose-half", "Dose that undoes half"
    reached = [h for h in halves if h.value is not None and not h.censored]
    beyond = [h for h in halves if h.censored]
    blue, marker = series(0)
    legend = [LegendItem("reached", blue, marker)] if reached else []
    if beyond:
        hollow = LegendItem("not within the doses tried", LIGHT["s2"], "^", lone=True, hollow=True)
        legend.append(hollow)
    with style(name):
        figure, (axes,) = panel(title, "examples of the opposite (higher = more durable)", legend)
        sizes = [h.n_pos for h in halves]
        heights = [h.value or 0.0 for h in reached]
        axes.plot(
            [sizes.index(h.n_pos) for h in reached],
            heights,
            color=blue,
            marker=marker,
            linewidth=2,
            markersize=7,
        )
        top = max([*heights, *(h.value or largest or 0.0 for h in beyond)])
        axes.plot(
            [sizes.index(h.n_pos) for h in beyond],
            [h.value or largest or top for h in beyond],
            color=LIGHT["s2"],
            marker="^",
            linestyle="None",
            markersize=8,
            markerfacecolor=LIGHT["card"],
            markeredgewidth=1.8,
        )
        axes.set_ylim(0, top * 1.15 or 1.0)
        size_axis(axes, sizes)
        number_axis(axes.yaxis)
    texts = [(f"{h.n_pos:,}", half_dose_words(h, largest)) for h in halves]
    return Chart(
        name,
        title,
        "Chart of the number of examples of the opposite that undo half of the gain. "
        + "; ".join(f"aligned on {n}: {text}" for n, text in texts)
        + ".",
        "The number of examples of the opposite after which half of what alignment gained in "
        "margin is lost. Lower means undone sooner. An open triangle stands at the largest dose "
        "tried where half was never lost: the true dose lies above it.",
        Table(("aligned on", "dose that undoes half"), tuple(texts)),
        figure,
    )


def half_dose_words(half: HalfDose, largest: float | None) -> str:
    """The dose in words: a number, or what is known where half was not lost."""
    if half.value is None and not half.censored:
        return "no gain to undo"
    if half.censored or half.value is None:
        beyond = half.value if half.value is not None else largest
        return "not reached" if beyond is None else f"more than {formatting.plain(beyond)}"
    return formatting.number(half.value, 2 if half.value < 100 else 3)
