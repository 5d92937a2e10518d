"""Agreement of two judges: numbers that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from springback.stats.agreement import agreement_interval, cohens_kappa, rank_correlation


def test_kappa_by_hand() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: observed 35/50; the first says yes 25 times of 50,
    the second 30: expected 0.5 * 0.6 + 0.5 * 0.4 = 0.5; (0.7 - 0.5) / 0.5."""
    first = [True] * 20 + [False] * 15 + [True] * 5 + [False] * 10
    second = [True] * 20 + [False] * 15 + [False] * 5 + [True] * 10
    assert cohens_kappa(first, second) == pytest.approx(0.4)
    assert cohens_kappa(second, first) == pytest.approx(0.4)
    assert cohens_kappa(first, first) == pytest.approx(1.0)
    half = [True, False] * 5
    assert cohens_kappa(half, [not yes for yes in half]) == pytest.approx(-1.0)


def test_kappa_is_not_defined_where_both_always_say_one_thing() -> None:
    assert cohens_kappa([True] * 4, [True] * 4) is None
    assert cohens_kappa([True] * 4, [True, True, True, False]) == pytest.approx(0.0)


def test_rank_correlation_by_hand() -> None:
    """Ranks 1 to 4 against 1, 3, 2, 4: 1 - 6 * 2 / (4 * 15) = 0.8; ties share their mean rank."""
    one = np.array([0.1, 0.2, 5.0, 9.0])
    assert rank_correlation(one, np.array([1.0, 3.0, 2.0, 40.0])) == pytest.approx(0.8)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    # Ranks 1.5, 1.5, 3.5, 3.5 against 1 to 4: covariance 4, variances 4 and 5, so 4 / sqrt(20).
    tied = np.array([0.0, 0.0, 1.0, 1.0])
    assert rank_correlation(tied, one) == pytest.approx(4 / 20**0.5)
    assert rank_correlation(one, np.zeros(4)) is None


def test_the_interval_draws_whole_prompts() -> None:
    """Answers that repeat a prompt's say nothing new, so they make the interval no narrower."""
    random = np.random.default_rng(0)
    a, b = random.integers(2, size=(2, 30)).astype(float)
    prompts = list(range(30))
    once = agreement_interval(cohens_kappa, a, b, prompts)
    many = agreement_interval(cohens_kappa, np.tile(a, 5), np.tile(b, 5), prompts * 5)
    assert once is not None
    assert many is not None
    assert once.mean == pytest.approx(many.mean)
    assert once.low == pytest.approx(many.low)
    assert once.high == pytest.approx(many.high)
    assert once.n == 30
    assert once.low is not None
    assert once.high is not None
    assert once.low < once.mean < once.high


def test_without_a_value_or_with_one_prompt_there_is_no_interval() -> None:
    ones = np.ones(3)
    assert agreement_interval(cohens_kappa, ones, ones, [0, 1, 2]) is None
    alone = agreement_interval(rank_correlation, np.arange(3.0), np.arange(3.0), [0, 0, 0])
    assert alone is not None
    assert alone.mean == pytest.approx(1.0)
    assert alone.bounds is None
