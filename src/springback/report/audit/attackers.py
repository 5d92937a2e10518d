"""Attackers: the worst of several beside the median, and perturbations mixed with benign rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from springback.report import figure, text
from springback.report.components import Section, there
from springback.report.estimate import Estimate
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series, Table
from springback.results.audit_schema import (
    AtSize,
    AttackCurve,
    Attackers,
    AttackPoint,
    Audit,
    WithinBound,
)
from springback.results.schema import Interval, Sweep


def attackers_section(attackers: Attackers, audit: Audit) -> Section | None:
    rebound, lost = audit.rebound, audit.lost
    largest = max(rebound.doses, default=None) if rebound is not None else None
    share, dose = attackers.share, attackers.dose
    charts = there(
        (
            _share_chart(share, lost) if share else None,
            _dose_chart(dose, largest) if dose else None,
            _mixed_chart(attackers, audit),
            _cost_chart(attackers.curves, lost),
        )
    )
    if not charts:
        return None
    n_pos = attackers.n_pos
    model = f"the model aligned on {n_pos:,} examples" if n_pos else "one model"
    if audit.finished:
        model = "the model as it is"
    left = share.left_out if share is not None else 0
    note = f"{text.count(left, 'attacker')} left out: alignment had gained nothing there."
    notes = [note] if left else []
    if attackers.bounded is not None:
        notes.append(_bounded_note(attackers.bounded))
    return Section(
        "attackers",
        "Attackers",
        "What is the alignment worth against the worst of several attackers?",
        charts,
        tuple(notes),
        reading=f"All of them attack {model} with rows of the study's own files.",
    )


def _bounded_note(bounded: WithinBound) -> str:
    """Which attack is the worst of those that cost little utility."""
    most = f"at most {100 * bounded.bound:g} % of the utility"
    if bounded.point is None:
        return (
            f"Every point of every attack costs more than {100 * bounded.bound:g} % of the utility."
        )
    return (
        f"Of the {bounded.within} of {bounded.points} points that cost {most}, the worst is "
        f"{bounded.name} with {text.count(bounded.point.dose, 'example')}."
    )


def _cost_chart(curves: Sequence[AttackCurve], lost: str) -> Chart | None:
    """The share of what is ``lost`` that every attack took, along one axis of cost; drawn is the
    worst of each attacker."""
    by_attacker: dict[str, list[AttackCurve]] = {}
    for curve in curves:
        if curve.points:
            by_attacker.setdefault(curve.attacker, []).append(curve)
    if len(by_attacker) < 2:
        return None
    shares = any(point.share_lost for curve in curves for point in curve.points)
    series = []
    for title, several in by_attacker.items():
        worst = max(several, key=lambda curve: _effect(curve.points[-1], shares))
        label = title if len(several) == 1 else f"{title} (the worst of {len(several)})"
        values = [_shown(point, shares) for point in worst.points]
        # A model may be attacked without a forward pass.
        series.append(Series(label, values, [max(1.0, point.cost) for point in worst.points]))
    what = f"share of {lost} lost, %" if shares else "fall"
    return figure.lines(
        Caption(
            "attackers-cost",
            "Every attack by its cost",
            "Cost is the tokens that go forward through the model: a training step counts three "
            "passes over its tokens, one of an adapter two; nothing of it is measuring. The table "
            "has every attack at every dose.",
        ),
        Plot(f"{what} (lower = more durable)", series, zero=True),
        Axis("tokens of all forward passes", scale="log"),
        _cost_table(curves, lost),
    )


def _effect(point: AttackPoint, shares: bool) -> float:
    effect = point.share_lost if shares else point.fall
    return effect.mean if effect is not None else -math.inf


def _shown(point: AttackPoint, shares: bool) -> Estimate | str:
    effect = point.share_lost if shares else point.fall
    return "–" if effect is None else Estimate.of(effect).scaled(100 if shares else 1)


def _cost_table(curves: Sequence[AttackCurve], lost: str) -> Table:
    head = (
        *("attack", "attacker", "examples", "tokens of forward passes"),
        *(f"share of {lost} lost, %", "fall", "utility lost, %"),
    )
    rows = [
        (
            curve.name,
            curve.attacker,
            f"{point.dose:,}",
            f"{point.cost:,.0f}",
            text.both(point.share_lost, 100),
            text.both(point.fall),
            "–" if point.utility_lost is None else f"{100 * point.utility_lost:.1f}",
        )
        for curve in curves
        for point in curve.points
    ]
    return Table(head, tuple(rows))


def _share_chart(sweep: Sweep, lost: str) -> Chart | None:
    """Share of what is ``lost`` that the worst attacker took back, beside the median."""
    caption = Caption(
        "attackers-share",
        "Worst beside median: share lost",
        f"Each of {text.count(sweep.attackers, 'attacker')} is a way to attack, a learning "
        "rate and a seed. "
        "The worst gets worse the more are tried: read it with their number.",
    )
    above = f"share of {lost} lost, % (left = more durable)"
    values = [Estimate(sweep.worst), Estimate(sweep.median), Estimate.of(sweep.typical)]
    level = Level(100.0, f"all of {lost}")
    return _sweep_chart(
        caption, above, f"% of {lost}", sweep, [v.scaled(100) for v in values], level
    )


def _dose_chart(sweep: Sweep, largest: float | None) -> Chart | None:
    """Dose at which the worst attacker had undone the alignment, beside the median."""
    caption = Caption(
        "attackers-dose",
        "Worst beside median: dose to undo",
        "The worst attacker needs the fewest examples. An attacker who did not undo all counts as "
        "beyond the largest dose tried.",
    )
    above = "examples that undo all (right = more durable)"
    values = [_dose(value, sweep.first, largest) for value in (sweep.worst, sweep.median)]
    typical = Estimate.of(sweep.typical)
    if largest is not None:
        typical = typical.above_zero()
    level = None if largest is None else Level(largest, "largest dose tried")
    return _sweep_chart(
        caption, above, "examples of the opposite", sweep, [*values, typical], level
    )


def _dose(value: float | None, first: float, largest: float | None) -> Estimate:
    """A dose beyond the largest, at or below the first, or between."""
    if value is None:
        return Estimate(None, at_least=largest)
    return Estimate(None, at_least=0.0, at_most=value) if 0 < value <= first else Estimate(value)


def _sweep_chart(
    caption: Caption,
    above: str,
    unit: str,
    sweep: Sweep,
    values: Sequence[Estimate],
    level: Level | None,
) -> Chart | None:
    names = ("worst", "median", "typical")
    which = (sweep.worst_by, sweep.median_by, "mean over the seeds of each one's median")
    shown = [value if value.known else "not known" for value in values]
    return figure.rows(
        caption,
        Plot(above, [Series("", shown, join="")], level, name=unit, zero=True),
        Axis(
            unit,
            names,
            "attacker",
            {"which": [by or "–" for by in which]},
            ticks=[f"{name}: {by}" for name, by in zip(names, which, strict=True)],
        ),
    )


def _mixed_chart(attackers: Attackers, audit: Audit) -> Chart | None:
    """Fall under perturbations mixed with benign rows, beside the study's own."""
    if not attackers.mixed:
        return None
    rebound, finished = audit.rebound, audit.finished
    what, unit = "the margin", "nats/token"
    if finished is not None and finished.outcome != "margin":
        what, unit = "the score", finished.unit
    rows = [(m.name, m.fall, m.share_lost) for m in attackers.mixed]
    if rebound is not None and (n_pos := attackers.n_pos) is not None:
        plain = (_value_for(rebound.fall, n_pos), _value_for(rebound.share_lost, n_pos))
        rows.insert(0, ("opposite rows only, as the study", *plain))
    shares = [text.both(share, 100) for _, _, share in rows]
    return figure.rows(
        Caption(
            "attackers-mixed",
            "Mixed perturbations",
            "The same number of rows, a share of them benign. Benign rows alone teach nothing "
            "unwanted: what falls under them falls by any further training.",
        ),
        Plot(
            f"fall of {what}, {unit} (left = more durable)",
            [Series("", ["–" if fall is None else fall for _, fall, _ in rows], join="")],
            zero=True,
        ),
        Axis(
            unit,
            [name for name, _, _ in rows],
            "perturbed with",
            {f"share of {audit.lost} lost, %": shares},
        ),
    )


def _value_for(values: Sequence[AtSize], n_pos: int) -> Interval | None:
    return next((v.value for v in values if v.n_pos == n_pos), None)
