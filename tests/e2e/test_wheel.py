"""What a stranger gets from ``pip install``: the built wheel, in an empty environment.

Needs a package index (network, or pip's own settings) and a few minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    run([*command, str(ROOT)], timeout=120)
    (built,) = folder.glob("springback-*.whl")
    return built


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


def megabytes(environment: Path) -> float:
    """What lies in its site-packages, in MB, but for pip and setuptools, which came with it."""
    (packages,) = environment.glob("lib/python*/site-packages")
    files = (
        path
        for folder in packages.iterdir()
        if not folder.name.startswith(("pip", "setuptools", "pkg_resources", "_distutils_hack"))
        for path in (folder, *folder.rglob("*"))
    )
    return sum(path.lstat().st_size for path in files if path.is_file()) / 1e6


def test_the_wheel_alone_extrapolates_and_stays_light(wheel: Path, tmp_path: Path) -> None:
    env = stranger(tmp_path / "home")
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    programs = tmp_path / "venv" / "bin"
    install = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    install += ["-c", str(ROOT / "constraints.txt")]
    run([*install, str(wheel)], timeout=600, env=env, cwd=tmp_path)
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
    run([*install, f"springback[report] @ {wheel.as_uri()}"], timeout=600, env=env, cwd=tmp_path)
    assert megabytes(tmp_path / "venv") < 400
    finished = tmp_path / "finished"
    finished.mkdir()
    result = (ROOT / "docs" / "results" / "audit-default" / "result.json").read_bytes()
    (finished / "result.json").write_bytes(result)
    run([str(programs / "springback"), "report", str(finished)], timeout=120, env=env, cwd=tmp_path)
    assert (finished / "report.html").stat().st_size > 10_000


def test_quick_demo_from_the_wheel_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    env = stranger(home)
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    programs = tmp_path / "venv" / "bin"
    install = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    install += ["-c", str(ROOT / "constraints.txt"), f"springback[demo] @ {wheel.as_uri()}"]
    run(install, timeout=1200, env=env, cwd=tmp_path)

    out = tmp_path / "out"
    demo = [str(programs / "springback"), "demo", "--quick", "--out", str(out)]
    printed = run(demo, timeout=900, env=env, cwd=tmp_path)

    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert result["schema_version"] == 1
    # An installed copy is no source tree: nothing of the clone beside it was used.
    assert result["provenance"]["git_revision"] is None
    assert (out / "report.html").stat().st_size > 10_000
    assert str(out / "report.html") in printed.replace("\n", "")
