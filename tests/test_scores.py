"""Answers that get a share of 1: a function of the user's own grades, tests and choice take it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from scipy import stats as sps
from typer.testing import CliRunner

from boost_pair import save_pair
from springback.cli.app import app
from springback.core import Row
from springback.jobs.boost.analysis.methods import compared
from springback.jobs.boost.questions import question_format
from springback.jobs.boost.search import RULES, Tried, choice_of
from springback.jobs.boost.settings import BoostSettings
from springback.results.boost_schema import Method
from springback.stats import bootstrap_interval, mcnemar_exact, mean_interval, paired_p


def method(tried: Tried) -> Method:
    return Method("ME", 0.1, 0.0, bootstrap_interval(tried.correct), None, verdict="same")


def test_a_function_may_give_shares(tmp_path: Path) -> None:
    path = tmp_path / "judge.py"
    path.write_text("def f(prompts, texts, answers):\n    return [len(t) / 4 for t in texts]\n")
    how = question_format(BoostSettings(metric=f"python:{path}:f"))
    rows = [Row("chat", "?", "", answer="x")] * 3
    assert how.outcomes(rows, ["a", "", "abcd"]) == [0.25, "wrong", "right"]
    grades = how.grade(rows, ["a", "", "abcd"])
    assert grades == [0.25, 0.0, 1.0]
    assert [type(g) for g in grades] == [float, bool, bool], "right and wrong are stored as before"


def test_the_tests_of_scores_are_paired_t() -> None:
    base = Tried(0.0, (0.2, 0.5, 0.9, 0.4, 1.0), ())
    better = Tried(0.1, (0.4, 0.5, 1.0, 0.7, 0.9), ())
    row = compared(method(better), better, base, 0.01)
    gaps = [0.2, 0.0, 0.1, 0.3, -0.1]
    assert (row.won, row.lost) == (3, 1)
    assert row.difference == mean_interval(
        [a - b for a, b in zip(better.correct, base.correct, strict=True)]
    )
    assert row.p == pytest.approx(sps.ttest_1samp(gaps, 0.0).pvalue)
    # A point with 80 % chance: ((1.96 + 0.84) / 0.01)^2 times the variance of the differences.
    variance = sum((g - 0.1) ** 2 for g in gaps) / 4
    assert row.questions_for_a_point == pytest.approx(78_489 * variance, rel=0.01)


def test_right_and_wrong_keep_mcnemar() -> None:
    new, old = (True, True, False, True), (False, True, True, False)
    assert paired_p(new, old) == mcnemar_exact(new, old) == 1.0
    assert paired_p([0.5, 0.5], [0.5, 0.5]) == 1.0


@pytest.mark.parametrize("rule", [r for r in RULES if r != "nll"])
def test_the_choice_takes_scores(rule: str) -> None:
    low = Tried(0.0, tuple([0.2, 0.3] * 20), ())
    high = Tried(0.1, tuple([0.8, 0.7] * 20), ())
    assert choice_of([low, high], [0.0, 0.1], rule).index == 1
    assert choice_of([low, high], [0.0, 0.1], rule, one_se=True).index == 1
    assert high.accuracy == pytest.approx(0.75)


def test_a_boost_by_a_graded_judge_from_search_to_page(tiny_llama: Path, tmp_path: Path) -> None:
    early, ft = save_pair(tiny_llama, tmp_path, torch.float32)
    path = tmp_path / "judge.py"
    path.write_text(
        "def f(p, texts, a):\n    return [(sum(map(ord, t)) % 11) / 10 for t in texts]\n"
    )
    out = tmp_path / "out"
    words = ["boost", "--early", early, "--ft", ft, "--metric", f"python:{path}:f", "--positive"]
    words += ["--validation", "problems", "--test", "problems", "--validation-rows", 4]
    words += ["--test-rows", 6, "--mu", 1, "--lambda", 2, "--cd-lambda", 0.5]
    words += ["--max-new-tokens", 6, "--no-precheck", "--out", out]
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    analysis = json.loads((out / "result.json").read_text())["analysis"]
    rows = {row["method"]: row for row in analysis["methods"]}
    stored = [json.loads(p.read_text()) for p in (out / "runs").glob("score-*/run.json")]
    tests = [run for run in stored if run["inputs"]["part"] == "test"]
    plain = next(r for r in tests if not r["inputs"]["mu"] and not r["inputs"]["lam"])
    scores = plain["results"]["correct"]
    assert any(0 < score < 1 for score in scores)
    assert rows["fine-tuned"]["accuracy"]["mean"] == pytest.approx(sum(scores) / 6)
    assert "Student" in rows["EpiCoDe"]["difference"]["method"]
    assert (out / "report.html").exists()
