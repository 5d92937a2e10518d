"""Multiple choice by log-likelihood: probabilities of letters, beside decoded letters."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boost_pair import choice_settings, save_pair
from springback import probes
from springback.core import Row
from springback.data import choice_problems
from springback.decoding.contrast import parse_gate
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.job import Boost, boost
from springback.jobs.boost.letters import encoded_letters, letters_from, one_token_each
from springback.jobs.boost.settings import BoostSettings
from springback.models.encoding import encode_row
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.progress import Silent
from springback.report import build
from springback.results.schema import read
from springback.results.store import Store, read_json


@pytest.fixture(scope="module")
def pair(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tiny_llama, tmp_path_factory.mktemp("pair"), torch.float32)


@pytest.fixture
def settings(pair: tuple[Path, Path]) -> BoostSettings:
    return choice_settings(pair)


def test_probability_of_the_right_letter_by_hand() -> None:
    """Probabilities 0.4, 0.1, 0.2, 0.1 of A to D, the rest elsewhere: B has 0.1 of 0.8.  Where two
    are likeliest the first is the answer."""
    row = Row("qa", "?", "", "B", ("w", "x", "y", "z"))
    logliks = [[math.log(p) for p in shares] for shares in ([0.4, 0.1, 0.2, 0.1], [0.3] * 4)]
    found = letters_from(logliks, [row, replace(row, answer="A")])
    assert found.probability == pytest.approx((0.125, 0.25))
    assert found.correct == (False, True)
    # Far down in the tail nothing vanishes.
    assert letters_from([[-900.0, -901.0]], [row]).probability == pytest.approx((1 / (1 + math.e),))


@pytest.mark.parametrize("gate", [None, "top:0.02"])
def test_first_tokens_are_those_of_plain_passes(pair: tuple[Path, Path], gate: str | None) -> None:
    """One row at a time through both models, whole texts, the contrast written out."""
    strong, weak = (load_model(resolve(str(folder))) for folder in pair)
    tokenizer = load_tokenizer(resolve(str(pair[1])))
    rows = [encode_row(tokenizer, r, 512) for r in choice_problems(5).rows]
    wanted = [[5, 9, 11], [7], [3, 2], [40, 41], [9]]
    opens = parse_gate(gate) if gate else None

    def mix(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        gated = torch.softmax(a, -1).amax(-1, keepdim=True) <= opens.threshold if opens else True
        return torch.where(torch.as_tensor(gated), a + 2.0 * (a - b), a)

    found = probes.first_tokens((strong, weak), rows, tokenizer, wanted, mix)
    alone = probes.first_tokens((strong, None), rows, tokenizer, wanted, lambda a, b: b)
    for row, tokens, pair_scores, scores in zip(rows, wanted, found, alone, strict=True):
        with torch.inference_mode():
            ids = torch.tensor([row.ids[: row.start]])
            a, b = (m(input_ids=ids).logits[0, -1:].float() for m in (strong, weak))
        expected = torch.log_softmax(mix(a, b), -1)[0, tokens]
        assert pair_scores == pytest.approx(expected.tolist(), abs=2e-5)
        assert scores == pytest.approx(torch.log_softmax(a, -1)[0, tokens].tolist(), abs=2e-5)


def test_every_arm_has_its_letters_in_a_run_of_its_own(
    settings: BoostSettings, tmp_path: Path
) -> None:
    boost(settings, tmp_path / "out")
    record = read_json(tmp_path / "out" / "result.json")
    rows = {row["method"]: row for row in record["analysis"]["methods"]}
    assert set(rows) == {"fine-tuned", "ME only", "CD only", "EpiCoDe", "ME, equal step"}
    for name, row in rows.items():
        assert 0 < row["letter_probability"]["mean"] < 1
        assert 0 <= row["letter_accuracy"]["mean"] <= 1
        assert row["letter_probability"]["n"] == 4
        if name == "fine-tuned":
            assert "letter_difference" not in row
            continue
        gap = row["letter_probability"]["mean"] - rows["fine-tuned"]["letter_probability"]["mean"]
        assert row["letter_difference"]["mean"] == pytest.approx(gap)
        assert row["letter_p"] <= row["letter_p_holm"] <= 1
    kinds = [path.name.partition("-")[0] for path in (tmp_path / "out" / "runs").iterdir()]
    assert kinds.count("letters") == 5
    read(record)
    page = build(tmp_path / "out").read_text("utf-8")
    assert "Choices by log-likelihood" in page


def test_letters_of_several_tokens_are_scored_whole(
    settings: BoostSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers where every letter is read as a text of its own."""
    checked = check_settings(settings)
    test = load_data(checked).test
    line = (resolve(settings.early or ""), resolve(settings.ft or ""))
    arms = [Arm("ME only", 0.5, 0.0, None), Arm("EpiCoDe", 0.5, 1.0, "ft")]
    quick = Boost(checked, line, Store(tmp_path / "quick"), Silent())
    assert one_token_each(encoded_letters(test.rows, quick.tokenizer, None))
    scores = [quick.letters(arm, test, "test") for arm in arms]
    monkeypatch.setattr("springback.jobs.boost.scoring.one_token_each", lambda _: False)
    slow = Boost(checked, line, Store(tmp_path / "slow"), Silent())
    for arm, score in zip(arms, scores, strict=True):
        whole = slow.letters(arm, test, "test")
        assert whole.correct == score.correct
        assert whole.probability == pytest.approx(score.probability, abs=1e-5)


def test_without_choices_there_are_no_letters(settings: BoostSettings, tmp_path: Path) -> None:
    plain = replace(
        settings, validation="problems", test="problems", metric="number", write_model=False
    )
    boost(plain, tmp_path / "out")
    methods = read_json(tmp_path / "out" / "result.json")["analysis"]["methods"]
    assert not any("letter_probability" in row for row in methods)
    assert not list((tmp_path / "out" / "runs").glob("letters-*"))
