"""Simulated nulls: answers of arms between which there is nothing to find, correlated as real ones.

Whether arm a answers question q rightly follows a latent normal: right where it lies below the
quantile of the accuracy.  The latent has a part that every arm and seed shares (hard questions are
hard for all), a part that the arms of one seed share, and a part of the arm's own, whose
correlation between two strengths falls with how many steps lie between them.  So any two arms are
right equally often in the long run, and differ on a share of questions that is set.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy import optimize
from scipy import stats as sps

from springback.errors import DataError, describe
from springback.stats.values import Floats

#: Correlation of the own parts of two strengths that are neighbours in the search.
NEIGHBOURS = 0.7


@dataclass(frozen=True)
class Null:
    """What is simulated.

    ``accuracy``: of every arm.  ``discordance``: share of questions on which two arms of one seed
    differ whose own parts are independent; neighbours differ less.  ``between_seeds``: share of the
    arms' common part that is the seed's own; 0: a question is as hard in every seed.  ``lasting``:
    share of an arm's own part that every seed repeats: it gains on the same questions again.
    ``seed_effect``: standard deviation over seeds of what all arms but the plain one gain in
    accuracy together: extrapolating helps in one training run and harms in another, and on average
    does nothing.  (Were it an arm's own, validation would find the arm that truly gains.)
    """

    accuracy: float = 0.4
    discordance: float = 0.12
    between_seeds: float = 0.2
    lasting: float = 0.3
    seed_effect: float = 0.0

    def __post_init__(self) -> None:
        most = 2 * self.accuracy * (1 - self.accuracy)
        if not (0 < self.accuracy < 1 and 0 < self.discordance < most):
            raise DataError(
                describe(
                    f"accuracy {self.accuracy}, discordance {self.discordance}",
                    f"accuracy between 0 and 1, discordance between 0 and {most:.3g}",
                    "arms that agree no more than by chance differ on 2 p (1 - p)",
                )
            )


@functools.cache
def shared_part(null: Null) -> float:
    """Correlation of two latents that makes arms of this accuracy differ on ``discordance``.

    P(differ) = 2 (p - P(both right)), and P(both right) is the bivariate normal's.
    """
    edge = NormalDist().inv_cdf(null.accuracy)

    def differ(correlation: float) -> float:
        both = sps.multivariate_normal.cdf(
            [edge, edge], mean=[0, 0], cov=[[1, correlation], [correlation, 1]]
        )
        return 2 * (null.accuracy - float(both)) - null.discordance

    return float(optimize.brentq(differ, 0.0, 1 - 1e-6, xtol=1e-6))


def answers(
    null: Null, arms: int, questions: int, rng: np.random.Generator, seeds: int = 1, plain: int = 0
) -> Floats:
    """Right (1) or wrong (0): shape [seeds, arms, questions], the same questions in every seed.

    ``plain``: the arm that has no seed effect.
    """
    shared = shared_part(null)
    steps = np.abs(np.subtract.outer(np.arange(arms), np.arange(arms)))
    lower = np.linalg.cholesky(NEIGHBOURS**steps)  # (arms, arms)
    independent = math.sqrt(1 - null.lasting) * rng.standard_normal((seeds, arms, questions))
    independent = lower @ (
        independent + math.sqrt(null.lasting) * rng.standard_normal((1, arms, questions))
    )
    common = math.sqrt(1 - null.between_seeds) * rng.standard_normal((1, 1, questions))
    common = common + math.sqrt(null.between_seeds) * rng.standard_normal((seeds, 1, questions))
    latent = math.sqrt(shared) * common + math.sqrt(1 - shared) * independent
    edge = NormalDist().inv_cdf(null.accuracy)
    # A shift of the latent by x moves accuracy by about density * x.
    shift = null.seed_effect / NormalDist().pdf(edge) * rng.standard_normal((seeds, 1, 1))
    moved = np.repeat(shift, arms, axis=1)  # (seeds, arms, 1)
    moved[:, plain] = 0
    return (latent < edge + moved).astype(np.float64)
