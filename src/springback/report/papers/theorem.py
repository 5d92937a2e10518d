"""``springback theory theorem``: ratio, departures, sign, map, Huffman codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from springback.report import figure, text
from springback.report.components import Fact, Section, there
from springback.report.drawing import panel, style
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series, Table
from springback.report.theme import LIGHT
from springback.results.theory_schema import (
    Huffman,
    PremisesCell,
    Quartiles,
    Theorem,
    TheoremCell,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Cells of one table, or single draws; which of their fields vary differs.
Rows = Sequence[Any]
KEPT = "share of -k that is left"
#: What is drawn of a share; the table has the rest.
FRAME = (-1.0, 3.0)
PREMISES_FRAME = (-11.0, 11.0)
#: Whether a row lies within the theorem's premises; files from before say nothing of it.
PREMISES = {True: "inside", False: "outside", None: "–"}
OUTSIDE = (
    "The theorem's premises are three parts and l below 1/2; every other arrangement lies outside "
    "of them."
)


def theorem_facts(study: Theorem) -> tuple[Fact, ...]:
    identity = study.identity
    residue = text.number(identity.residue_at_zero)
    note = f"largest over {identity.cells:,} cells"
    difference = text.number(identity.difference)
    return (
        *_premises_facts(study.premises),
        Fact("Residue of the balance at l = 0", residue, "bits", note),
        Fact("Closed form against differences", difference, "relative", "at l = 0"),
    )


def _premises_facts(rows: Sequence[PremisesCell]) -> tuple[Fact, ...]:
    """How far the trees' ratios lie from the closed form."""
    apart = [
        abs(value / row.closed - 1)
        for row in rows
        if row.closed
        for value in (row.trees, row.differences)
        if value is not None
    ]
    if not apart:
        return ()
    note = f"largest over {text.count(len(rows), 'cell')}, every law"
    value = text.number(max(apart))
    return (Fact("Under the premises: trees against the closed form", value, "relative", note),)


def theorem_sections(study: Theorem) -> tuple[Section, ...]:
    k, l = study.at.k, study.at.l  # noqa: E741
    what = "rate2' / rate1' over -k at"
    ratio = (
        kept_chart(
            ("theory-ratio-k", "Ratio against k", f"{what} l = {l:g}; at l = 0 it is 1 for all."),
            [row for row in study.by_k if row.l],
            ("k", "k"),
        ),
        kept_chart(
            ("theory-ratio-l", "Ratio against l", f"{what} k = {k:g}."), study.by_l, ("l", "l")
        ),
    )
    escaped = [
        row for row in study.escaped if row.arrangement == "independent" and row.k in (10, 1e3, 1e6)
    ]
    reading = "l = 0, independent leaves: a mass near 1/k already undoes the ratio."
    departures = (
        collapse_chart(study.departures),
        chi2_chart(study.departures),
        kept_chart(
            ("theory-escaped", "Escaped mass", reading),
            escaped,
            ("mass", "mass of D3 on new leaves"),
        ),
    )
    maps = (sign_chart(study.map), map_chart(study.map))
    huffman = (huffman_chart(study.huffman),)
    ratio_lead = "Does D2's rate change k times as fast as D1's?"
    departures_lead = "What decides how far the theorem reaches?"
    map_lead = "For which data does the alignment set get worse?"
    premises_lead = "Are ratio and signs as the theorem states them?"
    return (
        Section("premises", "Under its premises", premises_lead, there([premises_chart(study)])),
        Section("ratio", "Ratio of the two rates", ratio_lead, there(ratio), (OUTSIDE,)),
        Section("departures", "Where it departs", departures_lead, there(departures)),
        Section("map", "Sign and map", map_lead, there(maps)),
        Section("huffman", "Huffman codes", "And with whole bits?", there(huffman)),
    )


def _median(row: TheoremCell) -> float:
    return math.nan if row.kept.median is None else row.kept.median


def _quartiles(share: Quartiles) -> str:
    middle = text.number(share.median)
    if share.median is None:
        return "–"
    return f"{middle} ({text.number(share.low)} to {text.number(share.high)})"


def _table(rows: Rows, keys: Mapping[str, str]) -> Table:
    """``keys``: of the columns that say which cell it is, with their names."""
    cells = (
        (
            *(
                value if isinstance(value, str) else text.power(value)
                for value in (getattr(r, k) for k in keys)
            ),
            PREMISES[r.premises],
            _quartiles(r.kept),
            text.number(100 * r.worse),
            "–" if r.as_stated is None else text.number(100 * r.as_stated),
        )
        for r in rows
    )
    heads = (*keys.values(), "premises", KEPT, "draws where D2 gets worse, %")
    return Table((*heads, "signs as stated, %"), tuple(cells))


def premises_chart(study: Theorem) -> Chart | None:
    """``kept`` against l at the middle k: trees of every law on one closed form."""
    rows = [r for r in study.premises if r.k == study.at.k]
    first = [r for r in rows if r.law == rows[0].law]
    # The pole at l = 1/2 is not drawn: a branch for each side of it.
    curves = [
        Series(
            "closed form",
            [_known(r.closed) for r in first if r.inside == below],
            [r.l for r in first if r.inside == below],
            join="--",
            reference=True,
        )
        for below in (True, False)
    ]
    table = tuple(
        (
            r.law,
            text.power(r.k),
            text.power(r.l),
            PREMISES[r.inside],
            text.number(r.closed),
            text.number(r.trees),
            text.number(r.differences),
            "yes" if r.as_stated else "no",
        )
        for r in study.premises
    )
    return figure.lines(
        Caption(
            "theory-premises",
            "Under the theorem's premises",
            f"k = {study.at.k:g}. D1 has three disjoint parts of one size, D2 is drawn as the "
            "second, D3 as the third. Token trees of every law lie on (1 + 3 l / k) / (1 - 2 l), "
            "whatever the masses in the parts. Past l = 1/2 D1's rate rises too: the sign flips.",
        ),
        Plot(
            KEPT,
            [
                *_series(rows, "law", "l", lambda r: _known(r.trees), scatter=True),
                *(curve for curve in curves if curve.places),
            ],
            Level(1.0),
            zero=True,
            limits=PREMISES_FRAME,
        ),
        Axis("l = |D3| / |D2|"),
        Table(
            (
                "law",
                "k",
                "l",
                "premises",
                "closed form",
                "trees",
                "finite differences",
                "signs as stated",
            ),
            table,
        ),
    )


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _series(
    rows: Rows,
    by: str,
    x: str,
    y: Callable[[Any], float],
    name: Callable[[Any], str] = str,
    scatter: bool = False,
) -> list[Series]:
    """A series for each value of ``by``."""
    groups: dict[Any, list[Any]] = {}
    for row in rows:
        groups.setdefault(getattr(row, by), []).append(row)
    return [
        Series(
            name(key),
            list(map(y, some)),
            [getattr(r, x) for r in some],
            join="" if scatter else "-",
        )
        for key, some in groups.items()
    ]


def kept_chart(caption: tuple[str, str, str], rows: Rows, x: tuple[str, str]) -> Chart | None:
    """``kept`` against k, l or escaped mass, a line for each arrangement (or k).

    ``caption``: name, title and reading; ``x``: key and name of the x axis.
    """
    name, title, reading = caption
    key, label = x
    by, name_of = ("k", _k_name) if key == "mass" else ("arrangement", str)
    return figure.lines(
        Caption(
            name,
            title,
            f"{reading} Medians; the dashed line is -k. Below 0 both rates move the same "
            "way. What lies outside the frame is in the table, with quartiles, and which rows lie "
            "within the theorem's premises.",
        ),
        Plot(
            KEPT,
            _series([r for r in rows if getattr(r, key) > 0], by, key, _median, name_of),
            Level(1.0),
            zero=True,
            limits=FRAME,
        ),
        Axis(label, scale="log"),
        _table(rows, {by: by, key: label}),
    )


def _k_name(k: float) -> str:
    return f"k = {text.power(k)}"


def collapse_chart(rows: Rows) -> Chart | None:
    """Single draws against l / b, where all of them must lie on 1 / (1 + l / b)."""
    branches = [[-4 + 0.01 * i for i in range(299)], [-0.98 + 0.01 * i for i in range(600)]]
    curves = [Series("", [1 / (1 + v) for v in b], b, reference=True) for b in branches]
    return _scatter(
        ("theory-scale", "Departure against l / b"),
        "One curve for every arrangement: 1 / (1 + l / b), with b = Cov(p2/p, p3/p) / Var(p3/p). "
        "Where b is below 0 it has a pole at l = -b: there D1's rate stands still, and beyond it "
        "both rates rise.",
        rows,
        "l_over_scale",
        curves,
        Axis("l / b", limits=(-4.0, 5.0)),
    )


def chi2_chart(rows: Rows) -> Chart | None:
    """The same draws against l chi^2 alone, where they do not lie on one curve."""
    return _scatter(
        ("theory-chi2", "Departure against l chi²"),
        "l chi²(p3 || p) alone does not say how far the theorem reaches: it has to be set against "
        "the covariance of D2 and D3.",
        rows,
        "l_chi2",
        (),
        Axis("l chi²(p3 || p)", head="l chi²", scale="log"),
    )


def _scatter(
    name: tuple[str, str], reading: str, rows: Rows, x: str, curves: Sequence[Series], axis: Axis
) -> Chart | None:
    known = [r for r in rows if getattr(r, x) is not None and r.kept is not None]
    draws = _series(known, "arrangement", x, lambda r: r.kept, scatter=True)
    cells = tuple(
        (
            r.arrangement,
            text.power(r.l),
            text.number(getattr(r, x)),
            text.number(r.kept),
        )
        for r in known
    )
    return figure.lines(
        Caption(*name, reading, alt=f"Scatter of {len(known)} draws. {reading}"),
        Plot(
            KEPT,
            [*draws, *curves],
            None if curves else Level(1.0),
            zero=True,
            limits=FRAME,
        ),
        axis,
        Table(("arrangement", "l", axis.head or axis.label, KEPT), cells),
    )


def sign_chart(rows: Rows) -> Chart | None:
    """Share of draws in which D2 gets worse, against overlap, a line for each exponent."""
    deepest = max((r.depth for r in rows), default=0)
    shown = [r for r in rows if r.depth == deepest]
    return figure.lines(
        Caption(
            "theory-sign",
            "Does D3 harm the alignment set?",
            f"Depth {deepest}, l = 0.1, k = 1000, D1 independent of both: all of it outside the "
            "theorem's premises, which settle the sign. Here D2 gets worse only where the "
            "covariance of D2 and D3 under the joint weights is below 0.",
        ),
        Plot(
            "draws in which D2's rate rises, %",
            _series(
                shown,
                "exponent",
                "overlap_set",
                lambda r: 100 * r.worse,
                lambda e: f"exponent {e:g}",
            ),
            limits=(-5.0, 105.0),
        ),
        Axis("overlap of D3 with D2 (1 = same ranks, -1 = opposite)"),
        _table(shown, {"exponent": "exponent", "overlap_set": "overlap"}),
    )


def map_chart(rows: Rows) -> Chart | None:
    """``kept`` over exponent and overlap, one plot for the least, a middle and the full depth."""
    if not rows:
        return None
    depths = sorted({r.depth for r in rows})
    depths = sorted({depths[0], depths[len(depths) // 2], depths[-1]})
    name, title = "theory-map", "How much of -k is left at l = 0.1"
    with style(name):
        first, *others = (f"depth {d}" for d in depths)
        drawing, plots = panel(title, [f"Zipf exponent; {first}", *others], plot_height=150)
        for axes, depth in zip(plots, depths, strict=True):
            _draw_map(axes, [r for r in rows if r.depth == depth])
            axes.tick_params(labelbottom=axes is plots[-1])
        plots[-1].set_xlabel("overlap of D3 with D2")
    return Chart(
        name,
        title,
        "Table of the median share of -k that is left, by exponent, overlap and depth.",
        "k = 1000; medians over draws of the trees pruned to that depth, all outside the theorem's "
        "premises. 1 = -k; below 0 (other colour) both rates move the same way.",
        _table(rows, {"exponent": "exponent", "overlap_set": "overlap", "depth": "depth"}),
        drawing,
    )


def _draw_map(axes: Axes, rows: Rows) -> None:
    """A field with its number for each cell, the darker the more is left."""
    from matplotlib.patches import Rectangle

    columns = sorted({r.overlap_set for r in rows})
    lines = sorted({r.exponent for r in rows})
    for r in rows:
        x, y = columns.index(r.overlap_set), lines.index(r.exponent)
        value = _median(r)
        if math.isnan(value):
            continue
        colour = LIGHT["bad" if value < 0 else "accent"]
        shade = min(abs(value), 1.0) * 0.5 if value >= 0 else 0.15
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, alpha=shade))
        axes.text(x, y, text.number(value, 2), ha="center", va="center", size=10.5)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(-0.5, len(lines) - 0.5)
    axes.set_xticks(range(len(columns)), [f"{c:g}" for c in columns])
    axes.set_yticks(range(len(lines)), [f"{e:g}" for e in lines])
    axes.grid(False)


def huffman_chart(huffman: Huffman) -> Chart | None:
    """Change of both rates along l, Huffman's steps beside ideal lengths."""
    codes = {"ideal": "ideal lengths", "huffman": "Huffman"}
    low, high = (text.number(bound) for bound in huffman.redundancy)
    reading = (
        f"{huffman.codes} different codes along l at k = {huffman.k:g}. Between them the "
        "lengths, and so the rates, stand still. The mean length of the joint tree lies "
        f"{low} to {high} bits above its entropy; the bound is 1."
    )
    plots = [
        Plot(
            f"change of D{i + 1}'s rate, 0.001 bits a symbol",
            [_huffman_series(huffman, code, label, i) for code, label in codes.items()],
            name=f"D{i + 1}",
        )
        for i in range(2)
    ]
    rows = tuple(
        (label, text.number(getattr(huffman.secant, code))) for code, label in codes.items()
    )
    return figure.lines(
        Caption("theory-huffman", "Huffman codes move in steps", reading),
        plots,
        Axis("l = |D3| / |D2|"),
        Table(("code", f"{KEPT}, over the whole range"), rows),
    )


def _huffman_series(huffman: Huffman, code: str, label: str, which: int) -> Series:
    """Change of the rate of D1 or D2 since l = 0, thousandths of a bit."""
    rates = getattr(huffman, code)[which]
    changes = [1000 * (rate - rates[0]) for rate in rates]
    return Series(label, changes, huffman.l, markers=False, steps=code == "huffman")
