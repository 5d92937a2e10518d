"""Charts of ``springback theory pareto``: tail exponents and the tails themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style, whisker
from springback.report.papers.theorem import legend, log_axis, power
from springback.report.theme import LIGHT, series
from springback.results.schema import Interval
from springback.results.theory_schema import DataTails, Tail, TailFit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD = ("data", "leaves", "alpha", "xmin", "leaves in tail", "mass in tail, %", "p", "finding")


def exponents_chart(data: Sequence[DataTails]) -> Chart | None:
    """Tail exponents of every kind of leaf, a marker for each data set, hollow if ruled out."""
    known = [(i, t, t.fit) for i, d in enumerate(data) for t in d.tails if t.fit is not None]
    if not known:
        return None
    names = list(dict.fromkeys(t.leaves for _, t, _ in known))
    name, title = "theory-exponents", "Tail exponents"
    with style(name):
        figure, (axes,) = panel(
            title,
            "alpha of the power law above its threshold",
            [
                *legend([formatting.short(d.data, 24) for d in data], lone=True),
                LegendItem("hollow: ruled out, or a rival fits better", LIGHT["ink"], ""),
            ],
            plot_height=28 * len(names) + 24,
            left=112,
        )
        for i, tail, fit in known:
            colour, marker = series(i)
            place = names.index(tail.leaves) + 0.22 * (i - (len(data) - 1) / 2)
            half = 1.96 * (fit.alpha_se or 0.0)
            bounds = Interval(fit.alpha, fit.alpha - half, fit.alpha + half, 1)
            whisker(axes, place, bounds, colour, across=True)
            inside = colour if fit.label.startswith("power law") else LIGHT["card"]
            axes.plot([fit.alpha], [place], marker, color=colour, mfc=inside, ms=6.5, mew=1.6)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        number_axis(axes.xaxis)
        axes.set_xlabel("alpha")
    cells = tuple(_tail_row(data[i], t, fit) for i, t, fit in known)
    return Chart(
        name,
        title,
        "Dot chart of tail exponents. " + "; ".join(f"{r[0]}, {r[1]}: {r[2]}" for r in cells) + ".",
        "Maximum likelihood; whiskers are 95 % from the curvature of the likelihood. p is the "
        "bootstrap's goodness of fit, below 0.1 rules the power law out.",
        Table(HEAD, cells),
        figure,
    )


def _tail_row(data: DataTails, tail: Tail, fit: TailFit) -> tuple[str, ...]:
    p = "–" if fit.p is None else formatting.number(fit.p)
    counts = formatting.plain(fit.xmin), f"{fit.n_tail:,} of {fit.n:,}"
    mass = formatting.number(100 * fit.mass_tail)
    return (
        data.data,
        tail.leaves,
        formatting.number(fit.alpha),
        *counts,
        mass,
        p,
        fit.label,
    )


def tail_chart(place: int, data: DataTails) -> Chart | None:
    """How many leaves occur at least so often, and the fitted power laws (dashed)."""
    known = [
        (t, t.fit, t.survival) for t in data.tails if t.fit is not None and t.survival is not None
    ][:6]
    if not known:
        return None
    name, title = f"theory-tail-{place}", f"Tails of {formatting.short(data.data, 34)}"
    with style(name):
        figure, (axes,) = panel(
            title,
            "share of leaves that occur so often or more",
            legend([t.leaves for t, _, _ in known]),
            plot_height=230,
        )
        for i, (_, fit, curve) in enumerate(known):
            colour, _ = series(i)
            axes.plot(curve.count, curve.share, color=colour, lw=1.8)
            start, end = fit.xmin, max(curve.count)
            share = fit.n_tail / fit.n
            slope = 1 - fit.alpha
            axes.plot(
                [start, end], [share, share * (end / start) ** slope], color=colour, ls="--", lw=1.2
            )
        log_axis(axes, [c for *_, curve in known for c in curve.count])
        _log_shares(axes, min(min(curve.share) for *_, curve in known))
        axes.set_xlabel("occurrences")
    return Chart(
        name,
        title,
        f"Survival curves of {formatting.listing(t.leaves for t, *_ in known)} on two "
        "logarithmic axes.",
        "Away from the smallest counts a power law is a straight line; dashed, from its threshold "
        "on, the fitted slope.",
        Table(
            (
                "data",
                "leaves",
                "alpha",
                "xmin",
                "leaves in tail",
                "mass in tail, %",
                "p",
                "finding",
            ),
            tuple(_tail_row(data, t, fit) for t, fit, _ in known),
        ),
        figure,
    )


def _log_shares(axes: Axes, least: float) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    powers = range(math.floor(math.log10(least)), 1)
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    ticks = [10.0**p for p in powers]
    axes.set_yticks(ticks, [power(t) for t in ticks])
    axes.set_ylim(least * 0.7, 1.5)
