"""NLL of reference solutions: of worked ones, of bare answers only where these were learnt."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from springback.cli.app import app
from springback.core import Row, Run, Slice
from springback.data import load_rows, nll_withheld
from springback.data.references import bare_kind
from springback.errors import DataError, SpringbackError
from springback.jobs.boost.analysis.seeds import Answers, SeedResult, across, by_difficulty
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.job import Arm, Boost, boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.papers.epicode import tables
from springback.jobs.papers.epicode.seed import plan
from springback.models.loading import resolve
from springback.progress import Silent
from springback.report import build
from springback.results.paper_schema import Cell
from springback.results.store import Store
from turns_fixture import talking

#: A logit of the talking model where it is sure, by its scale: sqrt(304) times RMSNorm's epsilon.
SURE = 1 / math.sqrt(1 / 304 + 1e-6)


def qa(answer: str, response: str = "", choices: tuple[str, ...] = ()) -> Row:
    return Row("qa", "How many?", response, answer, choices)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (qa("16"), "number"),
        (qa("-3.5"), "number"),
        (qa("1,600"), "number"),
        (qa("3/4"), "number"),
        (qa("16", "#### 16"), "number"),
        (qa("16", " 16.\n"), "number"),
        (qa("1600", "$1,600"), "number"),
        (qa("16", r"$\boxed{16}$"), "number"),
        (qa("B"), "letters"),
        (qa("ACD", choices=("w", "x", "y", "z")), "letters"),
        (qa("B", "(B)", ("x", "y")), "letters"),
        (qa("the Treaty of Versailles"), "words"),
        (qa("Paris", "Paris."), "words"),
        # Texts that say more than the answer, and answers too long to be one.
        (qa("16", "8 + 8 = 16.\n#### 16"), None),
        (qa("16", "The answer is 16."), None),
        (qa("B", "Both hold, so B.", ("x", "y")), None),
        (qa("one two three four five six seven eight nine ten eleven"), None),
        (qa("x" * 61), None),
        (Row("pair", "How many?", "16"), None),
        (Row("text", "", "16"), None),
    ],
)
def test_bare_answers_are_told_from_texts(row: Row, kind: str | None) -> None:
    assert bare_kind(row) == kind


def part(*rows: Row) -> Slice:
    return Slice.of("part", "here", rows)


def test_nll_is_withheld_unless_such_answers_are_what_was_learnt() -> None:
    worked, number, letter = qa("16", "8 + 8 = 16"), qa("16"), qa("B", choices=("x", "y"))
    learnt_number, learnt_letter = replace(number, response="16"), replace(letter, response="B")
    assert nll_withheld(part(worked, worked), "test") is None
    told = nll_withheld(part(worked, number, number), "test")
    assert told is not None
    assert told.startswith("2 of 3 test rows have a bare answer (such as '16') and no solution")
    assert "`solution`" in told
    for train, kept in (
        ((learnt_number, learnt_number), True),
        ((learnt_number, worked), False),
        ((worked,), False),
        ((learnt_letter,), False),
    ):
        assert (nll_withheld(part(number), "test", part(*train)) is None) == kept
    assert nll_withheld(part(letter), "test", part(learnt_letter)) is None
    assert nll_withheld(part(letter, number), "test", part(learnt_letter)) is not None
    assert nll_withheld(part(letter), "test", part(learnt_letter, learnt_number)) is None


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_response_beside_question_and_answer_is_the_solution(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "3 + 4?", "response": "3 + 4 = <<3+4=7>>7.", "answer": "7"},
        {"question": "4 + 4?", "response": "4 + 4 is 8", "solution": "4 + 4 = 8", "answer": 8},
        {"question": "4 + 5?", "response": "9?", "answer": "4 + 5 = 9\n#### 9"},
        {"question": "Which?", "choices": ["x", "y"], "response": "Not x.", "answer": 1},
        {"question": "5 + 5?", "response": None, "answer": "10"},
        {"question": "5 + 6?", "response": " ", "answer": "11"},
    ]
    found = load_rows(write(tmp_path / "rows.jsonl", rows))
    assert [(row.kind, row.response, row.answer) for row in found] == [
        ("qa", "3 + 4 = <<3+4=7>>7.", "7"),
        ("qa", "4 + 4 = 8", "8"),
        ("qa", "4 + 5 = 9\n#### 9", "9"),
        ("qa", "Not x.", "B"),
        ("qa", "", "10"),
        ("qa", "", "11"),
    ]


@pytest.fixture(scope="module")
def models(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Early and fine-tuned: the same words ("7" to anything), the later one surer of them."""
    root = tmp_path_factory.mktemp("models")
    early = talking(root / "early", tiny_tokenizer)
    return str(early), str(talking(root / "ft", tiny_tokenizer, sure=1.5))


def settings_of(models: tuple[str, str], root: Path, like: dict[str, Any]) -> BoostSettings:
    """Eight questions whose answer is 7, half to choose on; ``like``: what each row has besides."""
    rows = [{"question": f"{a} + {7 - a}?", "answer": "7", **like} for a in range(8)]
    return BoostSettings(
        early=models[0],
        ft=models[1],
        validation=write(root / "v.jsonl", rows[:4]),
        test=write(root / "t.jsonl", rows[4:]),
        mu=(0.5,),
        lam=(0.5,),
        lam_cd=(0.5,),
        positive=True,
        max_new_tokens=4,
        write_model=False,
    )


class Listening(Silent):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def test_the_nll_of_bare_answers_is_withheld_everywhere_and_said(
    models: tuple[str, str], tmp_path: Path
) -> None:
    """By it the surer model would be the worse one: "7" is followed by the model's own end, and
    the reference's end is 1.5 times as far off."""
    listening = Listening()
    settings = settings_of(models, tmp_path, {})
    data = boost(settings, tmp_path / "out", listening).data
    analysis = data["analysis"]
    for row in analysis["methods"]:
        assert row["accuracy"]["mean"] == 1.0
        assert row["nll"] is None
        assert row["nll_difference"] is None
        assert row.get("nll_p") is None
        assert row.get("nll_p_holm") is None
    assert all(p["nll"] is None for points in analysis["search"].values() for p in points)
    assert analysis["precheck"]["nll"] is None
    assert not any("NLL" in reason for reason in analysis["precheck"]["reasons"])
    assert {m["probe"] for m in data["measurements"]} == {"accuracy"}
    reason = "4 of 4 test rows have a bare answer (such as '7') and no solution"
    assert analysis["nll_withheld"]["test"].startswith(reason)
    assert analysis["nll_withheld"]["validation"].startswith("4 of 4 validation rows")
    assert f"NLL is withheld: {reason}" in data["verdict"]["text"]
    assert "nats" not in json.dumps(data["verdict"])
    assert any(text.startswith(f"NLL is withheld: {reason}") for text in listening.told)
    assert "pre-check: validation NLL along mu: withheld" in listening.told
    page = build(tmp_path / "out").read_text()
    assert page.count("NLL is withheld: 4 of 4 test rows") >= 1
    assert "NLL is withheld: 4 of 4 validation rows" in page


@pytest.mark.parametrize(
    ("like", "nll"),
    [
        # After the prompt "7" costs next to nothing; then "9" for the model's end of turn, and the
        # template's end for another "9": two of three tokens at 1.5 times the sure logit.
        ({"response": "79"}, 2 / 3),
        ({"solution": "79"}, 2 / 3),
        # Of "779" the second "7" and the "9" are others than the model's, and the end.
        ({"response": "779"}, 3 / 4),
    ],
)
def test_the_nll_of_worked_solutions_is_taken(
    models: tuple[str, str], tmp_path: Path, like: dict[str, Any], nll: float
) -> None:
    settings = replace(settings_of(models, tmp_path, like), precheck=False)
    analysis = boost(settings, tmp_path / "out").data["analysis"]
    assert analysis["nll_withheld"] is None
    [plain] = [row for row in analysis["methods"] if row["method"] == "fine-tuned"]
    assert plain["nll"]["mean"] == pytest.approx(nll * 1.5 * SURE, rel=1e-4)
    [moved] = [row for row in analysis["methods"] if row["method"] == "ME only"]
    assert moved["nll_difference"]["mean"] == pytest.approx(nll * 0.25 * SURE, rel=1e-4)


def test_an_answer_that_ends_in_its_number_is_a_solution(
    models: tuple[str, str], tmp_path: Path
) -> None:
    settings = settings_of(models, tmp_path, {"answer": "3 and 4 make 7.\n#### 7"})
    analysis = boost(settings, tmp_path / "out").data["analysis"]
    assert analysis["nll_withheld"] is None
    assert analysis["precheck"]["nll"] is not None
    assert all(row["nll"] is not None for row in analysis["methods"])


def test_rows_that_show_what_was_learnt_bring_it_back(
    models: tuple[str, str], tmp_path: Path
) -> None:
    """In the same folder: the runs that were stored without NLL are completed.  "7" and its end:
    one of two tokens at 1.5 times the sure logit."""
    settings = replace(settings_of(models, tmp_path, {}), precheck=False, reopen_test=True)
    boost(settings, tmp_path / "out")
    shown = write(tmp_path / "train.jsonl", [{"question": "Half of 14?", "answer": 7}])
    analysis = boost(replace(settings, train=shown), tmp_path / "out").data["analysis"]
    assert analysis["nll_withheld"] is None
    assert analysis["methods"][0]["nll"]["mean"] == pytest.approx(0.75 * SURE, rel=1e-4)
    assert analysis["search"]["mu"][0]["nll"] is not None
    again = boost(settings, tmp_path / "out").data["analysis"]
    assert again["methods"][0]["nll"] is None, "and withheld again where nobody shows it"


def test_a_score_has_the_id_it_had(models: tuple[str, str], tmp_path: Path) -> None:
    settings = check_settings(settings_of(models, tmp_path, {}))
    job = Boost(settings, (resolve(models[0]), resolve(models[1])), Store(tmp_path), Silent())
    questions = load_data(settings).test
    expected = Run.of(
        "nll",
        early=job.early.content_hash,
        ft=job.ft.content_hash,
        questions=questions.content_hash,
        part="test",
        system=None,
        max_tokens=512,
        mu=0.5,
        lam=0.5,
        weak="ft",
    )
    assert job.run("nll", Arm("x", 0.5, 0.5, "ft"), questions, "test").id == expected.id


def test_what_goes_by_nll_is_refused_before_it_starts(
    models: tuple[str, str], tmp_path: Path
) -> None:
    settings = settings_of(models, tmp_path, {})
    with pytest.raises(DataError, match=r"--narrow .* 4 of 4 validation rows .*`solution`.*leave"):
        boost(replace(settings, narrow=1), tmp_path / "out")
    with pytest.raises(SpringbackError, match=r"epicode-theory .* 4 of 4 test rows"):
        plan("epicode-theory", settings)
    worked = settings_of(models, tmp_path, {"solution": "3 and 4 make 7"})
    assert load_data(replace(worked, narrow=1)).test.rows[0].response == "3 and 4 make 7"


def seed(number: int, nll: tuple[float, ...]) -> SeedResult:
    plain = Answers(0.0, 0.0, (1.0, 0.0), nll, same=True)
    moved = Answers(0.5, 0.5, (1.0, 1.0), nll)
    names = (f"{number} a", f"{number} b")
    return SeedResult(number, names, (1.0, 2.0), {"fine-tuned": plain, "EpiCoDe": moved})


def test_over_seeds_it_is_null_and_the_rest_stands() -> None:
    """One of two questions more is right in both seeds: a difference of 0.5 each."""
    seeds = [seed(n, ()) for n in range(2)]
    told = across(seeds)
    row = next(r for r in told["methods"] if r.method == "EpiCoDe")
    assert row.nll is None
    assert row.nll_difference is None
    assert row.difference.mean == 0.5
    [method] = by_difficulty(seeds, 2).methods
    assert [b.difference.mean for b in method.bins if b.difference] == [0.0, 1.0]
    cell = Cell("m", **told)
    verdict = tables.verdict("epicode-main", [cell])
    assert "NLL is withheld, since the reference answers are bare." in verdict.text
    rows = tables.measured("epicode-main", [cell]).rows
    assert [r[7] for r in rows] == [None, None]
    mixed = across([seed(0, (1.0, 2.0)), seed(1, ())])
    assert all(r.nll is None for r in mixed["methods"])


def test_the_check_of_a_pair_withholds_it_too(models: tuple[str, str], tmp_path: Path) -> None:
    rows = {name: [{"question": "3 + 4?", "answer": "7", **more}] * 2 for name, more in (
        ("bare", {}), ("worked", {"solution": "79"}))}  # fmt: skip
    words = ["extrapolate", *models, "--check", "--validation"]
    told = CliRunner().invoke(app, [*words, write(tmp_path / "bare.jsonl", rows["bare"])])
    assert told.exit_code == 0, told.output
    assert "validation NLL is withheld: 2 of 2 validation rows" in told.stdout
    assert "nats a token" not in told.stdout
    assert "give a third, or worked solutions" in told.stdout
    told = CliRunner().invoke(app, [*words, write(tmp_path / "worked.jsonl", rows["worked"])])
    # At mu 0 two of three tokens are 1.5 times the sure logit off.
    assert f"mu 0: validation NLL {SURE:.4f} nats a token" in told.stdout
