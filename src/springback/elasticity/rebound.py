"""What the audit's curves and losses say, as a label and a sentence with the numbers in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from springback.elasticity.curves import (
    absolute_fall,
    bootstrap_slope,
    share_lost,
    slope_on_log2,
)
from springback.errors import DataError, describe
from springback.stats import Interval, mean_interval

ReboundLabel = Literal[
    "shown", "opposite", "undecided", "one seed, no interval", "did not align", "not testable"
]
ResistanceLabel = Literal["resists", "no resistance", "undecided", "one seed, no interval"]


@dataclass(frozen=True)
class ReboundCurves:
    """The margins of one rebound study, in nats a token, higher = more aligned.

    Or another score of which higher is more aligned: ``what`` and ``unit`` then name it.  ``gain``:
    what there is to lose, in words.
    ``n_pos``: aligning examples of each branch; ``doses``: perturbing examples, 0 first;
    ``start``: seed -> margin of the start model; ``margins``: seed -> [branch][dose].
    ``noise``: by branch, the noise of its gain (:func:`took`); None where it is not known, and then
    every gain counts.
    Raises :class:`~springback.errors.DataError` if seeds or branches do not match up.
    """

    n_pos: Sequence[int]
    doses: Sequence[float]
    start: Mapping[int, float]
    margins: Mapping[int, Sequence[Sequence[float]]]
    what: str = "the margin"
    unit: str = "nats a token"
    gain: str = "the gain in margin"
    noise: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _same_seeds("start margins", self.start, "margins", self.margins)
        if self.noise is not None and len(self.noise) != len(self.n_pos):
            given, do = f"{len(self.noise)} values of noise", "leave the noise out"
            raise DataError(describe(given, f"one for each of the {len(self.n_pos)} n_pos", do))
        for seed, branches in self.margins.items():
            if len(branches) != len(self.n_pos):
                raise DataError(
                    describe(
                        f"{len(branches)} branches for seed {seed}",
                        f"one for each of the {len(self.n_pos)} n_pos",
                        "leave a seed out whose branches were not all measured",
                    )
                )

    def gains(self, branch: int) -> Interval:
        """What aligning that branch gained, over the seeds."""
        return mean_interval([row[branch][0] - self.start[s] for s, row in self.margins.items()])

    def took(self) -> tuple[int, ...]:
        """The branches whose alignment took: all of them where the noise is not known, and that of
        0, where nothing was to take."""
        branches = tuple(range(len(self.n_pos)))
        if self.noise is None:
            return branches
        noise = self.noise
        return tuple(b for b in branches if not self.n_pos[b] or took(self.gains(b), noise[b]))

    def only(self, branches: Sequence[int]) -> ReboundCurves:
        """The same with some of its branches."""
        return replace(
            self,
            n_pos=[self.n_pos[b] for b in branches],
            margins={s: [rows[b] for b in branches] for s, rows in self.margins.items()},
            noise=None if self.noise is None else [self.noise[b] for b in branches],
        )

    def aligned(self) -> ReboundCurves:
        """Without the branch of 0, which has no place on log2 n_pos and no gain to lose."""
        return self.only([branch for branch, n in enumerate(self.n_pos) if n])

    def falls(self, dose: float | None = None) -> dict[int, tuple[float, ...]]:
        """Seed -> :func:`absolute_fall` of each branch, at ``dose`` or the mean over the curve."""
        return {
            seed: tuple(absolute_fall(self.doses, branch, dose) for branch in branches)
            for seed, branches in self.margins.items()
        }

    def shares(self, dose: float | None = None) -> dict[int, tuple[float | None, ...]]:
        """Seed -> :func:`share_lost` of each branch; None where alignment gained nothing."""
        return {
            seed: tuple(share_lost(self.doses, branch, self.start[seed], dose) for branch in rows)
            for seed, rows in self.margins.items()
        }


def took(gain: Interval, noise: float) -> bool:
    """Whether an alignment took, so that there is something to lose.

    That is a gain above twice its ``noise`` (the larger of the standard error from the choice of
    texts, paired by text, and what scoring alone moves), whose interval over the seeds, where there
    is one, lies above 0.  Of a gain that is no larger, shares and doses are quotients of noise.
    """
    return gain.mean > 2 * noise and (gain.low is None or gain.low > 0)


@dataclass(frozen=True)
class Testable:
    """The branches that a criterion on ``n_pos`` can be judged on.

    ``curves``: those whose alignment took, or all where nothing can be tested.  ``why``: why
    nothing can be tested, or empty; ``note``: what was left out, with a space before it.
    """

    curves: ReboundCurves
    why: str = ""
    note: str = ""


def testable(curves: ReboundCurves) -> Testable:
    """Nothing can be tested where the largest ``n_pos`` hardly took, or no other one did."""
    taken, sizes = curves.took(), curves.n_pos
    if len(taken) == len(sizes):
        return Testable(curves)
    largest = max(range(len(sizes)), key=lambda branch: sizes[branch])
    if largest not in taken:
        return Testable(curves, f"aligning on {sizes[largest]} examples hardly took")
    if len({sizes[b] for b in taken}) < 2:
        return Testable(curves, f"no alignment but that on {sizes[largest]} examples took")
    left = ", ".join(str(n) for b, n in enumerate(sizes) if b not in taken)
    return Testable(
        curves.only(taken), note=f" Left out: n_pos {left}; alignment hardly took there."
    )


@dataclass(frozen=True)
class Criterion:
    """One criterion of rebound.  ``elasticity.bootstrap_slope`` says why the bootstrap decides
    nothing.

    Attributes:
        label: follows from the t interval of ``slope``; `not testable` where alignment hardly took
        slope: change for each doubling of ``n_pos``; null where nothing could be measured
        sentence: the same in words
        bootstrap: ``slope`` with whole seeds drawn, from three seeds on
    """

    label: ReboundLabel
    slope: Interval | None
    sentence: str
    bootstrap: Interval | None = None


@dataclass(frozen=True)
class ReboundJudgement:
    """``paper``: the absolute fall steepens with n_pos.  ``strict``: so does the share lost."""

    paper: Criterion
    strict: Criterion


def several_sizes(n_pos: Sequence[int]) -> bool:
    """Whether there are two amounts of alignment or more, without which nothing has a slope."""
    return len(set(n_pos) - {0}) > 1


def _same_seeds(what: str, a: Mapping[int, object], other: str, b: Mapping[int, object]) -> None:
    if not a or a.keys() != b.keys():
        raise DataError(
            describe(
                f"{what} for seeds {sorted(a)}, {other} for seeds {sorted(b)}",
                "the same seeds, at least one",
                "leave out seeds that were not measured in both",
            )
        )


def count_seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"


def bounds_in_words(
    interval: Interval, level: float, show: Callable[[float], str] = "{:.3g}".format
) -> str:
    if interval.bounds is None:
        return interval.method
    low, high = interval.bounds
    return f"{100 * level:g} % interval {show(low)} to {show(high)}"


def rebound_label(slope: Interval) -> ReboundLabel:
    if slope.n == 1:
        return "one seed, no interval"
    if slope.bounds is None:
        return "undecided"
    low, high = slope.bounds
    return "shown" if low > 0 else ("opposite" if high < 0 else "undecided")


def rebound_judgement(
    curves: ReboundCurves, *, dose: float | None = None, level: float = 0.95
) -> ReboundJudgement:
    """Does the return speed up with the amount of alignment?  Two criteria, both named.

    *Paper* (A3): the absolute fall of the margin steepens with n_pos.  *Strict*: it steepens
    beyond proportional decay at one rate, under which each branch loses the same share of its
    gain at the same dose; so the share lost must grow with n_pos.  Each is a slope on log2 n_pos,
    one a seed, t over seeds: ``shown`` if its interval lies above 0, ``opposite`` below 0.  Seeds
    in which a branch gained nothing have no share and leave the strict criterion.  The branch of
    0 is left out.  Where the curves know their noise and the largest alignment hardly took, both
    are ``not testable``; the strict one also leaves out branches that hardly took.

    ``dose``: where on the curves to look; None takes the mean over each curve, which is less
    noisy.  Raises :class:`~springback.errors.DataError` with fewer than two n_pos or as
    :func:`absolute_fall`.
    """
    curves = curves.aligned()
    paper = slope_on_log2(curves.n_pos, curves.falls(dose), level=level)
    ends = {
        "shown": "the more alignment, the steeper the fall",
        "opposite": "the more alignment, the smaller the fall",
        "undecided": "the interval does not settle whether more alignment falls faster",
        "one seed, no interval": "one seed shows a direction and proves nothing",
    }
    why = "" if _largest_took(curves) else testable(curves).why
    label: ReboundLabel = "not testable" if why else rebound_label(paper)
    sentence = (
        f"Over {count_seeds(paper.n)}, {where(curves, dose)}, {curves.what}'s fall changes by "
        f"{paper.mean:+.3g} {curves.unit} per doubling of {reach(curves)} "
        f"({bounds_in_words(paper, level)}): {not_testable(why) or ends[label]}."
    )
    bootstrap = bootstrap_slope(curves.n_pos, curves.falls(dose), level=level)
    return ReboundJudgement(
        Criterion(label, paper, sentence, bootstrap), _strict(curves, dose, level)
    )


def _largest_took(curves: ReboundCurves) -> bool:
    return max(curves.n_pos) in {curves.n_pos[branch] for branch in curves.took()}


def not_testable(why: str) -> str:
    """The end of a sentence; empty where something can be tested."""
    return f"{why}, so this is not testable" if why else ""


def where(curves: ReboundCurves, dose: float | None) -> str:
    if dose is None:
        return f"on average over doses up to {curves.doses[-1]:g}"
    return f"after {dose:g} perturbing examples"


def reach(curves: ReboundCurves) -> str:
    return f"n_pos from {min(curves.n_pos)} to {max(curves.n_pos)}"


def _strict(curves: ReboundCurves, dose: float | None, level: float) -> Criterion:
    usable = testable(curves)
    curves, why = usable.curves, usable.why
    shares: dict[int, Sequence[float]] = {}
    for seed, row in curves.shares(dose).items():
        kept = [share for share in row if share is not None]
        if len(kept) == len(row):
            shares[seed] = kept
    left_out = len(curves.margins) - len(shares)
    note = (
        f" Left out: {count_seeds(left_out)}; alignment gained nothing there." if left_out else ""
    )
    if not shares:
        return Criterion(
            "not testable" if why else "did not align",
            None,
            f"In no seed did alignment raise {curves.what} at every n_pos, so there is no gain to "
            "lose a share of.",
        )
    slope = slope_on_log2(curves.n_pos, shares, level=level)
    ends = {
        "shown": "steeper than proportional decay at one rate",
        "opposite": "the more alignment, the smaller the share lost, so slower than proportional "
        "decay at one rate",
        "undecided": "proportional decay at one rate is not ruled out",
        "one seed, no interval": "one seed shows a direction and proves nothing",
    }
    label: ReboundLabel = "not testable" if why else rebound_label(slope)
    bounds = bounds_in_words(slope, level, lambda value: f"{100 * value:.3g}")
    return Criterion(
        label,
        slope,
        f"Over {count_seeds(slope.n)}, {where(curves, dose)}, the share of the gain that is lost "
        f"changes by {100 * slope.mean:+.3g} points per doubling of {reach(curves)} ({bounds}): "
        f"{not_testable(why) or ends[label]}.{note}{usable.note}",
        bootstrap_slope(curves.n_pos, shares, level=level),
    )


@dataclass(frozen=True)
class ResistanceJudgement:
    """One pair of models of the resistance experiment.

    ``ratio``: inverse over forward training loss, geometric mean over seeds (below 1 = going back
    is easier).  ``excess``: inverse minus forward excess over the target's own NLL, in nats a
    token; None if not measured.  ``paper_label`` reads the ratio alone, as the paper does;
    ``label`` needs both to agree.
    """

    ratio: Interval
    excess: Interval | None
    paper_label: ResistanceLabel
    label: ResistanceLabel
    sentence: str


def resistance_judgement(
    forward_by_seed: Mapping[int, float],
    inverse_by_seed: Mapping[int, float],
    *,
    forward_excess: Mapping[int, float] | None = None,
    inverse_excess: Mapping[int, float] | None = None,
    level: float = 0.95,
) -> ResistanceJudgement:
    """Is going back easier than going forward, for one pair of models (A2)?

    Losses are training losses in nats a token, seed -> value; the excess of a loss is what it has
    above the NLL that the model which wrote the data gives its own text, since a smaller loss may
    only mean easier text.  ``resists`` if the inverse loss is lower and so is the inverse excess,
    each with its interval across seeds; ``no resistance`` if either is shown to be higher; without
    the excess the label stays ``undecided`` unless the ratio alone denies it.

    Raises :class:`~springback.errors.DataError` if the seeds differ or a loss is not above 0.
    """
    _same_seeds("forward losses", forward_by_seed, "inverse losses", inverse_by_seed)
    losses = [*forward_by_seed.values(), *inverse_by_seed.values()]
    if not all(math.isfinite(loss) and loss > 0 for loss in losses):
        raise DataError(
            describe(
                f"losses {losses[:6]}",
                "finite and above 0",
                "leave out seeds whose training failed",
            )
        )
    logs = mean_interval(
        [math.log(inverse_by_seed[s] / loss) for s, loss in forward_by_seed.items()], level=level
    )
    ratio = _exponential(logs)
    excess = None
    if forward_excess is not None and inverse_excess is not None:
        _same_seeds("forward excess", forward_excess, "losses", forward_by_seed)
        _same_seeds("inverse excess", inverse_excess, "losses", forward_by_seed)
        gaps = [inverse_excess[seed] - value for seed, value in forward_excess.items()]
        excess = mean_interval(gaps, level=level)
    paper_label = resistance_label(logs)
    label = _agreed(paper_label, None if excess is None else resistance_label(excess))
    sentence = _resistance_sentence(ratio, excess, label, level)
    return ResistanceJudgement(ratio, excess, paper_label, label, sentence)


def _exponential(logs: Interval) -> Interval:
    low, high = logs.bounds or (None, None)
    return Interval(
        math.exp(logs.mean),
        None if low is None else math.exp(low),
        None if high is None else math.exp(high),
        logs.n,
        logs.method if logs.bounds is None else f"{logs.method} of the logarithms",
    )


def resistance_label(change: Interval) -> ResistanceLabel:
    """Of a quantity (inverse against forward) that resistance makes negative."""
    if change.n == 1:
        return "one seed, no interval"
    if change.bounds is None:
        return "undecided"
    low, high = change.bounds
    return "resists" if high < 0 else ("no resistance" if low > 0 else "undecided")


def _agreed(loss: ResistanceLabel, excess: ResistanceLabel | None) -> ResistanceLabel:
    if "no resistance" in (loss, excess):
        return "no resistance"
    if loss == "one seed, no interval":
        return loss
    return "resists" if loss == excess == "resists" else "undecided"


def _resistance_sentence(
    ratio: Interval, excess: Interval | None, label: ResistanceLabel, level: float
) -> str:
    text = (
        f"Over {count_seeds(ratio.n)} the loss going back is {ratio.mean:.3g} times the loss going "
        f"forward ({bounds_in_words(ratio, level)}); "
    )
    if excess is None:
        text += "its excess over the target's own NLL was not measured: "
    else:
        text += (
            f"its excess over the target's own NLL differs by {excess.mean:+.3g} nats a token "
            f"({bounds_in_words(excess, level)}): "
        )
    ends = {
        "resists": "going back is easier by both measures",
        "no resistance": "going back is harder by at least one of the measures",
        "undecided": "the two measures do not both show that going back is easier",
        "one seed, no interval": "one seed shows a direction and proves nothing",
    }
    return f"{text}{ends[label]}."
