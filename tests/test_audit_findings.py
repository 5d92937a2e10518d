"""What an audit says of attackers and of the opposite order, from margins made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from springback.core import to_jsonable
from springback.jobs.audit.analysis import findings
from springback.jobs.audit.analysis.curves import rebound_part
from springback.jobs.audit.branches import attacks
from springback.jobs.audit.settings import AuditSettings
from springback.results.audit_schema import Audit, Rebound, SampledScore
from springback.results.probe_info import PROBES, ProbeInfo
from springback.stats import Interval

START = 1.0
SETTINGS = AuditSettings(
    n_pos=(8, 16),
    controls=(),
    doses=(8, 16),
    seeds=(0, 1),
    probes=("margin",),
    learning_rate=1e-5,
    attack_learning_rates=(1e-4,),
    attack_seeds=(7,),
    mix=(0.5, 1.0),
)


def at(margin: float) -> dict[str, Any]:
    return {"margin": {"value": margin}}


def begun() -> dict[str, Any]:
    return {"probes": at(START)}


def straight(gain: float, lost: float) -> dict[int, Any]:
    """A gain of which ``lost`` is gone at dose 16, half as much at 8."""
    return {d: at(START + gain * (1 - lost * d / 16)) for d in (8, 16)}


def rebounds(lost: dict[str, tuple[float, float]]) -> dict[int, Any]:
    """By attack, the share lost in seed 0 and in seed 1; gains 1 and 2 at n_pos 8 and 16."""
    return {
        seed: {
            "aligned": {8: at(START + 1), 16: at(START + 2)},
            "perturbed": {8: straight(1, lost[""][seed]), 16: straight(2, lost[""][seed])},
            "attacks": {name: straight(2, both[seed]) for name, both in lost.items() if name},
        }
        for seed in (0, 1)
    }


SWEEP = {
    "": (0.2, 0.3),
    "learning rate 0.0001": (0.9, 1.6),
    "draw 7": (0.1, 0.4),
    "learning rate 0.0001, draw 7": (0.8, 0.7),
    "50 % benign": (0.2, 0.3),
    "benign only": (-0.01, -0.02),
}


def test_learning_rates_and_draws_are_swept_together_and_mixtures_stand_apart() -> None:
    assert [a.name for a in attacks(SETTINGS)] == [name for name in SWEEP if name]
    assert attacks(replace(SETTINGS, attack_learning_rates=(1e-5,), attack_seeds=(), mix=())) == ()


def test_the_worst_of_all_attackers_is_named_beside_the_median() -> None:
    found = findings.attackers(SETTINGS, begun(), rebounds(SWEEP))
    assert found is not None
    share, dose = found.share, found.dose
    assert share is not None
    assert dose is not None
    # 0.1 0.2 0.3 [0.4 0.7] 0.8 0.9 1.6
    assert share.attackers == 8
    assert share.worst == pytest.approx(1.6)
    assert share.worst_by == "learning rate 0.0001, seed 1"
    assert share.median == pytest.approx(0.55)
    # All of a gain of 2 is lost where 1.6 of it would be at 16: at 10.
    assert dose.worst == pytest.approx(10)
    assert dose.median is None
    assert dose.typical.censored == 2
    # Each seed's median: 0.5 and 0.55.
    assert share.typical.at_least == pytest.approx(0.525)
    line = findings._attacked(found)[0]
    assert line.label == "160 % of the gain"
    assert "Of 8 attackers the worst took back 160 %" in line.text
    assert "the median 55 %" in line.text


def test_benign_rows_alone_are_asked_whether_they_erode_it() -> None:
    found = findings.attackers(SETTINGS, begun(), rebounds(SWEEP))
    assert found is not None
    half, benign = found.mixed
    assert (half.mix, benign.mix) == (0.5, 1.0)
    assert benign.fall is not None
    assert benign.fall.mean == pytest.approx(-0.03)
    # -0.02 and -0.04: -0.03 +- 12.706 * 0.01
    assert benign.fall.low == pytest.approx(-0.15706, abs=1e-5)
    assert benign.share_lost is not None
    assert benign.share_lost.mean == pytest.approx(-0.015)
    last = findings._attacked(found)[-1]
    assert last.question == "Does it fall when perturbed with benign rows only?"
    assert last.label == "undecided"
    surely = {**SWEEP, "benign only": (0.2, 0.2001)}
    eroded = findings.attackers(SETTINGS, begun(), rebounds(surely))
    assert eroded is not None
    assert findings._attacked(eroded)[-1].label == "yes"


def scores(seed: int, n_pos: int, dose: int) -> float:
    """Falls as refusals do where aligning taught to comply: from 0.9 by a tenth per log2 n_pos."""
    gain = {8: 0.3, 16: 0.4}[n_pos] + 0.01 * seed
    return 0.9 - gain * (1 - 0.5 * dose / 16)


def test_sampled_scores_are_judged_whichever_way_aligning_moves_them() -> None:
    settings = replace(SETTINGS, probes=("margin", "behaviour"))
    shown = {"behaviour": ProbeInfo("Samples by mine", "share refused", "higher = refuses more")}
    found = {
        seed: {
            "aligned": {n: {"behaviour": {"value": scores(seed, n, 0)}} for n in (8, 16)},
            "perturbed": {
                n: {d: {"behaviour": {"value": scores(seed, n, d)}} for d in (8, 16)}
                for n in (8, 16)
            },
        }
        for seed in (0, 1)
    }
    begin = {"probes": {"behaviour": {"value": 0.9}}}
    got = findings.sampled(settings, shown, begin, found)["behaviour"]
    assert (got.aligned_is, got.moved) == ("lower", True)
    assert got.gain.mean == pytest.approx(-0.405)
    # -0.40 and -0.41: half width 12.706 * 0.005
    assert got.gain.high == pytest.approx(-0.405 + 0.06353, abs=1e-5)
    assert got.fall.mean == pytest.approx(0.2025)
    # Falls at 16 examples are half of the gains: 0.15 and 0.2, so 0.05 per doubling.
    assert got.fall_per_log2 is not None
    assert got.fall_per_log2.mean == pytest.approx(0.05)
    assert got.share_per_log2 is not None
    assert got.share_per_log2.mean == pytest.approx(0, abs=1e-9)
    line = findings._scored(got)
    assert line.question == "What do sampled texts say (Samples by mine)?"
    assert line.label == "undecided"  # both seeds alike: no spread, no interval
    assert "-0.4050 (-0.4685 to -0.3415) share refused" in line.text
    assert "the score's fall changes by +0.05 share refused per doubling" in line.text


def test_a_sampled_score_that_did_not_move_says_so() -> None:
    interval = Interval(0.1, -0.1, 0.3, 3)
    score = SampledScore("T", "u", "higher", interval, False, interval, label="shown")
    line = findings._scored(score)
    assert line.label == "did not align"
    assert "holds zero" in line.text


def turned(fall: float) -> Rebound:
    """The rebound of an order whose seeds lose ``fall`` and a hundredth more of it."""
    settings = replace(SETTINGS, attack_learning_rates=(), attack_seeds=(), mix=())
    found = rebounds({"": (fall, 1.01 * fall)})
    return rebound_part(settings, {p: PROBES[p] for p in settings.probes}, begun(), found)


@pytest.mark.parametrize(
    ("here", "there", "label"),
    [
        (0.4, 0.5, "shown in both orders"),
        (0.4, -0.5, "not the same direction"),
        (-0.4, -0.5, "same direction"),
    ],
)
def test_the_opposite_order_says_the_same_only_where_both_show_it(
    here: float, there: float, label: str
) -> None:
    (line,) = findings.symmetry(Audit(rebound=turned(here), symmetry=turned(there)))
    assert line.label == label
    # The falls at n_pos 16: 2 * here, and a hundredth more.
    assert f"the margin fell by {2 * here * 1.005:+.4f} (" in line.text
    assert ("not a test" in line.text) == (label != "shown in both orders")


def test_without_the_opposite_order_nothing_is_said() -> None:
    assert findings.symmetry(Audit(rebound=turned(0.4))) == []


def test_the_second_alignment_begins_where_the_study_left_the_model() -> None:
    settings = replace(SETTINGS, attack_learning_rates=(), attack_seeds=(), mix=())
    found = rebounds({"": (0.5, 0.5)})
    again = {0: {8: at(2.8), 16: at(3.5)}, 1: {8: at(2.7), 16: at(3.4)}}
    got = findings.second_alignment(settings, begun(), found, again)
    # First: 1, 2, 3; second: 2 (half of a gain of 2 is lost), then as above.  Per example
    # 1/8 and 2/16 against 0.8/8 and 1.5/16, 0.7/8 and 1.4/16.
    assert got is not None
    assert got.begins.mean == pytest.approx(1.0)
    first = ((0.1 - 0.125) + (0.09375 - 0.125)) / 2
    second = ((0.0875 - 0.125) + (0.0875 - 0.125)) / 2
    assert got.difference.mean == pytest.approx((first + second) / 2)
    assert findings.second_alignment(settings, begun(), found, {0: None, 1: None}) is None


def test_doses_are_told_with_what_was_not_reached_and_the_nearest_to_it() -> None:
    settings = replace(SETTINGS, attack_learning_rates=(), attack_seeds=(), mix=())
    found = to_jsonable(findings.doses_to_undo(settings, begun(), rebounds({"": (0.8, 0.9)})))
    half, all_ = found["half"]["at"][-1], found["all"]["at"][-1]
    # A straight fall of 0.8 or 0.9 in 16 examples: half after 10 and 8.89.
    assert half["median"] == pytest.approx((10 + 16 * 0.5 / 0.9) / 2)
    assert (half["censored"], all_["censored"]) == (0, 2)
    assert all_["median"] is None
    # The nearest: a tenth of the gain of 2 above the start.
    assert (all_["extreme"], all_["extreme_dose"]) == (pytest.approx(1.2), 16)
    assert all_["words"] == ("not reached; nearest 1.2 at 16 examples (censored in 2 of 2 seeds)")
    assert found["half"]["trend"]["slope"]["at_least"] == pytest.approx(0, abs=1e-9)
