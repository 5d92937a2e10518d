"""Charts of attackers, of the second alignment, and of the opposite order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.audit.more_alignment import keep_zero, size_axis
from springback.report.audit.rebound import curve_table, curves_in_words, draw_curve, sizes_legend
from springback.report.components import Section, there
from springback.report.figure import Chart, LegendItem, Table, mark, number_axis, panel, style
from springback.report.schema import Probe, Rebound
from springback.report.theme import LIGHT, series
from springback.report.values import Estimate, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What ``n_pos`` counts in either order.
FIRST = "first on"


def _beside(axes: Axes, pairs: Sequence[Sequence[Interval | None]]) -> None:
    """Each place's values side by side, in the colours of the series."""
    for place, pair in enumerate(pairs):
        for index, found in enumerate(pair):
            if found is not None:
                mark(axes, place + 0.24 * (index - 0.5), Estimate.of(found), index)


def orders_chart(here: Probe, there: Probe) -> Chart | None:
    """Margin along the doses in both orders, one above the other, on equal scales."""
    both = [(here, "this order"), (there, "the opposite order")]
    if not all(probe.curves for probe, _ in both):
        return None
    name, title = "symmetry-margin", "Both orders"
    legend = sizes_legend(((c.n_pos, i) for i, c in enumerate(here.curves)), FIRST)
    legend.append(LegendItem("start model", LIGHT["muted"], None))
    with style(name):
        first, *others = (f"{order}: margin, {here.unit}" for _, order in both)
        figure, axes = panel(title, first, legend, (None, *others), plot_height=150)
        for one, (probe, _) in zip(axes, both, strict=True):
            for i, curve in enumerate(probe.curves):
                draw_curve(one, curve, i)
            if probe.start is not None:
                one.axhline(probe.start.mean, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
            number_axis(one.yaxis)
        spans = [one.get_ylim() for one in axes]
        half = max(high - low for low, high in spans) / 2
        for one, (low, high) in zip(axes, spans, strict=True):
            one.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
        axes[0].tick_params(labelbottom=False)
        axes[-1].set_xlabel("examples of the other side")
    tables = [curve_table(probe, probe.curves, FIRST) for probe, _ in both]
    return Chart(
        name,
        title,
        " ".join(f"In {o}: {curves_in_words(p, p.curves, FIRST)}" for p, o in both),
        "Above, aligned first and then trained on the opposite; below, trained on the opposite "
        "first and then aligned, with wanted and unwanted exchanged in the margin. Both scales "
        "span as much, so that slopes can be compared.",
        _joined(tables, [o for _, o in both]),
        figure,
    )


def _joined(tables: Sequence[Table], orders: Sequence[str]) -> Table:
    """Tables by dose side by side."""
    head = ["dose"]
    rows: dict[str, list[str]] = {row[0]: [] for t in tables for row in t.rows}
    for table, order in zip(tables, orders, strict=True):
        head += [f"{column}, {order}" for column in table.head[1:]]
        cells = {row[0]: row[1:] for row in table.rows}
        for dose, row in rows.items():
            row += cells.get(dose, ("–",) * (len(table.head) - 1))
    return Table(tuple(head), tuple((dose, *row) for dose, row in rows.items()))


def gains_chart(here: Rebound, there: Rebound) -> Chart | None:
    """Gain and fall of both orders, by the amount of the first training."""
    sizes = [n for n in here.n_pos if n in there.n_pos]
    if not sizes:
        return None

    def pairs(key: str) -> list[list[Interval | None]]:
        found = [{v.n_pos: v.value for v in getattr(r, key)} for r in (here, there)]
        return [[values.get(n) for values in found] for n in sizes]

    gains, falls = pairs("gain"), pairs("fall")
    if not any(p for row in (*gains, *falls) for p in row):
        return None
    name, title = "symmetry-change", "Gain and fall in both orders"
    names = ("this order", "the opposite order")
    legend = [LegendItem(n, *series(i), lone=True) for i, n in enumerate(names)]
    with style(name):
        first, second = "gain of the margin, nats/token", "fall of the margin, nats/token"
        figure, axes = panel(title, first, legend, (None, second), plot_height=128)
        for one, shown in zip(axes, (gains, falls), strict=True):
            known = [v for pair in shown for p in pair if p for v in Estimate.of(p).known]
            keep_zero(one, known or [0.0])
            size_axis(one, sizes)
            number_axis(one.yaxis)
            _beside(one, shown)
        axes[0].set_xlabel("")
        axes[0].tick_params(labelbottom=False)
        axes[-1].set_xlabel("examples of the first training")
    rows = tuple(
        (f"{n:,}", *(formatting.both(v) for v in (*g, *f)))
        for n, g, f in zip(sizes, gains, falls, strict=True)
    )
    return Chart(
        name,
        title,
        "Dot chart of gain and fall of the margin, nats/token, against examples of the first "
        "training. "
        + "; ".join(
            f"{n}: gained {a} in this order and {b} in the opposite, lost {c} and {d}"
            for n, a, b, c, d in rows
        )
        + ".",
        "If the effect belongs to the model and not to one side, both orders fall. "
        + formatting.interval_note((p for row in (*gains, *falls) for p in row), "Whiskers"),
        Table(
            (
                "first training",
                *(f"{what}, {order}" for what in ("gain", "fall") for order in names),
            ),
            rows,
        ),
        figure,
    )


def symmetry_section(here: Rebound, there_: Rebound) -> Section | None:
    one, two = (next((p for p in r.probes if p.key == "margin"), None) for r in (here, there_))
    charts = there(
        (
            orders_chart(one, two) if one and two else None,
            gains_chart(here, there_),
        )
    )
    if not charts:
        return None
    lead = "Is it the same when the unwanted side comes first?"
    return Section("symmetry", "Opposite order", lead, charts)
