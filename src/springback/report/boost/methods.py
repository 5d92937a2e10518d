"""Charts of a boost: the search for mu and lambda, and the methods against the fine-tuned model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.components import Cell, Grid, tone
from springback.report.figure import Chart, Table, number_axis, panel, style, whisker
from springback.report.schema import Method
from springback.report.theme import LIGHT, series
from springback.report.values import Interval

if TYPE_CHECKING:
    pass


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


#: From this share on of cut answers the page says what that does to accuracy.
MANY_CUT = 0.1


def methods_grid(methods: Sequence[Method]) -> Grid:
    """One row a method; adjusted p-values where the file has any."""
    tested = any(m.p_holm is not None or m.nll_p_holm is not None for m in methods)
    p = ("p (Holm)",) if tested else ()
    head = ("Method", "Verdict", "Difference, points", *p, "Accuracy, %", "Difference in NLL")
    head += (*(("p of it (Holm)",) if tested else ()), "NLL, nats/token")
    cut = any(m.cut is not None for m in methods)
    head += (*(("Cut, %",) if cut else ()), "mu", "lambda")
    rows = tuple(_method_row(m, tested, cut) for m in methods)
    return Grid("Table of methods", head, rows, frozenset({1}))


def cut_notes(methods: Sequence[Method]) -> tuple[str, ...]:
    """What the column of cut answers means, where there is one."""
    known = [m.cut for m in methods if m.cut is not None]
    if not known:
        return ()
    note = "Cut: answers that reached the limit of new tokens. They are graded as far as they go"
    if max(known) >= MANY_CUT:
        note += "; with so many of them accuracy says less (--max-new-tokens raises the limit)"
    return (f"{note}.",)


def _method_row(m: Method, tested: bool, cut: bool) -> tuple[Cell, ...]:
    def cell(found: Interval | None, scale: float = 1, sign: bool = False) -> Cell:
        return Cell(formatting.value(found, scale, sign), formatting.bounds(found, scale, sign))

    def p(value: float | None) -> tuple[Cell, ...]:
        return (Cell("–" if value is None else formatting.number(value, 2)),) if tested else ()

    return (
        Cell(m.method),
        Cell(m.verdict or "–", tone=tone(m.verdict) if m.verdict else ""),
        cell(m.difference, 100, sign=True),
        *p(m.p_holm),
        cell(m.accuracy, 100),
        cell(m.nll_difference, sign=True),
        *p(m.nll_p_holm),
        cell(m.nll),
        *((Cell("–" if m.cut is None else formatting.number(100 * m.cut, 2)),) if cut else ()),
        Cell(formatting.plain(m.mu) if m.mu is not None else "–"),
        Cell(formatting.plain(m.lam) if m.lam is not None else "–"),
    )
