"""Every command takes the same flags for its output; some take a study file in place of flags."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import load_file, save_file

from springback.cli import output
from springback.cli.app import app
from springback.cli.study_file import as_arguments, is_study
from springback.errors import SpringbackError, did_you_mean


def springback(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "springback.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two checkpoints and a file that extrapolates them."""
    for name, value in (("early", 1.0), ("ft", 2.0)):
        (tmp_path / name).mkdir()
        save_file({"w": np.full((4, 4), value, np.float32)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
    file = tmp_path / "study.yaml"
    folders = f"[{tmp_path / 'early'}, {tmp_path / 'ft'}]"
    file.write_text(f"out: {tmp_path / 'new'}\ncheckpoints: {folders}\nmu: 0.5\n")
    return file


def test_a_study_file_is_flags_and_a_flag_wins(study: Path, tmp_path: Path) -> None:
    done = springback("extrapolate", study)
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "new" / "model.safetensors")["w"][0, 0] == 2.5
    done = springback("extrapolate", study, "--mu", "1", "--out", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "other" / "model.safetensors")["w"][0, 0] == 3.0


def test_json_is_one_line_and_the_rest_goes_to_standard_error(study: Path, tmp_path: Path) -> None:
    done = springback("extrapolate", study, "--json")
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["model"] == str(tmp_path / "new")
    assert "model:" in done.stderr
    done = springback("--json", "extrapolate", tmp_path / "early", tmp_path / "nowhere", "--check")
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["error"] in done.stderr


def test_quiet_says_the_result_alone(study: Path) -> None:
    done = springback("extrapolate", study, "-q")
    assert done.stderr == ""
    assert "model:" in done.stdout


def test_version_and_completion_are_there() -> None:
    assert springback("--version").stdout.startswith("springback 0.")
    assert "--install-completion" in springback("--help").stdout


def test_flags_of_every_command_are_taken_off_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    assert output.read_output(["audit", "-q", "--json", "--no-color", "--seeds", "1"]) == [
        "audit",
        "--seeds",
        "1",
    ]
    assert output.OUTPUT.quiet
    assert output.OUTPUT.json
    # Other software's words, and what stands behind --, are not ours.
    passed = ["lm-eval", "run", "--json", "-q"]
    assert output.read_output(passed) == passed
    assert output.read_output(["generate", "m", "--", "-q"]) == ["generate", "m", "--", "-q"]
    assert not output.OUTPUT.quiet


@pytest.mark.parametrize("command", ["check", "generate", "serve", "extrapolate"])
def test_every_flag_of_a_command_can_stand_in_its_file(command: str, tmp_path: Path) -> None:
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    for parameter in parameters:
        if parameter.name == "help":
            continue
        file = tmp_path / "one.yaml"
        own = parameter.param_type_name == "argument"
        name = parameter.name if own else parameter.opts[0].lstrip("-")
        file.write_text(f"{name}: {'true' if getattr(parameter, 'is_flag', False) else 'x'}\n")
        flags, arguments = as_arguments(str(file), parameters)
        assert arguments == (["x"] if own else [])
        assert own or flags[0] in parameter.opts


def test_what_check_shows_is_a_file_that_it_takes(tmp_path: Path) -> None:
    words = ["--texts", "passages,a.txt", "--choices", "", "--no-kl", "--field", "text=body"]
    words += ["--chat-template-args", "enable_thinking=false", "--text-rows", "7"]
    shown = springback("check", "smollm2-135m", "org/tuned", *words, "--show")
    assert shown.returncode == 0, shown.stderr
    file = tmp_path / "study.yaml"
    file.write_text(shown.stdout)
    again = springback("check", file, "--show")
    assert again.stdout == shown.stdout, again.stderr
    assert "text_rows: 9" in springback("check", file, "--text-rows", "9", "--show").stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_new_token: 3", "did you mean max_new_tokens?"),
        ("stream: perhaps", "give true or false"),
        ("model: {a: {b: c}}", "give a text"),
        ("- a list", "holds no settings"),
    ],
)
def test_a_wrong_file_is_told_by_its_name(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    parameters = typer.main.get_command(app).commands["generate"].params  # type: ignore[attr-defined]
    with pytest.raises(SpringbackError, match=said.replace("?", r"\?")) as error:
        as_arguments(str(file), parameters)
    assert "wrong.yaml" in str(error.value)


def test_a_folder_of_that_name_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").mkdir()
    assert not is_study(str(tmp_path / "model.yaml"))
    assert is_study(str(tmp_path / "study.yaml"))


def test_near_names_are_proposed() -> None:
    assert did_you_mean("n-poss", ["n_pos", "doses"]) == " (did you mean n_pos?)"
    assert did_you_mean("nothing", ["n_pos", "doses"]) == ""
