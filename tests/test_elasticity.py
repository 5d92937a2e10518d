"""Doses, falls and slopes are those derived by hand; judgements say what the numbers say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from springback.elasticity import (
    Crossing,
    ReboundCurves,
    absolute_fall,
    dose_to_half_gain,
    dose_to_undo_gain,
    first_crossing,
    fit_proportional_decay,
    rebound_judgement,
    resistance_judgement,
    share_lost,
    slope_on_log2,
)
from springback.errors import DataError

DOSES = [0, 64, 128, 256]


def test_first_crossing_lies_on_the_line_between_two_doses() -> None:
    # 0.5 -> 0.1 between 64 and 128: 0.2 is three quarters of the way, 64 + 48
    assert first_crossing(DOSES, [0.9, 0.5, 0.1, 0.3], 0.2) == Crossing(112.0, False, 0.1, 128.0)


def test_first_crossing_is_the_first_of_several() -> None:
    # falls to 0 half way to 64, comes back, falls again
    assert first_crossing(DOSES, [1.0, -1.0, 1.0, -2.0], 0.0).dose == 32.0


def test_a_measured_point_on_the_level_counts() -> None:
    assert first_crossing(DOSES, [0.9, 0.5, 0.5, 0.5], 0.5).dose == 64.0
    assert first_crossing(DOSES, [0.5, 0.9, 0.9, 0.9], 0.5).dose == 0.0


def test_a_level_never_reached_is_censored_and_names_the_nearest_value() -> None:
    found = first_crossing(DOSES, [0.9, 0.5, 0.3, 0.4], 0.2)
    assert found == Crossing(None, True, 0.3, 128.0)
    assert found.words() == "not reached; nearest 0.3 at 128 examples"


def test_rising_curves_cross_upwards() -> None:
    found = first_crossing(DOSES, [0.0, 0.2, 0.6, 0.4], 0.4, falling=False)
    assert found == Crossing(96.0, False, 0.6, 128.0)
    assert first_crossing(DOSES, [0.0, 0.2, 0.6, 0.4], 0.7, falling=False).extreme == 0.6


CURVES = st.lists(st.floats(-10, 10), min_size=1, max_size=8)


@given(CURVES, st.floats(-10, 10), st.booleans())
def test_the_curve_is_at_the_level_where_it_crosses_and_short_of_it_before(
    values: list[float], level: float, falling: bool
) -> None:
    doses = [16.0 * i for i in range(len(values))]
    found = first_crossing(doses, values, level, falling=falling)
    turned = np.array(values) if falling else -np.array(values)
    bar = level if falling else -level
    assert found.extreme == (min(values) if falling else max(values))
    assert found.censored == bool((turned > bar).all())
    if found.dose is not None:
        assert (turned[np.array(doses) < found.dose - 1e-9] > bar).all()
        if found.dose > 0:
            assert np.interp(found.dose, doses, values) == pytest.approx(level, abs=1e-6)


def test_half_and_undo_dose_measure_from_the_aligned_model() -> None:
    # start 0.1, aligned 0.5: half is the level 0.3, at 64 + 64 / 2; all is 0.1, at 256
    margins = [0.5, 0.4, 0.2, 0.1]
    assert dose_to_half_gain(DOSES, margins, 0.1, 0.5).dose == 96.0
    assert dose_to_undo_gain(DOSES, margins, 0.1, 0.5).dose == 256.0
    assert dose_to_undo_gain(DOSES, margins, 0.0, 0.5).censored


@pytest.mark.parametrize("start", [0.5, 0.6])
def test_without_a_gain_there_is_no_dose(start: float) -> None:
    found = dose_to_half_gain(DOSES, [0.5, 0.4, 0.2, 0.1], start, 0.5)
    assert (found.dose, found.censored) == (None, False)
    assert found.words() == "not defined: alignment gained nothing"


@pytest.mark.parametrize(
    ("doses", "values"),
    [
        ([], []),
        ([0, 1], [0.5]),
        ([0, 0], [0.5, 0.4]),
        ([8, 0], [0.5, 0.4]),
        ([-8, 0], [0.5, 0.4]),
        ([0, 8], [0.5, math.nan]),
    ],
)
def test_curves_that_are_none_are_refused(doses: list[float], values: list[float]) -> None:
    with pytest.raises(DataError, match="doses"):
        first_crossing(doses, values, 0.0)


def test_fall_at_a_dose_and_over_the_curve() -> None:
    margins = [1.0, 0.6, 0.4, 0.4]
    assert absolute_fall(DOSES, margins, 64) == pytest.approx(0.4)
    assert absolute_fall(DOSES, margins, 96) == pytest.approx(0.5)
    # mean margin: (64 * 0.8 + 64 * 0.5 + 128 * 0.4) / 256 = 0.2 + 0.125 + 0.2 = 0.525
    assert absolute_fall(DOSES, margins) == pytest.approx(0.475)
    assert absolute_fall([0], [1.0]) == 0.0


def test_share_is_the_fall_over_the_gain() -> None:
    assert share_lost(DOSES, [1.0, 0.6, 0.4, 0.4], 0.2, 64) == pytest.approx(0.5)
    assert share_lost(DOSES, [1.0, 0.6, 0.4, 0.4], 1.0, 64) is None


@pytest.mark.parametrize("dose", [-1, 257])
def test_a_dose_outside_the_curve_is_refused(dose: float) -> None:
    with pytest.raises(DataError, match="0 to 256"):
        absolute_fall(DOSES, [1.0, 0.6, 0.4, 0.4], dose)


def test_falls_need_the_aligned_model_as_dose_0() -> None:
    with pytest.raises(DataError, match="dose 0"):
        absolute_fall([16, 32], [1.0, 0.5])


def test_exact_proportional_decay_is_found_again() -> None:
    heights, rate = (0.2, 0.5, 1.1), 0.0075
    fit = fit_proportional_decay(DOSES, [[h * math.exp(-rate * d) for d in DOSES] for h in heights])
    assert fit.rate == pytest.approx(rate, rel=1e-5)
    assert fit.gains0 == pytest.approx(heights, rel=1e-5)
    assert fit.rmse < 1e-6
    assert np.shape(fit.residuals) == (3, 4)


def test_steepening_beyond_one_rate_shows_in_the_residuals() -> None:
    rates = (0.004, 0.008, 0.012)
    fit = fit_proportional_decay(DOSES, [[math.exp(-r * d) for d in DOSES] for r in rates])
    assert rates[0] < fit.rate < rates[2]
    # the slow branch lies above the common curve at dose 128, the fast one below
    assert fit.residuals[0][2] > 0.05
    assert fit.residuals[2][2] < -0.05


def test_gains_that_do_not_fall_do_not_decay() -> None:
    fit = fit_proportional_decay(DOSES, [[1.0, 1.1, 1.2, 1.3]])
    assert fit.rate == 0.0
    assert fit.gains0 == pytest.approx((1.15,))


def test_gains_that_overshoot_can_be_fitted() -> None:
    # all is gone at the first dose and more: the rate is as high as the search goes
    fit = fit_proportional_decay(DOSES, [[1.0, -0.1, -0.1, -0.1]])
    assert math.exp(-fit.rate * 64) < 1e-3
    assert fit.gains0 == pytest.approx((1.0,), abs=1e-3)


def test_a_decay_needs_two_doses() -> None:
    with pytest.raises(DataError, match="dose 0 and one more"):
        fit_proportional_decay([0], [[1.0]])
    with pytest.raises(DataError, match="0 branches"):
        fit_proportional_decay(DOSES, [])


def test_slope_is_per_doubling_and_seeds_are_blocks() -> None:
    # slopes 1, 2, 3 per doubling: mean 2, half width 2.484138 (t, 2 degrees of freedom)
    n_pos = [100, 200, 400]
    values = {s: [10.0 + slope * k for k in range(3)] for s, slope in enumerate((1.0, 2.0, 3.0))}
    found = slope_on_log2(n_pos, values)
    assert found.mean == pytest.approx(2.0)
    assert found.bounds == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert found.n == 3


def test_one_seed_has_a_slope_and_no_bounds() -> None:
    # least squares on z = 0, 1, 3: mean 4/3; y = 0, 0, 3: slope = (3 * 5/3) / (42/9) = 15/14
    found = slope_on_log2([1, 2, 8], {0: [0.0, 0.0, 3.0]})
    assert found.mean == pytest.approx(15 / 14)
    assert found.bounds is None


@pytest.mark.parametrize(
    ("n_pos", "values"),
    [
        ([100], {0: [1.0]}),
        ([100, 100], {0: [1.0, 2.0]}),
        ([0, 100], {0: [1.0, 2.0]}),
        ([100, 200], {0: [1.0]}),
        ([100, 200], {0: [1.0, math.nan]}),
        ([100, 200], {}),
    ],
)
def test_slopes_without_data_are_refused(
    n_pos: list[float], values: dict[int, list[float]]
) -> None:
    with pytest.raises(DataError, match="given"):
        slope_on_log2(n_pos, values)


N_POS = (100, 200, 400, 800)
HEIGHTS = (0.2, 0.3, 0.4, 0.5)  # gains in margin: 0.1 more per doubling


def study(
    rates: Sequence[float], seeds: int = 3, heights: Sequence[float] = HEIGHTS
) -> ReboundCurves:
    """Branches that decay exponentially, each seed a little higher than the one before."""
    start = dict.fromkeys(range(seeds), -1.0)
    margins = {
        seed: [
            [
                -1.0 + (1 + 0.05 * seed) * height * math.exp(-(1 + 0.02 * seed) * rate * d)
                for d in DOSES
            ]
            for height, rate in zip(heights, rates, strict=True)
        ]
        for seed in range(seeds)
    }
    return ReboundCurves(N_POS, DOSES, start, margins)


@pytest.mark.parametrize("dose", [128, None])
def test_proportional_decay_meets_the_paper_and_not_the_strict_criterion(
    dose: float | None,
) -> None:
    found = rebound_judgement(study([0.005] * 4), dose=dose)
    assert found.paper.label == "shown"
    assert found.strict.label == "undecided"
    assert found.strict.slope is not None
    assert found.strict.slope.mean == pytest.approx(0.0, abs=1e-12)
    assert "not ruled out" in found.strict.sentence


def test_the_slope_of_the_fall_is_the_one_derived_by_hand() -> None:
    # Seed 0 at dose 128: the fall is height * (1 - exp(-0.64)), heights rise 0.1 per doubling.
    found = rebound_judgement(study([0.005] * 4, seeds=1), dose=128)
    assert found.paper.slope is not None
    assert found.paper.slope.mean == pytest.approx(0.1 * (1 - math.exp(-0.64)))
    assert found.paper.label == found.strict.label == "one seed, no interval"
    # 0.1 * (1 - 0.527292) = 0.0472708
    assert (
        "Over one seed, after 128 perturbing examples, the margin's fall changes by +0.0473 nats "
        "a token per doubling of n_pos from 100 to 800" in found.paper.sentence
    )


def test_rates_that_grow_with_alignment_meet_both_criteria() -> None:
    found = rebound_judgement(study([0.003, 0.004, 0.005, 0.006]), dose=128)
    assert (found.paper.label, found.strict.label) == ("shown", "shown")
    assert "steeper than proportional decay" in found.strict.sentence
    assert "Over 3 seeds" in found.paper.sentence
    assert "95 % interval" in found.paper.sentence


def test_more_alignment_that_holds_better_is_the_opposite() -> None:
    found = rebound_judgement(study([0.02, 0.008, 0.003, 0.001]), dose=128)
    assert (found.paper.label, found.strict.label) == ("opposite", "opposite")


def test_a_wider_level_can_undo_a_finding() -> None:
    curves = study([0.003, 0.004, 0.005, 0.006])
    assert rebound_judgement(curves, dose=128, level=0.99999).paper.label == "undecided"


def test_seeds_that_did_not_align_leave_the_strict_criterion() -> None:
    curves = study([0.005] * 4)
    partly = ReboundCurves(N_POS, DOSES, {0: -1.0, 1: -1.0, 2: 5.0}, curves.margins)
    found = rebound_judgement(partly, dose=128)
    assert found.strict.slope is not None
    assert found.strict.slope.n == 2
    assert "Left out: one seed" in found.strict.sentence
    assert found.paper.slope is not None
    assert found.paper.slope.n == 3
    never = ReboundCurves(N_POS, DOSES, dict.fromkeys(range(3), 5.0), curves.margins)
    assert rebound_judgement(never).strict.label == "did not align"
    assert rebound_judgement(never).strict.slope is None


def test_studies_that_do_not_match_up_are_refused() -> None:
    curves = study([0.005] * 4)
    with pytest.raises(DataError, match="same seeds"):
        ReboundCurves(N_POS, DOSES, {0: 0.0}, curves.margins)
    with pytest.raises(DataError, match="4 branches"):
        ReboundCurves(N_POS[:2], DOSES, curves.start, curves.margins)


FORWARD = {0: 2.0, 1: 2.0, 2: 2.0}
LOWER = {0: 1.60, 1: 1.62, 2: 1.58}
HIGHER = {0: 2.40, 1: 2.42, 2: 2.38}
NEAR = {0: 1.8, 1: 2.0, 2: 2.2}


def test_resistance_ratio_is_a_geometric_mean() -> None:
    # ratios 1/2 and 1/8: geometric mean 1/4, arithmetic 0.3125
    found = resistance_judgement({0: 2.0, 1: 8.0}, {0: 1.0, 1: 1.0})
    assert found.ratio.mean == pytest.approx(0.25)
    # logs -ln 2 and -3 ln 2: mean -2 ln 2, sd sqrt(2) ln 2, t(1 df) = 12.7062, half 12.7062 ln 2
    low, high = found.ratio.bounds or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 ** (-2 - 12.7062), 2 ** (-2 + 12.7062)), rel=1e-4)


@pytest.mark.parametrize(
    ("inverse", "excess", "paper", "both"),
    [
        (LOWER, LOWER, "resists", "resists"),
        (LOWER, None, "resists", "undecided"),
        (LOWER, NEAR, "resists", "undecided"),
        (LOWER, HIGHER, "resists", "no resistance"),
        (NEAR, LOWER, "undecided", "undecided"),
        (HIGHER, None, "no resistance", "no resistance"),
        (HIGHER, LOWER, "no resistance", "no resistance"),
    ],
)
def test_resistance_needs_the_loss_and_its_excess(
    inverse: dict[int, float], excess: dict[int, float] | None, paper: str, both: str
) -> None:
    found = resistance_judgement(
        FORWARD, inverse, forward_excess=FORWARD if excess else None, inverse_excess=excess
    )
    assert (found.paper_label, found.label) == (paper, both)
    assert (found.excess is None) == (excess is None)


def test_one_seed_of_resistance_is_no_proof() -> None:
    found = resistance_judgement(
        {0: 2.0}, {0: 1.5}, forward_excess={0: 0.2}, inverse_excess={0: -0.1}
    )
    assert found.label == found.paper_label == "one seed, no interval"
    assert found.sentence == (
        "Over one seed the loss going back is 0.75 times the loss going forward (one value, no "
        "interval); its excess over the target's own NLL differs by -0.3 nats a token (one value, "
        "no interval): one seed shows a direction and proves nothing."
    )


def test_resistance_pairs_by_seed_and_not_by_order() -> None:
    found = resistance_judgement({0: 1.0, 1: 4.0}, {1: 2.0, 0: 0.5})
    assert found.ratio.mean == pytest.approx(0.5)
    assert found.ratio.bounds is None  # both seeds give exactly one half


@pytest.mark.parametrize(
    ("forward", "inverse"),
    [({0: 1.0}, {1: 1.0}), ({}, {}), ({0: 0.0}, {0: 1.0}), ({0: math.nan}, {0: 1.0})],
)
def test_losses_that_cannot_be_compared_are_refused(
    forward: dict[int, float], inverse: dict[int, float]
) -> None:
    with pytest.raises(DataError, match="given"):
        resistance_judgement(forward, inverse)
