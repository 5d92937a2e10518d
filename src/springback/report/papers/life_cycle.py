"""Charts of the life-cycle study: each quantity against volume and against size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from springback.report import formatting
from springback.report.audit.more_alignment import keep_zero
from springback.report.components import Cell, Grid, Section, there
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style, whisker
from springback.report.theme import series
from springback.results.paper_schema import LifeCycle
from springback.results.schema import Interval

#: Of the axis: what it is called, what one line holds, the key of the other.
AXES = {
    "volume": ("rows of pre-training", "size", "weights outside the embeddings"),
    "parameters": ("weights outside the embeddings", "volume", "rows of pre-training"),
}


def sections(found: LifeCycle) -> tuple[Section, ...]:
    """Each quantity along pre-training and along size."""
    told = []
    for axis, lead in (
        ("volume", "Does it grow with the volume of pre-training?"),
        ("parameters", "Does it grow with the size of the model?"),
    ):
        charts = there([_chart(found, quantity, axis) for quantity in found.quantities])
        title = "Along pre-training" if axis == "volume" else "Along size"
        told.append(
            Section(
                f"life-{axis}",
                title,
                lead,
                charts,
                reading=f"Aligned on {found.n_pos:,} examples, then {found.dose:,} of the "
                "opposite. A seed draws text, weights and order of the pre-training too.",
                grids=(_trend_grid(found, "volume" if axis == "volume" else "size"),),
            )
        )
    return tuple(told)


def _chart(found: LifeCycle, quantity: str, axis: str) -> Chart | None:
    about, line, _ = AXES[axis]
    title, unit = found.quantities[quantity].title, found.quantities[quantity].unit
    groups: dict[Any, list[tuple[float, Interval]]] = {}
    for cell in found.cells:
        value: Interval | None = getattr(cell, quantity)
        if value is not None:
            groups.setdefault(getattr(cell, line), []).append((getattr(cell, axis), value))
    if not groups:
        return None
    places = sorted({getattr(c, axis) for c in found.cells})
    name = f"life-{quantity.replace('_', '-')}-{'size' if axis == 'parameters' else axis}"
    labels = [_said(group) for group in groups]
    with style(name):
        legend = [LegendItem(label, *series(i)) for i, label in enumerate(labels)]
        figure, (axes,) = panel(title, unit, legend)
        for i, values in enumerate(groups.values()):
            colour, marker = series(i)
            shift = 0.06 * (i - (len(groups) - 1) / 2)
            x = [places.index(place) + shift for place, _ in values]
            axes.plot(x, [v.mean for _, v in values], color=colour, marker=marker, ms=6, lw=1.6)
            for at, (_, value) in zip(x, values, strict=True):
                whisker(axes, at, value, colour)
        keep_zero(axes, [b for g in groups.values() for _, v in g for b in (v.bounds or (v.mean,))])
        axes.set_xticks(range(len(places)), [_short(p) for p in places])
        axes.set_xlabel(about)
        number_axis(axes.yaxis)
    table = Table(
        (about, *labels),
        tuple(
            (
                formatting.plain(place),
                *(
                    formatting.both(dict(values)[place]) if place in dict(values) else "–"
                    for values in groups.values()
                ),
            )
            for place in places
        ),
    )
    return Chart(
        name,
        title,
        f"Line chart of {title}, {unit}, against {about}. "
        + "; ".join(
            f"{label}: {formatting.number(v[0][1].mean)} to {formatting.number(v[-1][1].mean)}"
            for label, v in zip(labels, groups.values(), strict=True)
        )
        + ".",
        formatting.interval_note((v for g in groups.values() for _, v in g), "Whiskers"),
        table,
        figure,
    )


def _said(group: Any) -> str:
    return group if isinstance(group, str) else f"{group:,} rows"


def _short(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return formatting.plain(value)


def _trend_grid(found: LifeCycle, axis: str) -> Grid:
    rows: list[Sequence[Cell]] = []
    for row in found.trends:
        if row.axis == axis:
            about = found.quantities[row.quantity]
            slope = row.slope
            rows.append(
                (
                    Cell(about.title, about.unit),
                    Cell(formatting.value(slope, sign=True), formatting.bounds(slope, sign=True)),
                    Cell("–" if row.p_holm is None else formatting.number(row.p_holm, 2)),
                    Cell(row.label),
                )
            )
    head = ("Quantity", f"For each doubling of {axis}", "p (Holm)", "Finding")
    return Grid(f"Trends in {axis}", head, tuple(map(tuple, rows)), frozenset({3}))
