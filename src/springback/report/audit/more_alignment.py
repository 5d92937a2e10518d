"""Charts by the amount of alignment: dose that undoes half, fall, share lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style, whisker
from springback.report.theme import LIGHT, series
from springback.results.audit_schema import AtSize, HalfDose

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


def size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xticks(range(len(sizes)), [f"{n:,}" for n in sizes])
    axes.set_xlim(-0.4, len(sizes) - 0.6)
    axes.set_xlabel("examples of alignment")


def by_size_chart(
    name: str, title: str, above: str, reading: str, values: Sequence[AtSize], scale: float = 1.0
) -> Chart | None:
    """Dots with intervals against ``n_pos``, zero always in view; None without values.

    ``scale`` multiplies the values: 100 for a share shown in percent.
    """
    known = [(v.n_pos, v.value.scaled(scale)) for v in values if v.value is not None]
    if not known:
        return None
    sizes = [n for n, _ in known]
    colour, marker = series(0)
    with style(name):
        figure, (axes,) = panel(title, above)
        for place, (_, found) in enumerate(known):
            whisker(axes, place, found, colour)
        means = [found.mean for _, found in known]
        axes.plot(
            range(len(known)),
            means,
            color=colour,
            marker=marker,
            markersize=7.5,
            linewidth=1.2,
            linestyle=":",
        )
        keep_zero(axes, [b for _, found in known for b in (found.bounds or (found.mean,))])
        size_axis(axes, sizes)
        number_axis(axes.yaxis)
    rows = tuple((f"{n:,}", formatting.both(v)) for n, v in known)
    return Chart(
        name,
        title,
        f"Dot chart of {above} against examples of alignment. "
        + "; ".join(f"aligned on {n}: {text}" for n, text in rows)
        + ".",
        reading + " " + formatting.interval_note((v for _, v in known), "Whiskers"),
        Table(("aligned on", above), rows),
        figure,
    )


def keep_zero(axes: Axes, values: Sequence[float]) -> None:
    """Limits that hold all values and zero, with room on either side where there are values."""
    low, high = min(*values, 0.0), max(*values, 0.0)
    room = 0.12 * (high - low or 1.0)
    axes.set_ylim(low - room if low < 0 else 0.0, high + room if high > 0 else 0.0)
    axes.axhline(0, color=LIGHT["axis"], linewidth=1.2)
