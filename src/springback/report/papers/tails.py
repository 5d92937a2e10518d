"""``springback theory pareto``: tail exponents and the tails themselves."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import figure, text
from springback.report.components import Section, there
from springback.report.figure import Axis, Caption, Chart, Plot, Series, Table
from springback.results.schema import Interval
from springback.results.theory_schema import DataTails, TailFit

HEAD = ("data", "leaves", "alpha", "xmin", "leaves in tail", "mass in tail, %", "p", "finding")
#: Kinds of leaf whose tails one chart holds.
MOST = 6


def tails_section(data: Sequence[DataTails]) -> Section:
    charts = [exponents_chart(data), *(tail_chart(i, d) for i, d in enumerate(data, start=1))]
    notes = tuple(
        f"{d.data}, {t.leaves}: no fit ({t.reason})."
        for d in data
        for t in d.tails
        if t.fit is None
    )
    return Section("tails", "Tails", "Do leaf masses follow a Pareto law?", there(charts), notes)


def exponents_chart(data: Sequence[DataTails]) -> Chart | None:
    """Tail exponents of every kind of leaf, a marker for each data set, hollow if ruled out."""
    fitted = [(d, t, t.fit) for d in data for t in d.tails if t.fit is not None]
    names = list(dict.fromkeys(t.leaves for _, t, _ in fitted))
    cells = tuple(_tail_row(d.data, t.leaves, fit) for d, t, fit in fitted)
    return figure.rows(
        Caption(
            "theory-exponents",
            "Tail exponents",
            "Maximum likelihood; whiskers are 95 % from the curvature of the likelihood. p is the "
            "bootstrap's goodness of fit, below 0.1 rules the power law out.",
            intervals="",
        ),
        Plot(
            "power law above its threshold (hollow: ruled out or beaten)",
            [_exponents(d, names) for d in data],
        ),
        Axis("alpha", names),
        table=Table(HEAD, cells),
    )


def _exponents(data: DataTails, names: Sequence[str]) -> Series:
    fits = {t.leaves: t.fit for t in data.tails if t.fit is not None}
    values: list[Interval | None] = []
    for name in names:
        if (fit := fits.get(name)) is None:
            values.append(None)
        else:
            half = 1.96 * (fit.alpha_se or 0.0)
            values.append(Interval(fit.alpha, fit.alpha - half, fit.alpha + half))
    ruled_out = [
        i
        for i, name in enumerate(names)
        if name in fits and not fits[name].label.startswith("power law")
    ]
    return Series(text.short(data.data, 24), values, join="", hollow=ruled_out)


def _tail_row(data: str, leaves: str, fit: TailFit) -> tuple[str, ...]:
    return (
        data,
        leaves,
        text.number(fit.alpha),
        text.plain(fit.xmin),
        f"{fit.n_tail:,} of {fit.n:,}",
        text.number(100 * fit.mass_tail),
        text.number(fit.p),
        fit.label,
    )


def tail_chart(number: int, data: DataTails) -> Chart | None:
    """How many leaves occur at least so often, and the fitted power laws (dashed)."""
    tails = [
        (t.leaves, t.survival, t.fit)
        for t in data.tails
        if t.fit is not None and t.survival is not None
    ][:MOST]
    curves, slopes = [], []
    for i, (leaves, survival, fit) in enumerate(tails):
        counts = survival.count
        curves.append(Series(leaves, survival.share, counts, markers=False))
        start, end = fit.xmin, max(counts)
        first = fit.n_tail / fit.n
        ends = [first, first * (end / start) ** (1 - fit.alpha)]
        slopes.append(Series("", ends, [start, end], join="--", markers=False, index=i))
    least = min((min(survival.share) for _, survival, _ in tails), default=1.0)
    return figure.lines(
        Caption(
            f"theory-tail-{number}",
            f"Tails of {text.short(data.data, 34)}",
            "Away from the smallest counts a power law is a straight line; dashed, from its "
            "threshold on, the fitted slope.",
            alt=f"Survival curves of {text.listing(leaves for leaves, _, _ in tails)} on two "
            "logarithmic axes.",
        ),
        Plot(
            "share of leaves that occur so often or more",
            [*curves, *slopes],
            limits=(least * 0.7, 1.5),
            log=True,
        ),
        Axis("occurrences", scale="log"),
        Table(HEAD, tuple(_tail_row(data.data, leaves, fit) for leaves, _, fit in tails)),
    )
