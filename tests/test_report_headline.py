"""The first screen: one sentence, one number with its interval, the picture, and one line for all
that is left open."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from findings_fixture import full_audit
from models_fixture import reproduce_result, series_result
from report_fixture import audit_result, boost_result, demo_result
from report_page import Page, write
from springback.cli.finish import finish
from springback.cli.output import OUTPUT
from springback.report import build, render
from springback.report.headline import headlines_of, open_words
from springback.results.schema import Part, Verdict
from springback.results.writing import Result


def only(result: dict[str, Any]) -> tuple[str, str]:
    """Sentence and number of a result with one headline."""
    (headline,) = headlines_of(result)
    return headline.sentence, headline.in_words


def dose(**changes: Any) -> dict[str, Any]:
    """An audit whose most aligned model has this dose for half of the gain."""
    result = full_audit()
    result["analysis"]["doses_to_undo"]["half"]["at"][-1] |= changes
    return result


def mean(low: float | None, high: float | None, **open_ends: Any) -> dict[str, Any]:
    known = {"at_least": 88.0, "at_most": 88.0, "n": 3, "censored": 0, "method": "t", "mean": 88.0}
    return {**known, "low": low, "high": high, **open_ends}


def test_an_audit_says_how_many_examples_undo_half() -> None:
    sentence, number = only(dose(mean=mean(68.0, 108.0), censored=0, testable=True))
    assert sentence == (
        "88 examples of the opposite undo half of what 256 examples of alignment gained."
    )
    assert number == "Dose that undoes half: 88 examples, 68 to 108 (95 %)"


def test_a_dose_that_some_seeds_did_not_reach_is_more_than() -> None:
    open_end = mean(60.0, None, at_most=None, censored=1, mean=None)
    sentence, number = only(dose(mean=open_end, censored=1))
    assert sentence.startswith("More than 88 examples of the opposite undo half")
    assert number == "Dose that undoes half: more than 88 examples, from 60, no upper limit (95 %)"


def test_a_dose_that_no_seed_reached_is_told_by_what_was_taken_back() -> None:
    open_end = mean(None, None, at_most=None, censored=3, mean=None)
    sentence, number = only(dose(mean=open_end, censored=3))
    assert re.fullmatch(
        r"\d+ examples of the opposite do not undo half of what 256 examples of alignment "
        r"gained: they take back \d+ % of it\.",
        sentence,
    )
    assert number.startswith("Taken back at the largest dose: ")
    assert number.endswith("(95 %)")


def test_an_alignment_that_hardly_took_has_nothing_to_undo() -> None:
    sentence, number = only(dose(testable=False))
    assert sentence == "Aligning on 256 examples hardly took, so there is nothing to undo."
    assert number.startswith("Gained by aligning: ")


def test_one_seed_says_that_it_has_no_interval() -> None:
    _, number = only(audit_result(seeds=1))
    assert number.endswith(", one seed, no interval")


@pytest.mark.parametrize(
    ("label", "though"),
    [
        ("shown", "gained."),
        ("opposite", "gained, though the controls fall further."),
        ("undecided", "gained, though that is not shown to be more than the controls fall."),
    ],
)
def test_controls_that_fall_as_far_are_said_at_once(label: str, though: str) -> None:
    result = dose(mean=mean(68.0, 108.0), censored=0)
    beyond = {"label": label, "decay": "", "against": [], "by_control": {}, "sentence": ""}
    result["analysis"]["controls"] = {"margins": {}, "beyond": beyond, "left_out": {}}
    assert only(result)[0].endswith(though)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("gain", "The boosted model is better than the fine-tuned model: 1.2 points more of "),
        ("harm", "The boosted model is worse than the fine-tuned model: 1.2 points less of "),
        ("no gain", "The boosted model is no better than the fine-tuned model, and hardly "),
        ("undecided", "400 test questions leave open whether the boosted model is better "),
    ],
)
def test_a_boost_says_whether_the_boosted_model_is_better(verdict: str, words: str) -> None:
    result = boost_result()
    result["analysis"]["methods"][-1]["verdict"] = verdict
    sentence, number = only(result)
    assert sentence.startswith(words)
    assert "400 test questions" in sentence
    assert number == "Difference in accuracy: +1.2 points, −0.6 to +3.0 (95 %)"


def test_a_boost_that_keeps_the_model_says_so() -> None:
    result = boost_result()
    result["analysis"]["methods"][-1] |= {"verdict": "same", "difference": None}
    sentence, number = only(result)
    assert sentence.endswith("the fine-tuned model is kept as it is.")
    assert number.startswith("Accuracy, fine-tuned: 43")


def test_a_boost_that_wrote_one_plain_model_speaks_of_that_one() -> None:
    result = boost_result()
    plain = copy.deepcopy(result["analysis"]["methods"][1]) | {"method": "ME, equal step"}
    result["analysis"]["methods"].append(plain)
    result["analysis"]["equal_step"] = {
        "step": 0.22,
        "difference": {"mean": 0.0, "low": None, "high": None, "n": 400},
        "nll_difference": None,
        "label": "same",
        "written": "plain",
        "text": "",
    }
    assert only(result)[0].startswith("The boosted model is better than the fine-tuned model: 2.2 ")


def checked(*labels: str, task: str = "") -> dict[str, Any]:
    """A check with a kept measure for each label."""

    def measure(number: int, label: str, purpose: str) -> dict[str, Any]:
        change = {"mean": 0.03, "low": 0.01, "high": 0.05, "n": 50, "method": "t"}
        same = {"unit": "bits per byte", "better": "lower", "purpose": purpose, "n": 50}
        names = {"source": f"set {number}", "measure": "bits per byte", "label": label}
        values = {"base": change, "tuned": change, "difference": change, "method": "t"}
        return {**names, **same, **values, "p": 0.01 * number, "p_holm": 0.01 * number}

    measures = [measure(n, label, "kept") for n, label in enumerate(labels, start=1)]
    measures += [measure(9, task, "task")] if task else []
    result = boost_result()
    model = {"name": "tuned", "measures": measures}
    result |= {"kind": "check", "inputs": {}, "analysis": {"base": "base", "models": [model]}}
    return result


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            checked("worse", "same", "better"),
            "Fine-tuning made 1 of 3 measures of what should be kept worse, and 1 better.",
        ),
        (
            checked("same", "undecided"),
            "Nothing that should be kept got worse beyond noise, in 2 measures.",
        ),
        (
            checked("worse", task="better"),
            "Fine-tuning made 1 of 1 measure of what should be kept worse; the task got better.",
        ),
        (checked(task="undecided"), "The task is undecided."),
    ],
)
def test_a_check_says_what_got_worse(result: dict[str, Any], words: str) -> None:
    assert only(result)[0] == words


def test_the_number_of_a_check_is_the_clearest_change() -> None:
    _, number = only(checked("same", "worse"))
    assert number == (
        "Bits per byte (set 2): worse, lower is better: +0.030 bits per byte, +0.010 to +0.050 "
        "(95 %)"
    )


def test_a_comparison_of_models_has_the_first_sentence_of_its_verdict() -> None:
    assert only(series_result())[0] == "The gain rises with size; the share lost does not."
    assert only(reproduce_result())[0] == "The trend has the paper's sign."


def test_a_demo_has_a_sentence_a_number_and_a_picture_for_each_job() -> None:
    html = render(demo_result())
    audit, boost = headlines_of(demo_result())
    heading = re.search("<h1>(.*?)</h1>", html, re.DOTALL)
    assert heading is not None
    assert Page(heading[0]).text == f"{audit.sentence} {boost.sentence}"
    first = html[html.index('<section class="first several"') :]
    first = first[: first.index("</section>")]
    assert re.findall('<figure id="([^"]+)"', first) == ["dose-share", "methods"]
    assert html.count('id="methods"') == 1


def test_what_one_seed_leaves_open_is_one_line_and_what_is_decided_stands_alone() -> None:
    result = demo_result()
    decided = {"question": "Did it take?", "label": "yes", "text": "It did."}
    doubtful = [
        {"question": f"Question {i}?", "label": "one seed, no interval", "text": f"Sentence {i}."}
        for i in range(13)
    ]
    few = {"question": "One phase?", "label": "too few doses", "text": "Four doses."}
    result["verdict"]["parts"] = [decided, *doubtful, few]
    html = render(result)
    line = "14 of 15 questions are left open: one seed, no interval (13), too few doses (1)"
    assert html.count(line) == 1
    before = html[: html.index(line)]
    assert "one seed, no interval</span>" not in before.partition("<article>")[2]
    assert html.count("<article>") == 1
    assert "Sentence 12." in html  # nothing is lost: it unfolds


def test_nothing_left_open_is_not_mentioned() -> None:
    assert open_words(Verdict("yes", "", (Part("Did it take?", "yes", ""),))) == ""
    assert "left open" not in render(series_result())


@pytest.mark.parametrize("make", [audit_result, boost_result, demo_result, series_result])
def test_page_terminal_and_json_say_the_same(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make()
    data["analysis"].pop("models", None)  # folders that are not here
    monkeypatch.setattr(OUTPUT, "facts", None)
    finish(Result(write(tmp_path, data), data))
    printed = capsys.readouterr().out.splitlines()
    heads = headlines_of(data)
    assert printed[0] == heads[0].sentence
    assert all(head.sentence in printed for head in heads)
    assert all(head.in_words in printed for head in heads if head.in_words)
    assert OUTPUT.facts is not None
    assert OUTPUT.facts["sentence"] == " ".join(head.sentence for head in heads)
    assert OUTPUT.facts["verdict"] == data["verdict"]["text"]
    page = Page(build(tmp_path).read_text(encoding="utf-8"))
    assert OUTPUT.facts["sentence"] in page.text
    for head in heads:
        assert head.number is None or head.number.value in page.text
