"""The panel that a chart is drawn in, on a fixed grid of pixels, and what is drawn in it.

A panel is 420 px wide, so that it is legible one to one on a phone and two fit beside each
other on a desk.  The page cuts off the margins and the title, for it has a heading of its own.
Drawing uses Matplotlib's objects only: no pyplot, no state outside the figure.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from springback.report import text, theme
from springback.report.estimate import Estimate
from springback.report.series import Axis, Join, Plot, Series, is_open
from springback.report.theme import LIGHT
from springback.results.schema import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis as Scale
    from matplotlib.figure import Figure

WIDTH = 420
PAD = 14  # space around the panel in its own files, which the page cuts off
TITLE = 44  # height of the strip above that the page cuts off too
ROW = 19  # one line of the header: the unit, then the legend
FULL = WIDTH + 2 * PAD
FOOT = 46  # tick labels and the name of the x axis
FONT = 12.5
#: More places than this are not all named along the axis.
MANY = 9
#: Markers of a series of more than these are small.
MANY_POINTS = 40


@dataclass(frozen=True)
class LegendItem:
    """One entry: a line ("-", "--" or none) and a marker before its label; neither: words alone.

    ``hollow`` leaves the marker's inside out.
    """

    label: str
    colour: str = ""
    marker: str = ""
    line: Join = ""
    hollow: bool = False

    @property
    def handle(self) -> float:
        """Pixels that line and marker take."""
        return 27.0 if self.line else 18.0 if self.marker else 0.0

    @property
    def width(self) -> float:
        """Pixels: a handle, the label at the mean width of this font's letters, and a gap."""
        return self.handle + 0.6 * FONT * len(self.label) + 15


@contextlib.contextmanager
def style(salt: str) -> Iterator[None]:
    """Matplotlib's own defaults, whatever the user's matplotlibrc says, and our few changes."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        # A name in a script that the bundled font lacks: the SVG carries it as text all the same.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": salt,
                "text.parse_math": False,
                "font.size": FONT,
                "text.color": LIGHT["ink"],
                "axes.labelcolor": LIGHT["muted"],
                "axes.edgecolor": LIGHT["axis"],
                "axes.linewidth": 1.0,
                "axes.facecolor": "none",
                "figure.facecolor": LIGHT["card"],
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": LIGHT["grid"],
                "grid.linewidth": 1.0,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.spines.left": False,
                "xtick.color": LIGHT["axis"],
                "ytick.color": LIGHT["axis"],
                "xtick.labelcolor": LIGHT["muted"],
                "ytick.labelcolor": LIGHT["muted"],
                "xtick.major.size": 4.0,
                "ytick.major.size": 0.0,
                "xtick.minor.size": 0.0,
                "ytick.major.pad": 6.0,
                "axes.labelsize": FONT,
                "xtick.labelsize": FONT,
                "ytick.labelsize": FONT,
            }
        )
        yield


def panel(
    title: str,
    above: Sequence[str],
    legend: Sequence[LegendItem] = (),
    plot_height: int = 190,
    left: int = 58,
    right: int = 14,
) -> tuple[Figure, list[Axes]]:
    """A figure with its title and legend, and one pair of axes for each entry of ``above``.

    ``above`` says in words over each of them what its y axis shows; the legend stands below the
    first.  Heights, ``left`` and ``right`` are in pixels.
    """
    from matplotlib.figure import Figure

    rows = _legend_rows(legend)
    head = TITLE + ROW + ROW * len(rows) + 8
    gap = 34
    height = head + len(above) * plot_height + (len(above) - 1) * gap + FOOT + PAD
    figure = Figure(figsize=(FULL / 72, height / 72), dpi=72)
    figure.patch.set_gid("background")

    def write(y: float, line: str, **how: Any) -> None:
        figure.text(PAD / FULL, 1 - y / height, line, va="top", ha="left", **how)

    write(PAD, text.short(title, 48), size=14, weight="bold", gid="title")
    _write_legend(figure, rows, height)
    axes = []
    for i, line in enumerate(above):
        top = head + i * (plot_height + gap)
        write(top - 22 if i else TITLE, text.short(line, 62), color=LIGHT["muted"])
        box = ((PAD + left) / FULL, 1 - (top + plot_height) / height)
        size = ((WIDTH - left - right) / FULL, plot_height / height)
        axes.append(figure.add_axes((*box, *size)))
        axes[-1].grid(False, axis="x")
    return figure, axes


def _legend_rows(legend: Sequence[LegendItem]) -> list[list[LegendItem]]:
    rows: list[list[LegendItem]] = []
    used = float(WIDTH)
    for item in legend:
        if not rows or used + item.width > WIDTH + 15:
            rows.append([])
            used = 0.0
        rows[-1].append(item)
        used += item.width
    return rows


def _write_legend(figure: Figure, rows: Sequence[Sequence[LegendItem]], height: int) -> None:
    for i, row in enumerate(rows):
        x, y = float(PAD), 1 - (TITLE + ROW * (i + 1) + ROW / 2) / height
        for item in row:
            _write_handle(figure, item, x, y)
            colour = LIGHT["ink"] if item.handle else LIGHT["muted"]
            place = (x + item.handle) / FULL
            figure.text(place, y, item.label, color=colour, va="center_baseline")
            x += item.width


def _write_handle(figure: Figure, item: LegendItem, x: float, y: float) -> None:
    from matplotlib.lines import Line2D

    length = 21 if item.line else 12
    if item.line:
        ends = [x / FULL, (x + length) / FULL]
        width = 2 if item.line == "-" else 1.5
        line = Line2D(ends, [y, y], color=item.colour, linestyle=item.line, linewidth=width)
        figure.add_artist(line)
    if item.marker:
        figure.add_artist(
            Line2D(
                [(x + length / 2) / FULL],
                [y],
                color=item.colour,
                marker=item.marker,
                markersize=6.5,
                markeredgewidth=1.6 if item.hollow else 1.0,
                markerfacecolor=LIGHT["card"] if item.hollow else item.colour,
            )
        )


def number_axis(axis: Scale) -> None:
    """Few, plain numbers along an axis: no offset, no powers of ten."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    plain = ScalarFormatter(useOffset=False)
    plain.set_scientific(False)
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(plain)


def power_axis(axis: Scale, low: float, high: float) -> None:
    """At most seven ticks at powers of ten from ``low`` to ``high`` on a logarithmic axis."""
    from matplotlib.ticker import NullFormatter, NullLocator

    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    ticks = [10.0**p for p in range(first, last + 1, -(-(last - first) // 6) or 1)]
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_ticks(ticks, [text.power(tick) for tick in ticks])


def dose_axis(axes: Axes, doses: Sequence[float]) -> None:
    """Doses by their logarithm with 0 one step to the left, each labelled where there is room."""
    positive = [d for d in doses if d > 0]
    if not positive:
        return
    axes.set_xscale("symlog", linthresh=positive[0], linscale=1.0, base=2)
    axes.set_xlim(left=-positive[0] * 0.35 if 0 in doses else None)
    shown = list(doses)[::-1][:: -(-len(doses) // 8)][::-1]
    axes.set_xticks(shown, [text.plain(d) for d in shown])
    axes.minorticks_off()


def draw_plot(axes: Axes, plot: Plot, axis: Axis) -> None:
    """Everything of one plot.  Limits come first: what is left open is drawn to the end of them."""
    if plot.log:
        axes.set_yscale("log")
    axes.set_ylim(*plot.extent())
    if plot.zero:
        axes.axhline(0, color=LIGHT["axis"], linewidth=1.2)
    if plot.level is not None:
        axes.axhline(plot.level.mean, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
    usual = min(0.24, 0.7 / len(plot.series)) if axis.places else 0.0
    step = usual if axis.dodge is None else axis.dodge
    for i, series in enumerate(plot.series):
        shift = step * (i - (len(plot.series) - 1) / 2)
        log = axis.scale == "log"
        places = [x * (1 + step) ** i if log else x + shift for x in series.places]
        _draw_series(axes, series, i, series.places if series.reference else places)
    if plot.log:
        power_axis(axes.yaxis, *plot.extent())
    else:
        number_axis(axes.yaxis)
    _scale_along(axes, axis, [x for series in plot.series for x in series.places])


def draw_rows(axes: Axes, plot: Plot, axis: Axis) -> None:
    """The places of ``axis`` one below the other, each below its name, values along the x axis."""
    axes.set_xlim(*plot.extent(edge=False))
    axes.set_ylim(len(axis.places) - 0.4, -0.6)
    axes.set_yticks([])
    axes.grid(True, axis="x")
    number_axis(axes.xaxis)
    axes.set_xlabel(axis.label)
    for row, (name, value) in enumerate(zip(axis.names, plot.series[0].values, strict=True)):
        if plot.level is not None:  # beside the values only, so that it crosses no name
            ends = (row - 0.04, row + 0.36)
            axes.vlines(plot.level.mean, *ends, colors=LIGHT["muted"], linestyles="--", lw=1.5)
        missing = isinstance(value, str)
        axes.text(
            0.0,
            row - 0.24,
            text.middle(f"{name}: {value}" if missing else name, 48),
            transform=axes.get_yaxis_transform(),
            va="center",
            color=LIGHT["muted" if missing else "ink"],
        )
    step = min(0.2, 0.4 / len(plot.series))
    for i, series in enumerate(plot.series):
        shift = 0.16 + step * (i - (len(plot.series) - 1) / 2)
        _draw_series(axes, series, i, [row + shift for row in series.places], across=True)


def _scale_along(axes: Axes, axis: Axis, places: Sequence[float]) -> None:
    """Scale, ticks and limits of the x axis."""
    if axis.places:
        shown = range(0, len(axis.places), -(-len(axis.places) // MANY))
        axes.set_xticks(shown, [axis.names[i] for i in shown])
        axes.set_xlim(-0.5, len(axis.places) - 0.5)
    elif axis.scale == "doses":
        dose_axis(axes, sorted(set(places)))
    elif axis.scale == "log":
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        if high < 100 * low:  # two powers of ten at least
            low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
        power_axis(axes.xaxis, low, high)
        axes.set_xlim(low, high)
    else:
        number_axis(axes.xaxis)
    if axis.limits is not None:
        axes.set_xlim(*axis.limits)


def _draw_series(
    axes: Axes, series: Series, number: int, places: Sequence[float], across: bool = False
) -> None:
    """Line, intervals and markers of a series at ``places``; ``across``: values along x."""
    colour, marker = theme.series(number if series.index is None else series.index)
    if series.reference:
        colour, marker = LIGHT["muted"], ""
    means = [math.nan if e.value is None else e.value for e in series.estimates]
    _draw_intervals(axes, series, places, colour, across)
    if series.join:
        width = 2.0 if series.join == "-" and not series.reference else 1.3
        how = "steps-post" if series.steps else "default"
        _plot(axes, places, means, across, c=colour, ls=series.join, lw=width, drawstyle=how)
    size = 6.5 if len(places) <= MANY_POINTS else 4.0
    for hollow in (False, True) if series.markers and marker else ():
        some = [
            i for i, m in enumerate(means) if not math.isnan(m) and (i in series.hollow) is hollow
        ]
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": size, "ls": ""}
        look |= {"markerfacecolor": LIGHT["card"], "markeredgewidth": 1.7} if hollow else {}
        _plot(axes, [places[i] for i in some], [means[i] for i in some], across, **look)
    for name, place, mean in zip(series.names, places, means, strict=False):
        axes.annotate(name, (place, mean), xytext=(6, 5), textcoords="offset points")
    for place, estimate in zip(places, series.estimates, strict=True):
        if is_open(estimate):
            _draw_open(axes, place, estimate, across)


def _draw_intervals(
    axes: Axes, series: Series, places: Sequence[float], colour: str, across: bool
) -> None:
    """A band or whiskers where both ends are known; of a place that is an interval too."""
    whisker = axes.hlines if across else axes.vlines
    lows, highs = [math.nan] * len(places), [math.nan] * len(places)
    for i, e in enumerate(series.estimates):
        if e.value is not None and e.low is not None and e.high is not None:
            lows[i], highs[i] = e.low, e.high
            if not series.band:
                whisker(places[i], e.low, e.high, colors=colour, linewidth=2)
        x = series.x[i] if series.x else None
        if isinstance(x, Interval) and x.bounds is not None and e.value is not None:
            axes.hlines(e.value, *x.bounds, colors=colour, linewidth=2)
    if series.band and not all(map(math.isnan, lows)):
        axes.fill_between(places, lows, highs, color=colour, alpha=series.band, linewidth=0)


def _draw_open(axes: Axes, place: float, estimate: Estimate, across: bool) -> None:
    """A value that lies beyond a bound: a triangle there, and a dashed line to the axis's end.

    Between two bounds the line ends at the upper one, and so does the triangle, which points back.
    """
    bound, colour = estimate.at_least or 0.0, LIGHT["s2"]
    line = axes.hlines if across else axes.vlines
    if estimate.low is not None:
        line(place, estimate.low, bound, colors=colour, linewidth=2)
    end = estimate.at_most
    if end is None:
        end = (axes.get_xlim() if across else axes.get_ylim())[1]
    line(place, bound, end, colors=colour, linewidth=1.5, linestyles="--")
    marker = (">" if across else "^") if estimate.at_most is None else ("<" if across else "v")
    look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 8}
    look |= {"markerfacecolor": LIGHT["card"], "markeredgewidth": 1.8}
    _plot(axes, [place], [bound if estimate.at_most is None else end], across, **look)


def _plot(
    axes: Axes, places: Sequence[float], values: Sequence[float], across: bool, **look: Any
) -> None:
    axes.plot(*((values, places) if across else (places, values)), **look)
