"""Tail fits find the law that samples were drawn from, and its exponent."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from springback.errors import DataError
from springback.theory import fit_tail
from springback.theory.laws import Tail, exponential, log_normal, power_law
from springback.theory.pareto import histogram, ks_distance, vuong


def zeta_sample(alpha: float, n: int, seed: int) -> NDArray[np.float64]:
    drawn = stats.zipf.rvs(alpha, size=n, random_state=np.random.default_rng(seed))
    return np.asarray(drawn, dtype=np.float64)


def test_exponent_by_hand() -> None:
    # Real values 1, e, e^2 above 1: mean log 1, so alpha = 1 + 1 / 1.
    values = np.exp([0.0, 1.0, 2.0])
    found = power_law(Tail(values, np.ones(3), 1.0, False))
    assert found.parameters["alpha"] == pytest.approx(2)
    # Geometric: mean excess 1, so the rate is log 2.
    found = exponential(Tail(np.array([5.0, 7.0]), np.ones(2), 5.0, True))
    assert found.parameters["rate"] == pytest.approx(math.log(2))


def test_ks_distance_by_hand() -> None:
    # Uniform counts on 1 and 3 against a zeta law with alpha 2: shares >= x of the data are
    # 1, 1/2, 1/2, 0 at 1, 2, 3, 4.
    tail = Tail(np.array([1.0, 3.0]), np.ones(2), 1.0, True)
    law = power_law(tail)
    alpha = law.parameters["alpha"]
    above = special.zeta(alpha, np.arange(1, 5)) / special.zeta(alpha, 1)
    assert ks_distance(tail, alpha) == pytest.approx(np.abs(above - [1, 0.5, 0.5, 0]).max())


@pytest.mark.parametrize("discrete", [True, False])
def test_probabilities_sum_to_one(discrete: bool) -> None:
    tail = Tail(np.array([3.0, 4.0, 6.0, 11.0]), np.array([9.0, 4, 2, 1]), 3.0, discrete)
    for fit in (power_law, exponential, log_normal):
        law = fit(tail)
        if discrete:
            x = np.arange(3.0, 300_000.0)
            mass = np.exp(law.log_density(x)).sum()
        else:
            x = np.geomspace(3, 3e8, 400_001)
            mass = np.trapezoid(np.exp(law.log_density(x)), x)
        assert mass == pytest.approx(1, abs=2e-3)  # the power law's own rest is 1e-3


@pytest.mark.parametrize(("alpha", "seed"), [(1.8, 0), (2.5, 1), (3.2, 2)])
def test_a_zeta_sample_is_found_to_be_one(alpha: float, seed: int) -> None:
    found = fit_tail(zeta_sample(alpha, 4000, seed), samples=20, seed=seed)
    assert abs(found.alpha - alpha) < 4 * found.alpha_se
    assert found.alpha_se < 0.2
    assert found.p > 0.1
    assert found.label == "power law, or log-normal"  # whose limit a power law is
    assert found.zipf == pytest.approx(1 / (found.alpha - 1))
    rival = {r.law: r for r in found.rivals}["exponential"]
    assert rival.ratio > 0
    assert rival.p < 0.01


def test_real_values_too() -> None:
    x = np.random.default_rng(3).pareto(1.5, 3000) + 1
    found = fit_tail(x, discrete=False, samples=20)
    assert abs(found.alpha - 2.5) < 4 * found.alpha_se
    assert found.p > 0.1


def test_the_threshold_is_found() -> None:
    # Even below 10, a power law from 10 on.
    rng = np.random.default_rng(4)
    tail = np.floor(9.5 * (1 - rng.random(3000)) ** (-1 / 1.5) + 0.5)
    found = fit_tail(np.append(tail, rng.integers(1, 10, 3000)), samples=0)
    assert 8 <= found.xmin <= 15
    assert abs(found.alpha - 2.5) < 0.15
    assert math.isnan(found.p)


def test_other_laws_are_told_apart() -> None:
    rng = np.random.default_rng(5)
    geometric = fit_tail(rng.geometric(0.05, 5000), samples=20)
    assert geometric.label == "not a power law, log-normal and exponential better"
    # A log-normal from its median on; the search for xmin would go further out, where no test
    # tells the two apart.
    x = np.exp(rng.normal(2, 0.5, 5000))
    values, counts = histogram(x[x >= math.exp(2)])
    tail = Tail(values, counts, math.exp(2), False)
    assert vuong(tail, power_law(tail), log_normal(tail))[0] < -20


def test_a_log_normal_is_fitted_where_it_is_one() -> None:
    x = np.round(np.exp(np.random.default_rng(6).normal(3, 0.7, 20000)))
    values, counts = histogram(x[x >= 5])
    law = log_normal(Tail(values, counts, 5.0, True))
    assert law.parameters["mu"] == pytest.approx(3, abs=0.05)
    assert law.parameters["sigma"] == pytest.approx(0.7, abs=0.03)


def test_the_log_normal_is_never_far_behind_the_power_law() -> None:
    # A power law is its limit: a fit that loses much has stopped too early.
    values, counts = histogram(zeta_sample(2.06, 100_000, 7))
    tail = Tail(values, counts, 1.0, True)
    assert vuong(tail, power_law(tail), log_normal(tail))[0] < 0.5


def test_vuong_by_hand() -> None:
    # Two laws on two values: gaps g1, g2; R = g1 + g2, variance ((g1 - g2) / 2)^2.
    tail = Tail(np.array([1.0, math.e]), np.ones(2), 1.0, False)
    one, two = power_law(tail), exponential(tail)
    gaps = one.log_density(tail.values) - two.log_density(tail.values)
    ratio, p = vuong(tail, one, two)
    assert ratio == pytest.approx(gaps.sum())
    z = gaps.sum() / (math.sqrt(2) * abs(gaps[0] - gaps[1]) / 2)
    assert p == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert vuong(tail, one, one) == (0.0, 1.0)


@pytest.mark.parametrize("values", [[], [0, 1], [-1.0], [5] * 100, [1, 2, 3]])
def test_what_has_no_tail_is_refused(values: list[float]) -> None:
    with pytest.raises(DataError):
        fit_tail(values)


@pytest.mark.filterwarnings("ignore")  # theirs
def test_agrees_with_the_powerlaw_package_where_it_is_installed() -> None:
    powerlaw = pytest.importorskip("powerlaw")
    x = zeta_sample(2.3, 2000, 8)
    ours = fit_tail(x, samples=0, candidates=10_000)
    theirs = powerlaw.Fit(
        x, discrete=True, estimate_discrete=False, xmin=ours.xmin, xmax=None, verbose=0
    )
    assert ours.alpha == pytest.approx(theirs.power_law.alpha, abs=1e-3)
    ratio, _ = theirs.distribution_compare("power_law", "exponential")
    rival = {r.law: r for r in ours.rivals}["exponential"]
    assert rival.ratio == pytest.approx(ratio, rel=1e-2)
