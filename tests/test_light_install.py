"""The core of the wheel extrapolates; what is missing is answered by the line that installs it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from springback.errors import EXTRA_FOR, EXTRA_OF, missing_extra

#: Runs the command line as if nothing were installed but the core.  argv: arguments.
RUN = """
import importlib.abc, sys
missing = set({missing!r})
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from springback.cli import main
main()
"""


def light(*arguments: object, without: tuple[str, ...] = tuple(EXTRA_OF)) -> tuple[int, str]:
    """Exit code and what was printed, with the modules of every extra hidden."""
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(missing=without), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def checkpoints(tmp_path: Path) -> tuple[Path, Path]:
    for name, value in (("early", 1.0), ("ft", 2.0)):
        folder = tmp_path / name
        folder.mkdir()
        save_file({"w": np.full((4, 4), value, np.float32)}, folder / "model.safetensors")
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        (folder / "config.json").write_text(json.dumps(config))
    return tmp_path / "early", tmp_path / "ft"


def test_the_core_extrapolates(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    code, said = light("extrapolate", *checkpoints, "--mu", "0.5", "--out", tmp_path / "new")
    assert code == 0, said
    weights = load_file(tmp_path / "new" / "model.safetensors")["w"]
    np.testing.assert_array_equal(weights, np.full((4, 4), 2.5, np.float32))


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("report", "there"), "report"),
        (("compare", "a", "b"), "report"),
        (("track", "there", "--to", "mlflow"), "track"),
        (("audit",), "train"),
        (("demo",), "demo"),
        (("boost", "--early", "a/a", "--ft", "b/b", "--task", "gsm8k"), "torch"),
        (("generate", "a/model", "question"), "torch"),
        (("serve", "a/model"), "serve"),
        (("reproduce", "overbend"), "train"),
    ],
)
def test_a_missing_part_is_answered_by_one_line(
    arguments: tuple[str, ...], extra: str, checkpoints: tuple[Path, Path]
) -> None:
    # Folders that are there: one that is not is refused first.
    there = dict(zip("ab", checkpoints, strict=True)) | {"model": checkpoints[1]}
    code, said = light(*(there.get(word, word) for word in arguments))
    assert code == 2, said
    (line,) = said.splitlines()
    assert line.startswith(f"error: springback {arguments[0]} needs the package '")
    assert line.endswith(f"pip install 'springback[{extra}]'")


def test_public_names_say_what_to_install() -> None:
    error = missing_extra(ModuleNotFoundError("x", name="torch.nn"), "boost")
    assert error is not None
    assert str(error) == (
        "springback boost needs the package 'torch', which is not installed; "
        "install it with: pip install 'springback[torch]'"
    )


def test_faults_of_our_own_stay_faults() -> None:
    assert missing_extra(ModuleNotFoundError("x", name="springback.nowhere"), "audit") is None
    assert missing_extra(ImportError("x", name="torch"), "audit") is None


def test_extras_named_are_extras_of_the_package() -> None:
    known = set(importlib.metadata.metadata("springback").get_all("Provides-Extra") or ())
    assert {*EXTRA_OF.values(), *EXTRA_FOR.values()} <= known


def test_the_core_asks_for_nothing_heavy() -> None:
    lines = importlib.metadata.requires("springback") or []
    core = {re.split(r"[^\w-]", line)[0].lower() for line in lines if "extra ==" not in line}
    assert core == {"numpy", "safetensors", "pydantic", "pyyaml", "typer", "rich"}
