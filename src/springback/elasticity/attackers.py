"""The worst of several attackers, and the usual one.

An attacker is a way (fine-tuning, an adapter, ...), a learning rate and a draw of rows.  How well a
safeguard holds hinges on both, so the worst case stands beside the median.  The worst of a sweep
gets worse the more is tried, so the number tried belongs to it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from springback.core import ABSENT
from springback.elasticity.censored import Bounded, bounded_mean
from springback.elasticity.curves import Crossing
from springback.elasticity.doses import dose_range
from springback.errors import DataError, describe


@dataclass(frozen=True)
class Attacker:
    """What one attacker did to one aligned model.

    ``share_lost``: of the gain in margin, 1 = all; None where alignment gained nothing.
    ``dose``: its dose to undo (any of :mod:`springback.elasticity.doses`, the same for all).
    ``seed`` is that of the aligned model, ``draw`` the attacker's own; None: the same one.
    ``kind``: which attacker in words; empty for the study's own way.  ``learning_rate``: None where
    nothing is trained.
    """

    learning_rate: float | None
    seed: int
    share_lost: float | None
    dose: Crossing | None = None
    draw: int | None = None
    kind: str = ""

    @property
    def name(self) -> str:
        parts = [self.kind] if self.kind else []
        if self.learning_rate is not None:
            parts.append(f"learning rate {self.learning_rate:g}")
        parts.append(f"seed {self.seed}")
        return ", ".join(parts + ([] if self.draw is None else [f"draw {self.draw}"]))


@dataclass(frozen=True)
class Sweep:
    """One measure over all attackers; a dose that is null lies beyond the largest measured.

    Attributes:
        unit: of the measure
        worst: the largest share, the smallest dose; a dose reached by the first one measured counts
            as that first one
        worst_by: the attacker that did it
        median: over all attackers
        median_by: the attacker nearest to it
        typical: each seed's median over its learning rates and draws, with Student's t over the
            seeds, since the attackers of one seed attack one model
        attackers: how many were tried
        left_out: attackers without a value
        first: of doses, the smallest above 0 that was measured: one that is no larger lies at or
            below it
    """

    unit: str
    worst: float | None
    worst_by: str
    median: float | None
    median_by: str
    typical: Bounded
    attackers: int
    left_out: int
    first: float = field(default=0.0, metadata=ABSENT)


@dataclass(frozen=True)
class AttackSummary:
    """``share``: worst is the largest share lost.  ``dose``: worst is the smallest dose.

    Either is None where no attacker has such a value.
    """

    share: Sweep | None
    dose: Sweep | None


def attack_summary(
    attackers: Sequence[Attacker],
    *,
    largest: float | None = None,
    first: float = 0.0,
    level: float = 0.95,
) -> AttackSummary:
    """Worst case and median over a sweep of learning rates, draws and seeds, at one ``n_pos``.

    ``largest``: the largest dose measured, beyond which doses are censored; needed where some are.
    ``first``: the smallest one above 0, below which a dose is not known further.
    Every seed must have been attacked in the same ways, with the same learning rates and draws,
    else the medians of the seeds are of different things.

    Raises :class:`~springback.errors.DataError` without attackers, on a sweep that is not complete
    or tries one attacker twice, on shares that are not finite, or if ``largest`` is missing.
    """
    _check(attackers)
    shares = [(a, (a.share_lost, a.share_lost)) for a in attackers if a.share_lost is not None]
    doses = []
    for attacker in attackers:
        crossing = attacker.dose
        if crossing is None or (crossing.dose is None and not crossing.censored):
            continue
        if crossing.censored and largest is None:
            raise DataError(
                describe("a censored dose", "with largest=", "pass the largest dose measured")
            )
        doses.append((attacker, dose_range(crossing, largest or 0.0, first)))
    total = len(attackers)
    return AttackSummary(
        _sweep(shares, "share of the gain", max, total, level) if shares else None,
        replace(_sweep(doses, "examples", min, total, level), first=first) if doses else None,
    )


def _check(attackers: Sequence[Attacker]) -> None:
    by_seed: dict[int, list[tuple[str, float | None, int | None]]] = {}
    for a in attackers:
        by_seed.setdefault(a.seed, []).append((a.kind, a.learning_rate, a.draw))
    sweeps = {frozenset(tried) for tried in by_seed.values()}
    twice = any(len(set(tried)) < len(tried) for tried in by_seed.values())
    rates = sorted({a.learning_rate for a in attackers if a.learning_rate is not None})
    shares = [a.share_lost for a in attackers if a.share_lost is not None]
    if len(sweeps) != 1 or twice or not all(map(math.isfinite, shares)):
        raise DataError(
            describe(
                f"{len(attackers)} attackers over {len(by_seed)} seeds with learning rates "
                f"{rates[:3]}",
                "the same learning rates and draws once for every seed, finite shares",
                "run what is missing or leave the seed out",
            )
        )


Ranges = list[tuple[Attacker, tuple[float, float]]]


def _sweep(values: Ranges, unit: str, worst: Callable[..., Any], total: int, level: float) -> Sweep:
    # The upper end stands for a censored dose: infinity, so it comes after every dose reached.
    extreme, (_, worst_value) = worst(values, key=lambda v: v[1][1])
    middle = statistics.median(high for _, (_, high) in values)
    nearest = min(values, key=lambda v: _distance(v[1][1], middle))[0]
    by_seed: dict[int, Ranges] = {}
    for value in values:
        by_seed.setdefault(value[0].seed, []).append(value)
    ends = [_median_range(ranges) for ranges in by_seed.values()]
    typical = bounded_mean([low for low, _ in ends], [high for _, high in ends], level=level)
    return Sweep(
        unit,
        worst_value if math.isfinite(worst_value) else None,
        extreme.name,
        middle if math.isfinite(middle) else None,
        nearest.name,
        typical,
        total,
        total - len(values),
    )


def _distance(value: float, middle: float) -> float:
    return 0.0 if value == middle else abs(value - middle)  # infinity minus infinity is no number


def _median_range(ranges: Ranges) -> tuple[float, float]:
    """Range of the median: that of the lower ends to that of the upper ends."""
    lows, highs = ([ends[side] for _, ends in ranges] for side in (0, 1))
    return statistics.median(lows), statistics.median(highs)
