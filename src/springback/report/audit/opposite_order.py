"""Charts of attackers, of the second alignment, and of the opposite order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.audit.more_alignment import keep_zero, size_axis
from springback.report.audit.rebound import curve_table, curves_in_words, draw_curve, sizes_legend
from springback.report.estimate import Estimate
from springback.report.figure import Chart, LegendItem, Table, mark, number_axis, panel, style
from springback.report.line_charts import Frame, Line, lines_chart
from springback.report.theme import LIGHT, series
from springback.results.audit_schema import AtSize, Attackers, Probe, Rebound
from springback.results.schema import Interval, Realignment, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Rates are for each example in the file; a hundred of them make readable numbers.
EXAMPLES = 100
#: What ``n_pos`` counts in either order.
FIRST = "first on"


def share_chart(sweep: Sweep) -> Chart | None:
    """Share of the gain that the worst attacker took back, beside the median."""
    frame = Frame(
        "attackers-share",
        "Worst beside median: share lost",
        "share of the gain lost, % (left = more durable)",
        "% of the gain",
        f"Each of {formatting.count(sweep.attackers, 'attacker')} is a learning rate and a seed. "
        "The worst gets worse the more are tried: read it with their number.",
        mark=(100.0, "all of the gain"),
    )
    return _sweep_chart(frame, sweep, 100.0, None)


def dose_chart(sweep: Sweep, largest: float | None) -> Chart | None:
    """Dose at which the worst attacker had undone the alignment, beside the median."""
    frame = Frame(
        "attackers-dose",
        "Worst beside median: dose to undo",
        "examples that undo all (right = more durable)",
        "examples of the opposite",
        "The worst attacker needs the fewest examples. An attacker who did not undo all counts as "
        "beyond the largest dose tried.",
        mark=None if largest is None else (largest, "largest dose tried"),
    )
    return _sweep_chart(frame, sweep, 1.0, largest)


def _sweep_chart(frame: Frame, sweep: Sweep, scale: float, largest: float | None) -> Chart | None:
    def one(value: float | None) -> Estimate:
        return Estimate(value) if value is not None else Estimate(None, at_least=largest)

    typical = Estimate.of(sweep.typical)
    if largest is not None:
        typical = typical.above_zero()
    rows = [
        ("worst", sweep.worst_by, one(sweep.worst)),
        ("median", sweep.median_by, one(sweep.median)),
        ("typical", "mean over the seeds of each one's median", typical),
    ]
    lines = [Line(f"{name}: {who}", found.scaled(scale), "not known") for name, who, found in rows]
    table = Table(
        ("attacker", frame.axis, "which"),
        tuple(
            (name, formatting.with_limits(found.scaled(scale)), who or "–")
            for name, who, found in rows
        ),
    )
    return lines_chart(frame, lines, table)


def mixed_chart(found: Attackers, rebound: Rebound | None) -> Chart | None:
    """Fall under perturbations mixed with benign rows, beside the study's own."""
    if not found.mixed:
        return None
    rows = [(m.name, m.fall, m.share_lost) for m in found.mixed]
    if rebound is not None and found.n_pos is not None:
        own = (_at(rebound.fall, found.n_pos), _at(rebound.share_lost, found.n_pos))
        rows.insert(0, ("opposite rows only, as the study", *own))
    frame = Frame(
        "attackers-mixed",
        "Mixed perturbations",
        "fall of the margin, nats/token (left = more durable)",
        "nats/token",
        "The same number of rows, a share of them benign. Benign rows alone teach nothing "
        "unwanted: what falls under them falls by any further training.",
    )
    lines = [Line(n, Estimate(None) if f is None else Estimate.of(f), "–") for n, f, _ in rows]
    table = Table(
        ("perturbed with", "fall, nats/token", "share of the gain lost, %"),
        tuple((n, formatting.both(f), formatting.both(s, 100)) for n, f, s in rows),
    )
    return lines_chart(frame, lines, table)


def _at(values: Sequence[AtSize], n_pos: int) -> Interval | None:
    return next((v.value for v in values if v.n_pos == n_pos), None)


def realign_chart(found: Realignment) -> Chart | None:
    """First beside second alignment: margin gained for each 100 examples, at equal counts."""
    shown = found.counts
    if not shown:
        return None
    name, title = "realign-gain", "First and second alignment"
    unit = f"margin gained per {EXAMPLES} examples, nats/token"
    legend = [LegendItem(n, *series(i), lone=True) for i, n in enumerate(("first", "second"))]
    pairs = [[_per(c.first), _per(c.second)] for c in shown]
    with style(name):
        figure, (axes,) = panel(title, unit, legend)
        known = [v for pair in pairs for p in pair if p for v in Estimate.of(p).known]
        keep_zero(axes, known)
        size_axis(axes, [round(c.count) for c in shown])
        number_axis(axes.yaxis)
        _beside(axes, pairs)
    rows = tuple(
        (
            formatting.plain(c.count),
            *(formatting.both(p) for p in pair),
            _second_minus_first(c.difference),
        )
        for c, pair in zip(shown, pairs, strict=True)
    )
    return Chart(
        name,
        title,
        f"Dot chart of {unit}, against examples of alignment. "
        + "; ".join(f"after {n}: first {a}, second {b}" for n, a, b, _ in rows)
        + ".",
        "Counted from where each alignment begins: the first at the start model, the second at "
        "the model that was aligned and undone. One that begins lower gains faster for that "
        "alone. " + formatting.interval_note((p for pair in pairs for p in pair), "Whiskers"),
        Table(("examples", "first", "second", "second minus first"), rows),
        figure,
    )


def _per(found: Interval | None) -> Interval | None:
    return None if found is None else found.scaled(EXAMPLES)


def _second_minus_first(found: Interval | None) -> str:
    return formatting.both(_per(found), sign=True)


def _beside(axes: Axes, pairs: Sequence[Sequence[Interval | None]]) -> None:
    """Each place's values side by side, in the colours of the series."""
    for place, pair in enumerate(pairs):
        for index, found in enumerate(pair):
            if found is not None:
                mark(axes, place + 0.24 * (index - 0.5), Estimate.of(found), index)


def orders_chart(here: Probe, there: Probe) -> Chart | None:
    """Margin along the doses in both orders, one above the other, on equal scales."""
    both = [(here, "this order"), (there, "the opposite order")]
    if not all(probe.curves for probe, _ in both):
        return None
    name, title = "symmetry-margin", "Both orders"
    legend = sizes_legend(((c.n_pos, i) for i, c in enumerate(here.curves)), FIRST)
    legend.append(LegendItem("start model", LIGHT["muted"], None))
    with style(name):
        first, *others = (f"{order}: margin, {here.unit}" for _, order in both)
        figure, axes = panel(title, first, legend, (None, *others), plot_height=150)
        for one, (probe, _) in zip(axes, both, strict=True):
            for i, curve in enumerate(probe.curves):
                draw_curve(one, curve, i)
            if probe.start is not None:
                one.axhline(probe.start.mean, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
            number_axis(one.yaxis)
        spans = [one.get_ylim() for one in axes]
        half = max(high - low for low, high in spans) / 2
        for one, (low, high) in zip(axes, spans, strict=True):
            one.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
        axes[0].tick_params(labelbottom=False)
        axes[-1].set_xlabel("examples of the other side")
    tables = [curve_table(probe, probe.curves, FIRST) for probe, _ in both]
    return Chart(
        name,
        title,
        " ".join(f"In {o}: {curves_in_words(p, p.curves, FIRST)}" for p, o in both),
        "Above, aligned first and then trained on the opposite; below, trained on the opposite "
        "first and then aligned, with wanted and unwanted exchanged in the margin. Both scales "
        "span as much, so that slopes can be compared.",
        _joined(tables, [o for _, o in both]),
        figure,
    )


def _joined(tables: Sequence[Table], orders: Sequence[str]) -> Table:
    """Tables by dose side by side."""
    head = ["dose"]
    rows: dict[str, list[str]] = {row[0]: [] for t in tables for row in t.rows}
    for table, order in zip(tables, orders, strict=True):
        head += [f"{column}, {order}" for column in table.head[1:]]
        cells = {row[0]: row[1:] for row in table.rows}
        for dose, row in rows.items():
            row += cells.get(dose, ("–",) * (len(table.head) - 1))
    return Table(tuple(head), tuple((dose, *row) for dose, row in rows.items()))


def gains_chart(here: Rebound, there: Rebound) -> Chart | None:
    """Gain and fall of both orders, by the amount of the first training."""
    sizes = [n for n in here.n_pos if n in there.n_pos]
    if not sizes:
        return None

    def pairs(key: str) -> list[list[Interval | None]]:
        found = [{v.n_pos: v.value for v in getattr(r, key)} for r in (here, there)]
        return [[values.get(n) for values in found] for n in sizes]

    gains, falls = pairs("gain"), pairs("fall")
    if not any(p for row in (*gains, *falls) for p in row):
        return None
    name, title = "symmetry-change", "Gain and fall in both orders"
    names = ("this order", "the opposite order")
    legend = [LegendItem(n, *series(i), lone=True) for i, n in enumerate(names)]
    with style(name):
        first, second = "gain of the margin, nats/token", "fall of the margin, nats/token"
        figure, axes = panel(title, first, legend, (None, second), plot_height=128)
        for one, shown in zip(axes, (gains, falls), strict=True):
            known = [v for pair in shown for p in pair if p for v in Estimate.of(p).known]
            keep_zero(one, known or [0.0])
            size_axis(one, sizes)
            number_axis(one.yaxis)
            _beside(one, shown)
        axes[0].set_xlabel("")
        axes[0].tick_params(labelbottom=False)
        axes[-1].set_xlabel("examples of the first training")
    rows = tuple(
        (f"{n:,}", *(formatting.both(v) for v in (*g, *f)))
        for n, g, f in zip(sizes, gains, falls, strict=True)
    )
    return Chart(
        name,
        title,
        "Dot chart of gain and fall of the margin, nats/token, against examples of the first "
        "training. "
        + "; ".join(
            f"{n}: gained {a} in this order and {b} in the opposite, lost {c} and {d}"
            for n, a, b, c, d in rows
        )
        + ".",
        "If the effect belongs to the model and not to one side, both orders fall. "
        + formatting.interval_note((p for row in (*gains, *falls) for p in row), "Whiskers"),
        Table(
            (
                "first training",
                *(f"{what}, {order}" for what in ("gain", "fall") for order in names),
            ),
            rows,
        ),
        figure,
    )
