"""Charts of ``springback theory theorem``: ratio, departures, sign, map, Huffman codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from springback.report import formatting
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style
from springback.report.theme import LIGHT, series
from springback.results.theory_schema import Huffman, Quartiles, TheoremCell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Cells of one table, or single draws; which of their keys vary differs.
Rows = Sequence[Any]
KEPT = "share of -k that is left"
#: What is drawn of a share; the table has the rest.
FRAME = (-1.0, 3.0)


def _middle(row: TheoremCell) -> float:
    return math.nan if row.kept.median is None else row.kept.median


def _cell(found: Quartiles) -> str:
    text = formatting.number(found.median)
    if found.median is None:
        return "–"
    return f"{text} ({formatting.number(found.low)} to {formatting.number(found.high)})"


def power(value: float) -> str:
    """1000 as "1e3": short enough for a tick."""
    return (
        formatting.plain(value)
        if 0.01 <= value < 1000
        else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    )


def log_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis with a tick at every power of ten within ``values``."""
    from matplotlib.ticker import NullFormatter, NullLocator

    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    every = -(-(high - low) // 6) or 1
    ticks = [10.0**p for p in range(low, high + 1, every)]
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(ticks, [power(t) for t in ticks])


def _groups(rows: Rows, key: str) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for row in rows:
        found.setdefault(getattr(row, key), []).append(row)
    return found


def _table(rows: Rows, keys: Sequence[str], head: Sequence[str]) -> Table:
    return Table(
        (*head, KEPT, "draws where D2 gets worse, %"),
        tuple(
            (
                *(v if isinstance(v, str) else power(v) for v in (getattr(r, k) for k in keys)),
                _cell(r.kept),
                formatting.number(100 * r.worse),
            )
            for r in rows
        ),
    )


def _lines(axes: Axes, groups: Mapping[Any, Rows], x: str, y: Callable[[Any], float]) -> None:
    for i, rows in enumerate(groups.values()):
        colour, marker = series(i)
        axes.plot(
            [getattr(r, x) for r in rows], [y(r) for r in rows], color=colour, marker=marker, lw=1.8
        )


def legend(names: Sequence[str], lone: bool = False) -> list[LegendItem]:
    return [LegendItem(name, *series(i), lone=lone) for i, name in enumerate(names)]


def _framed(axes: Axes, level: float | None = 1.0) -> None:
    axes.set_ylim(*FRAME)
    if level is not None:
        axes.axhline(level, color=LIGHT["muted"], linestyle="--", linewidth=1.2)
    axes.axhline(0, color=LIGHT["axis"], linewidth=1)
    number_axis(axes.yaxis)


def kept_chart(name: str, rows: Rows, x: str, words_of: tuple[str, str, str]) -> Chart | None:
    """``kept`` against k, l or escaped mass, a line for each arrangement (or k).

    ``words_of``: title, name of the x axis, how to read it.
    """
    shown = [r for r in rows if getattr(r, x) > 0]
    if not shown:
        return None
    title, label, reading = words_of
    by = "k" if x == "mass" else "arrangement"
    groups = _groups(shown, by)
    names = [f"k = {power(g)}" if by == "k" else str(g) for g in groups]
    with style(name):
        figure, (axes,) = panel(title, KEPT, legend(names), plot_height=220)
        log_axis(axes, [getattr(r, x) for r in shown])
        _lines(axes, groups, x, _middle)
        _framed(axes)
        axes.set_xlabel(label)
    return Chart(
        name,
        title,
        f"Line chart of the share of the ratio -k that is left, against {label}. "
        + " ".join(
            f"{names[i]}: {formatting.number(_middle(g[0]))} to "
            f"{formatting.number(_middle(g[-1]))}."
            for i, g in enumerate(groups.values())
        ),
        reading + " Medians; the dashed line is the theorem. Below 0 both rates move the same "
        "way. What lies outside the frame is in the table, with quartiles.",
        _table(rows, (by, x), (by, label)),
        figure,
    )


def collapse_chart(rows: Rows) -> Chart | None:
    """Single draws against l / b, where all of them must lie on 1 / (1 + l / b)."""
    return _points(
        "theory-scale",
        rows,
        "l_over_scale",
        "Departure against l / b",
        "One curve for every arrangement: 1 / (1 + l / b), with b = Cov(p2/p, p3/p) / Var(p3/p). "
        "Where b is below 0 it has a pole at l = -b: there D1's rate stands still, and beyond it "
        "both rates rise.",
    )


def chi2_chart(rows: Rows) -> Chart | None:
    """The same draws against l chi^2 alone, where they do not lie on one curve."""
    return _points(
        "theory-chi2",
        rows,
        "l_chi2",
        "Departure against l chi²",
        "l chi²(p3 || p) alone does not say how far the theorem reaches: it has to be set against "
        "the covariance of D2 and D3.",
    )


def _points(name: str, rows: Rows, x: str, title: str, reading: str) -> Chart | None:
    known = [r for r in rows if getattr(r, x) is not None and r.kept is not None]
    if not known:
        return None
    groups = _groups(known, "arrangement")
    with style(name):
        figure, (axes,) = panel(title, KEPT, legend(list(groups), lone=True), plot_height=220)
        if x == "l_over_scale":
            for part in (
                [-4 + 0.01 * i for i in range(299)],
                [-0.98 + 0.01 * i for i in range(600)],
            ):
                axes.plot(part, [1 / (1 + v) for v in part], color=LIGHT["muted"], lw=1.2)
            axes.set_xlim(-4, 5)
            number_axis(axes.xaxis)
        else:
            log_axis(axes, [getattr(r, x) for r in known])
        for i, group in enumerate(groups.values()):
            colour, marker = series(i)
            axes.plot(
                [getattr(r, x) for r in group], [r.kept for r in group], marker, color=colour, ms=4
            )
        _framed(axes, None if x == "l_over_scale" else 1.0)
        axes.set_xlabel("l / b" if x == "l_over_scale" else "l chi²(p3 || p)")
    head = ("arrangement", "l", "l / b" if x == "l_over_scale" else "l chi²", KEPT)
    cells = tuple(
        (r.arrangement, power(r.l), formatting.number(getattr(r, x)), formatting.number(r.kept))
        for r in known
    )
    return Chart(
        name,
        title,
        f"Scatter of {len(known)} draws. {reading}",
        reading,
        Table(head, cells),
        figure,
    )


def sign_chart(rows: Rows) -> Chart | None:
    """Share of draws in which D2 gets worse, against overlap, a line for each exponent."""
    if not rows:
        return None
    deepest = max(r.depth for r in rows)
    shown = [r for r in rows if r.depth == deepest]
    groups = _groups(shown, "exponent")
    name, title = "theory-sign", "Does D3 harm the alignment set?"
    with style(name):
        figure, (axes,) = panel(
            title, "draws in which D2's rate rises, %", legend([f"exponent {e:g}" for e in groups])
        )
        _lines(axes, groups, "overlap_set", lambda r: 100 * float(r.worse))
        axes.set_ylim(-5, 105)
        number_axis(axes.yaxis)
        number_axis(axes.xaxis)
        axes.set_xlabel("overlap of D3 with D2 (1 = same ranks, -1 = opposite)")
    return Chart(
        name,
        title,
        "Line chart of the share of draws in which D2 is compressed worse, against overlap.",
        f"Depth {deepest}, l = 0.1, k = 1000. The theorem tells the ratio, not the sign: D2 gets "
        "worse only where the covariance of D2 and D3 under the joint weights is below 0.",
        _table(shown, ("exponent", "overlap_set"), ("exponent", "overlap")),
        figure,
    )


def map_chart(rows: Rows) -> Chart | None:
    """``kept`` over exponent and overlap, one plot for the least, a middle and the full depth."""
    if not rows:
        return None
    depths = sorted({r.depth for r in rows})
    depths = sorted({depths[0], depths[len(depths) // 2], depths[-1]})
    name, title = "theory-map", "How much of -k is left at l = 0.1"
    with style(name):
        figure, plots = panel(
            title,
            f"Zipf exponent; depth {depths[0]}",
            (),
            (None, *(f"depth {d}" for d in depths[1:])),
            150,
        )
        for axes, depth in zip(plots, depths, strict=True):
            _heat(axes, [r for r in rows if r.depth == depth])
        for axes in plots[:-1]:
            axes.tick_params(labelbottom=False)
        plots[-1].set_xlabel("overlap of D3 with D2")
    return Chart(
        name,
        title,
        "Table of the median share of -k that is left, by exponent, overlap and depth.",
        "k = 1000; medians over draws of the trees pruned to that depth. 1 = the theorem holds; "
        "below 0 (other colour) both rates move the same way.",
        _table(rows, ("exponent", "overlap_set", "depth"), ("exponent", "overlap", "depth")),
        figure,
    )


def _heat(axes: Axes, rows: Rows) -> None:
    from matplotlib.patches import Rectangle

    columns = sorted({r.overlap_set for r in rows})
    lines = sorted({r.exponent for r in rows})
    for r in rows:
        x, y = columns.index(r.overlap_set), lines.index(r.exponent)
        value = _middle(r)
        if math.isnan(value):
            continue
        colour = LIGHT["bad" if value < 0 else "accent"]
        shade = min(abs(value), 1.0) * 0.5 if value >= 0 else 0.15
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, alpha=shade))
        axes.text(x, y, formatting.number(value, 2), ha="center", va="center", size=10.5)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(-0.5, len(lines) - 0.5)
    axes.set_xticks(range(len(columns)), [f"{c:g}" for c in columns])
    axes.set_yticks(range(len(lines)), [f"{e:g}" for e in lines])
    axes.grid(False)


def huffman_chart(found: Huffman) -> Chart:
    """Change of both rates along l, Huffman's steps beside ideal lengths."""
    name, title = "theory-huffman", "Huffman codes move in steps"
    names = ("ideal lengths", "Huffman")
    with style(name):
        figure, plots = panel(
            title,
            "change of D1's rate, 0.001 bits a symbol",
            legend(names),
            (None, "change of D2's rate, 0.001 bits a symbol"),
            150,
        )
        for i, axes in enumerate(plots):
            for kind, key in enumerate(("ideal", "huffman")):
                rates = getattr(found, key)[i]
                values = [1000 * (v - rates[0]) for v in rates]
                how = "default" if key == "ideal" else "steps-post"
                axes.plot(found.l, values, color=series(kind)[0], lw=1.8, drawstyle=how)
            number_axis(axes.yaxis)
        plots[0].tick_params(labelbottom=False)
        number_axis(plots[-1].xaxis)
        plots[-1].set_xlabel("l = |D3| / |D2|")
    low, high = found.redundancy
    rows = tuple(
        (names[i], formatting.number(getattr(found.secant, key)))
        for i, key in enumerate(("ideal", "huffman"))
    )
    reading = (
        f"{found.codes} different codes along l at k = {found.k:g}. Between them the "
        "lengths, and so the rates, stand still. The mean length of the joint tree lies "
        f"{formatting.number(low)} to {formatting.number(high)} bits above its entropy; "
        "the bound is 1."
    )
    return Chart(
        name,
        title,
        f"Step chart. {reading}",
        reading,
        Table(("code", f"{KEPT}, over the whole range"), rows),
        figure,
    )
