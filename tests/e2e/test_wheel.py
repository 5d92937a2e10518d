"""What a stranger gets from ``pip install``: the built wheel, in an empty environment.

Needs a package index (network, or pip's own settings) and a few minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from light_install import ROOT, build_wheel, install_command, megabytes, new_environment

SOURCE = ROOT / "src" / "springback"


def run(command: list[str], timeout: float, **options: object) -> str:
    """Standard output of a command that must succeed; its last words if it does not."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{command} exited {done.returncode}:\n{done.stdout[-4000:]}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    in_tree = {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    in_wheel = {name for name in names if name.startswith("springback/")}
    assert in_wheel == in_tree
    assert "springback/py.typed" in in_wheel
    assert [name for name in in_wheel if ".html" in Path(name).name], "no report template"
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def stranger(home: Path) -> dict[str, str]:
    """The environment of someone who has never run springback: no caches but pip's own."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "HF_HUB_OFFLINE")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    return env | {"SPRINGBACK_CACHE": str(home / "springback"), "HF_HOME": str(home / "hf")}


def test_the_wheel_alone_extrapolates_and_stays_light(wheel: Path, tmp_path: Path) -> None:
    env = stranger(tmp_path / "home")
    python = new_environment(tmp_path / "venv")
    programs = python.parent
    run(install_command(python, wheel), timeout=600, env=env, cwd=tmp_path)
    assert megabytes(tmp_path / "venv") < 150

    make = (
        "import json, numpy, pathlib, safetensors.numpy as s\n"
        "for name, value in (('early', 1.0), ('ft', 2.0)):\n"
        "    pathlib.Path(name).mkdir()\n"
        "    s.save_file({'w': numpy.full((4, 4), value, 'f4')}, name + '/model.safetensors')\n"
        "    pathlib.Path(name, 'config.json').write_text(json.dumps({'model_type': 'llama'}))\n"
    )
    run([str(programs / "python"), "-c", make], timeout=60, env=env, cwd=tmp_path)
    extrapolate = [str(programs / "springback"), "extrapolate", "early", "ft", "--mu", "0.5"]
    run([*extrapolate, "--out", "new"], timeout=60, env=env, cwd=tmp_path)
    read = "import safetensors.numpy as s; print(s.load_file('new/model.safetensors')['w'][0, 0])"
    done = run([str(programs / "python"), "-c", read], timeout=60, env=env, cwd=tmp_path)
    assert float(done) == 2.5

    # With what draws pages: still without torch.
    run(install_command(python, wheel, "[report]"), timeout=600, env=env, cwd=tmp_path)
    assert megabytes(tmp_path / "venv") < 400
    finished = tmp_path / "finished"
    finished.mkdir()
    result = (ROOT / "docs" / "results" / "audit-default" / "result.json").read_bytes()
    (finished / "result.json").write_bytes(result)
    run([str(programs / "springback"), "report", str(finished)], timeout=120, env=env, cwd=tmp_path)
    assert (finished / "report.html").stat().st_size > 10_000


def test_quick_demo_and_check_from_the_wheel_in_an_empty_environment(
    wheel: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    env = stranger(home)
    python = new_environment(tmp_path / "venv")
    programs = python.parent
    run(install_command(python, wheel, "[demo]"), timeout=1200, env=env, cwd=tmp_path)

    out = tmp_path / "out"
    demo = [str(programs / "springback"), "demo", "--quick", "--out", str(out)]
    printed = run(demo, timeout=900, env=env, cwd=tmp_path)

    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert result["schema_version"] == 1
    # An installed copy is no source tree: nothing of the clone beside it was used.
    assert result["provenance"]["git_revision"] is None
    assert (out / "report.html").stat().st_size > 10_000
    assert str(out / "report.html") in printed.replace("\n", "")

    tuned = max((out / "boost" / "checkpoints").glob("*/epoch-*"))
    check = [str(programs / "springback"), "check", "smollm2-135m", str(tuned)]
    check += ["--texts", "passages", "--text-rows", "8", "--choices", "", "--prompts", ""]
    check += [
        "--harmful",
        "requests:harmful",
        "--prompt-rows",
        "4",
        "--out",
        str(tmp_path / "check"),
    ]
    printed = run(check, timeout=300, env=env, cwd=tmp_path)
    assert "bits per byte (passages)" in printed.replace("\n", " ")
    assert (tmp_path / "check" / "report.html").stat().st_size > 10_000
