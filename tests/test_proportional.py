"""The stricter criterion against a fitted decay, and which interval holds at three seeds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from springback.elasticity import (
    ReboundCurves,
    bootstrap_slope,
    decay_criterion,
    excess_falls,
    rebound_judgement,
    slope_on_log2,
)
from springback.errors import DataError

DOSES = (0, 16, 32, 64, 128)
N_POS = (64, 128, 256)
HEIGHTS = (0.1, 0.2, 0.3)


def decay(rate: float, dose: float) -> float:
    return math.exp(-rate * dose)


def line(rate: float, dose: float) -> float:
    return 1 - 0.6 * rate * dose


def study(
    rates: tuple[float, ...],
    shape: Callable[[float, float], float] = decay,
    *,
    rng: np.random.Generator | None = None,
    noise: float = 0.0,
) -> ReboundCurves:
    """Three seeds that differ a little in height and rate; noise in nats a token."""
    margins = {}
    for seed in range(3):
        factor = 1 + 0.1 * (seed - 1)
        rows = np.array(
            [
                [h * factor * shape(r * factor, d) for d in DOSES]
                for h, r in zip(HEIGHTS, rates, strict=True)
            ]
        )
        if rng is not None:
            rows += noise * rng.standard_normal(rows.shape)
        margins[seed] = [[float(v) - 1 for v in row] for row in rows]
    return ReboundCurves(N_POS, DOSES, dict.fromkeys(range(3), -1.0), margins)


def test_proportional_decay_leaves_no_excess() -> None:
    curves = study((0.01, 0.01, 0.01))
    for row in excess_falls(curves, 64).values():
        assert row == pytest.approx((0, 0, 0), abs=1e-5)
    found = decay_criterion(curves, dose=64)
    assert found.label == "undecided"
    assert "proportional decay at one rate is not ruled out" in found.sentence


def test_a_common_shape_that_is_no_exponential_does_not_pass_for_a_trend() -> None:
    # Every branch loses the same share on a straight line: the residuals grow with height, but
    # as shares they are the same in every branch.
    for row in excess_falls(study((0.01, 0.01, 0.01), line), 64).values():
        assert np.ptp(row) < 1e-9
        assert abs(row[0]) > 0.01


def test_rates_that_grow_with_alignment_are_shown_and_shrinking_ones_the_opposite() -> None:
    found = decay_criterion(study((0.006, 0.009, 0.012)))
    assert found.label == "shown"
    assert "steeper than proportional decay at one rate" in found.sentence
    assert found.bootstrap is not None
    assert decay_criterion(study((0.012, 0.009, 0.006))).label == "opposite"


def test_the_excess_is_the_one_derived_by_hand() -> None:
    # One dose beside 0, two branches.  Gains 1 -> 0.5 and 1 -> 0.25: the one rate r with
    # s = exp(-r d) and heights h_b = (1 + s y_b) / (1 + s^2) minimises the squares
    # sum_b (s - y_b)^2 / (1 + s^2), whose derivative is 0 where
    # s^2 (y_1 + y_2) + s (2 - y_1^2 - y_2^2) - (y_1 + y_2) = 0: 0.75 s^2 + 1.6875 s - 0.75 = 0.
    s = (-1.6875 + math.sqrt(1.6875**2 + 4 * 0.75 * 0.75)) / 1.5
    curves = ReboundCurves((1, 2), (0, 8), {0: 0.0}, {0: [[1.0, 0.5], [1.0, 0.25]]})
    expected = []
    for y in (0.5, 0.25):
        height = (1 + s * y) / (1 + s * s)
        expected.append(((1 - height) - (y - height * s)) / height)
    assert excess_falls(curves, 8)[0] == pytest.approx(expected, abs=2e-6)
    found = decay_criterion(curves, dose=8)
    assert found.label == "one seed, no interval"
    assert found.slope is not None
    assert found.slope.mean == pytest.approx(expected[1] - expected[0], abs=2e-6)
    assert found.bootstrap is None


def test_seeds_that_did_not_align_leave_the_criterion() -> None:
    curves = study((0.01, 0.01, 0.01))
    partly = ReboundCurves(N_POS, DOSES, {**curves.start, 2: 5.0}, curves.margins)
    found = decay_criterion(partly)
    assert found.slope is not None
    assert found.slope.n == 2
    assert "Left out: one seed" in found.sentence
    never = ReboundCurves(N_POS, DOSES, dict.fromkeys(range(3), 5.0), curves.margins)
    assert decay_criterion(never).label == "did not align"
    with pytest.raises(DataError, match="n_pos"):
        decay_criterion(ReboundCurves((64,), (0, 8), {0: 0.0}, {0: [[1.0, 0.5]]}))


@pytest.mark.parametrize("shape", [decay, line])
def test_false_findings_stay_at_their_level_with_three_seeds(
    shape: Callable[[float, float], float],
) -> None:
    # Nominal 2.5 % each way; standard error of 250 at 5 %: 1.4 points.
    rng, n, found = np.random.default_rng(1), 250, 0
    for _ in range(n):
        curves = study((0.01, 0.01, 0.01), shape, rng=rng, noise=0.005)
        slope = slope_on_log2(N_POS, excess_falls(curves))
        found += slope.bounds is not None and not slope.bounds[0] <= 0 <= slope.bounds[1]
    assert found <= 0.09 * n


def test_t_holds_at_three_seeds_where_the_bootstrap_of_seeds_does_not() -> None:
    rng, n, by_t, by_bootstrap = np.random.default_rng(2), 300, 0, 0
    for _ in range(n):
        values = {seed: [0.0, float(rng.standard_normal())] for seed in range(3)}
        t, bootstrap = slope_on_log2((1, 2), values).bounds, bootstrap_slope((1, 2), values)
        assert t is not None
        assert bootstrap is not None
        assert bootstrap.bounds is not None
        by_t += t[0] <= 0 <= t[1]
        by_bootstrap += bootstrap.bounds[0] <= 0 <= bootstrap.bounds[1]
    assert by_t >= 0.92 * n
    assert by_bootstrap <= 0.82 * n


def test_a_bootstrap_needs_three_seeds_and_stays_within_them() -> None:
    values = {seed: [0.0, slope] for seed, slope in enumerate((1.0, 2.0, 3.0))}
    found = bootstrap_slope((1, 2), values)
    assert found is not None
    assert found.bounds is not None
    assert found.mean == pytest.approx(2.0)
    assert 1.0 <= found.bounds[0] < 2.0 < found.bounds[1] <= 3.0
    assert bootstrap_slope((1, 2), {0: [0.0, 1.0], 1: [0.0, 2.0]}) is None


def test_both_criteria_carry_the_bootstrap_beside_the_t_interval() -> None:
    found = rebound_judgement(study((0.006, 0.009, 0.012)), dose=64)
    for criterion in (found.paper, found.strict):
        assert criterion.bootstrap is not None
        assert criterion.slope is not None
        assert criterion.bootstrap.mean == pytest.approx(criterion.slope.mean)
