"""Two arms on the same questions: intervals of the difference, the exact McNemar test."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special
from scipy import stats as sps

from springback.errors import DataError, describe
from springback.stats.intervals import bootstrap_of, mean_interval, percentiles, resampled_crossed
from springback.stats.seeds import paired_t
from springback.stats.values import (
    Arms,
    Floats,
    Interval,
    Values,
    binary,
    checked_resamples,
    paired_arms,
    t_half,
    upper_quantile,
)


def paired_bootstrap(
    a: Arms,
    b: Arms,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    clusters: Sequence[object] | None = None,
) -> Interval:
    """Mean of a - b over questions, percentile bootstrap over questions.

    ``a`` and ``b``: [questions], or [seeds, questions] with the same questions in each row; then
    seeds and questions are drawn independently, since both are blocks.  ``clusters`` (one label a
    question, one seed only) draws whole clusters.  Differences that are all equal have no bounds.
    For a verdict use :func:`paired_interval`, whose coverage is nearer the nominal level.

    Raises :class:`~springback.errors.DataError` if the arms do not pair up.
    """
    left, right = paired_arms(a, b)
    table = left - right  # [seeds, questions]
    seeds, questions = table.shape
    if seeds == 1:
        return bootstrap_of(table[0], level, resamples, seed, clusters)
    if clusters is not None:
        raise DataError(
            describe(
                f"clusters together with {seeds} seeds",
                "clusters with one seed",
                "leave clusters out: seeds and questions are blocks already",
            )
        )
    draws = resampled_crossed(table, checked_resamples(resamples), seed)
    method = f"percentile bootstrap over {seeds} seeds and {questions} questions"
    return percentiles(float(table.mean()), draws, level, questions, method)


def paired_interval(a: Arms, b: Arms, *, level: float = 0.95) -> Interval:
    """Mean of a - b with the interval that verdicts are read from; nothing random in it.

    ``a`` and ``b``: [questions], or [seeds, questions] with the same questions in each row; ``n``
    counts questions.  Answers that are 0 or 1 on one seed: Tango's score interval (1998), which
    leaves 0 out exactly where McNemar's asymptotic test does, keeps its coverage where few answers
    differ, and reaches 3.8/n each way when none does.  Other scores on one seed: paired t.  Several
    seeds: see ``_crossed``.  Seeds with test sets of their own: :func:`mean_interval` over the
    seeds' means.  A verdict asks for an exact test besides (:func:`~springback.stats.verdict`).
    Arms that are one and the same model differ by exactly nothing, which no data can show: the
    caller has to handle that case.

    Raises :class:`~springback.errors.DataError` if the arms do not pair up.
    """
    left, right = paired_arms(a, b)
    table, right_or_wrong = left - right, binary(left, right)
    seeds, questions = table.shape
    if questions == 1:
        return Interval(float(table.mean()), None, None, 1, "one question, no interval")
    if seeds > 1:
        return _crossed(table, right_or_wrong, level)
    if not right_or_wrong:
        return mean_interval(table[0], level=level)
    won, lost = float((table > 0).sum()), float((table < 0).sum())
    low, high = _tango(won, lost, questions, level), -_tango(lost, won, questions, level)
    method = "score interval of paired proportions (Tango)"
    return Interval(float(table.mean()), low, high, questions, method)


def _tango(won: float, lost: float, n: int, level: float) -> float:
    """Lower end of Tango's interval (Statistics in Medicine 17, 1998) of the share won - lost.

    The smallest D that the score test keeps: (won - lost - n D) / sqrt(n (2 q + D (1 - D))) = z,
    where q is the chance to lose a question that is most likely under D.
    """
    z = float(special.ndtri(upper_quantile(level)))

    def beyond(d: float) -> float:
        b = -won - lost + (2 * n - won + lost) * d
        q = (math.sqrt(max(b * b + 8 * n * lost * d * (1 - d), 0.0)) - b) / (4 * n)
        return won - lost - n * d - z * math.sqrt(n * max(2 * q + d * (1 - d), 0.0))

    # At the estimate itself the variance may be 0, which is a root but not the end.
    estimate = (won - lost) / n - 1e-9
    return -1.0 if beyond(-1.0) <= 0 else float(optimize.brentq(beyond, -1.0, estimate, xtol=1e-12))


def _crossed(table: Floats, right_or_wrong: bool, level: float) -> Interval:
    """Interval of the grand mean of ``table`` [seeds, questions], both drawn at random.

    Half width^2 = (t_s^2 MS_seed + t_q^2 max(MS_question - MS_residual, 0)) / (seeds * questions),
    and at least t_q^2 MS_question / (seeds * questions), where t_s has seeds - 1 degrees of freedom
    and t_q questions - 1: seeds answer for what differs between them and for the residual,
    questions for what they do alike in every seed.  In expectation the two mean squares add up to
    the variance of the mean.  One pooled quantile (Satterthwaite) would be narrower; at two and
    three seeds it gave 3 to 9 % false gains at nominal 2.5 %, since it trusts a spread between
    seeds that two of them cannot show.  For answers that are 0 or 1 one question won and one lost
    are added to MS_question, each as large as the differing questions are on average (root mean
    square of the mean over seeds; 1 if none differs), so that few differing answers cannot make a
    narrow interval (Bonett and Price 2012 do so for one seed).
    """
    seeds, questions = table.shape
    mean, by_seed, by_question = float(table.mean()), table.mean(axis=1), table.mean(axis=0)
    square = float(((table - mean) ** 2).sum())
    of_seeds = questions * float(((by_seed - mean) ** 2).sum())
    of_questions = seeds * float(((by_question - mean) ** 2).sum())
    ms_seed = of_seeds / (seeds - 1)
    ms_rest = max(square - of_seeds - of_questions, 0.0) / ((seeds - 1) * (questions - 1))
    if right_or_wrong:
        differing = int((table != 0).any(axis=0).sum())
        weight = float((by_question**2).sum()) / differing if differing else 1.0
        of_questions += 2 * max(weight, 1 / seeds**2) * seeds
    ms_question = of_questions / (questions - 1)
    if ms_seed + ms_question <= 1e-24 * max(1.0, mean**2) * table.size:
        return Interval(mean, None, None, questions, "all values equal, no interval")
    upper = upper_quantile(level)
    seed_part = t_half(ms_seed / table.size, seeds - 1, upper) ** 2
    alike = max(ms_question - ms_rest, 0.0)
    both = seed_part + t_half(alike / table.size, questions - 1, upper) ** 2
    half = max(math.sqrt(both), t_half(ms_question / table.size, questions - 1, upper))
    method = f"crossed t over {seeds} seeds and {questions} questions"
    return Interval(mean, mean - half, mean + half, questions, method)


def paired_clusters(
    a: Values, b: Values, clusters: Sequence[object], *, level: float = 0.95
) -> tuple[Interval, float | None]:
    """Mean of a - b over questions where whole clusters are drawn: its interval, and a p-value.

    ``a``, ``b``: [questions]; ``clusters``: a label a question.  The variance is that of the
    clusters' sums around their size times the mean (cluster-robust, with the factor C / (C - 1)),
    the quantile Student's t with C - 1 degrees of freedom, C being the number of clusters, which
    ``n`` counts.  No bounds and no p with a single cluster or where all clusters agree exactly.

    Raises :class:`~springback.errors.DataError` if the arms do not pair up or labels are missing.
    """
    left, right = paired_arms(a, b)
    differences = (left - right)[0]
    if left.shape[0] != 1 or len(clusters) != differences.size:
        raise DataError(
            describe(
                f"{len(clusters)} labels for {differences.size} questions",
                "one label a question, one seed",
                "pass labels in the order of the questions",
            )
        )
    order = {label: i for i, label in enumerate(dict.fromkeys(clusters))}
    member = np.array([order[label] for label in clusters])
    mean = float(differences.mean())
    # What each cluster adds to the error of the mean; they sum to 0.
    errors = np.bincount(member, weights=differences - mean) / differences.size
    count, square = len(order), float((errors**2).sum())
    if count < 2 or square <= 1e-24 * max(1.0, mean**2):
        return Interval(mean, None, None, count, "clusters without spread, no interval"), None
    variance = square * count / (count - 1)
    half = t_half(variance, count - 1, upper_quantile(level))
    p = float(2 * sps.t.sf(abs(mean) / math.sqrt(variance), count - 1))
    return Interval(mean, mean - half, mean + half, count, "Student's t over clusters"), p


def paired_p(a: Values, b: Values) -> float | None:
    """The p-value that a verdict asks for beside :func:`paired_interval`, shape [questions].

    Answers that are 0 or 1: exact McNemar.  Other scores: paired t (:func:`paired_t`; None where
    all differences are equal and not 0).
    """
    right_or_wrong = binary(*paired_arms(a, b))
    return mcnemar_exact(a, b) if right_or_wrong else paired_t(a, b)


def mcnemar_exact(a: Values, b: Values) -> float:
    """Two-sided p-value of the exact McNemar test on answers that are 0 or 1, shape [questions].

    Under the null each question that differs is won or lost with chance one half.  1.0 when none
    differs.  Raises :class:`~springback.errors.DataError` if the arms do not pair up or hold other
    values.
    """
    left, right = paired_arms(a, b)
    if not binary(left, right) or left.shape[0] != 1:
        raise DataError(
            describe(
                "scores other than 0 and 1, or several seeds",
                "0 or 1 a question, one seed",
                "use paired_interval for other scores",
            )
        )
    won, lost = int((left > right).sum()), int((left < right).sum())
    return _sign_test(won, won + lost)


@functools.lru_cache(maxsize=4096)
def _sign_test(won: int, differing: int) -> float:
    return float(sps.binomtest(won, differing, 0.5).pvalue) if differing else 1.0
