"""Settings from flags and study files: every default visible, wrong ones named."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from springback.cli.app import app
from springback.cli.flags import FIRST, OTHER
from springback.elasticity.audit_values import FREE
from springback.errors import SpringbackError
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.config import build, flag_of, kinds, read_study, show
from springback.settings import Changes, names_changing, owner_of


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


def test_every_setting_says_what_it_changes_and_belongs_to_a_group() -> None:
    words = typing.get_args(Changes)
    for settings in (AuditSettings, BoostSettings):
        names = [f.name for f in dataclasses.fields(settings)]
        assert list(names_changing(settings, *words)) == names
        assert all(owner_of(settings, name) is not settings for name in names)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (("model", "seed", "measurement", "nothing"),
         "early ft run seed precheck reopen_test reference difficulty write_model keep_pair device "
         "device_map checkpoint_activations vllm_python"),
        (("training",), "model train train_rows learning_rate train_batch_size epochs "
         "lora_rank lora_alpha precision"),
        (("decoding",), "mu lam lam_cd alpha max_new_tokens max_tokens batch_size samples "
         "temperature dtype quantize engine"),
        (("method", "prompt"),
         "task prompt_template system chat_template_args system_in_user search narrow "
         "choose_by one_se positive ablate_weak gate rewind baselines"),
    ],
)  # fmt: skip
def test_records_and_run_ids_of_a_boost_stay(changes: tuple[Changes, ...], names: str) -> None:
    """What is written of an opened test set, and what names a seed's run: moving a setting from
    one of these to another makes old records others."""
    assert set(names_changing(BoostSettings, *changes)) == set(names.split())


def test_a_study_is_the_same_with_another_model_seed_or_machine() -> None:
    assert set(FREE) == set(names_changing(AuditSettings, "model", "seed", "nothing"))
    assert FREE == (
        "model",
        "revision",
        "base",
        "seeds",
        "save_every",
        "accelerate",
        "checkpoint_activations",
        "probe_processes",
        "device",
        "device_map",
        "controls",
        "keep_samples",
    )


@pytest.mark.parametrize("command", ["audit", "boost", "reproduce", "generate", "extrapolate"])
def test_the_help_begins_with_ten_flags_at_most_and_groups_the_rest(command: str) -> None:
    text = CliRunner().invoke(app, [command, "--help"]).stdout
    groups: dict[str, list[str]] = {}
    for line in text.splitlines():
        if title := re.fullmatch(r"(\S.*):", line):
            groups[title[1]] = []
        elif groups and (flag := re.match(r"  --([a-z-]+)", line)):
            groups[list(groups)[-1]].append(flag[1])
    assert list(groups)[1 if "Arguments" in groups else 0] == FIRST
    assert list(groups)[-1] == OTHER
    assert 0 < len(groups[FIRST]) <= 10
    every = [flag for flags in groups.values() for flag in flags]
    assert len(set(every)) == len(every)
    settings = {"audit": AuditSettings, "boost": BoostSettings}.get(command)
    for f in dataclasses.fields(settings) if settings else ():
        [group] = [title for title, flags in groups.items() if flag_of(settings, f.name) in flags]  # type: ignore[arg-type]
        assert group in (FIRST, owner_of(settings, f.name).group)  # type: ignore[arg-type]
    assert set(groups[OTHER]) <= {"track", "push", "show", "show-prompt", "stats", "help"}
