"""Reproductions: what was published, what could not be had, what is ours, and the studies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models_fixture import reproduce_result
from report_page import Page
from springback.errors import ModelError, SpringbackError
from springback.jobs.audit.checks import check_settings
from springback.jobs.papers.claims import SCALES, page, record
from springback.jobs.papers.epicode.job import reproduce_epicode
from springback.jobs.papers.epicode.plan_at_hand import plan as epicode_plan
from springback.jobs.papers.epicode.settings import EPICODE
from springback.jobs.papers.reproduce import plan, settings_of
from springback.jobs.papers.reproductions import LARGE, REPRODUCTIONS
from springback.report import render
from tiny_model import make_llama


def studies(name: str, scale: str, **given: Any) -> dict[str, Any]:
    settings = settings_of(name, scale, given)
    made = REPRODUCTIONS[name].studies(scale, settings, given)
    return {study.name: study.settings for study in made}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_every_study_of_every_scale_could_be_run(name: str, scale: str) -> None:
    every = studies(name, scale)
    assert len(every) == len({repr(settings) for settings in every.values()})
    for settings in every.values():
        check_settings(settings)


def test_resistance_has_all_that_is_known_of_the_papers_two_tables() -> None:
    claim = REPRODUCTIONS["elasticity-resistance"]
    assert claim.published is not None
    gaps = []
    for _, *cells in claim.published[1:]:
        for cell in cells:
            inverse, forward = map(float, cell.split(" against "))
            gaps.append(forward - inverse)
    assert len(gaps) == 9
    (_, all_cells), (_, first_pair) = claim.further
    assert all_cells[1:] == ("0.0002", "0.096", "9")
    assert min(gaps) > 0.0002
    assert max(gaps) == pytest.approx(0.096)  # the largest of all is among the nine
    assert first_pair[1:] == ("0.2796", "0.4568")
    assert "27" in claim.unknown
    assert "TruthfulQA" in claim.unknown


def test_both_readings_of_the_other_algorithms_are_measured() -> None:
    for scale in SCALES:
        found = {
            (settings.algorithm, settings.perturb_algorithm)
            for settings in studies("elasticity-algorithms", scale).values()
        }
        others = ("dpo", "kto", "simpo", "rloo")
        aligning, reverse = {(name, "sft") for name in others}, {("sft", name) for name in others}
        assert found == {("sft", "sft"), *aligning, *reverse}


def test_sizes_are_compared_by_sft_and_by_dpo() -> None:
    found = studies("elasticity-size", "paper")
    by_algorithm: dict[str, list[str]] = {}
    for settings in found.values():
        by_algorithm.setdefault(settings.algorithm, []).append(settings.model)
    sizes = [f"Qwen/Qwen1.5-{size}" for size in ("0.5B", "4B", "7B")]
    assert by_algorithm == {"sft": sizes, "dpo": sizes}
    assert {s.algorithm for s in studies("elasticity-size", "small").values()} == {"sft", "dpo"}


def test_the_papers_checkpoints_and_doses_are_all_there() -> None:
    models = [s.model for s in studies("elasticity-pretraining", "paper").values()]
    assert [name.rsplit("-", 1)[1] for name in models] == ["105b", "503b", "1T", "2T", "2.5T", "3T"]
    assert LARGE.n_pos == (1000, 2000, 5000, 10000)
    for dose in (100, 200, 500, 1000, 2000):  # in whole batches
        assert any(dose <= mark < dose + LARGE.batch_size for mark in LARGE.doses)


@pytest.mark.parametrize(
    ("name", "claim"),
    [*REPRODUCTIONS.items(), *EPICODE.items()],
    ids=[*REPRODUCTIONS, *EPICODE],
)
def test_result_and_page_say_what_is_ours_and_what_could_not_be_had(name: str, claim: Any) -> None:
    analysis = record(name, "small", claim, None)
    assert claim.ours
    assert claim.unknown or claim.published or name == "overbend"
    lines = page(analysis)
    assert [note for note in analysis.notes if note in lines] == [*claim.notes]
    for table in claim.further:
        assert f"| {' | '.join(table[1])} |" in lines
    epicode = name in EPICODE
    planned = epicode_plan(name) if epicode else plan(name).split("\n")
    assert any("ours" in line for line in planned)


def test_the_report_has_the_further_tables_and_the_notes() -> None:
    claim = REPRODUCTIONS["elasticity-resistance"]
    result = reproduce_result()
    known = record("elasticity-resistance", "small", claim, None)
    result["analysis"]["further"] = [
        {"columns": list(t.columns), "rows": [list(row) for row in t.rows]} for t in known.further
    ]
    result["analysis"]["notes"] = list(known.notes)
    text = Page(render(result)).text
    for words in ("Published, further", "0.0002", "0.4568", *known.notes):
        assert words in text
    assert "Published, further" not in Page(render(reproduce_result())).text


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """A model of the same tokenizer with other weights, and a name of its own."""
    folder = tmp_path_factory.mktemp("models") / "little"
    return make_llama(folder, tiny_tokenizer)


GIVEN = {
    "train_rows": 8,
    "validation_rows": 4,
    "test_rows": 6,
    "mu": (0.5,),
    "lam": (0.5,),
    "lam_cd": (0.5,),
    "max_new_tokens": 4,
    "max_tokens": 320,
    "batch_size": 6,
    "learning_rate": 1e-3,
    "train_batch_size": 4,
    "seeds": (0,),
}


def test_a_fine_tuned_smaller_model_is_the_fourth_weak_model(
    tiny_llama: Path, smaller: Path, tmp_path: Path
) -> None:
    given = {**GIVEN, "model": str(tiny_llama), "smaller": str(smaller)}
    result = reproduce_epicode("epicode-weak-model", "small", tmp_path, given)
    (cell,) = result.data["analysis"]["cells"]
    methods = [row["method"] for row in cell["methods"]]
    weak = [name for name in methods if name.startswith("EpiCoDe, weak")]
    assert weak == [f"EpiCoDe, weak {who}" for who in ("early", "init", "fine-tuned little")]
    assert "fine-tuned little" in (tmp_path / "reproduce.md").read_text(encoding="utf-8")
    # Without it the same study is another run: what was made before stays its own.
    reproduce_epicode("epicode-weak-model", "small", tmp_path, {**given, "smaller": None})
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_the_papers_fourth_weak_model_is_planned_and_its_misuse_refused(
    tiny_llama: Path, smaller: Path, tmp_path: Path
) -> None:
    told = epicode_plan("epicode-weak-model", "paper")
    assert any("further weak models: early, init, Qwen/Qwen2-1.5B, fine-tuned" in t for t in told)
    assert EPICODE["epicode-weak-model"].published is not None
    assert len(EPICODE["epicode-weak-model"].published) == 5
    given: dict[str, Any] = {**GIVEN, "model": str(tiny_llama), "smaller": str(smaller)}
    for change, words in (
        ({"weak": str(tiny_llama)}, "--smaller .* with --weak"),
        ({"early": str(tiny_llama), "ft": str(smaller)}, "with a given pair"),
    ):
        with pytest.raises(SpringbackError, match=words):
            reproduce_epicode("epicode-weak-model", "small", tmp_path, {**given, **change})
    with pytest.raises(ModelError, match="different tokenizers"):
        reproduce_epicode(
            "epicode-weak-model", "small", tmp_path, {**given, "smaller": "smollm2-135m"}
        )


def test_one_model_of_the_users_takes_the_scales_smaller_one_away() -> None:
    lines = epicode_plan("epicode-weak-model", "paper", {"model": "x"})
    assert not any("Qwen2-1.5B" in line for line in lines)


def test_the_papers_scale_of_dose_reaches_its_2000() -> None:
    for settings in studies("elasticity-dose", "paper").values():
        assert max(settings.doses) == 2000
        assert check_settings(replace(settings, precision="float32")).doses[-1] == 2000
