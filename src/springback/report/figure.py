"""Charts by description: a section says what is shown, and it is drawn, named and tabled here.

    figure.lines(
        Caption("dose-share", "What is left", "100 % is the aligned model."),
        Plot("share of the gain left, %", [Series("64", (100, 52), x=(0, 16))]),
        Axis("examples of the opposite"),
    )

``lines`` draws numbers against numbers, ``points`` numbers at named places side by side, ``rows``
numbers at named places one below the other.  Each returns None where no value is known.  A
``table`` stands in place of the one that is made of the values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from springback.report import text, theme
from springback.report.drawing import LegendItem, draw_plot, draw_rows, panel, style
from springback.report.estimate import Estimate
from springback.report.series import (
    Axis,
    Caption,
    Chart,
    Level,
    Plot,
    Series,
    Table,
    Value,
    estimate_of,
    is_open,
)
from springback.report.theme import LIGHT
from springback.results.schema import Interval

__all__ = [
    "Axis",
    "Caption",
    "Chart",
    "Level",
    "Plot",
    "Series",
    "Table",
    "Value",
    "equal_spans",
    "lines",
    "points",
    "rows",
]

#: Height of a chart's plots in pixels, by their number.
HEIGHTS = {1: 200, 2: 140, 3: 124}


def lines(
    caption: Caption, plots: Plot | Sequence[Plot], axis: Axis, table: Table | None = None
) -> Chart | None:
    """Numbers against numbers, the plots one above the other along the same axis."""
    return _upright("line", caption, plots, axis, table)


def points(
    caption: Caption, plots: Plot | Sequence[Plot], axis: Axis, table: Table | None = None
) -> Chart | None:
    """Numbers at the places of an axis, those of one place side by side."""
    return _upright("dot", caption, plots, axis, table)


def rows(caption: Caption, plot: Plot, axis: Axis, table: Table | None = None) -> Chart | None:
    """Numbers at the places of ``axis`` one below the other, its label along the values.

    The first series' words for a missing value stand beside the name of the place.
    """
    if not _known([plot]):
        return None
    height = max(110, 46 * len(axis.places) + 20)
    with style(caption.name):
        legend = _legend(caption, [plot])
        figure, (axes,) = panel(caption.title, [plot.above], legend, height, left=12, right=20)
        draw_rows(axes, plot, axis)
    values = _by_place(_table(caption, [plot], replace(axis, places=axis.names, columns={})))
    alt = caption.alt or f"{caption.title}: dot chart of {plot.above}. {values}"
    shown = table or _table(caption, [plot], axis)
    return Chart(caption.name, caption.title, alt, _reading(caption, [plot]), shown, figure)


def equal_spans(plots: Sequence[Plot]) -> list[Plot]:
    """The plots with scales that span as much, so that slopes can be compared."""
    ends = [plot.extent() for plot in plots]
    half = max((high - low for low, high in ends), default=0.0) / 2
    middles = [(low + high) / 2 for low, high in ends]
    return [replace(p, limits=(m - half, m + half)) for p, m in zip(plots, middles, strict=True)]


def _upright(
    kind: str, caption: Caption, given: Plot | Sequence[Plot], axis: Axis, table: Table | None
) -> Chart | None:
    plots = [given] if isinstance(given, Plot) else given
    if not _known(plots):
        return None
    with style(caption.name):
        height = HEIGHTS[min(len(plots), max(HEIGHTS))]
        above = [plot.above for plot in plots]
        figure, drawn = panel(caption.title, above, _legend(caption, plots), height)
        for axes, plot in zip(drawn, plots, strict=True):
            draw_plot(axes, plot, axis)
        ends = [end for axes in drawn for end in axes.get_xlim()]
        for axes in drawn:
            axes.set_xlim(min(ends), max(ends))
            axes.tick_params(labelbottom=axes is drawn[-1])
        drawn[-1].set_xlabel(axis.label)
    shown = table or _table(caption, plots, axis)
    by_place = _by_place(shown, shown.head[0])
    words = _by_series(caption, plots, axis) if kind == "line" else by_place
    words += "".join(
        f" {text.capital(plot.level.label)}: {text.number(plot.level.mean)}."
        for plot in plots
        if plot.level is not None and plot.level.label
    )
    what = text.listing(plot.short for plot in plots)
    alt = f"{caption.title}: {kind} chart of {what} against {axis.label}. {words}"
    reading = _reading(caption, plots)
    return Chart(caption.name, caption.title, caption.alt or alt, reading, shown, figure)


def _known(plots: Sequence[Plot]) -> bool:
    """Whether there is any value to draw."""
    return any(e.known for plot in plots for series in plot.measured for e in series.estimates)


def _legend(caption: Caption, plots: Sequence[Plot]) -> list[LegendItem]:
    """The series, what an open triangle is, and the dashed lines; each label once."""
    items, dashed = [LegendItem(caption.legend)], []
    for plot in plots:
        for i, series in enumerate(plot.series):
            colour, marker = theme.series(i if series.index is None else series.index)
            line = "" if series.join == ":" else series.join
            if series.reference:
                dashed.append(LegendItem(series.label, LIGHT["muted"], line="--"))
            elif any(e.value is not None for e in series.estimates):
                marker = marker if series.markers else ""
                items.append(LegendItem(series.label, colour, marker, line))
        if plot.level is not None:
            dashed.append(LegendItem(plot.level.label, LIGHT["muted"], line="--"))
    opened = [e for p in plots for series in p.series for e in series.estimates if is_open(e)]
    if any(e.at_most is None for e in opened):
        items.append(LegendItem("lies beyond", LIGHT["s2"], "^", hollow=True))
    if any(e.at_most is not None for e in opened):
        items.append(LegendItem("lies at or below", LIGHT["s2"], "v", hollow=True))
    return list({item.label: item for item in (*items, *dashed) if item.label}.values())


@dataclass(frozen=True)
class _Column:
    """A series with the name of its column; ``decimals``: of all its numbers, None as each has."""

    name: str
    plot: Plot
    series: Series
    decimals: int | None

    def words(self, value: Value, bounds: bool = True) -> str:
        """A value as a cell of the table has it; without ``bounds`` the mean alone."""
        sign = self.plot.signed
        if isinstance(value, str):
            return value
        if isinstance(value, Estimate):
            return text.with_limits(value, sign)
        if isinstance(value, (int, float)):
            if self.decimals is None or not math.isfinite(value):
                return text.number(value, sign=sign)
            value = Interval(value, None, None, 1)
        form = text.both if bounds else text.value
        return form(value, sign=sign, decimals=self.decimals)


def _columns(caption: Caption, plots: Sequence[Plot]) -> list[_Column]:
    """Every series with its name; its column's decimals where a plot wants them equal."""
    columns = []
    for plot in plots:
        means = (e.value for series in plot.measured for e in series.estimates)
        decimals = text.common_decimals(m for m in means if m is not None)
        for series in plot.measured:
            name = f"{caption.legend} {series.label}".strip()
            if len(plot.measured) == 1 and (len(plots) > 1 or not name):
                name = plot.short
            elif len(plots) > 1:
                name = f"{name}, {plot.short}"
            columns.append(_Column(name, plot, series, decimals if plot.equal_decimals else None))
    return columns


def _table(caption: Caption, plots: Sequence[Plot], axis: Axis) -> Table:
    """A row for each place or number of the axis, a column for each series, and further ones."""
    columns = _columns(caption, plots)
    head = (axis.head or axis.label, *(column.name for column in columns))
    if axis.places:
        cells = [[c.words(value) for value in c.series.values] for c in columns]
        every = zip(axis.places, *cells, *axis.columns.values(), strict=True)
        return Table((*head, *axis.columns), tuple(every))
    values = [dict(zip(c.series.places, c.series.values, strict=True)) for c in columns]
    table = [
        (text.plain(x), *(c.words(v.get(x)) for c, v in zip(columns, values, strict=True)))
        for x in sorted({x for column in values for x in column})
    ]
    levels = [c.plot.level for c in columns]
    if any(level and isinstance(level.value, Interval) for level in levels):  # it was measured too
        label = next(level.label for level in levels if level)
        given = zip(columns, levels, strict=True)
        table.append((label, *(c.words(level.value if level else None) for c, level in given)))
    return Table(head, tuple(table))


def _by_series(caption: Caption, plots: Sequence[Plot], axis: Axis) -> str:
    """First and last value of each series in words."""
    texts = []
    for column in _columns(caption, plots):
        every = zip(column.series.places, column.series.values, strict=True)
        known = [(x, value) for x, value in every if estimate_of(value).known]
        ends = [
            f"{column.words(value, bounds=False)} at {text.plain(x)} {axis.unit}".strip()
            for x, value in known[:: max(1, len(known) - 1)]
        ]
        texts.append(f"{column.name}: {', '.join(ends) or 'not known'}")
    return "; ".join(texts) + "."


def _by_place(table: Table, what: str = "") -> str:
    """Every value in words, place after place; ``what``: what a number as a place counts."""
    texts = []
    for place, *cells in table.rows:
        named = zip(table.head[1:], cells, strict=True)
        words = ", ".join(f"{head} {cell}" if len(cells) > 1 else cell for head, cell in named)
        named_place = f"{what} {place}" if what and place[:1].isdigit() else place
        texts.append(f"{named_place}: {words}")
    return "; ".join(texts) + "."


def _reading(caption: Caption, plots: Sequence[Plot]) -> str:
    """How to read the chart, and what its intervals are."""
    note = caption.intervals
    if note is None:
        values = [v for plot in plots for series in plot.measured for v in series.values]
        intervals = [v for v in values if isinstance(v, Interval)]
        estimates = [v for v in values if isinstance(v, Estimate)]
        band = any(series.band for plot in plots for series in plot.series)
        if intervals:
            note = text.interval_note(intervals, "Bands" if band else "Whiskers")
        elif any(e.low is not None or e.high is not None for e in estimates):
            note = "Whiskers are 95 % intervals over the seeds."
        else:
            note = "There are no intervals." if estimates else ""
    return f"{caption.reading} {note}".strip()
