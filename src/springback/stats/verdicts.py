"""Verdicts from intervals; corrections for many tests; how many questions a gain needs."""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize
from scipy import stats as sps

from springback.errors import DataError, describe
from springback.stats.values import Interval, Values, Verdict, upper_quantile, vector


def verdict(
    interval: Interval, *, tolerance: float = 0.01, p: float | None = None, level: float = 0.95
) -> Verdict:
    """The interval of (new - old) in words.

    ``"gain"`` when it lies above 0, ``"harm"`` when below; these come first, so a gain smaller
    than ``tolerance`` is still a gain (and may lie wholly inside +-tolerance).  ``p`` is that of an
    exact test of the same difference, two-sided: where it is above 1 - ``level`` the word is
    neither, so that a gain is said falsely no oftener than the exact test does, however few answers
    differ.  ``"no gain"`` when the interval lies inside +-``tolerance`` (same unit as the interval;
    0.01 is one point of accuracy).  Else, and without bounds, ``"undecided"``.
    """
    if not tolerance >= 0.0:
        raise DataError(describe(f"tolerance {tolerance}", "0 or more", "use for example 0.01"))
    if interval.bounds is None:
        return "undecided"
    low, high = interval.bounds
    if p is None or p <= 1.0 - level:
        if low > 0.0:
            return "gain"
        if high < 0.0:
            return "harm"
    return "no gain" if low >= -tolerance and high <= tolerance else "undecided"


def holm(pvalues: Values) -> tuple[float, ...]:
    """Holm's step-down adjusted p-values, in the order given.

    Compare each with the wanted level: the chance of any false rejection stays below it, however
    the tests depend on one another.  Raises :class:`~springback.errors.DataError` on values
    outside 0..1.
    """
    if len(pvalues) == 0:
        return ()
    array = vector(pvalues, "p-values")
    if (array < 0).any() or (array > 1).any():
        raise DataError(
            describe("p-values outside 0..1", "between 0 and 1", "pass p-values, not statistics")
        )
    order = np.argsort(array, kind="stable")
    scaled = array[order] * np.arange(array.size, 0, -1)
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return tuple(float(p) for p in adjusted)


def power_questions(
    effect: float = 0.01, discordance: float = 0.1, level: float = 0.95, power: float = 0.8
) -> int:
    """Questions needed to see a difference of ``effect`` in accuracy with chance ``power``.

    ``discordance`` is the share of questions on which the arms differ (won plus lost), so it is
    at least ``|effect|``.  McNemar's test, two-sided at 1 - ``level`` (Connor 1987):
    n = (z_a sqrt(discordance) + z_b sqrt(discordance - effect^2))^2 / effect^2.

    Raises :class:`~springback.errors.DataError` on an effect of 0, a discordance outside
    ``|effect|``..1, or a level or power outside (0, 1).
    """
    upper = upper_quantile(level)
    if effect == 0.0 or not abs(effect) <= discordance <= 1.0 or not 0.0 < power < 1.0:
        raise DataError(
            describe(
                f"effect {effect}, discordance {discordance}, power {power}",
                "0 < |effect| <= discordance <= 1 and 0 < power < 1",
                "an effect of one point is 0.01",
            )
        )
    reach = float(sps.norm.ppf(upper)) * math.sqrt(discordance)
    reach += float(sps.norm.ppf(power)) * math.sqrt(discordance - effect**2)
    return math.ceil(reach**2 / effect**2)


def questions_by_spread(
    effect: float, deviation: float, level: float = 0.95, power: float = 0.8
) -> int:
    """Questions needed to see a mean difference of ``effect`` with chance ``power``, by paired t.

    ``deviation``: standard deviation of the differences, question by question, in the unit of
    ``effect``: n = ((z_a + z_b) deviation / effect)^2.  Raises
    :class:`~springback.errors.DataError` on an effect of 0, a deviation that is not above 0, or a
    level or power outside (0, 1).
    """
    upper = upper_quantile(level)
    if effect == 0.0 or not 0.0 < deviation < math.inf or not 0.0 < power < 1.0:
        raise DataError(
            describe(
                f"effect {effect}, deviation {deviation}, power {power}",
                "an effect other than 0, a deviation above 0, 0 < power < 1",
                "an effect of one point is 0.01",
            )
        )
    reach = float(sps.norm.ppf(upper)) + float(sps.norm.ppf(power))
    return math.ceil((reach * deviation / effect) ** 2)


def power_effect(
    questions: int, discordance: float = 0.1, level: float = 0.95, power: float = 0.8
) -> float:
    """The difference in accuracy that ``questions`` show with chance ``power``.

    The inverse of :func:`power_questions`: with A = z_a sqrt(d), n e^2 = (A + z_b sqrt(d - e^2))^2
    has the one root e in 0..d; infinite where even the largest difference that so few differing
    questions allow, d itself, is not seen.  Raises :class:`~springback.errors.DataError` on a
    discordance outside 0..1 (0 excluded), no question, or a level or power outside (0, 1).
    """
    upper = upper_quantile(level)
    if questions < 1 or not 0.0 < discordance <= 1.0 or not 0.0 < power < 1.0:
        raise DataError(
            describe(
                f"{questions} questions, discordance {discordance}, power {power}",
                "1 or more questions, 0 < discordance <= 1, 0 < power < 1",
                "count the questions on which the arms differ",
            )
        )
    reach, back = float(sps.norm.ppf(upper)) * math.sqrt(discordance), float(sps.norm.ppf(power))

    def short(effect: float) -> float:
        left = max(discordance - effect**2, 0.0)
        return reach + back * math.sqrt(left) - math.sqrt(questions) * effect

    # Never more than d: each differing question counts once.
    if short(discordance) > 0:
        return math.inf
    return float(optimize.brentq(short, 0.0, discordance))
