"""Charts of resistance: the loss of going back beside the loss of going on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style, whisker
from springback.report.theme import LIGHT, series
from springback.results.audit_schema import Pair
from springback.results.schema import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RAW = (
    "Forward trains the earlier model on texts of the later one, inverse the later model on texts "
    "of the earlier one, with equal data, steps and settings. Shown is the mean loss of the run: "
    "an inverse loss to the left of the forward one means that going back is easier, resistance."
)
SLICES = (
    "Forward trains the earlier model on rows of the later one's slice, inverse the later model on "
    "rows of the earlier one's, with equal settings: the variant without sampled responses, where "
    "the two ways also differ in their rows. Shown is the mean loss of the run."
)
EXCESS = (
    "The same losses less what the model that they lead to scores on the texts itself: raw losses "
    "are also lower where the texts are merely more predictable."
)


def pairs_chart(pairs: Sequence[Pair], excess: bool = False, data: str = "") -> Chart | None:
    """Forward against inverse loss, a row per pair; ``excess`` draws the loss in excess.

    ``data``: what was trained on, ``responses`` or the ``slices``.
    """
    shown = [
        (p.pair, a, b)
        for p in pairs
        for a, b in [(p.excess_forward, p.excess_inverse) if excess else (p.forward, p.inverse)]
        if a is not None and b is not None
    ]
    if not shown:
        return None
    name = "resistance-excess" if excess else "resistance"
    title = "Loss in excess" if excess else "Forward and inverse loss"
    above = "per pair of slices (left = easier)"
    legend = [
        LegendItem("forward", *series(0), lone=True),
        LegendItem("inverse", *series(1), lone=True),
    ]
    height = max(110, 46 * len(shown) + 20)
    with style(name):
        figure, (axes,) = panel(title, above, legend, plot_height=height, left=78)
        for row, (_, forward, inverse) in enumerate(shown):
            _dumbbell(axes, row, forward, inverse)
        axes.set_yticks(range(len(shown)), [formatting.short(p, 10) for p, _, _ in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        number_axis(axes.xaxis)
        axes.set_xlabel("training loss, nats/token" + (" above the target's own" if excess else ""))
    raw = SLICES if data == "slices" else RAW
    reading = EXCESS if excess else raw
    return Chart(
        name,
        title,
        f"Dot chart of {title}, nats per token, per pair of slices. "
        + "; ".join(
            f"{p}: forward {formatting.value(a)}, inverse {formatting.value(b)}"
            for p, a, b in shown
        )
        + ".",
        reading
        + " "
        + formatting.interval_note((v for _, *both in shown for v in both), "Whiskers"),
        Table(
            ("pair", "forward", "inverse"),
            tuple((p, formatting.both(a), formatting.both(b)) for p, a, b in shown),
        ),
        figure,
    )


def _dumbbell(axes: Axes, row: int, forward: Interval, inverse: Interval) -> None:
    axes.plot(
        [forward.mean, inverse.mean], [row - 0.13, row + 0.13], color=LIGHT["axis"], linewidth=1.2
    )
    for index, (value, shift) in enumerate(((forward, -0.13), (inverse, 0.13))):
        colour, marker = series(index)
        whisker(axes, row + shift, value, colour, across=True)
        axes.plot([value.mean], [row + shift], color=colour, marker=marker, markersize=7.5)
