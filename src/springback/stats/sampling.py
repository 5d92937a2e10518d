"""Several sampled answers to each question: where their spread comes from, and pass@k."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from springback.errors import DataError, describe
from springback.stats.values import Floats


@dataclass(frozen=True)
class Spread:
    """Where the variance of a score comes from (law of total variance).

    ``questions``: of the questions' expected scores; an unbiased estimate, so it may fall below 0
    where that is small.  ``sampling``: of one sample around its question's expected score, the
    mean over questions.
    """

    questions: float
    sampling: float

    def of_mean(self, samples: int) -> float:
        """Variance, over questions, of the mean of so many samples of a question; at least 0."""
        return max(self.questions + self.sampling / samples, 0.0)


def spread_of(table: Sequence[Sequence[float]] | Floats) -> Spread:
    """The parts of the variance of scores [questions, samples], or of differences of two arms.

    Both parts are unbiased with any number of samples from 2 on: the mean of the variances within
    questions (divisor K - 1), and the variance of the questions' means less 1/K of that.  Raises
    :class:`~springback.errors.DataError` below two questions or two samples each.
    """
    scores = np.asarray(table, np.float64)
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise DataError(
            describe(
                f"scores of shape {scores.shape}",
                "[questions, samples], two of each at least",
                "sample more",
            )
        )
    within = float(scores.var(axis=1, ddof=1).mean())
    between = float(scores.mean(axis=1).var(ddof=1))
    return Spread(between - within / scores.shape[1], within)


def pass_at_k(right: Sequence[int], samples: int, k: int) -> list[float]:
    """By question the chance that one of ``k`` samples is right, ``right`` of ``samples`` being so.

    1 - C(n - c, k) / C(n, k), unbiased (Chen et al., arXiv 2107.03374).  Raises
    :class:`~springback.errors.DataError` unless 1 <= k <= samples and every count is possible.
    """
    if not 1 <= k <= samples or any(not 0 <= count <= samples for count in right):
        raise DataError(
            describe(
                f"k {k}, {samples} samples, {max(right, default=0)} right at most",
                "1 <= k <= samples, and 0 to that many right",
                "sample more or ask for a smaller k",
            )
        )
    ways = math.comb(samples, k)
    return [1.0 - math.comb(samples - count, k) / ways for count in right]
