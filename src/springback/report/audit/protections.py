"""Protections and repair: the fall with and without, dose, margin left, price, the trade."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import figure, text
from springback.report.components import Section, there
from springback.report.estimate import Estimate
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series, Table
from springback.report.series import Join
from springback.results.audit_schema import (
    DoseCurve,
    MarginAndSkill,
    Protection,
    Protections,
    Repair,
    RepairPoint,
)

#: Protections in one chart: with the unprotected model there is a colour for each.
MOST = 5
PLAIN = "unprotected"
Measured = MarginAndSkill | RepairPoint
KINDS = {"overbend": "moved further", "mix": "aligning rows mixed in", "project": "projected"}


def protection_sections(
    protections: Protections | None, repair: Repair | None, name: str = "", suffix: str = ""
) -> tuple[Section, ...]:
    """Their sections; ``name`` and ``suffix`` tell several studies on one page apart."""
    sections = []
    of = f": {name}" if name else ""
    if protections is not None:
        sections.append(_protections_section(protections, of, suffix))
    if repair is not None:
        sections.append(_repair_section(repair, of, suffix))
    return tuple(sections)


def _protections_section(study: Protections, of: str, suffix: str) -> Section:
    charts = (
        *curves_charts(study, suffix),
        _dose_chart(study, suffix),
        _left_chart(study, suffix) if study.rows else None,
        _cost_chart(study, suffix),
    )
    model = (
        f"the model aligned on {study.n_pos:,} examples" if study.n_pos else "the model as it is"
    )
    return Section(
        f"protections{suffix}",
        f"Protections{of}",
        "What makes the alignment harder to undo, and at what price?",
        there(charts),
        reading=f"All of {model}, and paired by seed. "
        "mu: the aligned weights are moved further along the alignment by that much of its "
        "length; with a rank, along so many directions of each matrix. Projected: every update of "
        "later training loses its part along the way back. Findings are adjusted by "
        "Holm over the protections.",
    )


def _repair_section(repair: Repair, of: str, suffix: str) -> Section:
    return Section(
        f"repair{suffix}",
        f"Repair{of}",
        "Can an alignment that benign training wore be added back?",
        there([_pareto_chart(repair, suffix)]),
        reading=f"The model aligned on {repair.n_pos:,} examples was trained on "
        f"{repair.rows:,} rows of {repair.benign}; the skill is scored on "
        f"{repair.skill.source}.",
    )


def curves_charts(study: Protections, suffix: str = "") -> list[Chart]:
    """Margin along the doses, unprotected and with each protection: one chart, or where they are
    many one for each kind, in parts of :data:`MOST`."""
    rows = study.rows
    title = "Fall with and without"
    if len(rows) <= MOST:
        return list(there([_curves_chart(study, rows, title, suffix)]))
    charts = []
    for kind in dict.fromkeys(r.kind for r in rows):
        some = [r for r in rows if r.kind == kind]
        for start in range(0, len(some), MOST):
            part = f"-{kind}" + (f"-{start // MOST + 1}" if len(some) > MOST else "")
            shown = some[start : start + MOST]
            charts.append(_curves_chart(study, shown, f"{title}: {KINDS[kind]}", f"{part}{suffix}"))
    return list(there(charts))


def _curves_chart(
    study: Protections, rows: Sequence[Protection], title: str, suffix: str
) -> Chart | None:
    several = len(study.seeds) > 1
    return figure.lines(
        Caption(
            f"protection-curves{suffix}",
            title,
            "The dose counts unwanted examples only; aligning rows that are mixed in stand beside "
            "them.",
            intervals="Bands are 95 % intervals over the seeds." if several else "",
        ),
        Plot(
            "margin, nats/token  (higher = more aligned)",
            [
                _curve_series(PLAIN, study.plain.curve),
                *(_curve_series(r.name, r.curve) for r in rows),
            ],
            Level(study.start, "start model" if study.n_pos else "undone"),
            equal_decimals=True,
        ),
        Axis("unwanted examples", head="dose"),
    )


def _curve_series(name: str, curve: DoseCurve) -> Series:
    return Series(name, [curve.at(dose) for dose in curve.dose], curve.dose, band=0.1)


def _dose_chart(study: Protections, suffix: str) -> Chart | None:
    """Unwanted examples until half of the unprotected gain is lost, one line a protection."""
    rows = study.rows
    doses = [study.plain.dose, *(r.dose.found for r in rows)]
    known = [Estimate.of(dose).above_zero() for dose in doses]
    return figure.rows(
        Caption(
            f"protection-dose{suffix}",
            "Dose to undo half",
            "Until the margin is halfway between the start and the unprotected aligned model: the "
            "same height for all.",
        ),
        Plot(
            "unwanted examples (right = more durable)",
            [Series("", [dose if dose.known else "no gain to undo" for dose in known], join="")],
            Level(float(max(study.doses)), "largest dose tried"),
            name="unwanted examples until half is lost",
            zero=True,
        ),
        Axis(
            "unwanted examples",
            [PLAIN, *(r.name for r in rows)],
            "protection",
            {
                "against unprotected": ["–", *map(_change, rows)],
                "finding": ["–", *(r.dose.label for r in rows)],
            },
        ),
    )


def _change(row: Protection) -> str:
    return text.with_limits(Estimate.of(row.dose.difference), sign=True)


def _left_chart(study: Protections, suffix: str) -> Chart | None:
    """Margin at the largest dose against unprotected, beside the price before any dose."""
    rows = study.rows
    left = [r.left.difference for r in rows]
    prices = {
        f"{title}, before any dose": [text.both(r.cost.aligned[key], sign=True) for r in rows]
        for key, title in study.costs.items()
        if key in rows[0].cost.aligned
    }
    return figure.rows(
        Caption(
            f"protection-left{suffix}",
            "Margin left at the largest dose",
            "Protected minus unprotected after the largest dose. The table has what the protection "
            "costs before any unwanted example.",
        ),
        Plot(
            "against unprotected, nats/token (right = better)",
            [Series("", left, join="")],
            name="margin left against unprotected",
            zero=True,
            signed=True,
        ),
        Axis(
            "nats/token",
            [r.name for r in rows],
            "protection",
            {"finding": [r.left.label for r in rows], **prices},
        ),
    )


def _cost_chart(study: Protections, suffix: str) -> Chart | None:
    """What each protection does to neutral texts before any perturbation."""
    if "neutral_nll" not in study.costs:
        return None
    costs = [r.cost.aligned["neutral_nll"] for r in study.rows]
    return figure.rows(
        Caption(
            f"protection-cost{suffix}",
            "Price in neutral texts",
            "Protected minus unprotected aligned model, before any unwanted example; above 0 "
            "neutral texts have become less likely.",
        ),
        Plot(
            "NLL against unprotected, nats/token (left = cheaper)",
            [Series("", costs, join="")],
            name="NLL of neutral texts against unprotected",
            zero=True,
            signed=True,
        ),
        Axis("nats/token", [r.name for r in study.rows], head="protection"),
    )


def _pareto_chart(repair: Repair, suffix: str) -> Chart | None:
    """Alignment against the new skill, a point for each strength of the repair."""
    points, before = repair.points, repair.aligned

    def series(
        label: str, measured: Sequence[Measured], names: Sequence[str], join: Join
    ) -> Series:
        margins, skills = [p.margin for p in measured], [p.skill for p in measured]
        return Series(label, margins, skills, join=join, names=names)

    rows: list[tuple[str, Measured, str, str]] = [("aligned, before", before, "–", "–")]
    rows += [
        (
            f"mu {p.mu:g}",
            p,
            text.both(p.restored, sign=True),
            "no" if p.dominated else "yes",
        )
        for p in points
    ]
    return figure.lines(
        Caption(
            f"repair-pareto{suffix}",
            "Alignment against the new skill",
            "mu 0 is the model as benign training left it; each further point has so much of the "
            "alignment's direction added. Up and to the left is better in both. "
            "Whiskers are 95 % intervals over the seeds, where there are several.",
            intervals="",
        ),
        Plot(
            "margin, nats/token  (higher = more aligned)",
            [
                series("repaired, by mu", points, [f"{p.mu:g}" for p in points], "-"),
                series("aligned, before benign training", [before], (), ""),
            ],
            Level(repair.start, "margin of the start model"),
        ),
        Axis("NLL of the new skill's texts, nats/token (left = better)"),
        Table(
            ("model", "margin", "NLL of the new skill", "margin restored", "on the front"),
            tuple(
                (
                    name,
                    text.both(p.margin),
                    text.both(p.skill),
                    *cells,
                )
                for name, p, *cells in rows
            ),
        ),
    )
