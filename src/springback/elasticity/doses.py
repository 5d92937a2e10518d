"""Dose to undo, by seed and amount of alignment, and its trend with the amount (A3, Table 3).

Three doses, each the first crossing of the curve interpolated between the doses measured: until
KL(start || model) is at most epsilon; until half, and until all, of the margin that alignment
gained is lost.  A dose that was not reached stays censored, with the nearest value and its dose.
One that was reached by the first dose measured is known to lie at or below it, and no more: the
line from dose 0 to there is no measurement.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from springback.elasticity.card import with_unit
from springback.elasticity.censored import Bounded, bounded_mean, in_words
from springback.elasticity.curves import (
    Crossing,
    dose_to_half_gain,
    dose_to_undo_gain,
    first_crossing,
)
from springback.elasticity.rebound import ReboundCurves, not_testable, testable
from springback.errors import DataError, describe

#: The paper's threshold for KL(start || model), in nats a token.
EPSILON = 0.01

TrendLabel = Literal[
    "falls", "rises", "undecided", "one seed, no interval", "not estimable", "not testable"
]


@dataclass(frozen=True)
class Doses:
    """The first crossing of every branch.

    ``what``: what is undone, in words; ``largest``: the largest dose measured, beyond which
    crossings are censored; ``by_seed``: seed -> one :class:`Crossing` for each of ``n_pos``;
    ``first``: the smallest dose above 0, at or below which a crossing is not known further.
    """

    what: str
    n_pos: tuple[int, ...]
    largest: float
    by_seed: Mapping[int, tuple[Crossing, ...]]
    first: float = 0.0


@dataclass(frozen=True)
class DoseAt:
    """The dose for the model aligned on ``n_pos`` examples, over the seeds.

    ``mean``: see :class:`Bounded`; None if the dose is defined in no seed.  It is what
    :meth:`words`, verdicts and cards say.  ``median``: over the seeds in which the dose is defined,
    a censored one counted as beyond the largest, one reached by the first dose as that; None if
    there is none or it lies beyond itself.  ``censored``, ``before_first`` (reached by the first
    dose) and ``undefined`` (alignment gained nothing) count seeds.  ``extreme`` at
    ``extreme_dose``: the nearest that a curve came.
    """

    n_pos: int
    median: float | None
    mean: Bounded | None
    seeds: int
    censored: int
    undefined: int
    extreme: float
    extreme_dose: float
    before_first: int = 0

    def words(self) -> str:
        """For a table: "120 examples", with what is censored or undefined said."""
        if self.mean is None:
            return "not defined: alignment gained nothing"
        text, notes = dose_in_words(self.mean), []
        if self.censored == self.mean.n:
            text = f"not reached; nearest {self.extreme:.3g} at {self.extreme_dose:.0f} examples"
        if self.censored and self.seeds > 1:
            notes.append(f"censored in {self.censored} of {self.seeds} seeds")
        if self.before_first and self.seeds > 1:
            notes.append(f"by the first dose in {self.before_first} of {self.seeds} seeds")
        if self.undefined:
            notes.append(f"not defined in {self.undefined} of {self.seeds} seeds")
        return text + (f" ({'; '.join(notes)})" if notes else "")


class MeanOfDoses(Protocol):
    """A mean dose, or the ends that it lies between."""

    @property
    def mean(self) -> float | None: ...
    @property
    def at_least(self) -> float | None: ...
    @property
    def at_most(self) -> float | None: ...


def dose_in_words(mean: MeanOfDoses) -> str:
    """A mean dose as it is said everywhere: "20.9 examples", "at most 8 examples"."""
    return in_words(mean.mean, mean.at_least, mean.at_most, lambda v: with_unit(v, "examples"))


@dataclass(frozen=True)
class DoseTrend:
    """Trend of the dose with the amount of alignment.

    Attributes:
        label: `falls`: the more alignment, the fewer examples undo it (the paper's finding)
        slope: change of the dose, in examples, for each doubling of ``n_pos``; null and the label
            `not estimable` where the doses say nothing of it, `not testable` where alignment
            hardly took
        sentence: the same in words
    """

    label: TrendLabel
    slope: Bounded | None
    sentence: str


def doses_to_lose_gain(curves: ReboundCurves, share: Literal["half", "all"] = "half") -> Doses:
    """Dose at which half, or all, of what alignment gained in margin is lost, by seed and branch.

    The gain is that of the seed's own branch.  Raises :class:`~springback.errors.DataError` as
    :func:`first_crossing`.
    """
    dose = dose_to_half_gain if share == "half" else dose_to_undo_gain
    return Doses(
        f"{share} of {curves.gain}",
        tuple(curves.n_pos),
        float(curves.doses[-1]),
        {
            seed: tuple(dose(curves.doses, row, curves.start[seed], row[0]) for row in branches)
            for seed, branches in curves.margins.items()
        },
        first_dose(curves.doses),
    )


def kl_doses(
    n_pos: Sequence[int],
    doses: Sequence[float],
    kl: Mapping[int, Sequence[Sequence[float]]],
    *,
    epsilon: float = EPSILON,
    to_base: bool = False,
) -> Doses:
    """Dose at which KL(start || model) is first at most ``epsilon`` nats a token (their Table 3).

    ``kl``: seed -> [branch][dose], dose 0 (the aligned model) first.  An aligned model that never
    left the neighbourhood has dose 0; of n_pos 0, which is the start model, none is defined, but
    ``to_base``: the KL is then that to the base model of a finished one.

    Raises :class:`~springback.errors.DataError` if branches do not match ``n_pos``, as
    :func:`first_crossing`, or if ``epsilon`` is not above 0.
    """
    if not epsilon > 0 or any(len(rows) != len(n_pos) for rows in kl.values()):
        raise DataError(
            describe(
                f"epsilon {epsilon}, {[len(rows) for rows in kl.values()][:6]} branches a seed",
                f"epsilon above 0, {len(n_pos)} branches (one for each n_pos)",
                "use for example 0.01 and leave out seeds that were not all measured",
            )
        )
    return Doses(
        f"KL to the {'base' if to_base else 'start'} model at most {epsilon:g} nats a token",
        tuple(n_pos),
        float(doses[-1]),
        {
            seed: tuple(
                _kl_dose(n or to_base, doses, row, epsilon)
                for n, row in zip(n_pos, rows, strict=True)
            )
            for seed, rows in kl.items()
        },
        first_dose(doses),
    )


def _kl_dose(
    defined: int | bool, doses: Sequence[float], row: Sequence[float], epsilon: float
) -> Crossing:
    crossing = first_crossing(doses, row, epsilon)
    return crossing if defined else Crossing(None, False, crossing.extreme, crossing.extreme_dose)


def doses_at(doses: Doses, *, level: float = 0.95) -> tuple[DoseAt, ...]:
    """One summary over the seeds for each of ``n_pos``."""
    return tuple(
        _dose_at(n, [row[branch] for row in doses.by_seed.values()], doses, level)
        for branch, n in enumerate(doses.n_pos)
    )


def _dose_at(n_pos: int, crossings: list[Crossing], doses: Doses, level: float) -> DoseAt:
    defined = [c for c in crossings if c.dose is not None or c.censored]
    nearest = min(crossings, key=lambda c: c.extreme)
    mean, median, before_first = None, None, 0
    if defined:
        ranges = [dose_range(c, doses.largest, doses.first) for c in defined]
        before_first = sum(low < high < math.inf for low, high in ranges)
        mean = bounded_mean([r[0] for r in ranges], [r[1] for r in ranges], level=level)
        middle = statistics.median(r[1] for r in ranges)  # infinite if it is censored itself
        median = middle if math.isfinite(middle) else None
    return DoseAt(
        n_pos,
        median,
        mean,
        len(crossings),
        sum(c.censored for c in crossings),
        len(crossings) - len(defined),
        nearest.extreme,
        nearest.extreme_dose,
        before_first,
    )


def first_dose(doses: Sequence[float]) -> float:
    """The smallest dose above 0; 0 if there is none."""
    return min((float(d) for d in doses if d > 0), default=0.0)


def dose_range(crossing: Crossing, largest: float, first: float = 0.0) -> tuple[float, float]:
    """Where the dose can lie: a point; from the largest dose measured upward if censored; from 0
    to the ``first`` dose measured if it was reached by then."""
    if crossing.dose is not None:
        if 0 < crossing.dose <= first:
            return 0.0, first
        return crossing.dose, crossing.dose
    if crossing.censored:
        return largest, math.inf
    raise DataError("the dose is not defined where alignment gained nothing; leave that seed out")


def dose_trend(
    doses: Doses, *, level: float = 0.95, curves: ReboundCurves | None = None
) -> DoseTrend:
    """Does the dose change with the amount of alignment?  Slope on log2 n_pos, t over the seeds.

    Each seed is one block and gives one least-squares slope.  A censored dose lies anywhere above
    the largest one, so the slope of its seed lies in a range, open on the side to which that
    branch pulls; the limits over seeds come from the ends of these ranges (see
    :mod:`springback.elasticity.censored`).  So "fewer examples with more alignment" can still be
    shown when the little aligned branches are censored, and never from what was not measured.  In
    3,000 simulated studies each of three or five seeds without a trend, with 0 to 50 % censored,
    "falls" or "rises" came out in 1 to 5 %.
    Seeds in which some branch gained nothing are left out, since its dose is not defined; so is
    the branch of 0 in every seed.

    ``curves``: those that the doses were read off, which know where alignment hardly took; these
    branches are left out, and where the largest is one of them nothing is testable.

    ``not estimable``: no seed is left, or censored doses leave the slope open on both sides.
    Raises :class:`~springback.errors.DataError` with fewer than two different n_pos.
    """
    about, usable = (
        f"The dose for {doses.what}",
        None if curves is None else testable(curves.aligned()),
    )
    if usable is not None and usable.why:
        text = f"{about} has no trend: {not_testable(usable.why)}."
        return DoseTrend("not testable", None, text)
    if usable is not None:
        kept_sizes = tuple(usable.curves.n_pos)
        rows = {
            s: tuple(c for n, c in zip(doses.n_pos, row, strict=True) if n in kept_sizes)
            for s, row in doses.by_seed.items()
        }
        doses = replace(doses, n_pos=kept_sizes, by_seed=rows)
    kept_branches = [branch for branch, n in enumerate(doses.n_pos) if n]
    x = np.log2(np.asarray([doses.n_pos[branch] for branch in kept_branches], dtype=np.float64))
    if x.size < 2 or np.ptp(x) == 0:
        raise DataError(
            describe(
                f"n_pos {list(doses.n_pos)}",
                "two or more different numbers above 0",
                "align on at least two amounts of data",
            )
        )
    rows = {s: tuple(row[branch] for branch in kept_branches) for s, row in doses.by_seed.items()}
    kept = {
        seed: row
        for seed, row in rows.items()
        if all(c.dose is not None or c.censored for c in row)
    }
    left_out = len(doses.by_seed) - len(kept)
    note = f" Left out: {left_out} of {len(doses.by_seed)} seeds, without a gain." * bool(left_out)
    note += "" if usable is None else usable.note
    if not kept:
        text = f"{about} has no trend: in no seed did every branch gain anything."
        return DoseTrend("not estimable", None, text)
    z = x - x.mean()
    weights = [float(w) if abs(w) > 1e-12 * np.ptp(x) else 0.0 for w in z / (z @ z)]
    ranges = [
        _slope_range([dose_range(c, doses.largest, doses.first) for c in row], weights)
        for row in kept.values()
    ]
    slope = bounded_mean([r[0] for r in ranges], [r[1] for r in ranges], level=level)
    counted = _counted([c for row in kept.values() for c in row], doses)
    if not slope.estimable:
        text = f"{about} has a trend that is open on both sides: {counted}.{note}"
        return DoseTrend("not estimable", None, text)
    label = _label(slope)
    return DoseTrend(
        label, slope, f"{about} {_ends(slope, level)}: {_MEANING[label]}; {counted}.{note}"
    )


def _counted(crossings: Sequence[Crossing], doses: Doses) -> str:
    """How many doses are known as a range only, on which side."""
    censored = sum(c.censored for c in crossings)
    early = sum(c.dose is not None and 0 < c.dose <= doses.first for c in crossings)
    text = f"{censored} of {len(crossings)} doses are censored at {doses.largest:g} examples"
    return f"{text}, {early} at most {doses.first:g}" if early else text


def _slope_range(
    ranges: Sequence[tuple[float, float]], weights: Sequence[float]
) -> tuple[float, float]:
    """Least and largest value of sum(weights * doses) when each dose lies in its range."""
    used = [(r, w) for r, w in zip(ranges, weights, strict=True) if w != 0]
    low = sum(w * (r[0] if w > 0 else r[1]) for r, w in used)
    high = sum(w * (r[1] if w > 0 else r[0]) for r, w in used)
    return low, high


def _label(slope: Bounded) -> TrendLabel:
    if slope.n == 1:
        return "one seed, no interval"
    if slope.high is not None and slope.high < 0:
        return "falls"
    return "rises" if slope.low is not None and slope.low > 0 else "undecided"


_MEANING: dict[TrendLabel, str] = {
    "falls": "the more alignment, the fewer examples undo it",
    "rises": "the more alignment, the more examples are needed",
    "undecided": "the interval does not settle it",
    "one seed, no interval": "one seed shows a direction and proves nothing",
}


def _ends(slope: Bounded, level: float) -> str:
    unit = "examples per doubling of n_pos"
    if slope.mean is not None:
        text = f"changes by {slope.mean:+.3g} {unit}"
    elif slope.at_least is not None and slope.at_most is not None:
        text = f"changes by {slope.at_least:+.3g} to {slope.at_most:+.3g} {unit}"
    elif slope.at_least is not None:
        text = f"changes by at least {slope.at_least:+.3g} {unit}"
    else:
        text = f"changes by at most {slope.at_most:+.3g} {unit}"
    if slope.low is None and slope.high is None:
        return text
    low = "no lower limit" if slope.low is None else f"{slope.low:+.3g}"
    high = "no upper limit" if slope.high is None else f"{slope.high:+.3g}"
    return f"{text} ({100 * level:g} % interval {low} to {high}, {slope.n} seeds)"
