"""``springback theory pareto``: tail exponents and the tails themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from springback.report import figure, formatting
from springback.report.components import Section, there
from springback.report.figure import Axis, Caption, Chart, Plot, Series, Table
from springback.report.values import Interval

Rows = Sequence[Mapping[str, Any]]
HEAD = ("data", "leaves", "alpha", "xmin", "leaves in tail", "mass in tail, %", "p", "finding")
#: Kinds of leaf whose tails one chart holds.
MOST = 6


def tails_section(data: Rows) -> Section:
    charts = [exponents_chart(data), *(tail_chart(i, d) for i, d in enumerate(data, start=1))]
    notes = tuple(
        f"{d['data']}, {t['leaves']}: no fit ({t['reason']})."
        for d in data
        for t in d["tails"]
        if not t["fit"]
    )
    return Section("tails", "Tails", "Do leaf masses follow a Pareto law?", there(charts), notes)


def exponents_chart(data: Rows) -> Chart | None:
    """Tail exponents of every kind of leaf, a marker for each data set, hollow if ruled out."""
    fitted = [(d, t) for d in data for t in d["tails"] if t["fit"]]
    names = list(dict.fromkeys(t["leaves"] for _, t in fitted))
    cells = tuple(_tail_row(d, t) for d, t in fitted)
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


def _exponents(data: Mapping[str, Any], names: Sequence[str]) -> Series:
    fits = {t["leaves"]: t["fit"] for t in data["tails"] if t["fit"]}
    values = []
    for name in names:
        fit = fits.get(name)
        half = 1.96 * ((fit and fit["alpha_se"]) or 0.0)
        values.append(fit and Interval(fit["alpha"], fit["alpha"] - half, fit["alpha"] + half, 1))
    ruled_out = [
        i
        for i, name in enumerate(names)
        if name in fits and not fits[name]["label"].startswith("power law")
    ]
    return Series(formatting.short(data["data"], 24), values, join="", hollow=ruled_out)


def _tail_row(data: Mapping[str, Any], tail: Mapping[str, Any]) -> tuple[str, ...]:
    fit = tail["fit"]
    return (
        data["data"],
        tail["leaves"],
        formatting.number(fit["alpha"]),
        formatting.plain(fit["xmin"]),
        f"{fit['n_tail']:,} of {fit['n']:,}",
        formatting.number(100 * fit["mass_tail"]),
        formatting.number(fit["p"]),
        fit["label"],
    )


def tail_chart(number: int, data: Mapping[str, Any]) -> Chart | None:
    """How many leaves occur at least so often, and the fitted power laws (dashed)."""
    tails = [t for t in data["tails"] if t["fit"] and t.get("survival")][:MOST]
    curves, slopes = [], []
    for i, tail in enumerate(tails):
        counts, shares, fit = tail["survival"]["count"], tail["survival"]["share"], tail["fit"]
        curves.append(Series(tail["leaves"], shares, counts, markers=False))
        start, end = fit["xmin"], max(counts)
        first = fit["n_tail"] / fit["n"]
        ends = [first, first * (end / start) ** (1 - fit["alpha"])]
        slopes.append(Series("", ends, [start, end], join="--", markers=False, index=i))
    least = min((min(t["survival"]["share"]) for t in tails), default=1.0)
    return figure.lines(
        Caption(
            f"theory-tail-{number}",
            f"Tails of {formatting.short(data['data'], 34)}",
            "Away from the smallest counts a power law is a straight line; dashed, from its "
            "threshold on, the fitted slope.",
            alt=f"Survival curves of {formatting.listing(t['leaves'] for t in tails)} on two "
            "logarithmic axes.",
        ),
        Plot(
            "share of leaves that occur so often or more",
            [*curves, *slopes],
            limits=(least * 0.7, 1.5),
            log=True,
        ),
        Axis("occurrences", scale="log"),
        Table(HEAD, tuple(_tail_row(data, t) for t in tails)),
    )
