"""Contrast against one plain model that goes as far, and what candidates are chosen by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boost_pair import save_pair
from springback.errors import SpringbackError
from springback.jobs.boost.analysis.equal_step import EQUAL_STEP, label_of
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.job import boost
from springback.jobs.boost.search import Tried, choice_of
from springback.jobs.boost.settings import BoostSettings
from springback.results.store import read_json


def rows(*answers: str, nll: tuple[float, ...] = ()) -> list[Tried]:
    """Candidates with answers written as 1 and 0, and one NLL each."""
    return [
        Tried(float(i), tuple(c == "1" for c in text), (nll[i],) if nll else ())
        for i, text in enumerate(answers)
    ]


def test_the_step_of_an_arm_is_how_far_it_goes_to_first_order() -> None:
    assert Arm("", 0.2, 1.0, "ft").step == pytest.approx(0.4)
    assert Arm("", 0.0, 0.5, "early").step == pytest.approx(0.5)
    assert Arm("", 0.2, 0.5, "early").step == pytest.approx(0.7)
    assert Arm("", 0.3, 0.0, None).step == 0.3
    assert Arm("", 0.3, 2.0, "init").step == 0.3, "another model is on no line"


def test_candidates_are_chosen_by_the_rule_that_is_named() -> None:
    """The second has one more right of 40; the third and fourth have three more each."""
    base = "1" * 10 + "0" * 30
    better = "1" * 13 + "0" * 27
    tried = rows(base, "1" * 11 + "0" * 29, better, better, nll=(1.0, 0.9, 1.2, 1.3))
    points = [t.value for t in tried]
    assert choice_of(tried, points, "best").index == 2
    assert choice_of(tried, points, "nll").index == 1
    smoothed = choice_of(tried, points, "accuracy")
    assert smoothed.gains is not None
    assert smoothed.gains[0] == 0 < smoothed.gains[1] < smoothed.gains[2]
    assert smoothed.index == max(range(4), key=lambda i: smoothed.gains[i])  # type: ignore[index]
    assert choice_of(tried, points, "auto").slope is None, "NLL and accuracy disagree"
    assert choice_of(tried, points, "best", one_se=True).index <= 2


def test_no_candidate_is_chosen_where_all_answer_alike() -> None:
    tried = rows("110", "110", "110")
    for rule in ("auto", "accuracy", "best"):
        assert choice_of(tried, [0, 1, 2], rule).index == 0


def test_words_for_pair_and_plain_model() -> None:
    same = [1.0, 0.0] * 200
    nll = ([1.0, 1.1] * 200, [1.0005, 1.1] * 200)
    assert label_of([same, same], nll, 0.01) == "same"
    assert label_of([same, same], ((), ()), 0.01) == "same"
    assert label_of([same[:20], same[:20]], ((), ()), 0.01) == "undecided", "too few questions"
    far = ([1.0, 1.1] * 200, [1.01, 1.2] * 200)
    assert label_of([same, same], far, 0.01) == "undecided", "NLL is not the same"
    better = [1.0] * 12 + [1.0, 0.0] * 194
    worse = [0.0] * 12 + [1.0, 0.0] * 194
    assert label_of([better, worse], ((), ()), 0.01) == "contrast adds"
    assert label_of([worse, better], ((), ()), 0.01) == "contrast costs"


@pytest.fixture(scope="module")
def settings(tiny_llama: str, tmp_path_factory: pytest.TempPathFactory) -> BoostSettings:
    early, ft = save_pair(Path(tiny_llama), tmp_path_factory.mktemp("pair"), torch.float32)
    return BoostSettings(
        early=str(early),
        ft=str(ft),
        validation="problems",
        test="problems",
        validation_rows=4,
        test_rows=4,
        mu=(0.5,),
        lam=(0.5,),
        lam_cd=(0.5,),
        positive=True,
        max_new_tokens=6,
        batch_size=4,
        precheck=False,
        reopen_test=True,
    )


def test_a_pair_no_better_than_its_equal_step_is_written_as_that_model(
    settings: BoostSettings, tmp_path: Path
) -> None:
    result = boost(settings, tmp_path / "plain").data
    control = result["analysis"]["equal_step"]
    assert control["step"] == pytest.approx(0.75)
    assert control["label"] in ("same", "undecided"), "four questions show nothing"
    assert control["written"] == "plain"
    names = [m["method"] for m in result["analysis"]["methods"]]
    assert names[-1] == EQUAL_STEP
    facts = read_json(tmp_path / "plain" / "model" / "springback.json")
    assert (facts["mu"], facts["lambda"]) == (0.75, 0)
    assert not (tmp_path / "plain" / "model" / "amateur").exists()
    assert "one plain model that goes as far" in result["verdict"]["text"]

    kept = boost(replace(settings, keep_pair=True), tmp_path / "pair").data
    assert kept["analysis"]["equal_step"]["written"] == "pair"
    facts = read_json(tmp_path / "pair" / "model" / "springback.json")
    assert (facts["mu"], facts["lambda"]) == (0.5, 0.5)
    assert (tmp_path / "pair" / "model" / "amateur").is_dir()


def test_without_contrast_nothing_is_compared(settings: BoostSettings, tmp_path: Path) -> None:
    alone = replace(settings, positive=False, lam=(0.0,), write_model=False)
    analysis = boost(alone, tmp_path / "out").data["analysis"]
    assert "equal_step" not in analysis
    assert EQUAL_STEP not in [m["method"] for m in analysis["methods"]]


def test_rules_that_cannot_be_are_refused(settings: BoostSettings, tmp_path: Path) -> None:
    with pytest.raises(SpringbackError, match="allowed: auto, accuracy, nll, best"):
        boost(replace(settings, choose_by="luck"), tmp_path / "out")
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(f'{{"question": "{i} + 1?", "answer": "{i + 1}"}}\n' for i in range(8)))
    changes: dict[str, Any] = {"validation": str(bare), "test": str(bare), "choose_by": "nll"}
    with pytest.raises(SpringbackError, match="NLL is withheld"):
        boost(replace(settings, **changes, metric="number"), tmp_path / "out")
