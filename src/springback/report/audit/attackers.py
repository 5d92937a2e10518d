"""Attackers: the worst of several beside the median, and perturbations mixed with benign rows."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import figure, formatting
from springback.report.components import Section, there
from springback.report.estimate import Estimate
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series
from springback.results.audit_schema import AtSize, Attackers, Audit, Finished, Rebound
from springback.results.schema import Interval, Sweep


def attackers_section(attackers: Attackers, audit: Audit) -> Section | None:
    rebound, finished = audit.rebound, audit.finished
    largest = max(rebound.doses, default=None) if rebound is not None else None
    share, dose = attackers.share, attackers.dose
    charts = there(
        (
            _share_chart(share, finished.lost if finished else "the gain") if share else None,
            _dose_chart(dose, largest) if dose else None,
            _mixed_chart(attackers, rebound, finished),
        )
    )
    if not charts:
        return None
    n_pos = attackers.n_pos
    model = f"the model aligned on {n_pos:,} examples" if n_pos else "one model"
    if finished:
        model = "the model as it is"
    left = share.left_out if share is not None else 0
    note = f"{formatting.count(left, 'attacker')} left out: alignment had gained nothing there."
    return Section(
        "attackers",
        "Attackers",
        "What is the alignment worth against the worst of several attackers?",
        charts,
        (note,) if left else (),
        reading=f"All of them train {model} on the opposite.",
    )


def _share_chart(sweep: Sweep, lost: str) -> Chart | None:
    """Share of what is ``lost`` that the worst attacker took back, beside the median."""
    caption = Caption(
        "attackers-share",
        "Worst beside median: share lost",
        f"Each of {formatting.count(sweep.attackers, 'attacker')} is a learning rate and a seed. "
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
    values = [
        Estimate(value, at_least=largest if value is None else None)
        for value in (sweep.worst, sweep.median)
    ]
    typical = Estimate.of(sweep.typical)
    if largest is not None:
        typical = typical.above_zero()
    level = None if largest is None else Level(largest, "largest dose tried")
    return _sweep_chart(
        caption, above, "examples of the opposite", sweep, [*values, typical], level
    )


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


def _mixed_chart(
    attackers: Attackers, rebound: Rebound | None, finished: Finished | None
) -> Chart | None:
    """Fall under perturbations mixed with benign rows, beside the study's own."""
    if not attackers.mixed:
        return None
    what, unit = "the margin", "nats/token"
    if finished is not None and finished.outcome != "margin":
        what, unit = "the score", finished.unit
    rows = [(m.name, m.fall, m.share_lost) for m in attackers.mixed]
    if rebound is not None and (n_pos := attackers.n_pos) is not None:
        plain = (_value_for(rebound.fall, n_pos), _value_for(rebound.share_lost, n_pos))
        rows.insert(0, ("opposite rows only, as the study", *plain))
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
            {"share of the gain lost, %": [formatting.both(share, 100) for _, _, share in rows]},
        ),
    )


def _value_for(values: Sequence[AtSize], n_pos: int) -> Interval | None:
    return next((v.value for v in values if v.n_pos == n_pos), None)
