"""Two phases are found where there are two, and a smooth fall does not pass for them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize

from springback.elasticity import ReboundCurves, branch_phases, fall_phases
from springback.elasticity.phases import two_lines
from springback.errors import DataError

DOSES = [16.0 * k for k in range(12)]  # 0 to 176


def kink(dose: float) -> float:
    """Fast to dose 56, slow after: slopes -0.0125 and -0.001 a example."""
    return 1 - 0.0125 * dose if dose < 56 else 0.3 - 0.001 * (dose - 56)


def seeds(
    shape: Callable[[float], float], n: int = 3, noise: float = 0.005, seed: int = 0
) -> dict[int, list[float]]:
    rng = np.random.default_rng(seed)
    return {
        s: [float((1 + 0.05 * s) * shape(d) + noise * rng.standard_normal()) for d in DOSES]
        for s in range(n)
    }


def test_exact_two_lines_are_found_again() -> None:
    point, slopes, fitted = two_lines(np.array(DOSES), np.array([kink(d) for d in DOSES]))
    assert point == pytest.approx(56)
    assert slopes == pytest.approx((-0.0125, -0.001))
    assert fitted == pytest.approx([kink(d) for d in DOSES])


@pytest.mark.parametrize("seed", range(5))
def test_two_lines_are_the_best_of_all_breakpoints(seed: int) -> None:
    x, y = np.array(DOSES), np.random.default_rng(seed).standard_normal(12)

    def squares(knot: float) -> float:
        basis = np.stack([np.ones(12), x, np.maximum(x - knot, 0)], axis=1)
        return float(((y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]) ** 2).sum())

    # every knot between the second and the last but one dose, a tenth of an example apart
    best = min(squares(k) for k in np.arange(16, 160.05, 0.1))
    found = float(((y - two_lines(x, y)[2]) ** 2).sum())
    assert found <= best + 1e-9
    assert found >= best * (1 - 1e-3)


def test_a_kink_is_two_phases_with_its_breakpoint() -> None:
    found = fall_phases(DOSES, seeds(kink))
    assert found.label == "two phases"
    assert found.breakpoint == pytest.approx(56, abs=3)
    assert found.slopes == pytest.approx((-0.0125 * 1.05, -0.001 * 1.05), rel=0.15)
    assert found.interval is not None
    assert found.interval.bounds is not None
    assert found.interval.bounds[0] <= 56 <= found.interval.bounds[1]
    assert found.sentence.startswith("Two phases, fast, then slow: -1.3")
    assert "3 of 3 left-out seeds" in found.sentence


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda d: 1 - 0.005 * d, id="line"),
        pytest.param(lambda d: math.exp(-d / 60), id="decay to the start"),
        pytest.param(lambda d: -0.5 + 1.5 * math.exp(-d / 40), id="decay past the start"),
    ],
)
def test_one_phase_falls_are_one_phase(shape: Callable[[float], float]) -> None:
    for seed in range(3):
        found = fall_phases(DOSES, seeds(shape, seed=seed))
        assert found.label == "one phase", found.sentence


def test_the_criterion_is_aicc() -> None:
    # 12 doses; the line is the mean square m with k = 3 (two weights, one variance):
    # 12 ln m + 2 * 3 * 12 / (12 - 3 - 1)
    y = np.array([kink(d) for d in DOSES])
    line = np.polyval(np.polyfit(DOSES, y, 1), DOSES)
    expected = 12 * math.log(((y - line) ** 2).mean()) + 9
    found = fall_phases(DOSES, {0: list(y)}).aicc
    assert found["line"] == pytest.approx(expected)
    # Level, height, rate and variance: 2 * 4 * 12 / (12 - 4 - 1).  The reference is a search by
    # simplex from a start near by.
    fit = minimize(
        lambda p: float(((y - p[0] - p[1] * np.exp(-p[2] * np.array(DOSES) / 50)) ** 2).mean()),
        x0=[0.2, 0.8, 1.0],
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 5000},
    )
    assert found["levelling"] == pytest.approx(12 * math.log(fit.fun) + 96 / 7, abs=1e-3)


def test_few_doses_are_not_judged() -> None:
    found = fall_phases(DOSES[:8], {0: [kink(d) for d in DOSES[:8]]})
    assert (found.label, found.breakpoint, found.aicc) == ("too few doses", None, {})
    assert "8 doses" in found.sentence
    assert "9 with dose 0" in found.sentence


def test_one_seed_does_not_confirm_two_phases() -> None:
    found = fall_phases(DOSES, {0: [kink(d) for d in DOSES]})
    assert found.label == "undecided"
    assert "one seed cannot confirm it" in found.sentence
    assert found.interval is None


def test_a_kink_that_the_other_seeds_do_not_share_is_undecided() -> None:
    # one seed falls in two steep phases, the other two straight: the mean has a kink
    straight = [0.8 - 0.001 * d for d in DOSES]
    noise = np.random.default_rng(0).standard_normal((2, 12)) * 1e-4
    table = {0: [kink(d) for d in DOSES], **{s + 1: list(straight + noise[s]) for s in range(2)}}
    found = fall_phases(DOSES, table)
    assert min(found.aicc, key=found.aicc.__getitem__) == "two lines"
    assert found.label == "undecided"


def test_runs_that_stray_are_seldom_taken_for_two_phases() -> None:
    # straight falls with errors that add up from dose to dose: AICc alone errs in a fifth of them
    rng, n, alone, found = np.random.default_rng(4), 40, 0, 0
    for _ in range(n):
        walk = np.cumsum(0.03 * rng.standard_normal((3, 12)), axis=1)
        curves = {s: [1 - 0.004 * d + w for d, w in zip(DOSES, walk[s], strict=True)]
                  for s in range(3)}  # fmt: skip
        judged = fall_phases(DOSES, curves, resamples=10)
        one = min(judged.aicc[k] for k in ("line", "decay", "levelling"))
        alone += one - judged.aicc["two lines"] >= 2
        found += judged.label == "two phases"
    assert alone > found
    assert found <= 0.1 * n


def test_the_breakpoint_interval_repeats_with_its_seed_and_has_a_price() -> None:
    table = seeds(kink, noise=0.02)
    first, again = fall_phases(DOSES, table), fall_phases(DOSES, table)
    assert first == again
    assert fall_phases(DOSES, table, seed=1) != first
    wide = fall_phases(DOSES, table, level=0.99).interval
    assert wide is not None
    assert first.interval is not None
    assert wide.bounds is not None
    assert first.interval.bounds is not None
    assert wide.bounds[0] <= first.interval.bounds[0]
    assert wide.bounds[0] >= 0
    assert wide.bounds[1] <= DOSES[-1]


def test_the_breakpoint_interval_is_students_with_the_bootstraps_corrected_error() -> None:
    table = seeds(kink, noise=0.03, seed=2)
    rows = np.array(list(table.values()))
    # All 27 ways to draw three seeds from three, instead of a sample of them.
    points = [
        two_lines(np.array(DOSES), rows[list(drawn)].mean(axis=0))[0]
        for drawn in itertools.product(range(3), repeat=3)
    ]
    found = fall_phases(DOSES, table, resamples=5000)
    assert found.interval is not None
    assert found.interval.high is not None
    assert found.breakpoint is not None
    # t(0.975, 2 degrees of freedom) = 4.302653; the error is too small by (3 - 1) / 3
    half = 4.302653 * np.std(points) * math.sqrt(3 / 2)
    assert found.interval.high - found.breakpoint == pytest.approx(half, rel=0.05)


def test_every_branch_of_a_study_is_judged_above_its_start() -> None:
    table = seeds(kink)
    curves = ReboundCurves(
        (64, 128),
        DOSES,
        dict.fromkeys(table, -1.0),
        {s: [[v - 1 for v in row], [-0.5 - 0.002 * d for d in DOSES]] for s, row in table.items()},
    )
    found = branch_phases(curves)
    assert {n: p.label for n, p in found.items()} == {64: "two phases", 128: "one phase"}
    assert found[64].aicc["decay"] == pytest.approx(fall_phases(DOSES, table).aicc["decay"])


@pytest.mark.parametrize(
    ("doses", "gains"),
    [
        ([0.0, 8.0], {}),
        ([0.0, 8.0], {0: [1.0]}),
        ([0.0, 8.0], {0: [1.0, math.nan]}),
        ([8.0, 16.0], {0: [1.0, 0.5]}),
    ],
)
def test_curves_that_are_none_are_refused(
    doses: list[float], gains: dict[int, list[float]]
) -> None:
    with pytest.raises(DataError, match="doses"):
        fall_phases(doses, gains)
