"""One panel of a chart, drawn on a fixed grid of pixels, and its three forms.

A panel is 420 px wide, so that it is legible one to one on a phone and two fit beside each
other on a desk.  The page cuts off the margins and the title, for it has a heading of its own.
Drawing uses Matplotlib's objects only: no pyplot, no state outside the figure.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from springback.report.estimate import Estimate
from springback.report.formatting import short
from springback.report.theme import LIGHT, series, themed
from springback.results.schema import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 420
PAD = 14  # space around the panel in its own files, which the page cuts off
TITLE = 44  # height of the strip above that the page cuts off too
ROW = 19  # one line of the header: the unit, then the legend
FULL = WIDTH + 2 * PAD
FOOT = 46  # tick labels and the name of the x axis
RIGHT = 14
FONT = 12.5

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_ID_LINK = re.compile(r"url\(#([^)]*)\)")
_LONG_DECIMAL = re.compile(r"(\.\d{2})\d+")


@dataclass(frozen=True)
class Table:
    """The numbers behind a chart; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    ``name`` is its file name without the ending, ``alt`` what it shows in words for who
    cannot see it, ``reading`` how to read it.
    """

    name: str
    title: str
    alt: str
    reading: str
    table: Table
    figure: Figure


@dataclass(frozen=True)
class LegendItem:
    """One entry: line and marker; ``marker`` None draws a dashed line, "" words alone.

    ``lone`` leaves the line out, ``hollow`` the marker's inside.
    """

    label: str
    colour: str
    marker: str | None
    lone: bool = False
    hollow: bool = False


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
    above: str,
    legend: Sequence[LegendItem] = (),
    plots: Sequence[str | None] = (None,),
    plot_height: int = 190,
    left: int = 58,
    right: int = RIGHT,
) -> tuple[Figure, list[Axes]]:
    """A figure with its title, unit and legend, and one pair of axes per entry of ``plots``.

    ``above`` names the y axis in words over the first axes; the entries of ``plots`` do so
    for each (None: nothing more is written).  Heights, ``left`` and ``right`` are in pixels.
    """
    from matplotlib.figure import Figure

    rows = _legend_rows(legend)
    head = TITLE + ROW + ROW * len(rows) + 8
    gap = 34
    height = head + len(plots) * plot_height + (len(plots) - 1) * gap + FOOT + PAD
    figure = Figure(figsize=(FULL / 72, height / 72), dpi=72)
    figure.patch.set_gid("background")

    def write(x: float, y: float, text: str, **how: Any) -> None:
        figure.text((PAD + x) / FULL, 1 - y / height, text, va="top", ha="left", **how)

    write(0, PAD, short(title, 48), size=14, weight="bold", gid="title")
    write(0, TITLE, above, color=LIGHT["muted"])
    _write_legend(figure, rows, height)
    axes = []
    for i, name in enumerate(plots):
        top = head + i * (plot_height + gap)
        box = ((PAD + left) / FULL, 1 - (top + plot_height) / height)
        size = ((WIDTH - left - right) / FULL, plot_height / height)
        axes.append(figure.add_axes((*box, *size)))
        axes[-1].grid(False, axis="x")
        if name is not None:
            write(0, top - 22, name, color=LIGHT["muted"])
    return figure, axes


def _handle_width(item: LegendItem) -> float:
    return 0.0 if item.marker == "" else 18.0 if item.lone else 27.0


def _item_width(item: LegendItem) -> float:
    """Pixels: a handle, the label at the mean width of this font's letters, and a gap."""
    return _handle_width(item) + 0.6 * FONT * len(item.label) + 15


def _legend_rows(legend: Sequence[LegendItem]) -> list[list[LegendItem]]:
    rows: list[list[LegendItem]] = []
    used = float(WIDTH)
    for item in legend:
        if not rows or used + _item_width(item) > WIDTH + 15:
            rows.append([])
            used = 0.0
        rows[-1].append(item)
        used += _item_width(item)
    return rows


def _write_legend(figure: Figure, rows: Sequence[Sequence[LegendItem]], height: int) -> None:
    for i, row in enumerate(rows):
        x, y = float(PAD), 1 - (TITLE + ROW * (i + 1) + ROW / 2) / height
        for item in row:
            handle = _handle_width(item)
            if handle:
                _write_handle(figure, item, x, y)
            colour = LIGHT["ink"] if handle else LIGHT["muted"]
            figure.text((x + handle) / FULL, y, item.label, color=colour, va="center_baseline")
            x += _item_width(item)


def _write_handle(figure: Figure, item: LegendItem, x: float, y: float) -> None:
    from matplotlib.lines import Line2D

    length = 12 if item.lone else 21
    if not item.lone:
        line = Line2D([x / FULL, (x + length) / FULL], [y, y], color=item.colour, linewidth=2)
        if item.marker is None:
            line.set(linestyle="--", linewidth=1.5)
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


def number_axis(axis: Axis) -> None:
    """Few, plain numbers along an axis: no offset, no powers of ten."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    plain = ScalarFormatter(useOffset=False)
    plain.set_scientific(False)
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(plain)


def whisker(axes: Axes, place: float, value: Interval, colour: str, across: bool = False) -> None:
    """The interval as a line at ``place``: upright, or lying where ``across``; none, no line."""
    if value.bounds is None:
        return
    low, high = value.bounds
    (axes.hlines if across else axes.vlines)(place, low, high, color=colour, linewidth=2)


def open_item() -> LegendItem:
    """The legend's entry for what :func:`mark` draws where a value is left open."""
    return LegendItem("lies beyond", LIGHT["s2"], "^", lone=True, hollow=True)


def mark(axes: Axes, place: float, found: Estimate, index: int, across: bool = False) -> None:
    """A marker with its interval, upright or lying, in the colours of the series ``index``.

    A value known only to lie above a bound is an open triangle there, and a dashed line leads
    from it to the end of the axis, whose limits have to be set before.
    """
    colour, marker = series(index)
    line = axes.hlines if across else axes.vlines
    if found.value is not None:
        if found.low is not None and found.high is not None:
            line(place, found.low, found.high, color=colour, linewidth=2)
        _point(axes, place, found.value, across, color=colour, marker=marker, markersize=7.5)
    elif found.at_least is not None:
        colour = LIGHT["s2"]
        end = (axes.get_xlim() if across else axes.get_ylim())[1]
        if found.low is not None:
            line(place, found.low, found.at_least, color=colour, linewidth=2)
        line(place, found.at_least, end, color=colour, linewidth=1.5, linestyle="--")
        hollow = {"markerfacecolor": LIGHT["card"], "markeredgewidth": 1.8, "markersize": 8}
        look = ">" if across else "^"
        _point(axes, place, found.at_least, across, color=colour, marker=look, **hollow)


def _point(axes: Axes, place: float, value: float, across: bool, **look: Any) -> None:
    x, y = (value, place) if across else (place, value)
    axes.plot([x], [y], linestyle="None", **look)


def standalone_svg(chart: Chart) -> str:
    """The chart as an SVG file of its own: light, with its title, the same bytes every time."""
    with style(chart.name):
        out = io.BytesIO()
        chart.figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue().decode("utf-8")


def png(chart: Chart) -> bytes:
    """The chart as a PNG at three pixels a unit: light, with its title."""
    with style(chart.name):
        out = io.BytesIO()
        chart.figure.savefig(out, format="png", dpi=216, metadata={"Software": None})
    return out.getvalue()


def inline_svg(chart: Chart) -> str:
    """The chart as an ``<svg>`` element for a page that sets the theme's variables.

    Its title strip is cut off and its background left out, its ids begin with the chart's name
    so that no two charts of a page share one, its colours are variables, and nothing in it
    styles the page around it.
    """
    root = ET.fromstring(standalone_svg(chart))
    height = float(root.attrib["viewBox"].split()[3])
    for parent in list(root.iter()):
        for child in list(parent):
            unwanted = child.tag in (f"{_SVG}metadata", f"{_SVG}style")
            if unwanted or child.attrib.get("id") in ("title", "background"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = dict(
            _inline_attribute(chart.name, key, text) for key, text in element.attrib.items()
        )
        element.tail = None
        if element.tag != "text":
            element.text = None
    root.attrib = {
        "viewBox": f"{PAD} {TITLE - 4} {WIDTH} {height - TITLE + 4 - PAD:g}",
        "role": "img",
        "aria-label": chart.alt,
    }
    return ET.tostring(root, encoding="unicode")


def _inline_attribute(name: str, key: str, text: str) -> tuple[str, str]:
    if key == "id":
        return key, f"{name}-{text}"
    if key == _XLINK:
        return "href", text.replace("#", f"#{name}-", 1)
    if key == "style":
        text = re.sub(r"font-family: [^;]*;? ?", "", text)
        return key, themed(text)
    text = _ID_LINK.sub(rf"url(#{name}-\1)", text)
    return key, _LONG_DECIMAL.sub(r"\1", text.replace("\n", "")) if key == "d" else text
