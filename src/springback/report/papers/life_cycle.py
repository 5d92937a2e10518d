"""The life-cycle study: each quantity against volume and against size."""

from __future__ import annotations

from springback.report import figure, text
from springback.report.components import Cell, Grid, Section, there
from springback.report.figure import Axis, Caption, Chart, Plot, Series
from springback.results.paper_schema import LifeCycle
from springback.results.schema import Interval

#: By axis: key of a trend, title of the section, name of the axis, key of what one line holds.
AXES = {
    "volume": ("volume", "Along pre-training", "rows of pre-training", "size"),
    "parameters": ("size", "Along size", "weights outside the embeddings", "volume"),
}


def life_cycle_sections(study: LifeCycle) -> tuple[Section, ...]:
    return (
        _section(study, "volume", "Does it grow with the volume of pre-training?"),
        _section(study, "parameters", "Does it grow with the size of the model?"),
    )


def _section(study: LifeCycle, axis: str, lead: str) -> Section:
    trend, title, _, _ = AXES[axis]
    return Section(
        f"life-{axis}",
        title,
        lead,
        there([_chart(study, quantity, axis) for quantity in study.quantities]),
        reading=f"Aligned on {study.n_pos:,} examples, then {study.dose:,} of the "
        "opposite. A seed draws text, weights and order of the pre-training too.",
        grids=(_trend_grid(study, trend),),
    )


def _chart(study: LifeCycle, quantity: str, axis: str) -> Chart | None:
    """A line for each size along volume, or the other way round."""
    trend, _, label, group = AXES[axis]
    about = study.quantities[quantity]
    places = sorted({getattr(cell, axis) for cell in study.cells})
    groups: dict[str | int, dict[float, Interval | None]] = {}
    for cell in study.cells:
        groups.setdefault(getattr(cell, group), {})[getattr(cell, axis)] = getattr(cell, quantity)
    series = [
        Series(name if isinstance(name, str) else f"{name:,} rows", [values.get(p) for p in places])
        for name, values in groups.items()
        if any(values.values())
    ]
    return figure.points(
        Caption(f"life-{quantity.replace('_', '-')}-{trend}", about.title, ""),
        Plot(about.unit, series, zero=True),
        Axis(
            label,
            [text.plain(p) for p in places],
            ticks=[_short(p) for p in places],
            dodge=0.06,
        ),
    )


def _short(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return text.plain(value)


def _trend_grid(study: LifeCycle, axis: str) -> Grid:
    rows = []
    for row in study.trends:
        if row.axis == axis:
            about, slope = study.quantities[row.quantity], row.slope
            rows.append(
                (
                    Cell(about.title, about.unit),
                    Cell(text.value(slope, sign=True), text.bounds(slope, sign=True)),
                    Cell("–" if row.p_holm is None else text.number(row.p_holm, 2)),
                    Cell(row.label),
                )
            )
    head = ("Quantity", f"For each doubling of {axis}", "p (Holm)", "Finding")
    return Grid(f"Trends in {axis}", head, tuple(rows), frozenset({3}))
