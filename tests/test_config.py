"""Settings from flags and study files: every default visible, wrong ones named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from springback.errors import SpringbackError
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.config import build, flag_of, kinds, read_study, show


@pytest.mark.parametrize("settings", [AuditSettings(), BoostSettings()])
def test_shown_settings_read_back_as_they_are(settings: Any, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(show(settings))
    values = read_study(path)
    assert list(values) == [f.name for f in dataclasses.fields(settings)]
    assert build(type(settings), values) == settings


def test_text_as_typed_becomes_what_the_setting_is() -> None:
    made = build(AuditSettings, {"n_pos": "8, 16", "learning_rate": "1e-5", "mix": "0.5,1"})
    assert (made.n_pos, made.learning_rate, made.mix) == ((8, 16), 1e-5, (0.5, 1.0))
    made = build(AuditSettings, {"seeds": 3, "fields": {"text": "review"}})
    assert (made.seeds, made.fields) == ((3,), {"text": "review"})


def test_yaml_reads_1e_5_as_text_and_it_is_still_a_number(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("learning_rate: 1e-5\nn_pos: [8, 16]\n")
    assert read_study(path)["learning_rate"] == "1e-5"
    assert build(AuditSettings, read_study(path), file="study.yaml").learning_rate == 1e-5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_pos": "many"}, "--n-pos is 'many'; give whole numbers"),
        ({"n_pos": [8, 2.5]}, "whole numbers"),
        ({"learning_rate": "nan"}, "--learning-rate is 'nan'; give a number"),
        ({"epsilon": "inf"}, "give a number"),
        ({"colour": "red"}, "'colour'; allowed: model"),
        ({"fields": "text"}, "--field is 'text'; give pairs"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SpringbackError, match=words):
        build(AuditSettings, values)


def test_a_wrong_setting_of_a_file_names_the_file() -> None:
    with pytest.raises(SpringbackError, match=r"n_pos in study\.yaml is 'many'"):
        build(AuditSettings, {"n_pos": "many"}, file="study.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [("- a\n- b\n", "but a list"), ("a: [1\n", "not YAML"), ("1: 2\n", "no settings")],
)
def test_a_study_file_that_is_none_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(SpringbackError, match=words):
        read_study(path)
    with pytest.raises(SpringbackError, match="No such file"):
        read_study(tmp_path / "nowhere.yaml")


def test_every_setting_has_a_help_and_a_flag_of_its_own() -> None:
    for settings in (AuditSettings, BoostSettings):
        fields = dataclasses.fields(settings)
        assert all(f.metadata["help"] for f in fields)
        flags = [flag_of(settings, f.name) for f in fields]
        assert len(set(flags)) == len(flags)
    assert flag_of(BoostSettings, "lam_cd") == "cd-lambda"
    assert kinds(AuditSettings)["n_pos"] == "ints"
    assert kinds(BoostSettings)["train_rows"] == "int"
