"""How far two judges of the same texts agree.

Of two that say yes or no: the share of texts on which they say the same, and Cohen's kappa, which
takes off what chance gives.  Where one gives graded scores: Spearman's rank correlation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats as sps

from springback.stats.values import Floats, Interval

_RESAMPLES = 1000
_METHOD = "percentile bootstrap over prompts"


def cohens_kappa(a: Sequence[bool] | Floats, b: Sequence[bool] | Floats) -> float | None:
    """(observed - expected) / (1 - expected) agreement; None where both always say one thing."""
    one, two = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    yes, also = float(one.mean()), float(two.mean())
    expected = yes * also + (1 - yes) * (1 - also)
    if expected > 1 - 1e-12:
        return None
    return (float((one == two).mean()) - expected) / (1 - expected)


def rank_correlation(a: Floats, b: Floats) -> float | None:
    """Spearman's, ties at their mean rank; None where one gives every text the same score."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    ranks = np.corrcoef(sps.rankdata(a), sps.rankdata(b))
    return float(ranks[0, 1])


def agreement_interval(
    measure: Callable[[Floats, Floats], float | None],
    a: Floats,
    b: Floats,
    prompts: Sequence[int],
    seed: int = 0,
) -> Interval | None:
    """``measure`` of two judges' scores with a bootstrap interval; None where it is not defined.

    ``prompts``: which one each text answers.  Whole prompts are drawn, since answers to one prompt,
    by several models, are alike; a draw in which the measure is not defined is left out.
    """
    value = measure(a, b)
    if value is None:
        return None
    labels = np.asarray(prompts)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(groups) < 2:
        return Interval(value, n=len(groups))
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(_RESAMPLES):
        drawn = random.integers(len(groups), size=len(groups))
        chosen = np.concatenate([groups[i] for i in drawn])
        if (again := measure(a[chosen], b[chosen])) is not None:
            draws.append(again)
    low, high = np.quantile(draws, (0.025, 0.975)) if draws else (value, value)
    return Interval(value, float(low), float(high), len(groups), _METHOD)
