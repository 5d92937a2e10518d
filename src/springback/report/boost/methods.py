"""Charts of a boost: the search for mu and lambda, and the methods against the fine-tuned model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style, whisker
from springback.report.theme import LIGHT, series
from springback.results.boost_schema import Candidate, Method
from springback.results.schema import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Per search: symbol, title, what is tried.
SEARCHES = {
    "mu": ("mu", "Search for mu", "how far the weights are extrapolated past the last checkpoint"),
    "lambda": (
        "lambda",
        "Search for lambda",
        "how strongly the extrapolated model is set off against the fine-tuned one, mu being fixed",
    ),
    "cd_lambda": (
        "lambda",
        "Search for lambda without extrapolation",
        "how strongly the fine-tuned model is set off against the early one (CD only)",
    ),
    "lambda_early": (
        "lambda",
        "Search for lambda, weak model early",
        "how strongly the extrapolated model is set off against the early one",
    ),
    "lambda_init": (
        "lambda",
        "Search for lambda, weak model init",
        "how strongly the extrapolated model is set off against the one before fine-tuning",
    ),
    "lambda_other": (
        "lambda",
        "Search for lambda, another weak model",
        "how strongly the extrapolated model is set off against the other one",
    ),
    "lambda_gated": (
        "lambda",
        "Search for lambda, gated",
        "as for EpiCoDe, but only where the extrapolated model is uncertain",
    ),
}


def search_chart(key: str, candidates: Sequence[Candidate]) -> Chart | None:
    """Accuracy over NLL on the validation set for each candidate, the chosen one marked."""
    symbol, title, tried = SEARCHES[key]
    measures: list[tuple[str, str, Callable[[Candidate], Interval | None], float]] = [
        ("accuracy", "accuracy, % (higher = better)", lambda c: c.accuracy, 100.0),
        (
            "NLL",
            "NLL of the reference solutions, nats/token (lower = better)",
            lambda c: c.nll,
            1.0,
        ),
    ]
    shown = [m for m in measures if any(m[2](c) for c in candidates)]
    if not shown:
        return None
    chosen = [i for i, c in enumerate(candidates) if c.chosen]
    name = f"search-{key.replace('_', '-')}"
    first, *others = [m[1] for m in shown]
    legend = [LegendItem("chosen", *series(1), lone=True)] if chosen else []
    with style(name):
        figure, axes = panel(title, first, legend, (None, *others), plot_height=128)
        for i, (_, _, read, scale) in enumerate(shown):
            _draw_candidates(axes[i], [read(c) for c in candidates], chosen, scale)
            _candidate_axis(axes[i], candidates)
            number_axis(axes[i].yaxis)
            if i < len(shown) - 1:
                axes[i].tick_params(labelbottom=False)
        axes[-1].set_xlabel(symbol)
    picks = formatting.listing(formatting.plain(candidates[i].value) for i in chosen) or "none"
    rows = tuple(
        (
            formatting.plain(c.value) + (" (chosen)" if c.chosen else ""),
            *(formatting.both(read(c), scale) for _, _, read, scale in shown),
        )
        for c in candidates
    )
    return Chart(
        name,
        title,
        f"Dot chart of {formatting.listing(m[0] for m in shown)} on the validation set against "
        f"{symbol}. "
        + "; ".join(
            f"{symbol} {formatting.plain(c.value)}: "
            + ", ".join(f"{n} {formatting.value(read(c), s)}" for n, _, read, s in shown)
            for c in candidates
        )
        + f". Chosen: {picks}.",
        f"Here {symbol} is {tried}. "
        + formatting.interval_note(
            (read(c) for _, _, read, _ in shown for c in candidates), "Whiskers"
        ),
        Table((symbol, *(m[1].split(" (")[0] for m in shown)), rows),
        figure,
    )


def _draw_candidates(
    axes: Axes, values: Sequence[Interval | None], chosen: Sequence[int], scale: float
) -> None:
    plain, _ = series(0)
    picked, square = series(1)
    means = [math.nan if v is None else v.mean * scale for v in values]
    axes.plot(range(len(values)), means, color=plain, linewidth=1.2, linestyle=":")
    for i, value in enumerate(values):
        if value is None:
            continue
        colour = picked if i in chosen else plain
        whisker(axes, i, value.scaled(scale), colour)
        axes.plot(
            [i],
            [value.mean * scale],
            color=colour,
            marker=square if i in chosen else "o",
            markersize=8 if i in chosen else 6.5,
            markerfacecolor=colour if i in chosen else LIGHT["card"],
            markeredgewidth=1.8,
        )
    axes.margins(y=0.15)


def _candidate_axis(axes: Axes, candidates: Sequence[Candidate]) -> None:
    every = -(-len(candidates) // 9)
    shown = range(0, len(candidates), every)
    axes.set_xticks(shown, [formatting.plain(candidates[i].value) for i in shown])
    axes.set_xlim(-0.5, len(candidates) - 0.5)


def methods_chart(methods: Sequence[Method], name: str = "methods") -> Chart | None:
    """Each method's difference to the fine-tuned model, in points of accuracy."""
    compared = [(m, m.difference) for m in methods if m.difference is not None]
    if not compared:
        return None
    title = "Difference to the fine-tuned model"
    colour, marker = series(0)
    with style(name):
        figure, (axes,) = panel(
            title,
            "accuracy on the test set, points (right = better)",
            plot_height=max(110, 44 * len(compared) + 20),
            left=96,
        )
        axes.axvline(0, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
        for row, (_, difference) in enumerate(compared):
            whisker(axes, row, difference.scaled(100), colour, across=True)
            axes.plot([100 * difference.mean], [row], color=colour, marker=marker, markersize=8)
        axes.set_yticks(range(len(compared)), [formatting.short(m.method, 13) for m, _ in compared])
        axes.set_ylim(len(compared) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        number_axis(axes.xaxis)
        axes.set_xlabel("points against the fine-tuned model")
    rows = tuple((m.method, formatting.both(d, 100, sign=True)) for m, d in compared)
    return Chart(
        name,
        title,
        "Dot chart of the difference in accuracy to the fine-tuned model, in percentage points. "
        + "; ".join(f"{method}: {text}" for method, text in rows)
        + ".",
        "Percentage points of accuracy on the test set, question by question against the "
        "fine-tuned model, which is the dashed line: an interval that crosses it cannot tell gain "
        "from harm. " + formatting.interval_note((d for _, d in compared), "Whiskers"),
        Table(("method", "difference, points"), rows),
        figure,
    )
