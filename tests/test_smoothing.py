"""Gains along a line of steps, smoothed: known answers, and what NLL may and may not do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from springback.errors import DataError
from springback.stats.smoothing import SCALES, smoothed_gains


def answers(right: list[int], questions: int) -> np.ndarray:
    """So many right answers at each step, the first ones of the set."""
    return np.array([[float(i < r) for i in range(questions)] for r in right])


def test_one_step_is_the_normal_posterior_averaged_over_scales() -> None:
    table = answers([10, 14], 40)
    gains = table[1] - table[0]
    noise = (((gains - gains.mean()) ** 2).sum() + 2) / 42**2
    fits = [
        math.exp(-0.5 * (math.log(t * t + noise) + gains.mean() ** 2 / (t * t + noise)))
        for t in SCALES
    ]
    expected = sum(
        f * t * t / (t * t + noise) * gains.mean() for f, t in zip(fits, SCALES, strict=True)
    ) / sum(fits)
    smoothed = smoothed_gains([0, 0.4], table)
    assert smoothed.gain[1] == pytest.approx(expected, rel=1e-12)
    assert smoothed.gain[0] == smoothed.deviation[0] == 0
    assert 0 < smoothed.gain[1] < gains.mean()


def test_many_questions_leave_little_to_the_prior() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([0.30, 0.34, 0.38, 0.33])
    table = (rng.random(40_000)[None] < truth[:, None]).astype(float)
    seen = table.mean(1) - table[0].mean()
    smoothed = smoothed_gains([0, 0.2, 0.4, 0.8], table)
    assert np.abs(smoothed.gain - seen).max() < 5e-4
    assert int(np.argmax(smoothed.gain)) == 2


def test_a_lucky_peak_is_pulled_to_its_neighbours() -> None:
    """One step with two more right answers than both of its neighbours on 40 questions."""
    smoothed = smoothed_gains([0, 0.4, 0.8, 1.2], answers([10, 10, 12, 10], 40))
    assert 0 < smoothed.gain[2] < 0.02
    assert min(smoothed.gain[1], smoothed.gain[3]) > 0


def test_both_sides_of_zero_are_apart() -> None:
    alone = smoothed_gains([0, 0.5], answers([10, 16], 40)).gain[1]
    both = smoothed_gains([0, -0.5, 0.5], answers([10, 10, 16], 40))
    assert both.gain[2] == pytest.approx(alone, rel=0.5)
    assert abs(both.gain[1]) < 0.01


def test_nll_joins_where_it_agrees_and_only_there() -> None:
    table = answers([40, 46, 52, 58], 200)
    plain = smoothed_gains([0, 0.2, 0.4, 0.8], table)
    agrees = smoothed_gains([0, 0.2, 0.4, 0.8], table, np.array([1.0, 0.97, 0.94, 0.91]))
    opposes = smoothed_gains([0, 0.2, 0.4, 0.8], table, np.array([1.0, 1.03, 1.06, 1.09]))
    assert agrees.slope == pytest.approx(1.0, rel=0.2)
    assert agrees.gain[3] > plain.gain[3]
    assert opposes.slope is None
    assert np.array_equal(opposes.gain, plain.gain)


def test_equal_answers_are_no_gain_whatever_nll_says() -> None:
    table = answers([20, 20, 20], 64)
    smoothed = smoothed_gains([0, 0.2, 0.4], table, np.array([1.0, 0.5, 0.2]))
    assert smoothed.slope is None
    assert not smoothed.gain.any()


def test_points_of_a_plane_count_by_their_distance() -> None:
    """On a line through the plane they are what they are on a line, however it is turned."""
    table = answers([10, 13, 15, 12], 40)
    flat = smoothed_gains([0, 0.2, 0.4, 0.8], table)
    turned = smoothed_gains([(0, 0), (0.12, 0.16), (0.24, 0.32), (0.48, 0.64)], table)
    assert np.allclose(flat.gain, turned.gain, atol=1e-12)
    assert not smoothed_gains([0.3], answers([4], 9)).gain.any()
    assert not smoothed_gains([0.3, 0.3], answers([4, 7], 9)).gain.any(), "the same model twice"


@pytest.mark.parametrize(
    ("points", "shape"), [([0, 0.2], (3, 9)), ([0], (9,)), ([0, 1], (2, 0)), ([], (0, 3))]
)
def test_what_does_not_fit_is_refused(points: list[float], shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="points"):
        smoothed_gains(points, np.zeros(shape))
