"""Scores of sampled answers: variance by source, pass@k, questions needed; coverage and power."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from springback.errors import DataError
from springback.stats import (
    paired_interval,
    paired_t,
    pass_at_k,
    questions_by_spread,
    spread_of,
)


def test_variance_by_source_by_hand() -> None:
    """Means 1, 1/2, 0: variance 1/4.  Within questions 0, 1/2, 0 (divisor 1): mean 1/6, half of
    which is in the means' variance: 1/4 - 1/12 = 1/6 is left for the questions."""
    spread = spread_of([[1, 1], [1, 0], [0, 0]])
    assert spread.sampling == pytest.approx(1 / 6)
    assert spread.questions == pytest.approx(1 / 6)
    assert spread.of_mean(2) == pytest.approx(1 / 4)
    assert spread.of_mean(1) == pytest.approx(1 / 3)
    # Questions that are all alike: what their means vary by is less than sampling explains.
    alike = spread_of([[1, 0], [0, 1]])
    assert alike.questions == pytest.approx(-1 / 4)
    assert alike.of_mean(2) == 0.0
    with pytest.raises(DataError, match="two of each at least"):
        spread_of([[1], [0]])


def test_pass_at_k_by_hand() -> None:
    """Of 4 samples 1 right: two drawn miss it in C(3, 2) of C(4, 2) = 3 of 6 ways."""
    assert pass_at_k([0, 1, 3, 4], 4, 2) == [0.0, 0.5, 1.0, 1.0]
    assert pass_at_k([1], 4, 1) == [0.25]
    for right, k in (([1], 5), ([5], 1), ([1], 0)):
        with pytest.raises(DataError, match="1 <= k <= samples"):
            pass_at_k(right, 4, k)


def test_questions_by_spread_by_hand() -> None:
    """(1.959964 + 0.841621)^2 = 7.848879; times (0.3 / 0.01)^2 = 900: 7063.99."""
    assert questions_by_spread(0.01, 0.3) == 7064
    assert questions_by_spread(-0.05, 0.3) == 283  # 7.848879 * 36 = 282.56
    for effect, deviation in ((0.0, 0.3), (0.01, 0.0), (0.01, math.nan)):
        with pytest.raises(DataError, match="a deviation above 0"):
            questions_by_spread(effect, deviation)


def chances(rng: Any, questions: int, gain: float) -> tuple[Any, Any]:
    """Chances to answer rightly: the second arm's differ from the first's on every question, by
    ``gain`` in the mean."""
    base = rng.uniform(0.1, 0.8, questions)
    return base + gain + rng.uniform(-0.08, 0.08, questions), base


def answers(rng: Any, arms: tuple[Any, Any], samples: int, coupled: bool) -> tuple[Any, Any]:
    """Sampled answers [questions, samples] of both arms, with common noise or noise of their own.

    One uniform number a sample stands for the keyed noise: both arms are right where it is below
    their chance.
    """
    shape = (len(arms[0]), samples)
    first = rng.random(shape)
    second = first if coupled else rng.random(shape)
    return (first < arms[0][:, None]) * 1.0, (second < arms[1][:, None]) * 1.0


def test_the_variances_are_unbiased() -> None:
    """Chances uniform on 0.1 to 0.8 (variance 0.49/12); one answer's own variance is p (1 - p),
    0.45 - (0.49/12 + 0.45^2) in the mean."""
    rng = np.random.default_rng(0)
    spreads = [
        spread_of(answers(rng, (rng.uniform(0.1, 0.8, 40), np.zeros(40)), 3, coupled=True)[0])
        for _ in range(2000)
    ]
    assert np.mean([s.questions for s in spreads]) == pytest.approx(0.49 / 12, abs=0.001)
    assert np.mean([s.sampling for s in spreads]) == pytest.approx(
        0.45 - 0.49 / 12 - 0.45**2, abs=0.001
    )


@pytest.mark.parametrize("samples", [2, 8])
def test_intervals_of_sampled_scores_cover_the_true_gain(samples: int) -> None:
    """2,000 draws of 60 questions: 95 % within 1.5 points, false gains at most 2.5 % within 1."""
    rng, inside, above = np.random.default_rng(samples), 0, 0
    for _ in range(2000):
        new, old = answers(rng, chances(rng, 60, 0.0), samples, coupled=True)
        bounds = paired_interval(new.mean(axis=1), old.mean(axis=1)).bounds
        inside += bounds is None or bounds[0] <= 0.0 <= bounds[1]  # None: no answer differs
        above += bounds is not None and bounds[0] > 0.0
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)
    assert above / 2000 <= 0.035


def test_power_is_as_the_table_says_and_common_noise_is_worth_questions() -> None:
    """With as many questions as the spread of a pair asks for, a gain of 2 points shows in 80 % of
    400 draws (within 6); with noise of their own the arms would need several times as many."""
    rng, gain, samples = np.random.default_rng(1), 0.02, 4
    new, old = answers(rng, chances(rng, 20_000, gain), samples, coupled=True)
    spread = spread_of(new - old)
    assert spread.of_mean(samples) == pytest.approx((new - old).mean(axis=1).var(ddof=1), rel=1e-12)
    needed = questions_by_spread(gain, math.sqrt(spread.of_mean(samples)))
    seen = 0
    for _ in range(400):
        new, old = answers(rng, chances(rng, needed, gain), samples, coupled=True)
        p = paired_t(new.mean(axis=1), old.mean(axis=1))
        seen += p is not None and p < 0.05 and new.mean() > old.mean()
    assert seen / 400 == pytest.approx(0.8, abs=0.06)
    new, old = answers(rng, chances(rng, 20_000, gain), samples, coupled=False)
    apart = questions_by_spread(gain, math.sqrt(spread_of(new - old).of_mean(samples)))
    assert apart > 3 * needed
