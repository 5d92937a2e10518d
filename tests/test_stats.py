"""Intervals cover what they say, collapse nowhere, and the verdict words follow from them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from springback.errors import DataError
from springback.stats import (
    Interval,
    bootstrap_interval,
    holm,
    mcnemar_exact,
    mean_interval,
    paired_bootstrap,
    paired_interval,
    power_questions,
    verdict,
)


def bounds(interval: Interval) -> tuple[float, float]:
    assert interval.bounds is not None, interval.method
    return interval.bounds


def arms(won: int, lost: int, n: int) -> tuple[list[float], list[float]]:
    """Two arms of n right-or-wrong answers that differ on won + lost questions."""
    same = n - won - lost
    return [1.0] * won + [0.0] * lost + [1.0] * same, [0.0] * won + [1.0] * (n - won)


def test_t_interval_of_three_seeds_is_the_textbook_one() -> None:
    # mean 2, sd 1, t(0.975, 2 df) = 4.302653: half width 4.302653 / sqrt(3) = 2.484138
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.n == 3
    assert bounds(found) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_t_interval_covers_at_three_seeds_where_a_bootstrap_cannot() -> None:
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((1000, 3))
    by_t = [bounds(mean_interval(row)) for row in draws]
    by_bootstrap = [bounds(bootstrap_interval(row, resamples=300)) for row in draws[:300]]
    # binomial standard error of 1,000 at 95 %: 0.7 points
    assert 0.925 <= np.mean([low <= 0 <= high for low, high in by_t]) <= 0.975
    assert np.mean([low <= 0 <= high for low, high in by_bootstrap]) <= 0.80


@pytest.mark.parametrize("values", [[0.4], [0.4, 0.4, 0.4], [0.1 + 0.2, 0.3]])
def test_no_bounds_without_spread(values: list[float]) -> None:
    found = mean_interval(values)
    assert found.mean == pytest.approx(values[0])
    assert found.bounds is None
    assert verdict(found) == "undecided"


def test_interval_survives_json() -> None:
    found = mean_interval([0.25])
    assert json.loads(json.dumps(found.to_dict())) == {
        "mean": 0.25,
        "low": None,
        "high": None,
        "n": 1,
        "method": "one value, no interval",
    }


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [[1.0], [2.0]], ["a"]])
def test_unusable_values_are_refused(values: Sequence[float]) -> None:
    with pytest.raises(DataError, match="finite numbers"):
        mean_interval(values)
    with pytest.raises(DataError, match="finite numbers"):
        bootstrap_interval(values)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
def test_a_level_outside_0_and_1_is_refused(level: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], level=level)


def test_bootstrap_repeats_with_its_seed_and_moves_with_another() -> None:
    values = np.random.default_rng(0).standard_normal(40)
    first = bootstrap_interval(values, resamples=2500, seed=3)
    assert bootstrap_interval(values, resamples=2500, seed=3) == first
    assert bootstrap_interval(values, resamples=2500, seed=4) != first


def test_bootstrap_agrees_with_the_normal_interval_on_many_values() -> None:
    values = np.random.default_rng(1).standard_normal(400)
    half = 1.959964 * values.std(ddof=0) / 20
    found = bounds(bootstrap_interval(values))
    # Monte Carlo error of a 2.5 % quantile from 10,000 draws: about 0.027 sd of the mean
    expected = (values.mean() - half, values.mean() + half)
    assert found == pytest.approx(expected, abs=0.1 * half)


def test_clusters_are_drawn_whole() -> None:
    # Two clusters of equal size with values 0 and 1: a resample has mean 0, 1/2 or 1, and each
    # end has probability 1/4, so the interval is the whole range, however many values there are.
    values, labels = [0.0] * 500 + [1.0] * 500, ["a"] * 500 + ["b"] * 500
    found = bootstrap_interval(values, clusters=labels)
    assert bounds(found) == (0.0, 1.0)
    assert found.n == 2
    low, high = bounds(bootstrap_interval(values))
    assert high - low < 0.1
    with pytest.raises(DataError, match="one label a value"):
        bootstrap_interval(values, clusters=labels[1:])


def test_unequal_clusters_weigh_by_their_size() -> None:
    found = bootstrap_interval([1.0, 0.0, 0.0, 0.0], clusters=[1, 2, 2, 2])
    assert found.mean == 0.25  # of values, not of clusters (which would be 0.5)


def test_all_wrong_answers_do_not_make_a_point() -> None:
    # Wilson at 0 of n: upper bound z^2 / (n + z^2) = 3.841459 / 203.841459
    found = bootstrap_interval([0.0] * 200)
    assert bounds(found) == pytest.approx((0.0, 3.841459 / 203.841459), abs=1e-7)
    assert bootstrap_interval([0.3] * 200).bounds is None


def test_score_interval_is_as_published() -> None:
    # Airway responsiveness of 21 children, 1 worse and 7 better: -0.517 to -0.026
    # (Fagerland, Lydersen, Laake, Statistics in Medicine 33, 2014, Tango's asymptotic score)
    found = paired_interval(*arms(1, 7, 21))
    assert found.mean == pytest.approx(-6 / 21)
    assert found.n == 21
    assert bounds(found) == pytest.approx((-0.517, -0.026), abs=5e-4)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 200))
def test_score_interval_leaves_zero_out_where_mcnemars_asymptotic_test_does(
    won: int, lost: int, n: int
) -> None:
    low, high = bounds(paired_interval(*arms(won, lost, n)))
    z = abs(won - lost) / math.sqrt(max(won + lost, 1))
    assert (low > 0 or high < 0) == (z > 1.9599640)
    assert low <= (won - lost) / n <= high


def test_no_differing_answer_still_leaves_doubt() -> None:
    # With d = -q the test is n d = z sqrt(n d (1 - d)): d = z^2 / (n + z^2) = 3.841459 / 153.841459
    found = paired_interval(*arms(0, 0, 150))
    assert bounds(found) == pytest.approx((-0.0249703, 0.0249703), abs=1e-6)
    assert verdict(found) == "undecided"
    assert verdict(paired_interval(*arms(0, 0, 400))) == "no gain"
    assert paired_bootstrap(*arms(0, 0, 150)).bounds is None
    # all won: n (1 - d) = z sqrt(n (1 - d^2)), so (1 - d) / (1 + d) = z^2 / n
    share = 3.841459 / 150
    assert bounds(paired_interval(*arms(150, 0, 150))) == pytest.approx(
        ((1 - share) / (1 + share), 1.0), abs=1e-6
    )


def _tables(n: int, won: float, lost: float) -> Iterator[tuple[float, Interval, float]]:
    """Probability, interval and exact p of every table (tails under 1e-9)."""
    for b, c in itertools.product(range(n + 1), range(n + 1)):
        if b + c <= n:
            chance = float(sps.multinomial.pmf([b, c, n - b - c], n, [won, lost, 1 - won - lost]))
            if chance > 1e-9:
                yield chance, paired_interval(*arms(b, c, n)), mcnemar_exact(*arms(b, c, n))


@pytest.mark.parametrize(
    ("won", "lost", "least", "most"),
    [
        (0.005, 0.005, 0.985, 1.0),  # one or two questions: no interval could be narrower
        (0.01, 0.01, 0.95, 0.97),
        (0.03, 0.03, 0.945, 0.96),
        (0.08, 0.08, 0.94, 0.955),
        (0.12, 0.06, 0.945, 0.955),
        (0.05, 0.01, 0.935, 0.955),
    ],
)
def test_paired_coverage_at_150_questions_by_enumeration(
    won: float, lost: float, least: float, most: float
) -> None:
    covered = said = total = 0.0
    for chance, interval, p in _tables(150, won, lost):
        low, high = bounds(interval)
        total += chance
        covered += chance * (low <= won - lost <= high)
        said += chance * (verdict(interval, p=p) == "gain")
    assert total == pytest.approx(1, abs=1e-5)
    assert least <= covered <= most
    if won == lost:  # the exact test keeps this at every share of differing answers
        assert said <= 0.025


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_paired_interval_agrees_with_mcnemar_but_at_the_border(won: int, lost: int) -> None:
    first, second = arms(won, lost, 150)
    interval, p = paired_interval(first, second), mcnemar_exact(first, second)
    low, high = bounds(interval)
    if p <= 0.04:
        assert low > 0 or high < 0
    if p >= 0.13:  # 4 to 0 is 0.125
        assert low <= 0 <= high
    assert (verdict(interval, p=p) in ("gain", "harm")) == (p <= 0.05 and not low <= 0 <= high)


@given(st.integers(0, 30), st.integers(0, 30))
def test_swapping_the_arms_mirrors_the_interval(won: int, lost: int) -> None:
    first, second = arms(won, lost, 80)
    low, high = bounds(paired_interval(first, second))
    assert bounds(paired_interval(second, first)) == pytest.approx((-high, -low))


def test_other_scores_get_a_paired_t() -> None:
    # differences 1, 2, 3: as the seeds above
    found = paired_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert bounds(found) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_one_row_of_seeds_is_one_seed() -> None:
    first, second = arms(9, 4, 60)
    assert paired_interval([first], [second]) == paired_interval(first, second)
    assert paired_bootstrap([first], [second]) == paired_bootstrap(first, second)


def test_crossed_interval_by_hand() -> None:
    # Differences [[1, 2], [3, 6]]: mean 3, seeds 1.5 and 4.5, questions 2 and 4.
    # MS_seed = 2 * (1.5^2 * 2) = 9, MS_question = 2 * (1 + 1) = 4; total SS = 4 + 1 + 0 + 9 = 14,
    # so MS_rest = 1.  t has 1 degree of freedom for both: half^2 = t^2 (9 + (4 - 1)) / 4 = 3 t^2.
    found = paired_interval([[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 0.0]])
    half = float(sps.t.ppf(0.975, 1)) * math.sqrt(3)
    assert found.mean == 3
    assert bounds(found) == pytest.approx((3 - half, 3 + half))


def test_seeds_that_agree_by_chance_leave_the_questions() -> None:
    # Both seeds have mean 1.5: MS_seed = 0 <= MS_rest, so MS_question on questions - 1 alone.
    # Questions 1, 1, 2.5: mean 1.5, SS = 2 * (0.25 + 0.25 + 1) = 3, MS = 1.5, variance 1.5 / 6.
    found = paired_interval([[0.0, 2.0, 2.5], [2.0, 0.0, 2.5]], np.zeros((2, 3)).tolist())
    half = float(sps.t.ppf(0.975, 2)) * 0.5
    assert bounds(found) == pytest.approx((1.5 - half, 1.5 + half))


def test_no_differing_answer_in_any_seed_still_leaves_doubt() -> None:
    # One question won and one lost are added: MS_question = 2 * S / (Q - 1), variance of the mean
    # that over S * Q = 2 / (Q (Q - 1)), whatever the number of seeds.
    same = np.ones((5, 150)).tolist()
    half = float(sps.t.ppf(0.975, 149)) * math.sqrt(2 / (150 * 149))
    assert bounds(paired_interval(same, same)) == pytest.approx((-half, half))
    assert paired_bootstrap(same, same).bounds is None


def test_crossed_interval_covers_seeds_and_questions_together() -> None:
    """A large seed effect: questions alone are far too sure, the crossed interval is not."""
    rng, crossed, questions = np.random.default_rng(7), [], []
    for _ in range(400):
        table = 0.5 * rng.standard_normal((5, 1)) + rng.standard_normal((1, 40))
        table = table + rng.standard_normal((5, 40))
        low, high = bounds(paired_interval(table, np.zeros_like(table)))
        crossed.append(low <= 0 <= high)
        low, high = bounds(mean_interval(table.mean(axis=0)))
        questions.append(low <= 0 <= high)
    # binomial standard error of 400 at 95 %: 1.1 points
    assert 0.92 <= np.mean(crossed) <= 0.985
    assert np.mean(questions) < 0.85


def test_crossed_bootstrap_draws_seeds_as_blocks() -> None:
    # Every question of seed 1 gains 1, of seed 2 nothing: a draw of two seeds has mean 0, 1/2, 1,
    # the ends with probability 1/4 each.
    gains = [[1.0] * 30, [0.0] * 30]
    none = [[0.0] * 30, [0.0] * 30]
    found = paired_bootstrap(gains, none, resamples=2000)
    assert found.mean == 0.5
    assert bounds(found) == pytest.approx((0.0, 1.0), abs=1e-12)
    with pytest.raises(DataError, match="leave clusters out"):
        paired_bootstrap(gains, none, clusters=[0] * 30)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1.0, 0.0], [1.0]),
        ([], []),
        ([math.nan], [0.0]),
        ([[1.0, 0.0], [1.0]], [[1.0, 0.0], [1.0]]),
        ([[[1.0]]], [[[1.0]]]),
    ],
)
def test_arms_that_do_not_pair_up_are_refused(first: list[float], second: list[float]) -> None:
    for ask in (paired_interval, paired_bootstrap):
        with pytest.raises(DataError, match=r"same|equal"):
            ask(first, second)


def test_one_question_has_no_interval() -> None:
    assert paired_interval([1.0], [0.0]).bounds is None


@pytest.mark.parametrize("resamples", [0, -1])
def test_no_resamples_are_refused(resamples: int) -> None:
    with pytest.raises(DataError, match="1 or more"):
        bootstrap_interval([1.0, 2.0], resamples=resamples)


def test_mcnemar_by_hand() -> None:
    # 6 won, none lost: 2 * (1/2)^6; 5 won, 1 lost: 2 * (1 + 6) / 64
    assert mcnemar_exact(*arms(6, 0, 50)) == pytest.approx(2 / 64)
    assert mcnemar_exact(*arms(5, 1, 50)) == pytest.approx(14 / 64)
    assert mcnemar_exact(*arms(3, 3, 50)) == 1.0
    assert mcnemar_exact(*arms(0, 0, 50)) == 1.0
    with pytest.raises(DataError, match="0 or 1"):
        mcnemar_exact([0.5], [1.0])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.05, "gain"),
        (0.001, 0.005, "gain"),  # smaller than the tolerance, and still a gain
        (-0.05, -0.001, "harm"),
        (-0.004, -0.001, "harm"),
        (-0.01, 0.01, "no gain"),
        (0.0, 0.01, "no gain"),
        (-0.011, 0.01, "undecided"),
        (-0.01, 0.02, "undecided"),
    ],
)
def test_verdict_words(low: float, high: float, said: str) -> None:
    interval = Interval((low + high) / 2, low, high, 100, "made up")
    assert verdict(interval) == said
    assert verdict(interval, p=0.05) == said
    within = low >= -0.01 and high <= 0.01
    assert verdict(interval, p=0.051) == ("no gain" if within else "undecided")


def test_verdict_tolerance_can_be_set_and_is_checked() -> None:
    interval = Interval(0.0, -0.02, 0.02, 100, "made up")
    assert verdict(interval, tolerance=0.02) == "no gain"
    assert verdict(interval, tolerance=0.0) == "undecided"
    for wrong in (-0.1, math.nan):
        with pytest.raises(DataError, match="0 or more"):
            verdict(interval, tolerance=wrong)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04 -> running maximum
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx((0.06, 0.04, 0.06, 0.06))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()
    with pytest.raises(DataError, match="between 0 and 1"):
        holm([1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_value_and_bonferroni(pvalues: list[float]) -> None:
    adjusted = holm(pvalues)
    for raw, value in zip(pvalues, adjusted, strict=True):
        assert raw <= value <= min(1.0, raw * len(pvalues)) + 1e-12
    order = np.argsort(pvalues, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_questions_for_one_point_by_hand() -> None:
    # (1.959964 sqrt(0.1) + 0.841621 sqrt(0.0999))^2 / 0.0001
    # = (0.619795 + 0.266012)^2 / 0.0001 = 0.784655 / 0.0001
    assert power_questions(0.01, 0.1) == 7847
    assert power_questions(-0.01, 0.1) == 7847


def test_that_many_questions_do_give_that_power() -> None:
    # 8 % won, 2 % lost: McNemar's normal test finds it 80 % of the time; ours is a little stricter
    n, rng = power_questions(0.06, 0.1), np.random.default_rng(0)
    found = 0
    for won, lost, _ in rng.multinomial(n, [0.08, 0.02, 0.9], 600):
        found += verdict(paired_interval(*arms(int(won), int(lost), n))) == "gain"
    assert 0.70 <= found / 600 <= 0.86


@pytest.mark.parametrize(
    ("effect", "discordance", "power"),
    [(0.0, 0.1, 0.8), (0.2, 0.1, 0.8), (0.1, 1.1, 0.8), (0.1, 0.2, 1.0)],
)
def test_impossible_power_questions_are_refused(
    effect: float, discordance: float, power: float
) -> None:
    with pytest.raises(DataError, match="discordance"):
        power_questions(effect, discordance, power=power)
