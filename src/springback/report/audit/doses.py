"""Charts of doses to undo by the amount of alignment, those that were not reached left open."""

from __future__ import annotations

from springback.report import formatting
from springback.report.audit.more_alignment import size_axis
from springback.report.estimate import Estimate
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
from springback.report.theme import LIGHT, series
from springback.results.audit_schema import DoseAtSize, DosesToUndo

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


def to_undo_chart(key: str, doses: DosesToUndo) -> Chart | None:
    """The mean dose over the seeds against ``n_pos``; None where it is defined nowhere."""
    name, title, counted = KNOWN[key]
    shown = [(i, _found(at)) for i, at in enumerate(doses.at) if at.mean is not None]
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
    if key in ("kl", "reverse_kl"):
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


def _table(doses: DosesToUndo) -> Table:
    rows = [(f"{at.n_pos:,}", _mean(at), at.words) for at in doses.at]
    if doses.trend is not None:
        slope = doses.trend.slope
        text = "–" if slope is None else formatting.with_limits(Estimate.of(slope), sign=True)
        rows.append(("change for each doubling", text, doses.trend.label))
    return Table(("aligned on", "mean over the seeds", "median over the seeds"), tuple(rows))


def _mean(at: DoseAtSize) -> str:
    return "–" if at.mean is None else formatting.with_limits(_found(at))


def _found(at: DoseAtSize) -> Estimate:
    return Estimate.of(at.mean).above_zero()
