"""Attackers: the worst of several beside the median, and perturbations mixed with benign rows."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import formatting
from springback.report.components import Section, there
from springback.report.figure import Chart, Table
from springback.report.findings import Attackers, Sweep
from springback.report.line_charts import Frame, Line, lines_chart
from springback.report.schema import Rebound
from springback.report.values import AtSize, Estimate, Interval


def attackers_section(found: Attackers, rebound: Rebound | None) -> Section | None:
    largest = max(rebound.doses, default=None) if rebound is not None else None
    charts = there(
        (
            share_chart(found.share) if found.share else None,
            dose_chart(found.dose, largest) if found.dose else None,
            mixed_chart(found, rebound),
        )
    )
    if not charts:
        return None
    model = f"the model aligned on {found.n_pos:,} examples" if found.n_pos else "one model"
    left = sum(s.left_out for s in (found.share,) if s is not None)
    note = f"{formatting.count(left, 'attacker')} left out: alignment had gained nothing there."
    return Section(
        "attackers",
        "Attackers",
        "What is the alignment worth against the worst of several attackers?",
        charts,
        (note,) if left else (),
        reading=f"All of them train {model} on the opposite.",
    )


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

    typical = sweep.typical if largest is None else sweep.typical.above_zero()
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
