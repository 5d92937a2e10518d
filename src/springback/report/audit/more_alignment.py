"""Charts by the amount of alignment: dose that undoes half, fall, share lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.components import there
from springback.report.figure import Chart, Table, number_axis, panel, style, whisker
from springback.report.schema import Audit, Rebound
from springback.report.theme import LIGHT, series
from springback.report.values import AtSize

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


def _over(rebound: Rebound) -> str:
    dose = rebound.fall_dose
    return " to the opposite" if dose is None else f" over {dose:,} examples of the opposite"


def _size_charts(rebound: Rebound) -> tuple[Chart, ...]:
    over = _over(rebound)
    return there(
        (
            by_size_chart(
                "alignment-fall",
                "How far it falls",
                "fall of the margin, nats/token",
                f"What is lost{over}, in nats per token: the absolute fall. Rebound says that it "
                "grows with alignment.",
                rebound.fall,
            ),
            by_size_chart(
                "alignment-share",
                "What share is lost",
                "share of the gain lost, %",
                f"What is lost{over}, as a share of what alignment had gained. Equal shares mean "
                "that the fall only keeps pace with the height; a rising share is more than that.",
                rebound.share_lost,
                100,
            ),
        )
    )


def _slopes(rebound: Rebound, audit: Audit) -> list[str]:
    """What each doubling changes, as far as no card says it."""
    said = []
    if (slope := rebound.fall_per_log2) is not None and audit.card is None:
        text = formatting.both(slope, sign=True)
        said.append(f"Each doubling of alignment changes the fall by {text} nats/token.")
    if (slope := rebound.share_per_log2) is not None and audit.card is None:
        text = formatting.both(slope, 100, sign=True)
        said.append(f"Each doubling of alignment changes the share lost by {text} points.")
    if audit.phases is not None and (slope := audit.phases.decay) is not None:
        text = formatting.both(slope, 100, sign=True)
        said.append(
            "Each doubling of alignment changes the fall beyond proportional decay, fitted to the "
            f"curves at one rate, by {text} points of the gain."
        )
    return said
