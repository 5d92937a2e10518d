"""The worst attacker is named, the median stands beside it, and censored doses stay censored."""

from __future__ import annotations

import json
import math

import pytest

from springback.core import to_jsonable
from springback.elasticity import Attacker, Crossing, attack_summary
from springback.errors import DataError


def at(dose: float) -> Crossing:
    return Crossing(dose, False, 0.0, 64.0)


BEYOND = Crossing(None, True, 0.2, 64.0)


def test_worst_and_median_are_named_and_the_interval_is_over_seeds() -> None:
    shares = {0: (0.1, 0.5, 0.9), 1: (0.2, 0.6, 0.7), 2: (0.3, 0.7, 0.8)}
    sweep = [
        Attacker(rate, seed, share)
        for seed, row in shares.items()
        for rate, share in zip((1e-6, 1e-5, 1e-4), row, strict=True)
    ]
    found = attack_summary(sweep).share
    assert found is not None
    assert (found.worst, found.worst_by) == (0.9, "learning rate 0.0001, seed 0")
    # sorted: 0.1 0.2 0.3 0.5 [0.6] 0.7 0.7 0.8 0.9
    assert (found.median, found.median_by) == (0.6, "learning rate 1e-05, seed 1")
    # each seed's median: 0.5, 0.6, 0.7: mean 0.6, sd 0.1, half width 0.2484138
    assert found.typical.mean == pytest.approx(0.6)
    assert (found.typical.low, found.typical.high) == pytest.approx((0.3515862, 0.8484138))
    assert (found.attackers, found.left_out) == (9, 0)
    assert attack_summary(sweep).dose is None


def test_the_worst_dose_is_the_smallest_and_a_censored_median_stays_open() -> None:
    doses = {(1e-5, 0): at(40), (1e-4, 0): BEYOND, (1e-5, 1): BEYOND, (1e-4, 1): BEYOND}
    sweep = [Attacker(rate, seed, None, dose) for (rate, seed), dose in doses.items()]
    found = attack_summary(sweep, largest=64.0).dose
    assert found is not None
    assert (found.worst, found.worst_by) == (40.0, "learning rate 1e-05, seed 0")
    assert found.median is None
    assert found.median_by == "learning rate 0.0001, seed 0"
    # the seeds' medians: between 40 and beyond 64, so 52 or more; and 64 or more
    assert found.typical.at_least == pytest.approx(58)
    assert (found.typical.at_most, found.typical.high, found.typical.censored) == (None, None, 2)
    with pytest.raises(DataError, match="largest"):
        attack_summary(sweep)


def test_no_attacker_reached_the_dose() -> None:
    found = attack_summary([Attacker(1e-5, 0, 0.1, BEYOND)], largest=64.0).dose
    assert found is not None
    assert (found.worst, found.median) == (None, None)


def test_attackers_without_a_value_are_left_out_and_counted() -> None:
    no_gain = Crossing(None, False, 0.2, 64.0)
    sweep = [Attacker(1e-5, 0, 0.4, at(10)), Attacker(1e-5, 1, None, no_gain)]
    found = attack_summary(sweep)
    assert found.share is not None
    assert found.dose is not None
    assert (found.share.left_out, found.dose.left_out) == (1, 1)
    nothing = attack_summary([Attacker(1e-5, 0, None)])
    assert (nothing.share, nothing.dose) == (None, None)


def test_the_summary_survives_json() -> None:
    plain = json.loads(json.dumps(to_jsonable(attack_summary([Attacker(1e-5, 0, 0.4)]))))
    assert plain["share"]["worst"] == 0.4
    assert plain["share"]["typical"]["n"] == 1
    assert plain["dose"] is None


@pytest.mark.parametrize(
    "sweep",
    [
        [],
        [Attacker(1e-5, 0, 0.1), Attacker(1e-4, 0, 0.1), Attacker(1e-5, 1, 0.1)],
        [Attacker(1e-5, 0, 0.1), Attacker(1e-5, 0, 0.2)],
        [Attacker(1e-5, 0, math.nan)],
    ],
)
def test_sweeps_that_are_not_complete_are_refused(sweep: list[Attacker]) -> None:
    with pytest.raises(DataError, match="same learning rates"):
        attack_summary(sweep)
