"""Tests over seeds, effect by difficulty, power, and the whole verdict on simulated nulls."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps

from springback.errors import DataError
from springback.jobs.papers.nulls import Sizes, count, one_boost, seeded_boost
from springback.stats import (
    bins_by_size,
    mean_interval,
    paired_t,
    power_effect,
    power_questions,
    seeds_needed,
    trend,
    wilcoxon_exact,
)
from springback.stats.nulls import Null, answers


def test_paired_t_by_hand_and_at_one_with_the_interval() -> None:
    # differences 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.4641 on 2 degrees of freedom
    assert paired_t([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx(
        2 * float(sps.t.sf(math.sqrt(12), 2))
    )
    assert paired_t([1.0, 1.0], [1.0, 1.0]) == 1.0
    assert paired_t([1.0], [0.0]) is None
    assert paired_t([1.0, 2.0], [0.5, 1.5]) is None  # equal differences have no spread
    rng = np.random.default_rng(0)
    for _ in range(50):
        gaps = rng.standard_normal(5) + 1
        low = mean_interval(gaps).low
        assert low is not None
        p = paired_t(gaps, np.zeros(5))
        assert p is not None
        assert (low > 0) == (p < 0.05 and gaps.mean() > 0)


def test_wilcoxon_by_hand() -> None:
    # n seeds all better: 2 / 2^n
    assert wilcoxon_exact([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) == 0.25
    assert wilcoxon_exact(np.arange(1.0, 7.0), np.zeros(6)) == 2 / 64
    # ranks 1, 2, 3 with signs -, +, +: plus sum 5; sums >= 5 are {2,3} and {1,2,3}: 2 of 8
    assert wilcoxon_exact([-1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) == 0.5
    assert wilcoxon_exact([1.0, 1.0], [1.0, 1.0]) is None
    assert wilcoxon_exact([1.0, 0.5], [0.0, 0.5]) == 1.0  # a zero is dropped
    assert seeds_needed() == 6
    with pytest.raises(DataError, match="one value a seed"):
        wilcoxon_exact([1.0], [1.0, 2.0])


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_wilcoxon_counts_every_choice_of_signs_with_ties_too(gaps: list[int]) -> None:
    kept = np.array([g for g in gaps if g], dtype=float)
    found = wilcoxon_exact(np.array(gaps, dtype=float), np.zeros(len(gaps)))
    if not kept.size:
        assert found is None
        return
    ranks = sps.rankdata(np.abs(kept))
    seen = ranks[kept > 0].sum()
    sums = np.array([ranks @ np.array(s) for s in itertools.product((0, 1), repeat=kept.size)])
    tail = min((sums <= seen).mean(), (sums >= seen).mean())
    assert found == pytest.approx(min(1.0, 2 * tail))


@given(
    st.lists(
        st.floats(-3, 3).filter(lambda g: abs(g) > 1e-6), min_size=1, max_size=12, unique_by=abs
    )
)
def test_wilcoxon_is_scipys_where_nothing_is_tied(gaps: list[float]) -> None:
    rounded = np.round(gaps, 3)
    if len(set(np.abs(rounded))) < len(gaps) or not rounded.all():
        return
    expected = float(sps.wilcoxon(rounded, method="exact").pvalue)
    assert wilcoxon_exact(rounded, np.zeros(len(gaps))) == pytest.approx(expected)


def test_bins_hold_equal_numbers_and_keep_ties_together() -> None:
    found = bins_by_size([5, 1, 3, 2, 4, 6], 3)
    assert [(b.low, b.high, b.members) for b in found] == [
        (1, 2, (1, 3)),
        (3, 4, (2, 4)),
        (5, 6, (0, 5)),
    ]
    assert [b.members for b in bins_by_size([7, 7, 7, 9], 2)] == [(0, 1, 2), (3,)]
    assert len(bins_by_size([7, 7, 7], 3)) == 1
    by_edge = bins_by_size([10, 20, 30], [20])
    assert [b.members for b in by_edge] == [(0, 1), (2,)]
    for wrong in (0, [2.0, 1.0]):
        with pytest.raises(DataError, match=r"bins|rising"):
            bins_by_size([1, 2], wrong)


def test_trend_is_the_effect_on_the_hardest_minus_that_on_the_easiest() -> None:
    # Ranks 0, 1/3, 2/3, 1; y = 3 rank but for +-0.3 that is orthogonal to rank and mean:
    # sizes need not be evenly spaced.
    sizes = [1.0, 2.0, 50.0, 1000.0]
    found = trend(sizes, [0.3, 0.7, 1.7, 3.3])
    assert found.slope.mean == pytest.approx(3.0)
    # residuals e = +-0.3, gap = -1/2, -1/6, 1/6, 1/2, sum of squares 5/9;
    # leverage 1/4 + gap^2 * 9/5: 0.7 and 0.3, so e / (1 - h) = 1 and 3/7.
    total = 2 * (0.5 * 1) ** 2 + 2 * ((1 / 6) * (3 / 7)) ** 2
    half = float(sps.t.ppf(0.975, 2)) * math.sqrt(total) / (5 / 9)
    assert found.slope.high == pytest.approx(3 + half)
    assert found.p == pytest.approx(2 * float(sps.t.sf(3 / (math.sqrt(total) / (5 / 9)), 2)))
    assert trend([1, 1, 1, 1], [1, 2, 3, 4]).p is None
    assert trend([1, 2, 3, 4], [1, 1, 1, 1]).slope.bounds is None


def test_trend_keeps_its_level_on_answers_that_vary_more_where_it_is_hard() -> None:
    rng, found = np.random.default_rng(3), 0
    for _ in range(800):
        sizes = rng.lognormal(4, 0.5, 120)
        differ = rng.random(120) < 0.25 * (sizes > np.median(sizes)) + 0.02
        gaps = differ * rng.choice([-1.0, 1.0], 120)
        p = trend(sizes, gaps).p
        found += p is not None and p < 0.05
    # binomial standard error of 800 at 5 %: 0.8 points
    assert 0.025 <= found / 800 <= 0.072


def test_the_smallest_gain_seen_is_the_inverse_of_the_questions_needed() -> None:
    for effect, discordance in ((0.01, 0.1), (0.05, 0.12), (0.02, 0.02)):
        needed = power_questions(effect, discordance)
        assert power_effect(needed, discordance) == pytest.approx(effect, rel=2e-3)
    # 4 questions of which 1 % differ: not even all of them won would show
    assert power_effect(4, 0.01) == math.inf
    with pytest.raises(DataError, match="1 or more questions"):
        power_effect(0, 0.1)


def test_simulated_arms_have_the_accuracy_and_the_discordance_that_were_set() -> None:
    null = Null(accuracy=0.4, discordance=0.12)
    drawn = answers(null, 12, 200_000, np.random.default_rng(0))[0]
    # binomial standard errors: 0.11 points of accuracy, 0.07 of discordance
    assert drawn.mean(axis=1) == pytest.approx(np.full(12, 0.4), abs=0.006)
    far = float((drawn[0] != drawn[11]).mean())
    near = float((drawn[0] != drawn[1]).mean())
    assert far == pytest.approx(0.12, abs=0.005)
    assert near < 0.08
    with pytest.raises(DataError, match="discordance between"):
        Null(accuracy=0.05, discordance=0.3)


@pytest.mark.parametrize("positive", [False, True])
def test_the_whole_verdict_says_gain_where_nothing_is_in_at_most_one_of_forty(
    positive: bool,
) -> None:
    rng = np.random.default_rng(11 + positive)
    null, sizes = Null(accuracy=0.4, discordance=0.15), Sizes(test=150, positive=positive)
    found = count([one_boost(null, sizes, rng) for _ in range(1000)])
    for name in ("ME only", "CD only", "EpiCoDe"):
        told = found[name]
        assert told["gain"] <= 0.025, (name, told)
        assert 0.93 <= told["coverage"] <= 0.985, (name, told)
    assert 0.93 <= found["EpiCoDe"]["coverage"] <= 0.97


@pytest.mark.parametrize(("seeds", "same", "effect"), [(3, True, 0.02), (2, False, 0.02)])
def test_over_seeds_too(seeds: int, same: bool, effect: float) -> None:
    rng = np.random.default_rng(5)
    null = Null(discordance=0.15, seed_effect=effect)
    sizes = Sizes(validation=40, test=100, positive=True)
    found = count([seeded_boost(null, sizes, seeds, same, rng) for _ in range(250)])
    # 250 nulls: standard error 1 point at 2.5 %
    assert found["EpiCoDe"]["gain"] <= 0.025 + 2 * 0.01
    assert found["EpiCoDe"]["coverage"] >= 0.93
