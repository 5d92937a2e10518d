"""Builds a release and checks it; ends before any upload, with the line that would do it.

    python tools/release.py [--rehearse] [--out dist]

Version, changelog and tag agree, the tree is committed; wheel and sdist hold what git knows and
nothing else; their metadata pass ``twine check --strict``; the wheel, installed into an empty
environment, runs.  ``--rehearse`` leaves out what only a release has: date, tag, a committed tree.
Needs a package index.  Exits 1 with a line for each fault.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from light_install import ROOT, install_command, new_environment

#: What checks the metadata; installed into an environment of its own.
TWINE = "twine==6.2.0"
#: What a source archive must hold at least.
NEEDED = ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "src/springback/__init__.py")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SECTION = re.compile(r"^## (\S+) \((.+)\)$", re.MULTILINE)
#: Extrapolates two checkpoints of one tensor, as an installed package.
TRY = """
import json, numpy, pathlib, safetensors.numpy as s, springback
for name, value in (("early", 1.0), ("ft", 2.0)):
    pathlib.Path(name).mkdir()
    s.save_file({"w": numpy.full((4, 4), value, "f4")}, name + "/model.safetensors")
    pathlib.Path(name, "config.json").write_text(json.dumps({"model_type": "llama"}))
springback.extrapolate("early", "ft", 0.5, "new")
assert s.load_file("new/model.safetensors")["w"][0, 0] == 2.5
print(springback.__version__)
"""


def version_faults(root: Path, rehearse: bool) -> tuple[str, list[str]]:
    """The version of ``root``'s pyproject.toml, and what does not agree with it."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version, faults = str(project["version"]), []
    if not _VERSION.fullmatch(version):
        faults.append(f"pyproject.toml has version {version}; a release has three numbers")
    source = (root / "src" / "springback" / "__init__.py").read_text(encoding="utf-8")
    if f'__version__ = "{version}"' not in source:
        faults.append(f"src/springback/__init__.py has another __version__ than {version}")
    section = _SECTION.search((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    newest, date = section.groups() if section else ("none", "")
    if newest != version:
        faults.append(f"the newest section of CHANGELOG.md is {newest}, the version {version}")
    elif not rehearse and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        faults.append(f"CHANGELOG.md has {version} ({date}); put the day of the release there")
    return version, faults


def git_faults(root: Path, version: str) -> list[str]:
    """What of ``root`` is not committed, or not tagged ``vVERSION``."""
    faults = []
    if changed := _git(root, "status", "--porcelain").splitlines():
        faults.append(f"{len(changed)} files are not as committed, such as {changed[0][3:]}")
    if f"v{version}" not in _git(root, "tag", "--points-at", "HEAD").split():
        faults.append(f"no tag v{version} on this commit; make it: git tag -a v{version}")
    return faults


def content_faults(
    names: Iterable[str], tracked: Iterable[str], needed: Iterable[str]
) -> list[str]:
    """Of an archive's files: what git does not know, and what is lacking."""
    inside = {*names}
    stray, lacking = sorted(inside - {*tracked}), sorted({*needed} - inside)
    return [
        *(f"{name} is in the archive and not in git" for name in stray),
        *(f"{name} is not in the archive" for name in lacking),
    ]


def archive_faults(root: Path, wheel: Path, sdist: Path, version: str) -> list[str]:
    """What is wrong with the contents of wheel and sdist."""
    tracked = _git(root, "ls-files").splitlines()
    package = [name for name in tracked if name.startswith("src/springback/")]
    top = f"springback-{version}/"
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
    outside = [m.name for m in members if not m.name.startswith(top) or not m.isfile()]
    names = [m.name.removeprefix(top) for m in members]
    faults = [f"{name} in {sdist.name} is no file below {top}" for name in outside]
    faults += content_faults(names, [*tracked, "PKG-INFO"], [*NEEDED, *package])
    with zipfile.ZipFile(wheel) as packed:
        held = [f"src/{name}" for name in packed.namelist() if ".dist-info/" not in name]
    return faults + content_faults(held, tracked, package)


def build(root: Path, out: Path) -> tuple[Path, Path]:
    """Wheel and sdist; the wheel is built of the sdist, so that shows that it is complete."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def run_faults(wheel: Path, place: Path, version: str) -> list[str]:
    """What the wheel does wrong in an empty environment."""
    python = new_environment(place / "empty")
    steps = [
        install_command(python, wheel),
        [str(python.with_name("springback")), "--help"],
        [str(python.with_name("springback")), "--version"],
        [str(python), "-c", TRY],
    ]
    said = ""
    for step in steps:
        done = _try(step, place)
        if done.returncode:
            return [f"{Path(step[0]).name} {step[1]} ... failed: {_last(done)}"]
        said = done.stdout.split()[-1] if done.stdout.split() else said
        if step[-1] == "--version" and said != version:
            return [f"springback --version says {said}, not {version}"]
    return [] if said == version else [f"springback.__version__ is {said}, not {version}"]


def metadata_faults(files: Iterable[Path], place: Path) -> list[str]:
    """What twine, installed into an environment of its own, says of the files' metadata."""
    python = new_environment(place / "twine")
    install = [str(python), "-m", "pip", "install", "--quiet", TWINE]
    check = [str(python), "-m", "twine", "check", "--strict", *map(str, files)]
    for step in (install, check):
        done = _try(step, place)
        if done.returncode:
            return [f"{' '.join(step[2:5])} ... failed: {_last(done)}"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder; must be empty")
    parser.add_argument("--rehearse", action="store_true", help="without date, tag, commit")
    asked = parser.parse_args()
    version, faults = version_faults(ROOT, asked.rehearse)
    faults += [] if asked.rehearse else git_faults(ROOT, version)
    if asked.out.exists() and any(asked.out.iterdir()):
        faults.append(f"{asked.out} is not empty; remove what is in it")
    if not faults:
        wheel, sdist = build(ROOT, asked.out)
        with tempfile.TemporaryDirectory() as place:
            faults += archive_faults(ROOT, wheel, sdist, version)
            faults += metadata_faults((wheel, sdist), Path(place))
            faults += run_faults(wheel, Path(place), version)
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    if faults:
        return 1
    for file in (wheel, sdist):
        print(f"built and checked: {file} ({file.stat().st_size / 1e6:.1f} MB)")
    if asked.rehearse:
        print("a rehearsal: date, tag and commit were not looked at")
    else:
        print(f"nothing is uploaded; that would be: twine upload {wheel} {sdist}")
    return 0


def _git(root: Path, *words: str) -> str:
    command = ["git", "-c", "core.quotepath=off", "-C", str(root), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def _try(command: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())
