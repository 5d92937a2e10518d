"""Charts of protections and of repair: the fall with and without, dose, margin left, the trade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from springback.report import formatting
from springback.report.estimate import Estimate
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style, whisker
from springback.report.line_charts import Frame, Line, lines_chart
from springback.report.theme import LIGHT, series
from springback.results.audit_schema import Protection, Protections, Repair

#: Protections in one chart: with the unprotected model there is a colour for each.
MOST = 5
PLAIN = "unprotected"
KINDS = {"overbend": "moved further", "mix": "aligning rows mixed in"}


def curves_charts(found: Protections, suffix: str = "") -> list[Chart]:
    """Margin along the doses, unprotected and with each protection: one chart, or where they are
    many one for each kind, in parts of :data:`MOST`."""
    rows = found.rows
    if len(rows) <= MOST:
        return [_curves_chart(found, rows, "Fall with and without", suffix)]
    charts = []
    for kind in dict.fromkeys(r.kind for r in rows):
        own = [r for r in rows if r.kind == kind]
        for at in range(0, len(own), MOST):
            part = f"-{kind}" + (f"-{at // MOST + 1}" if len(own) > MOST else "")
            title = f"Fall with and without: {KINDS[kind]}"
            charts.append(_curves_chart(found, own[at : at + MOST], title, f"{part}{suffix}"))
    return charts


def _curves_chart(found: Protections, rows: Sequence[Protection], title: str, suffix: str) -> Chart:
    named = [(PLAIN, found.plain.curve), *((r.name, r.curve) for r in rows)]
    name = f"protection-curves{suffix}"
    legend = [LegendItem(n, *series(i)) for i, (n, _) in enumerate(named)]
    legend.append(LegendItem("start model", LIGHT["muted"], None))
    with style(name):
        figure, (axes,) = panel(title, "margin, nats/token  (higher = more aligned)", legend)
        for i, (_, curve) in enumerate(named):
            colour, marker = series(i)
            axes.plot(curve.dose, curve.mean, color=colour, marker=marker, ms=5.5, lw=2)
            if curve.band is not None:
                axes.fill_between(curve.dose, *curve.band, color=colour, alpha=0.1, lw=0)
        axes.axhline(found.start, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
        axes.set_xlabel("unwanted examples")
        number_axis(axes.yaxis)
    table = tuple(
        (
            formatting.plain(dose),
            *(formatting.number(c.mean[c.dose.index(dose)]) for _, c in named),
        )
        for dose in found.doses
    )
    return Chart(
        name,
        title,
        "Line chart of the margin against unwanted examples. "
        + "; ".join(
            f"{n}: {formatting.number(c.mean[0])} to {formatting.number(c.mean[-1])}"
            for n, c in named
        )
        + ".",
        "The dose counts unwanted examples only; aligning rows that are mixed in stand beside "
        "them. " + ("Bands are 95 % intervals over the seeds." if _several(found) else ""),
        Table(("dose", *(n for n, _ in named)), table),
        figure,
    )


def _several(found: Protections) -> bool:
    return len(found.seeds) > 1


def dose_chart(found: Protections, suffix: str = "") -> Chart | None:
    """Unwanted examples until half of the unprotected gain is lost, one line a protection."""
    named = [(PLAIN, found.plain.dose)]
    named += [(r.name, r.dose.found) for r in found.rows]
    lines = [Line(n, Estimate.of(d).above_zero(), "no gain to undo") for n, d in named]
    table = Table(
        ("protection", "unwanted examples until half is lost", "against unprotected", "finding"),
        (
            (PLAIN, formatting.with_limits(lines[0].found), "–", "–"),
            *(
                (r.name, formatting.with_limits(line.found), _change(r), r.dose.label)
                for r, line in zip(found.rows, lines[1:], strict=True)
            ),
        ),
    )
    frame = Frame(
        f"protection-dose{suffix}",
        "Dose to undo half",
        "unwanted examples (right = more durable)",
        "unwanted examples",
        "Until the margin is halfway between the start and the unprotected aligned model: the "
        "same height for all.",
        mark=(float(max(found.doses)), "largest dose tried"),
    )
    return lines_chart(frame, lines, table)


def _change(row: Protection) -> str:
    change = row.dose.difference
    if change is None:
        return "–"
    return formatting.with_limits(Estimate.of(change), sign=True)


def left_chart(found: Protections, suffix: str = "") -> Chart | None:
    """Margin at the largest dose against unprotected, beside the price before any dose."""
    lines = [Line(r.name, Estimate.of(r.left.difference)) for r in found.rows]
    costs = [key for key in found.costs if key in found.rows[0].cost.aligned]
    table = Table(
        ("protection", "margin left against unprotected", "finding", *map(_title(found), costs)),
        tuple(
            (
                r.name,
                formatting.both(r.left.difference, sign=True),
                r.left.label,
                *(formatting.both(r.cost.aligned[c], sign=True) for c in costs),
            )
            for r in found.rows
        ),
    )
    frame = Frame(
        f"protection-left{suffix}",
        "Margin left at the largest dose",
        "against unprotected, nats/token (right = better)",
        "nats/token",
        "Protected minus unprotected after the largest dose. The table has what the protection "
        "costs before any unwanted example.",
    )
    return lines_chart(frame, lines, table)


def _title(found: Protections) -> Any:
    return lambda key: f"{found.costs[key]}, before any dose"


def cost_chart(found: Protections, suffix: str = "") -> Chart | None:
    """What each protection does to neutral texts before any perturbation."""
    if "neutral_nll" not in found.costs:
        return None
    rows = [(r.name, r.cost.aligned["neutral_nll"]) for r in found.rows]
    table = Table(
        ("protection", "NLL of neutral texts against unprotected"),
        tuple((n, formatting.both(f, sign=True)) for n, f in rows),
    )
    frame = Frame(
        f"protection-cost{suffix}",
        "Price in neutral texts",
        "NLL against unprotected, nats/token (left = cheaper)",
        "nats/token",
        "Protected minus unprotected aligned model, before any unwanted example; above 0 neutral "
        "texts have become less likely.",
    )
    return lines_chart(frame, [Line(n, Estimate.of(f)) for n, f in rows], table)


def pareto_chart(found: Repair, suffix: str = "") -> Chart:
    """Alignment against the new skill, a point for each strength of the repair."""
    name, title = f"repair-pareto{suffix}", "Alignment against the new skill"
    points = found.points
    before = found.aligned
    legend = [
        LegendItem("repaired, by mu", *series(0)),
        LegendItem("aligned, before benign training", *series(1), lone=True),
        LegendItem("margin of the start model", LIGHT["muted"], None),
    ]
    with style(name):
        figure, (axes,) = panel(title, "margin, nats/token  (higher = more aligned)", legend)
        colour, marker = series(0)
        x = [p.skill.mean for p in points]
        y = [p.margin.mean for p in points]
        axes.plot(x, y, color=colour, marker=marker, ms=7, lw=1.6)
        for point in points:
            skill, margin = point.skill, point.margin
            whisker(axes, skill.mean, margin, colour)
            whisker(axes, margin.mean, skill, colour, across=True)
            axes.annotate(
                f"{point.mu:g}",
                (skill.mean, margin.mean),
                xytext=(6, 5),
                textcoords="offset points",
                color=LIGHT["ink"],
            )
        other, shape = series(1)
        axes.plot([before.skill.mean], [before.margin.mean], shape, color=other, ms=8)
        axes.axhline(found.start, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
        axes.set_xlabel("NLL of the new skill's texts, nats/token (left = better)")
        number_axis(axes.xaxis)
        number_axis(axes.yaxis)
    rows = [
        (
            "aligned, before",
            formatting.both(before.margin),
            formatting.both(before.skill),
            "–",
            "–",
        )
    ]
    rows += [
        (
            f"mu {p.mu:g}",
            formatting.both(p.margin),
            formatting.both(p.skill),
            formatting.both(p.restored, sign=True),
            "no" if p.dominated else "yes",
        )
        for p in points
    ]
    return Chart(
        name,
        title,
        "Margin against NLL of the new skill. "
        + "; ".join(f"{r[0]}: {r[1]}, {r[2]}" for r in rows)
        + ".",
        "mu 0 is the model as benign training left it; each further point has so much of the "
        "alignment's direction added. Up and to the left is better in both. "
        "Whiskers are 95 % intervals over the seeds, where there are several.",
        Table(
            ("model", "margin", "NLL of the new skill", "margin restored", "on the front"),
            tuple(rows),
        ),
        figure,
    )
