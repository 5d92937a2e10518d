"""Doses to undo are those derived by hand; what was not reached stays censored to the end."""

from __future__ import annotations

import math

import numpy as np
import pytest

from springback.elasticity import (
    Crossing,
    Doses,
    ReboundCurves,
    bounded_mean,
    dose_trend,
    doses_at,
    doses_to_lose_gain,
    kl_doses,
)
from springback.errors import DataError

T2 = 2.484138  # t(0.975, 2 degrees of freedom) / sqrt(3): half width of three seeds with sd 1


def reached(*doses: float) -> tuple[Crossing, ...]:
    return tuple(Crossing(d, False, 0.0, 64.0) for d in doses)


BEYOND = Crossing(None, True, 0.3, 64.0)
NO_GAIN = Crossing(None, False, 0.3, 64.0)


def doses(by_seed: dict[int, tuple[Crossing, ...]], n_pos: tuple[int, ...] = (100, 200)) -> Doses:
    return Doses("half of the gain in margin", n_pos, 64.0, by_seed)


def test_a_mean_of_known_values_is_students() -> None:
    found = bounded_mean([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.mean, found.at_least, found.at_most, found.censored) == (2.0, 2.0, 2.0, 0)
    assert (found.low, found.high) == pytest.approx((2 - T2, 2 + T2), abs=1e-6)


def test_a_censored_value_opens_the_upper_side_only() -> None:
    found = bounded_mean([1.0, 2.0, 3.0], [1.0, 2.0, math.inf])
    assert (found.mean, found.at_least, found.at_most, found.high) == (None, 2.0, None, None)
    assert found.low == pytest.approx(2 - T2, abs=1e-6)
    assert found.estimable
    assert not bounded_mean([-math.inf, 0.0], [1.0, math.inf]).estimable


@pytest.mark.parametrize(("lows", "highs"), [([], []), ([1.0], [0.0]), ([1.0], [1.0, 2.0])])
def test_ends_that_do_not_fit_are_refused(lows: list[float], highs: list[float]) -> None:
    with pytest.raises(DataError, match="lower end"):
        bounded_mean(lows, highs)


def test_doses_are_taken_by_seed_and_branch_against_the_branchs_own_gain() -> None:
    # Seed 0, n_pos 100: start 0, aligned 1, half is 0.5: at 16 + 16 / 2.  n_pos 200: aligned 2,
    # half is 1: at 32; all (0): not reached, nearest 0.5 at 64.  Seed 1 gained nothing at 100.
    curves = ReboundCurves(
        (100, 200),
        (0, 16, 32, 64),
        {0: 0.0, 1: 1.0},
        {
            0: [[1.0, 0.75, 0.25, -0.25], [2.0, 1.5, 1.0, 0.5]],
            1: [[1.0, 0, 0, 0], [3.0, 2.0, 1, 0]],
        },
    )
    half, full = doses_to_lose_gain(curves), doses_to_lose_gain(curves, "all")
    assert [c.dose for c in half.by_seed[0]] == [24.0, 32.0]
    # 0.25 at 32, -0.25 at 64: zero at 48
    assert full.by_seed[0] == (Crossing(48.0, False, -0.25, 64.0), Crossing(None, True, 0.5, 64.0))
    assert (half.by_seed[1][0].dose, half.by_seed[1][0].censored) == (None, False)
    assert half.by_seed[1][1].dose == 16.0
    assert half.largest == 64


def test_kl_dose_is_the_papers_threshold() -> None:
    # 0.02 -> 0.005 between 16 and 32: 0.01 is two thirds of the way.  A branch that never left
    # the start model has dose 0; one that only moves away is censored at the aligned model.
    kl = {0: [[0.03, 0.02, 0.005], [0.008, 0.02, 0.03], [0.02, 0.03, 0.04]]}
    found = kl_doses((100, 200, 400), (0, 16, 32), kl).by_seed[0]
    assert found[0].dose == pytest.approx(16 + 16 * 2 / 3)
    assert found[1].dose == 0.0
    assert found[2] == Crossing(None, True, 0.02, 0.0)
    with pytest.raises(DataError, match="epsilon"):
        kl_doses((100,), (0, 16, 32), kl)
    with pytest.raises(DataError, match="epsilon"):
        kl_doses((100, 200, 400), (0, 16, 32), kl, epsilon=0.0)


def test_the_median_counts_a_censored_seed_as_beyond() -> None:
    one, two = doses_at(doses({0: reached(10, 20), 1: (*reached(30), BEYOND), 2: (BEYOND, BEYOND)}))
    assert (one.median, one.censored, one.undefined) == (30.0, 1, 0)
    # As on the card and in the verdict: the mean, which a censored seed leaves open.
    assert one.words() == "more than 34.7 examples (censored in 1 of 3 seeds)"
    assert one.mean is not None
    assert one.mean.at_least == pytest.approx((10 + 30 + 64) / 3)
    assert two.median is None
    assert two.words() == "more than 49.3 examples (censored in 2 of 3 seeds)"


def test_seeds_without_a_gain_have_no_dose_and_are_counted() -> None:
    one, two = doses_at(doses({0: (*reached(10), NO_GAIN), 1: (NO_GAIN, NO_GAIN)}))
    assert one.words() == "10 examples (not defined in 1 of 2 seeds)"
    assert two.words() == "not defined: alignment gained nothing"


def test_the_trend_is_the_slope_per_doubling_with_seeds_as_blocks() -> None:
    # n_pos 100, 200, 400: slopes -11, -10, -9 examples per doubling, sd 1
    by_seed = {s: reached(60, 60 + k, 60 + 2 * k) for s, k in enumerate((-11, -10, -9))}
    found = dose_trend(doses(by_seed, (100, 200, 400)))
    assert found.label == "falls"
    assert found.slope is not None
    assert found.slope.mean == pytest.approx(-10)
    assert (found.slope.low, found.slope.high) == pytest.approx((-10 - T2, -10 + T2), abs=1e-6)
    assert "changes by -10 examples per doubling of n_pos" in found.sentence
    assert "the more alignment, the fewer examples undo it" in found.sentence
    assert dose_trend(doses({0: reached(60, 50)})).label == "one seed, no interval"


def test_a_trend_is_shown_where_censoring_speaks_against_it() -> None:
    # Little aligned branches beyond 64, the others near 20: slopes at most -44, -45, -43.
    down = {s: (BEYOND, *reached(d)) for s, d in enumerate((20, 19, 21))}
    found = dose_trend(doses(down))
    assert found.label == "falls"
    assert found.slope is not None
    assert (found.slope.mean, found.slope.low, found.slope.at_most) == (None, None, -44.0)
    assert found.slope.high == pytest.approx(-44 + T2, abs=1e-6)
    assert "at most -44" in found.sentence
    assert "no lower limit" in found.sentence
    assert "3 of 6 doses are censored at 64 examples" in found.sentence
    up = {s: (*reached(d), BEYOND) for s, d in enumerate((20, 19, 21))}
    assert dose_trend(doses(up)).label == "rises"


def test_a_censored_branch_that_the_slope_does_not_hang_on_opens_nothing() -> None:
    # the middle of three equally spaced n_pos has weight 0
    by_seed = {s: (*reached(10), BEYOND, *reached(30 + s)) for s in range(3)}
    found = dose_trend(doses(by_seed, (100, 200, 400)))
    assert found.slope is not None
    assert found.slope.mean == pytest.approx(10.5)
    assert found.label == "rises"


def test_a_trend_open_on_both_sides_is_not_estimable() -> None:
    both = doses({0: (BEYOND, *reached(9)), 1: (*reached(9), BEYOND), 2: reached(9, 9)})
    found = dose_trend(both)
    assert (found.label, found.slope) == ("not estimable", None)
    assert "2 of 6 doses are censored" in found.sentence
    assert dose_trend(doses({0: (BEYOND, BEYOND)})).label == "not estimable"
    nothing = dose_trend(doses({0: (NO_GAIN, *reached(9))}))
    assert nothing.label == "not estimable"
    assert "in no seed" in nothing.sentence
    with pytest.raises(DataError, match="n_pos"):
        dose_trend(doses({0: reached(9, 9)}, (100, 100)))


def test_seeds_without_a_gain_leave_the_trend() -> None:
    found = dose_trend(doses({0: reached(9, 10), 1: (NO_GAIN, *reached(9)), 2: reached(9, 12)}))
    assert found.slope is not None
    assert found.slope.n == 2
    assert "Left out: 1 of 3 seeds" in found.sentence


@pytest.mark.parametrize("slope", [-6.0, 0.0])
def test_the_trend_covers_the_truth_however_much_is_censored(slope: float) -> None:
    # Doses around 60 with sd 8, largest dose 64: about a third is censored, and in a study with a
    # slope of -6 more so at little alignment.  Standard error of 400 at 95 %: 1.1 points.
    rng, n_pos = np.random.default_rng(0), (64, 128, 256)
    covered, wrong, shown = 0, 0, 0
    for _ in range(400):
        truth = 58 + slope * np.arange(-1, 2) + 8 * rng.standard_normal((3, 3))
        rows = {s: tuple(BEYOND if d > 64 else reached(d)[0] for d in row)
                for s, row in enumerate(truth)}  # fmt: skip
        found = dose_trend(doses(rows, n_pos))
        low, high = (found.slope.low, found.slope.high) if found.slope else (None, None)
        covered += (low is None or low <= slope) and (high is None or slope <= high)
        wrong += found.label == "rises" or (slope == 0 and found.label == "falls")
        shown += found.label == "falls"
    assert covered >= 0.93 * 400
    assert wrong <= 0.08 * 400
    assert shown > 20 or slope == 0
