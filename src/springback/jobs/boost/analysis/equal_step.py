"""Is contrast more than a longer step?  EpiCoDe against one plain model that goes as far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from springback.jobs.boost.arm import Arm
from springback.jobs.boost.search import Searched, Tried
from springback.jobs.boost.settings import BoostSettings
from springback.results.boost_schema import EqualStep
from springback.stats import Interval, paired_interval

#: The plain model at mu (1 + lambda), in the table of methods.
EQUAL_STEP = "ME, equal step"
#: Nats a token within which two models' NLL is called the same.
NLL_SAME = 0.002


def equal_step(
    settings: BoostSettings, arms: Mapping[str, Arm], tested: Mapping[str, Tried]
) -> EqualStep | None:
    """The comparison on the test set, and which of the two is written; None without contrast."""
    if EQUAL_STEP not in tested:
        return None
    pair, plain = tested["EpiCoDe"], tested[EQUAL_STEP]
    if arms["EpiCoDe"].key() == arms[EQUAL_STEP].key():
        return None
    correct = [[float(c) for c in arm.correct] for arm in (pair, plain)]
    difference = paired_interval(*correct)
    measured = bool(pair.nll and plain.nll)
    nll = paired_interval(pair.nll, plain.nll) if measured else None
    label = label_of(correct, (pair.nll, plain.nll), settings.tolerance)
    keeps = label == "contrast adds" or settings.keep_pair
    text = _text(arms[EQUAL_STEP].step, difference, nll, label)
    text += (
        " The pair is written."
        if keeps
        else " So the folder is that one model, which costs half as much to decode "
        "(--keep-pair writes the pair)."
    )
    written = "pair" if keeps else "plain"
    return EqualStep(arms[EQUAL_STEP].step, difference, nll, label, written, text)


def label_of(
    correct: Sequence[Sequence[float]], nll: tuple[Sequence[float], Sequence[float]], near: float
) -> str:
    """The word for (pair, plain model): see :class:`EqualStep`.

    ``near``: what is the same accuracy, a share of 1.  Two tests at 5 % one-sided say that a
    difference lies inside its bounds, so their intervals are those of 90 %.
    """
    bounds = paired_interval(*correct).bounds
    if bounds is not None and bounds[0] > 0:
        return "contrast adds"
    if bounds is not None and bounds[1] < 0:
        return "contrast costs"
    inside = [_inside(paired_interval(*correct, level=0.9), near)]
    if all(nll):
        equal = list(nll[0]) == list(nll[1])
        inside.append(equal or _inside(paired_interval(*nll, level=0.9), NLL_SAME))
    return "same" if all(inside) else "undecided"


def _inside(interval: Interval, near: float) -> bool:
    if interval.bounds is None:  # differences that are all equal
        return abs(interval.mean) <= near
    return -near <= interval.bounds[0] and interval.bounds[1] <= near


def _text(step: float, difference: Interval, nll: Interval | None, label: str) -> str:
    words = {
        "same": "as good as",
        "contrast adds": "better than",
        "contrast costs": "worse than",
        "undecided": "not shown to differ from",
    }[label]
    text = (
        f"The contrasted pair is {words} one plain model that goes as far (mu {step:g}): "
        f"{difference.scaled(100).with_bounds('+.1f')} points of accuracy"
    )
    if nll is not None:
        text += f", {nll.with_bounds('+.4f')} nats a token"
    return f"{text}."


def slopes_of(searched: Mapping[str, Searched]) -> dict[str, float] | None:
    """By search the slope of accuracy on NLL, of those in which NLL had a say; None without any."""
    slopes = {
        name: s.choice.slope
        for name, s in searched.items()
        if s.choice is not None and s.choice.slope is not None
    }
    return slopes or None
