"""A fall is a rebound only beyond its controls, and only where an alignment took."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from springback.core import Row, Slice
from springback.elasticity import (
    AuditValues,
    Crossing,
    Doses,
    ReboundCurves,
    beyond_controls,
    card_of,
    decay_criterion,
    dose_trend,
    doses_at,
    doses_to_lose_gain,
    less_control,
    rebound_judgement,
    took,
)
from springback.errors import DataError, SpringbackError
from springback.jobs.audit.branches import Attack, perturbing_rows, shuffled
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import audit, plan
from springback.jobs.audit.rows import load_data
from springback.jobs.audit.settings import BARE, AuditSettings
from springback.results.cards import card_of_result, read_card
from springback.results.schema import read
from springback.stats import Interval

T2 = 2.484138  # t(0.975, 2 degrees of freedom) / sqrt(3): half width of three seeds with sd 1
DOSES = (0, 64)
#: Falls of 0.5, 0.6, 0.7 at n_pos 100 (gain 1) and 1.0, 1.2, 1.4 at 200 (gain 2).
CURVES = ReboundCurves(
    (100, 200),
    DOSES,
    dict.fromkeys(range(3), 0.0),
    {s: [[1.0, 0.5 - 0.1 * s], [2.0, 1.0 - 0.2 * s]] for s in range(3)},
)
#: The start model falls by 0.1, 0.2, 0.3; benign rows take 0.2 and 0.5 from the aligned ones.
UNALIGNED = {s: [[0.0, -0.1 - 0.1 * s]] * 2 for s in range(3)}
NEUTRAL = {s: [[1.0, 0.8], [2.0, 1.5]] for s in range(3)}
BOTH = {"unaligned": UNALIGNED, "neutral": NEUTRAL}


def test_the_fall_beyond_a_control_is_paired_by_seed() -> None:
    less = less_control(CURVES, UNALIGNED)
    assert less.falls(64)[0] == pytest.approx((0.4, 0.9))
    assert less.falls(64)[2] == pytest.approx((0.4, 1.1))
    found = beyond_controls(CURVES, BOTH, dose=64)
    assert found is not None
    assert (found.label, found.against) == ("shown", ("unaligned", "neutral"))
    unaligned, neutral = found.by_control["unaligned"], found.by_control["neutral"]
    # 0.9, 1.0, 1.1 and 0.5, 0.7, 0.9
    assert unaligned.by_seed == pytest.approx({0: 0.9, 1: 1.0, 2: 1.1})
    assert unaligned.fall.mean == pytest.approx(1.0)
    assert unaligned.fall.low == pytest.approx(1 - 0.1 * T2, abs=1e-6)
    assert neutral.fall.mean == pytest.approx(0.7)
    assert neutral.fall.low == pytest.approx(0.7 - 0.2 * T2, abs=1e-6)
    # Shares beyond the start model's fall: 0.4 of 1 and 0.45, 0.5, 0.55 of 2: +0.1, sd 0.05.
    assert unaligned.decay is not None
    assert unaligned.decay.slope is not None
    assert unaligned.decay.slope.mean == pytest.approx(0.1)
    assert unaligned.decay.slope.low == pytest.approx(0.1 - 0.05 * T2, abs=1e-6)
    assert unaligned.decay.label == found.decay == "undecided"
    assert "1 nats a token more than what the same rows take from the start model" in found.sentence


def test_a_fall_that_any_training_takes_or_that_any_model_has_is_no_rebound() -> None:
    # Benign rows take 1.2 on average too.
    as_much = {s: [row[0], [2.0, 1.0 - 0.1 * s]] for s, row in NEUTRAL.items()}
    found = beyond_controls(CURVES, {**BOTH, "neutral": as_much}, dose=64)
    assert found is not None
    assert found.by_control["unaligned"].label == "shown"
    assert found.label == found.by_control["neutral"].label == "undecided"
    more = {s: [row[0], [2.0, -1.0 - 0.3 * s]] for s, row in NEUTRAL.items()}
    found = beyond_controls(CURVES, {**BOTH, "neutral": more}, dose=64)
    assert found is not None
    assert found.label == "opposite"
    assert "it falls less" in found.sentence


def test_shuffled_answers_stand_beside_and_decide_nothing() -> None:
    more = {s: [row[0], [2.0, -1.0 - 0.3 * s]] for s, row in NEUTRAL.items()}
    found = beyond_controls(CURVES, {**BOTH, "shuffled": more}, dose=64)
    assert found is not None
    assert (found.label, found.by_control["shuffled"].label) == ("shown", "opposite")
    assert beyond_controls(CURVES, {"shuffled": more}, dose=64) is None


def test_a_control_must_have_every_seed_branch_and_dose() -> None:
    with pytest.raises(DataError, match="the same seeds, branches and doses"):
        less_control(CURVES, {0: UNALIGNED[0]})
    with pytest.raises(DataError, match="the same seeds, branches and doses"):
        less_control(CURVES, {s: [[0.0], [0.0]] for s in range(3)})


def test_of_a_model_as_it_is_the_fall_needs_no_gain() -> None:
    as_it_is = ReboundCurves(
        (0,),
        DOSES,
        dict.fromkeys(range(3), 0.0),
        {s: [[0.0, -0.5 - 0.1 * s]] for s in range(3)},
        noise=(9.0,),
    )
    found = beyond_controls(as_it_is, {"neutral": {s: [[0.0, 0.1]] for s in range(3)}}, dose=64)
    assert found is not None
    # 0.6, 0.7, 0.8
    assert found.by_control["neutral"].fall.mean == pytest.approx(0.7)
    assert (found.label, found.decay) == ("shown", "")


def test_an_alignment_that_hardly_took_is_not_testable() -> None:
    assert took(Interval(1.0, 0.2, 1.8, 3), 0.4)
    assert took(Interval(1.0), 0.4)  # one seed
    assert not took(Interval(1.0, 0.2, 1.8, 3), 0.5)
    assert not took(Interval(1.0, -0.2, 2.2, 3), 0.1)
    # Shares shrink from 1.5 of a gain of 0.1 to 0.5 of one of 1: the opposite, if both took.
    shrinking = ReboundCurves(
        (100, 200),
        DOSES,
        dict.fromkeys(range(3), 0.0),
        {s: [[0.1, -0.05 - 0.001 * s], [1.0, 0.5 - 0.002 * s]] for s in range(3)},
    )
    assert rebound_judgement(shrinking, dose=64).strict.label == "opposite"
    assert decay_criterion(shrinking, dose=64).label == "opposite"
    # One branch that took has no trend; the absolute fall needs the largest alone.
    small = replace(shrinking, noise=(0.06, 0.06))
    judged = rebound_judgement(small, dose=64)
    assert (judged.paper.label, judged.strict.label) == ("shown", "not testable")
    assert (
        "no alignment but that on 200 examples took, so this is not testable"
        in judged.strict.sentence
    )
    assert decay_criterion(small, dose=64).label == "not testable"
    none = replace(shrinking, noise=(0.06, 0.6))
    judged = rebound_judgement(none, dose=64)
    assert (judged.paper.label, judged.strict.label) == ("not testable", "not testable")
    controls = {"unaligned": {s: [[0.0, 0.0]] * 2 for s in range(3)}}
    found = beyond_controls(none, controls, dose=64)
    assert found is not None
    assert found.label == found.decay == "not testable"
    assert "aligning on 200 examples hardly took" in found.sentence
    trend = dose_trend(doses_to_lose_gain(none), curves=none)
    assert (trend.label, trend.slope) == ("not testable", None)


def test_a_branch_that_hardly_took_leaves_the_share_but_not_the_others() -> None:
    three = ReboundCurves(
        (50, 100, 200),
        DOSES,
        dict.fromkeys(range(3), 0.0),
        {s: [[0.1, -0.9], [1.0, 0.8], [2.0, 1.2 - 0.02 * s]] for s in range(3)},
        noise=(0.06, 0.06, 0.06),
    )
    # Shares of 0.2 and 0.4, 0.41, 0.42; with the 10 of n_pos 50 the slope would be far below 0.
    strict = rebound_judgement(three, dose=64).strict
    assert strict.label == "shown"
    assert strict.slope is not None
    assert strict.slope.mean == pytest.approx(0.21)
    assert "Left out: n_pos 50; alignment hardly took there." in strict.sentence


def reached(*doses: float) -> tuple[Crossing, ...]:
    return tuple(Crossing(d, False, 0.0, 64.0) for d in doses)


BEYOND = Crossing(None, True, 0.3, 64.0)


def half(by_seed: dict[int, tuple[Crossing, ...]], n_pos: tuple[int, ...] = (100,)) -> Doses:
    return Doses("half of the gain in margin", n_pos, 64.0, by_seed, 8.0)


def test_a_dose_before_the_first_mark_is_known_to_lie_at_or_below_it_only() -> None:
    (early,) = doses_at(half({0: reached(5), 1: reached(7), 2: reached(3)}))
    assert early.mean is not None
    assert (early.mean.mean, early.mean.at_least, early.mean.at_most) == (None, 0.0, 8.0)
    assert early.words() == "at most 8 examples (by the first dose in 3 of 3 seeds)"
    assert (early.before_first, early.censored, early.median) == (3, 0, 8.0)
    # 0 to 8, 20, 31: the mean lies between 17 and 19.67.
    (some,) = doses_at(half({0: reached(5), 1: reached(20), 2: reached(31)}))
    assert some.mean is not None
    assert (some.mean.at_least, some.mean.at_most) == pytest.approx((17, 59 / 3))
    # Each limit is that of its own ends: 0, 20, 31 and 8, 20, 31.
    assert some.mean.low == pytest.approx(17 - T2 * 15.716234, abs=1e-4)
    assert some.mean.high == pytest.approx(59 / 3 + T2 * 11.503623, abs=1e-4)
    assert some.words().startswith("between 17 examples and 19.7 examples")
    # What was reached at a later mark, or before any row, is known.
    (later,) = doses_at(half({0: reached(9)}))
    assert later.words() == "9 examples"
    (at_once,) = doses_at(half({0: reached(0.0)}))
    assert at_once.words() == "0 examples"


def test_seeds_on_both_sides_leave_both_ends_open() -> None:
    (both,) = doses_at(half({0: reached(5), 1: (BEYOND,), 2: reached(20)}))
    assert both.mean is not None
    assert (both.mean.at_least, both.mean.at_most) == (28.0, None)  # 0, 64, 20
    assert both.mean.high is None
    assert "more than 28 examples (censored in 1 of 3 seeds; by the first dose in 1" in both.words()


def test_the_trend_takes_what_is_known_of_early_doses() -> None:
    # n_pos 100: 0 to 8; 200: 40: the slope lies between 32 and 40 in every seed.
    by_seed = {s: reached(5, 40 + s) for s in range(3)}
    trend = dose_trend(half(by_seed, (100, 200)))
    assert trend.label == "rises"
    assert trend.slope is not None
    assert (trend.slope.at_least, trend.slope.at_most) == (33.0, 41.0)
    assert "3 of 6" not in trend.sentence
    assert "0 of 6 doses are censored at 64 examples, 3 at most 8" in trend.sentence


def values(**changes: Any) -> AuditValues:
    """Half of a gain of 1 is lost at 24 of 16, 32; a score falls from 0.8 to 0.2 by 16."""
    margins = {s: [[1.0, 0.6, 0.4 - 0.01 * s]] for s in range(3)}
    scores = {s: [[0.8, 0.2, 0.1 - 0.01 * s]] for s in range(3)}
    return AuditValues(
        n_pos=(100,),
        doses=(0, 16, 32),
        seeds=(0, 1, 2),
        values={"margin": margins, "behaviour": scores},
        start={"margin": 0.0, "behaviour": 0.0},
        **changes,
    )


def test_the_card_has_the_verdicts_half_dose_a_line_of_behaviour_and_the_controls() -> None:
    controls = {
        "unaligned": {s: [[0.0, -0.1, -0.2]] for s in range(3)},
        "neutral": {s: [[1.0, 0.9, 0.9 + 0.01 * s]] for s in range(3)},
    }
    card = card_of(values(controls=controls))
    curves = values().rebound()
    assert curves is not None
    (dose,) = doses_at(doses_to_lose_gain(curves))
    assert card.half_life_dose.shown() == dose.words()
    behaviour = card.behaviour_half_dose
    assert behaviour.shown() == "at most 16 examples"
    assert behaviour.before == (0, 1, 2)
    assert behaviour.ranges() == dict.fromkeys(range(3), (0.0, 16.0))
    assert "Half of what sampled texts show: at most 16 examples" in card.verdict
    beyond = card.beyond_controls
    assert beyond.title.endswith("(unaligned, neutral)")
    # Falls of 0.6, 0.61, 0.62: 0.4, 0.41, 0.42 beyond the start model's, 0.5 ... beyond neutral.
    assert beyond.value == pytest.approx(0.41)
    assert beyond.label == "shown"
    assert "unaligned control" in beyond.reason
    assert read_card(card.to_dict()) == card


def test_a_card_from_before_controls_is_read() -> None:
    old = card_of(values()).to_dict()
    for name in ("beyond_controls", "beyond_share_slope", "behaviour_half_dose"):
        del old["quantities"][name]
    assert read_card(old).beyond_controls.reason == "not measured"


def test_a_card_says_that_an_alignment_hardly_took() -> None:
    card = card_of(values(gain_noise=(0.6,)))
    assert card.gain.label == "hardly aligned"
    assert card.share_lost.label == card.half_life_dose.label == "not testable"
    assert "not testable" in card.verdict
    still = values(gain_noise=(0.6,))
    moved = replace(still, start={"margin": 0.0, "behaviour": 0.8})
    assert card_of(moved).behaviour_half_dose.label in ("not testable", "not defined")


def test_every_answer_goes_to_another_prompt() -> None:
    rows = [Row("pair", f"answer {i}", f"prompt {i}") for i in range(7)]
    part = Slice.of("p", "p", rows, 0)
    dealt = shuffled(part, 3)
    assert [r.prompt for r in dealt.rows] == [r.prompt for r in rows]
    assert {r.response for r in dealt.rows} == {r.response for r in rows}
    assert all(a.response != b.response for a, b in zip(rows, dealt.rows, strict=True))
    assert shuffled(part, 3).content_hash == dealt.content_hash != shuffled(part, 4).content_hash


def test_settings_of_controls() -> None:
    assert check_settings(AuditSettings()).controls == ("unaligned", "neutral", "shuffled")
    assert check_settings(AuditSettings(controls=("none",))).controls == ()
    assert check_settings(AuditSettings(controls=("neutral", "unaligned"))).controls == (
        "unaligned",
        "neutral",
    )
    with pytest.raises(SpringbackError, match="--controls has placebo"):
        check_settings(AuditSettings(controls=("placebo",)))
    assert BARE["controls"] == ("unaligned",)
    assert "neutral_nll" in AuditSettings().probes
    assert "neutral_nll" not in BARE["probes"]


@pytest.fixture
def settings(tiny_llama: Path, tmp_path: Path) -> AuditSettings:
    """Both sides answer prompts of their own."""
    for side, word in (("align", "yes"), ("perturb", "no")):
        rows = [{"prompt": f"{side} {i}?", "response": f"{word} {i}"} for i in range(40)]
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / f"{side}.jsonl").write_text(text, encoding="utf-8")
    return AuditSettings(
        model=str(tiny_llama),
        align=str(tmp_path / "align.jsonl"),
        perturb=str(tmp_path / "perturb.jsonl"),
        n_pos=(8, 16),
        doses=(4, 8),
        seeds=(0, 1),
        experiments=("rebound",),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=48,
        holdout=4,
        probes=("margin",),
        precision="float32",
    )


def analysed(result: Any) -> Any:
    """The audit's ``analysis`` as its file is read."""
    return read(result.data).audit


def made(result: Any) -> int:
    return int(result.data["provenance"]["runs"]["made"])


def test_controls_are_runs_of_their_own_from_every_branch_point(
    settings: AuditSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    plain = audit(replace(settings, controls=()), out)
    assert analysed(plain).controls is None
    assert made(plain) == 1 + 2 * 3
    planned = plan(settings, out)
    result = audit(settings, out)
    # A seed: the start model, and neutral and shuffled rows from both branch points; their weights
    # are gone, so it is aligned once more.
    assert made(result) == len(planned.waiting) == 2 * (1 + 2 * 2 + 1)
    found = analysed(result).controls
    assert {*found.margins} == {"unaligned", "neutral", "shuffled"}
    assert [c.n_pos for c in found.margins["neutral"]] == [8, 16]
    assert [c.n_pos for c in found.margins["unaligned"]] == [0]
    start = analysed(result).rebound.probes["margin"].start.mean
    assert found.margins["unaligned"][0].mean[0] == pytest.approx(start)
    assert found.beyond.against == ("unaligned", "neutral")
    questions = [part["question"] for part in result.data["verdict"]["parts"]]
    assert "Is the fall beyond its controls (unaligned, neutral)?" in questions
    # The card of the file is the card of the run; and the command repeated trains nothing.
    again = card_of_result(result.data).beyond_controls
    written = read_card(json.loads((out / "card.json").read_text())).beyond_controls
    assert again.by_seed == pytest.approx(written.by_seed)
    assert (again.label, again.title) == (written.label, written.title)
    assert made(audit(settings, out)) == 0
    # The start model as a branch point is the same run, and a purely benign attack too.
    further = replace(settings, n_pos=(0, 8, 16))
    assert made(audit(further, out)) == 2 * 2  # neutral and shuffled rows on the start model
    assert made(audit(replace(settings, mix=(1.0,)), out)) == 0


def test_controls_that_data_cannot_have_are_left_out_and_said(
    settings: AuditSettings, tmp_path: Path
) -> None:
    notes: list[str] = []

    class Notes:
        def advance(self, steps: int = 1, note: str = "") -> None: ...
        def stage(self, title: str, total: int) -> None: ...
        def close(self) -> None: ...
        def note(self, text: str) -> None:
            notes.append(text)

    bare = replace(settings, align="reviews:positive", perturb="reviews:negative", seeds=(0,))
    result = audit(replace(bare, n_pos=(8,)), tmp_path / "bare", Notes())
    found = analysed(result).controls
    assert found.left_out == {"shuffled": "the perturbing rows have no prompts of their own"}
    assert {*found.margins} == {"unaligned", "neutral"}
    assert any("left out the shuffled control" in note for note in notes)
    assert result.data["inputs"]["settings"]["controls"] == ["unaligned", "neutral"]
    few = tmp_path / "few.jsonl"
    few.write_text('{"text": "one row"}\n', encoding="utf-8")
    few_rows = replace(bare, n_pos=(8,), benign=str(few))
    found = analysed(audit(few_rows, tmp_path / "few")).controls
    assert "the study needs" in found.left_out["neutral"]
    assert {*found.margins} == {"unaligned"}


def test_each_seed_draws_neutral_rows_of_its_own_that_the_study_has_nowhere_else(
    tmp_path: Path,
) -> None:
    def texts(name: str, first: int, n: int) -> str:
        file = tmp_path / f"{name}.jsonl"
        rows = (json.dumps({"text": f"Text number {first + i}."}) + "\n" for i in range(n))
        file.write_text("".join(rows), encoding="utf-8")
        return str(file)

    settings = AuditSettings(
        align=texts("align", 0, 40),
        perturb=texts("perturb", 40, 40),
        benign=texts("benign", 0, 200),  # the first 80 are the study's own
        n_pos=(8,),
        doses=(16,),
        holdout=4,
        mix=(1.0,),
        experiments=("rebound",),
        resistance_rows=0,
    )
    data = load_data(settings)
    assert data.neutral is not None
    assert data.neutral == data.benign
    assert len(data.neutral) == 120
    neutral = Attack(control="neutral")
    drawn = [perturbing_rows(data, neutral, 16, seed).rows for seed in (0, 1)]
    assert len({*drawn[0]} & {*drawn[1]}) < 8
    assert drawn[0] == perturbing_rows(data, Attack(mix=1.0), 16, 0).rows
    assert drawn[0][:8] == perturbing_rows(data, neutral, 8, 0).rows
    few = load_data(replace(settings, mix=(), benign=texts("few", 70, 20)))
    assert few.neutral is None
    assert "there are 10 different ones" in few.controls_left_out["neutral"]
