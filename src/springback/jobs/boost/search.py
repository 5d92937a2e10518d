"""The search of paper B (section B4): mu, then lambda with mu frozen; or both jointly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from springback.jobs.boost.candidates import RULES as RULES
from springback.jobs.boost.candidates import candidates as candidates
from springback.results.boost_schema import Candidate, JointCandidate
from springback.stats import Interval
from springback.stats.smoothing import smoothed_gains


@dataclass(frozen=True)
class Letters:
    """By question: the right letter's probability among those on offer, whether it is largest."""

    probability: tuple[float, ...]
    correct: tuple[bool, ...]


@dataclass(frozen=True)
class Tried:
    """One candidate on a set of questions: score per question (0 to 1, or the mean of its samples),
    NLL per question.

    ``nll`` is empty where it is withheld (:func:`springback.data.nll_withheld`).  ``cut``: how
    many answers reached the limit of new tokens; None where that is not known.  ``letters``: the
    log-likelihood of choices, where it was taken.  ``sampled``: whether each of several samples is
    right, by question.
    """

    value: float
    correct: tuple[float, ...]
    nll: tuple[float, ...]
    cut: int | None = None
    letters: Letters | None = None
    sampled: tuple[tuple[bool, ...], ...] = ()

    @property
    def cut_share(self) -> float | None:
        answers = len(self.correct) * (len(self.sampled[0]) if self.sampled else 1)
        return None if self.cut is None else self.cut / answers

    @property
    def accuracy(self) -> float:
        return sum(self.correct) / len(self.correct)


@dataclass(frozen=True)
class Choice:
    """Which of some candidates, by its place among them.

    ``gains``: the expected gain in accuracy of each over the first, smoothed along them; None by
    a rule that does not smooth.  ``slope``: accuracy that a nat a token less brings, None where
    NLL had no say.
    """

    index: int
    gains: tuple[float, ...] | None = None
    slope: float | None = None


@dataclass(frozen=True)
class Searched:
    """What one search decoded, in order of value, and the candidate it chose."""

    points: tuple[Tried, ...]
    chosen: Tried
    choice: Choice | None = None
    #: What candidates are called that are no strengths.
    names: tuple[str, ...] | None = None


def choose(tried: Sequence[Tried], one_se: bool = False) -> Tried:
    """By the rule ``best``, in any order: the best mean accuracy, ties to the smaller value."""
    ordered = sorted(tried, key=lambda t: t.value)
    return ordered[choose_first([t.correct for t in ordered], one_se)]


def choose_first(correct: Sequence[Sequence[float]], one_se: bool = False) -> int:
    """Which of some candidates, ordered from small to large: the first with the best mean.

    ``one_se``: the first whose mean lies within one standard error of the best one's.  The error is
    that of the paired differences, question by question: their standard deviation over sqrt(n).
    """
    # Rounded, so that equal means of samples are a tie.
    best = max(range(len(correct)), key=lambda i: (round(math.fsum(correct[i]), 9), -i))
    if not one_se:
        return best
    for i, rival in enumerate(correct):
        behind = [float(a) - float(b) for a, b in zip(correct[best], rival, strict=True)]
        error = stdev(behind) / math.sqrt(len(behind)) if len(behind) > 1 else 0.0
        if fmean(behind) <= error:
            return i
    return best


def choice_of(
    tried: Sequence[Tried],
    points: Sequence[float] | Sequence[Sequence[float]],
    rule: str = "auto",
    one_se: bool = False,
) -> Choice:
    """Which of some candidates, in the order that ties are decided by, the first winning.

    ``points``: where each lies, as a strength or several; neighbours speak for each other.
    ``rule``: ``accuracy``, the best expected gain over the first
    (:func:`springback.stats.smoothing.smoothed_gains`); ``auto``, the same with the NLL of the
    reference solutions where validation shows that it agrees; ``nll``, the lowest NLL; ``best``,
    the best accuracy as it stands, as in the paper.  ``one_se`` overrides it
    (:func:`choose_first`).
    """
    measured = all(t.nll for t in tried)
    if rule == "nll" and not one_se:
        return Choice(min(range(len(tried)), key=lambda i: (fmean(tried[i].nll), i)))
    correct = [t.correct for t in tried]
    if rule == "best" or one_se:
        return Choice(choose_first(correct, one_se))
    nll = [fmean(t.nll) for t in tried] if rule == "auto" and measured else None
    smoothed = smoothed_gains(points, np.array(correct, np.float64), nll)
    gains = tuple(round(float(gain), 12) for gain in smoothed.gain)
    return Choice(max(range(len(gains)), key=lambda i: (gains[i], -i)), gains, smoothed.slope)


def lowest(nll: Sequence[Sequence[float]], keep: int) -> list[int]:
    """The ``keep`` candidates with the lowest mean NLL, in their order; ties to the earlier."""
    ranked = sorted(range(len(nll)), key=lambda i: (fmean(nll[i]), i))
    return sorted(ranked[:keep])


def curve(
    searched: Searched, interval: Callable[[Sequence[float]], Interval]
) -> tuple[Candidate, ...]:
    """The search as the result file records it."""
    gains = searched.choice.gains if searched.choice else None
    return tuple(
        Candidate(
            t.value,
            interval([float(c) for c in t.correct]),
            interval(t.nll) if t.nll else None,
            t.value == searched.chosen.value,
            gains[i] if gains else None,
            searched.names[i] if searched.names else None,
        )
        for i, t in enumerate(searched.points)
    )


def grid(
    tried: Mapping[tuple[float, float], Tried],
    chosen: tuple[float, float],
    interval: Callable[[Sequence[float]], Interval],
) -> tuple[JointCandidate, ...]:
    """A joint search, by (mu, lambda), as the result file records it."""
    return tuple(
        JointCandidate(
            mu,
            lam,
            interval([float(c) for c in t.correct]),
            interval(t.nll) if t.nll else None,
            (mu, lam) == chosen,
        )
        for (mu, lam), t in sorted(tried.items())
    )
