"""Paper B's reproductions on a tiny model: seeds kept by content, tables, predictions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from springback.cli import main
from springback.errors import DataError, SpringbackError
from springback.jobs.boost.analysis.seeds import Answers, SeedResult, across, by_difficulty
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.papers.claims import SCALES
from springback.jobs.papers.epicode import seed as epicode_seed
from springback.jobs.papers.epicode import tables
from springback.jobs.papers.epicode.job import reproduce_epicode
from springback.jobs.papers.epicode.plan import settings_of
from springback.jobs.papers.epicode.plan_at_hand import cells, plan
from springback.jobs.papers.epicode.settings import EPICODE, NAMES
from springback.jobs.papers.epicode.theory import theory_of
from springback.results.paper_schema import Agreement, Cell
from springback.results.store import read_json
from springback.stats import Interval, paired_interval


@pytest.fixture
def given(tiny_llama: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_llama),
        "train_rows": 8,
        "validation_rows": 4,
        "test_rows": 6,
        "mu": (0.5,),
        "lam": (0.5, 1.0),
        "lam_cd": (0.5,),
        "max_new_tokens": 4,
        "max_tokens": 320,
        "batch_size": 6,
        "learning_rate": 1e-3,
        "train_batch_size": 4,
        "seeds": (0, 1),
    }


def seed_of(seed: int, right: list[int], plain: list[int], same: bool = False) -> SeedResult:
    """A seed with two methods; question i has a solution of i + 1 characters."""
    n = len(right)
    return SeedResult(
        seed,
        tuple(f"{seed}/{i}" for i in range(n)),
        tuple(float(i + 1) for i in range(n)),
        {
            "fine-tuned": Answers(0, 0, tuple(map(float, plain)), (1.0,) * n, True),
            "EpiCoDe": Answers(0.2, 0.5, tuple(map(float, right)), (0.9,) * n, same),
        },
    )


def test_over_seeds_by_hand() -> None:
    # Differences of the seeds' means: 1/4, 2/4, 3/4; mean 1/2, t = 0.5 / (0.25 / sqrt(3)) = 3.46
    seeds = [
        seed_of(0, [1, 0, 0, 0], [0, 0, 0, 0]),
        seed_of(1, [1, 1, 0, 0], [0, 0, 0, 0]),
        seed_of(2, [1, 1, 1, 0], [0, 0, 0, 0]),
    ]
    found = across(seeds)
    row = found["methods"][1]
    assert row.difference.mean == pytest.approx(0.5)
    assert row.difference.method == "Student's t"
    assert row.p_t == pytest.approx(0.0742, abs=1e-4)
    assert row.p_wilcoxon == 0.25
    assert (row.seeds_better, row.seeds_worse) == (3, 0)
    # NLL falls by the same in every seed: no t test, so accuracy is a family of its own
    assert row.nll_p_t is None
    assert row.p_t_holm == row.p_t
    assert row.verdict == "undecided"
    assert not found["same_questions"]
    assert across([seed_of(0, [1], [0], same=True)])["methods"][1].verdict == "same"


def test_seeds_that_agree_do_not_make_up_for_few_questions() -> None:
    # Gains of 1, 1, 1, 2 and 1 of 20: mean 1.2, sd sqrt(0.2), t = 1.2 / sqrt(0.2 / 5) = 6
    won = [1, 1, 1, 2, 2]
    right = [[1] * w + [0] * (20 - w) for w in won]
    wrong = [[0] * 20] * 4 + [[0] * 19 + [1]]
    seeds = [seed_of(i, right[i], wrong[i]) for i in range(5)]
    row = across(seeds)["methods"][1]
    assert row.p_t == pytest.approx(2 * 0.001941, abs=1e-5)
    # 7 questions won and 1 lost: 2 * (1 + 8) / 2^8
    assert row.p_mcnemar == pytest.approx(18 / 256)
    assert row.verdict == "undecided"
    # without the lost one it is 7 to 0: 2 / 2^7
    row = across([*seeds[:4], seed_of(4, right[4], wrong[0])])["methods"][1]
    assert row.p_mcnemar == pytest.approx(1 / 64)
    assert row.verdict == "gain"


def test_the_same_questions_in_another_order_are_paired_by_question() -> None:
    first = seed_of(0, [1, 0, 1, 1], [0, 0, 1, 0])
    turned = SeedResult(
        1,
        first.questions[::-1],
        first.sizes[::-1],
        {n: replace(a, correct=a.correct[::-1], nll=a.nll[::-1]) for n, a in first.methods.items()},
    )
    found = across([first, turned])
    assert found["same_questions"]
    assert found["methods"][1].p_mcnemar is None
    new, old = [[1, 0, 1, 1]] * 2, [[0, 0, 1, 0]] * 2
    assert found["methods"][1].difference == paired_interval(new, old)


def test_difficulty_splits_by_the_length_of_the_solution() -> None:
    # 6 questions of 1 to 6 characters, gained on the last two: terciles 0, 0, 1
    found = by_difficulty([seed_of(0, [0, 0, 0, 0, 1, 1], [0] * 6)])
    assert [(b.low, b.high, b.questions) for b in found.bins] == [
        (1, 2, 2),
        (3, 4, 2),
        (5, 6, 2),
    ]
    (row,) = found.methods
    assert [b.difference.mean for b in row.bins if b.difference] == [0, 0, 1]
    # ranks 0, .2, .. 1 about 1/2: slope = (0.3 + 0.5) / 0.7
    assert row.trend is not None
    assert row.trend.mean == pytest.approx(0.8 / 0.7)
    by_edge = by_difficulty([seed_of(0, [0, 0, 0, 0, 1, 1], [0] * 6)], [4.0])
    assert [b.questions for b in by_edge.bins] == [4, 2]


def test_answers_of_one_length_have_no_difficulty() -> None:
    seeds = [replace(seed_of(s, [0, 1, 0, 0, 1, 1], [0] * 6), sizes=(1,) * 6) for s in (0, 1)]
    found = by_difficulty(seeds)
    assert [b.questions for b in found.bins] == [12]
    assert found.methods == ()
    cell = Cell("m / logiqa", difficulty=found)
    told = tables.verdict("epicode-difficulty", [cell])
    assert told.label == "not testable"
    assert "of one length" in told.text


def test_every_reproduction_has_both_scales_and_positive_strengths_only() -> None:
    assert tuple(EPICODE) == NAMES
    for name in NAMES:
        for scale in SCALES:
            settings = settings_of(name, scale, {})
            assert settings.positive
            assert cells(settings)
    paper = cells(settings_of("epicode-main", "paper", {}))
    assert len(paper) == 12
    assert len(cells(settings_of("epicode-main", "paper", {"model": "x"}))) == 3
    assert len(cells(settings_of("epicode-main", "paper", {"task": "gsm8k"}))) == 4
    task = settings_of("epicode-main", "small", {"task": "gsm8k", "seeds": "0,1,2"})
    assert (task.train, task.test, task.seeds) == (None, None, (0, 1, 2))
    for name, scale, words in (
        ("epicode-magic", "small", "allowed: epicode-main"),
        ("epicode-main", "huge", "allowed: small, paper"),
    ):
        with pytest.raises(SpringbackError, match=words):
            settings_of(name, scale, {})
    with pytest.raises(SpringbackError, match="seeds is empty"):
        settings_of("epicode-main", "small", {"seeds": ""})


def test_the_plan_is_told_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = plan("epicode-main", "paper")
    assert told[0].startswith("epicode-main at paper scale: 120 runs, 4 models x 3 tasks x 10")
    data = {line.split()[2]: line for line in told if line.startswith("data of")}
    # validation comes off GSM8K's training split: 200 questions where nothing else is asked
    assert "train the rest of openai/gsm8k:main (train)" in data["gsm8k:"]
    assert "validation 200 of openai/gsm8k:main (train)" in data["gsm8k:"]
    assert "test all of openai/gsm8k:main (test)" in data["gsm8k:"]
    assert "validation all of lucasmccabe/logiqa" in data["logiqa:"]
    assert "NOT KNOWN (give a file with --test)" in data["jecqa:"]
    assert told[-1].startswith("The paper's scale names")
    # what cannot be had stops the whole before the first model is loaded
    with pytest.raises(DataError, match="leave it out: --tasks gsm8k,logiqa"):
        reproduce_epicode("epicode-main", "paper", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # mu 3, lambda 3 for EpiCoDe and 3 for each of two further weak models, CD only 3
    weak = plan("epicode-weak-model")
    assert "lambda 0.1, 0.2, 0.5; further weak models: early, init: 15 candidates" in weak[4]
    assert "6 methods" in weak[5]
    assert "reference by the same recipe on 640 rows" in plan("epicode-theory")[3]
    for words, code in (
        (["epicode-main", "--seeds", "0,1"], 0),
        (["elasticity-theorem"], 2),
    ):
        monkeypatch.setattr("sys.argv", ["springback", "reproduce", *words, "--plan"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert (stopped.value.code or 0) == code
    said = capsys.readouterr()
    assert "2 runs, 1 models x 1 tasks x 2 seeds (0, 1)" in said.out
    assert "--plan with elasticity-theorem; allowed: with" in said.err


def test_seeds_are_kept_shared_and_put_into_the_papers_table(
    given: dict[str, Any], tmp_path: Path
) -> None:
    whole = reproduce_epicode("epicode-main", "small", tmp_path / "a", given).data["analysis"]
    assert whole["published"]["rows"][0][1] == "fine-tuned"
    (cell,) = whole["cells"]
    four = ["fine-tuned", "ME only", "CD only", "EpiCoDe"]
    controls = ["ME, equal step", "ME, step of CD"]
    assert [r["method"] for r in cell["methods"]] == four + controls
    assert [r["against"] for r in cell["rivals"]] == ["ME only", "CD only", *controls]
    for seed in (0, 1):
        steps = [cell["methods"][i]["mu"][seed] for i in (4, 5)]
        mu, lam = (cell["methods"][3][key][seed] for key in ("mu", "lambda"))
        assert steps == pytest.approx([mu * (1 + lam), cell["methods"][2]["lambda"][seed]])
    epicode = cell["methods"][3]
    assert 0 <= epicode["cut"] <= 1
    assert epicode["mu"] == [0.5, 0.5]
    assert all(lam > 0 for lam in epicode["lambda"])
    assert 0 <= epicode["nll_p_t_holm"] <= 1
    assert epicode["nll_p_t_holm"] >= epicode["nll_p_t"]
    assert not (tmp_path / "a" / "work").exists() or not list((tmp_path / "a" / "work").iterdir())
    assert "DeepSeek-7B" in (tmp_path / "a" / "reproduce.md").read_text()
    kept = [read_json(file) for file in (tmp_path / "a" / "runs").glob("*/run.json")]
    for seed in kept:
        for found in seed["results"]["search"].values():
            assert all(len(t["correct"]) == 4 for t in found["tried"]), "answers by question"
    assert "correct" not in cell["search"][0]["mu"]["tried"][0]

    # Seed 1 made elsewhere, its runs copied in; the other studies use the same seeds.
    other = {**given, "seeds": (1,)}
    reproduce_epicode("epicode-main", "small", tmp_path / "b", other)
    shutil.copytree(tmp_path / "b" / "runs", tmp_path / "c" / "runs")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "c" / "runs").glob("*/run.json")}
    assert len(stamps) == 1
    again = reproduce_epicode("epicode-difficulty", "small", tmp_path / "c", given)
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())
    assert again.data["analysis"]["cells"] == whole["cells"]
    columns = again.data["analysis"]["measured"]["columns"]
    assert "hardest minus easiest, points" in columns


def test_a_seeds_answers_are_those_of_a_boost(given: dict[str, Any], tmp_path: Path) -> None:
    settings = settings_of("epicode-main", "small", given)
    found = reproduce_epicode("epicode-main", "small", tmp_path / "a", {**given, "seeds": (0,)})
    one = settings.one(0, settings.model, None)
    alone = boost(one, tmp_path / "b").data["analysis"]
    (cell,) = found.data["analysis"]["cells"]
    for ours, theirs in zip(cell["methods"][:5], alone["methods"], strict=True):
        assert ours["method"] == theirs["method"]
        assert ours["mu"] == [theirs["mu"]]
        assert ours["accuracy"]["mean"] == pytest.approx(theirs["accuracy"]["mean"])
        assert ours["nll"]["mean"] == pytest.approx(theirs["nll"]["mean"])
    assert alone["difficulty"]["methods"][0]["method"] == "ME only"
    assert alone["diagnostics"] is None


def test_where_data_lies_does_not_change_a_seeds_run_and_what_counts_does(
    given: dict[str, Any],
) -> None:
    settings = settings_of("epicode-main", "small", given)

    def run_of(**change: Any) -> str:
        return epicode_seed.plan(
            "epicode", replace(settings.one(0, settings.model, None), **change)
        ).run.id

    plain = run_of()
    assert run_of(write_model=True, tolerance=0.5, difficulty=(10.0,)) == plain
    others = [run_of(alpha=0.2), run_of(mu=(0.4,)), run_of(seed=1), run_of(learning_rate=1e-4)]
    others += [run_of(one_se=True), run_of(test_rows=5)]
    assert len({plain, *others}) == 7


def test_theory_shows_prediction_beside_result(given: dict[str, Any], tmp_path: Path) -> None:
    given = {**given, "seeds": (0,), "train_rows": 4, "lam": (0.5,)}
    result = reproduce_epicode("epicode-theory", "small", tmp_path / "a", given)
    (cell,) = result.data["analysis"]["cells"]
    (seed,) = cell["seeds"]
    assert seed["predicted"] in ("helps", "does not help", "undecided")
    assert seed["rho_k"]["mean"] == pytest.approx(seed["rho"]["mean"] * seed["k"]["mean"])
    curve = {p["lambda"]: p for p in cell["curve"]}
    k, rho = seed["k"]["mean"], seed["rho"]["mean"]
    assert curve[0.5]["error_variance"]["mean"] == pytest.approx(
        2.25 - 2 * rho * k * 0.5 * 1.5 + 0.25 * k * k
    )
    assert curve[0.5]["accuracy_difference"] is not None
    assert curve[0.25]["accuracy_difference"] is None
    assert curve[0.0]["nll_difference"]["mean"] == 0
    (run,) = (tmp_path / "a" / "runs").glob("*/run.json")
    inputs = json.loads(run.read_text())["inputs"]
    assert inputs["reference"] == 40  # ten times the rows
    with pytest.raises(SpringbackError, match="at least 10 times"):
        reproduce_epicode(
            "epicode-theory", "small", tmp_path / "b", {**given, "reference_rows": 39}
        )


def test_signs_are_counted_where_the_prediction_is_decided() -> None:
    def text(cross: float) -> dict[str, float]:
        return {"strong": 1.0, "weak": 4.0, "cross": cross, "freedom": 4, "positions": 9,
                "contested": 2}  # fmt: skip

    def seed(cross: float, change: float) -> dict[str, Any]:
        return {
            "seed": 0,
            "mu": 0.2,
            "chosen": 0.5,
            "accuracy": [{"lambda": lam, "correct": [1.0, 0.0]} for lam in (0.0, 0.5)],
            "nll": [{"lambda": 0.0, "nll": [1.0, 1.0]}, {"lambda": 0.5, "nll": [1 + change, 1.0]}],
            "errors": [text(cross), text(cross)],
            "reference": None,
        }

    # rho k = cross / strong: 1.5 helps, 0.5 does not
    found = theory_of([seed(1.5, -0.1), seed(0.5, -0.1), seed(0.5, 0.2)])
    assert found["agreement"] == Agreement(right=2, judged=3, seeds=3)
    assert [s.predicted for s in found["seeds"]] == ["helps", "does not help", "does not help"]
    without = theory_of([{**seed(1.5, -0.1), "errors": None}])
    assert without["seeds"][0].predicted == "no reference"
    assert without["curve"][1].error_variance is None
    assert without["curve"][1].nll_difference.mean == pytest.approx(-0.05)


def test_boost_predicts_from_a_reference_that_the_user_names(
    given: dict[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    plain = settings_of("epicode-main", "small", given).one(0, str(tiny_llama), None)
    settings: BoostSettings = replace(plain, reference=str(tiny_llama))
    found = boost(settings, tmp_path / "a").data["analysis"]["diagnostics"]
    assert [p["method"] for p in found["pairs"]] == ["EpiCoDe", "CD only"]
    assert found["texts"] == 4
    for pair in found["pairs"]:
        assert 0 < pair["contested"]["mean"] <= 1
        assert pair["prediction"][0] == {"lambda": 0.0, "error_variance": 1.0}
        assert pair["chosen"] in [p["lambda"] for p in pair["prediction"]]


def test_a_value_and_its_interval_have_the_same_decimals() -> None:
    cell = tables._cell
    assert cell(Interval(-3.5e-16, -4.1934, 4.1934)) == "0 (-4.193 to 4.193)"
    assert cell(Interval(12.7083)) == "12.71"
    assert cell(Interval(0.0, 0.0, 0.0)) == "0 (0 to 0)"
