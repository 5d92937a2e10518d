"""Differences over seeds are the textbook tests, and censored values only weaken them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as sps

from springback.elasticity import by_arm, kl_change, overall_resistance, resistance_tests
from springback.elasticity.seed_tests import Change, paired_change, t_pvalue, welch_change
from springback.errors import DataError

Range = tuple[float, float]


def known(*values: float) -> list[Range]:
    return [(v, v) for v in values]


A, B = (5.0, 6.0, 8.0), (1.0, 1.5, 4.0, 2.0)


def test_welch_is_scipys() -> None:
    found = welch_change(known(*A), known(*B))
    reference = sps.ttest_ind(A, B, equal_var=False)
    bounds = reference.confidence_interval(0.95)
    assert found.value == pytest.approx(19 / 3 - 8.5 / 4)
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high))
    assert found.method == "Welch's t over 3 and 4 seeds"


def test_paired_is_scipys() -> None:
    found = paired_change(known(*A), known(*B[:3]))
    reference = sps.ttest_rel(A, B[:3])
    bounds = reference.confidence_interval(0.95)
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high))
    assert t_pvalue([a - b for a, b in zip(A, B[:3], strict=True)]) == pytest.approx(found.p)


@pytest.mark.parametrize("change", [welch_change, paired_change])
def test_no_spread_and_too_few_seeds_have_no_p(change: Callable[..., Change]) -> None:
    assert change(known(2, 2, 2), known(1, 1, 1)).p is None
    assert change(known(2, 2, 2), known(1, 1, 1)).value == 1.0
    assert change(known(2), known(1)).p is None
    assert t_pvalue([1.0]) is None


def test_a_censored_model_is_at_least_that_much_higher() -> None:
    beyond = [(64.0, math.inf)] * 3
    found = welch_change(beyond, known(20, 21, 22))
    # the lower ends, 64 without spread, against mean 21, sd 1: 43 - t(2 df) / sqrt(3)
    assert (found.value, found.high) == (None, None)
    assert found.low == pytest.approx(43 - 2.484138, abs=1e-6)
    assert found.p == pytest.approx(2 * sps.t.sf(43 * math.sqrt(3), 2))
    turned = welch_change(known(20, 21, 22), beyond)
    assert (turned.low, turned.p) == (None, found.p)
    paired = paired_change(beyond, known(20, 21, 22))
    assert paired.low == pytest.approx(43 - 2.484138, abs=1e-6)
    assert paired.high is None
    assert welch_change(beyond, beyond).p is None


def test_false_differences_of_censored_doses_stay_at_their_level() -> None:
    # Two models with the same doses, a fifth beyond 64; nominal 5 %, standard error 0.9 points.
    rng, n, found = np.random.default_rng(0), 600, 0
    for _ in range(n):
        a, b = (
            [(d, d) if d <= 64 else (64.0, math.inf) for d in 57 + 8 * rng.standard_normal(3)]
            for _ in range(2)
        )
        p = welch_change(a, b).p
        found += p is not None and p < 0.05
    assert found <= 0.075 * n


LOSSES = {
    "1-2": {s: {"forward": 2.0, "inverse": 1.6 + 0.02 * s} for s in range(3)},
    "2-3": {s: {"forward": 2.0, "inverse": 1.8 + 0.1 * s} for s in range(3)},
}


def test_each_pair_has_a_paired_test_adjusted_over_the_pairs() -> None:
    found = resistance_tests(LOSSES)
    by_hand = {
        pair: sps.ttest_rel(
            [math.log(v["inverse"]) for v in losses.values()],
            [math.log(v["forward"]) for v in losses.values()],
        ).pvalue
        for pair, losses in LOSSES.items()
    }
    assert {pair: test.p for pair, test in found.items()} == pytest.approx(by_hand)
    # two tests: the smaller p counts twice
    assert found["1-2"].p_holm == pytest.approx(2 * by_hand["1-2"])
    assert found["2-3"].p_holm == pytest.approx(by_hand["2-3"])
    assert found["1-2"].judgement.paper_label == "resists"
    assert found["1-2"].judgement.label == "undecided"  # the excess was not measured


def test_the_overall_ratio_takes_a_seed_as_one_value() -> None:
    judged, ratios = overall_resistance(LOSSES)
    # seed 0: ratios 0.8 and 0.9, geometric mean sqrt(0.72)
    assert ratios[0] == pytest.approx(math.sqrt(0.72))
    assert judged.ratio.n == 3
    assert judged.ratio.mean == pytest.approx(math.prod(ratios.values()) ** (1 / 3))


def test_the_excess_counts_overall_too_and_incomplete_seeds_do_not() -> None:
    extra = {"excess_forward": 0.3, "excess_inverse": 0.1}
    losses = {
        pair: {s: {**v, **extra, "excess_inverse": 0.1 + 0.01 * s} for s, v in rows.items()}
        for pair, rows in LOSSES.items()
    }
    assert overall_resistance(losses)[0].label == "resists"
    del losses["2-3"][2]
    assert sorted(overall_resistance(losses)[1]) == [0, 1]


def kl_of(forward: tuple[float, float], inverse: tuple[float, float]) -> dict[str, float]:
    """KL before and after, of each way."""
    return {
        "kl_before_forward": forward[0],
        "kl_after_forward": forward[1],
        "kl_before_inverse": inverse[0],
        "kl_after_inverse": inverse[1],
    }


def test_the_change_of_kl_is_before_less_after_and_judged_by_the_share_that_is_closed() -> None:
    """Forward closes 0.2 of 0.8 and of 0.4: a quarter, a half.  Inverse 0.3 of 0.4, 0.35 of 0.5."""
    losses = {0: kl_of((0.8, 0.6), (0.4, 0.1)), 1: kl_of((0.4, 0.2), (0.5, 0.15))}
    found = kl_change(losses)
    assert found is not None
    assert found.forward.mean == pytest.approx(0.2)
    assert found.inverse.mean == pytest.approx((0.3 + 0.35) / 2)
    assert found.share_forward.mean == pytest.approx((0.25 + 0.5) / 2)
    assert found.share_inverse.mean == pytest.approx((0.75 + 0.7) / 2)
    # Gaps of 0.5 and 0.2, mean 0.35: t is 12.7 with one degree of freedom, and holds zero.
    assert found.label == "undecided"


@pytest.mark.parametrize(
    ("after", "label"), [((0.2, 0.22), "resists"), ((0.8, 0.82), "no resistance")]
)
def test_going_back_is_easier_by_kl_where_it_closes_the_larger_share_in_every_seed(
    after: tuple[float, float], label: str
) -> None:
    losses = {s: kl_of((1.0, 0.5), (1.0, after[s])) for s in (0, 1)}
    found = kl_change(losses)
    assert found is not None
    assert found.label == label
    alone = kl_change({0: losses[0]})
    assert alone is not None
    assert alone.label == "one seed, no interval"


def test_without_a_kl_that_could_be_closed_nothing_is_judged_by_it() -> None:
    assert kl_change({0: {"forward": 1.0, "inverse": 1.0}}) is None
    assert kl_change({0: kl_of((0.0, 0.1), (1.0, 0.5))}) is None
    assert kl_change({}) is None


def test_names_of_the_greedy_arm_are_bare_and_older_results_are_of_one_arm() -> None:
    values = {"forward": 1.0, "sampled_forward": 2.0, "sampled_kl_after_inverse": 3.0}
    assert by_arm(values) == {
        "greedy": {"forward": 1.0},
        "sampled": {"forward": 2.0, "kl_after_inverse": 3.0},
    }
    assert by_arm({"excess_forward": 0.1}) == {"greedy": {"excess_forward": 0.1}}


def test_one_seed_has_no_p_and_bad_losses_are_refused() -> None:
    found = resistance_tests({"1-2": {0: {"forward": 2.0, "inverse": 1.0}}})["1-2"]
    assert (found.p, found.p_holm) == (None, None)
    assert found.judgement.label == "one seed, no interval"
    with pytest.raises(DataError, match="above 0"):
        resistance_tests({"1-2": {0: {"forward": 2.0, "inverse": 0.0}}})
    with pytest.raises(DataError, match="seeds"):
        overall_resistance({})
