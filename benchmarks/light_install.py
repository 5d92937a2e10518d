"""Claim: without torch the package takes 150 MB, with what draws pages 400 MB.

Builds the wheel, installs it alone into one empty environment and with ``[report]`` into another,
versions as pinned, nothing from pip's cache, and measures what then lies in site-packages.  Needs a
package index.  Writes --out; exits 1 if the claim does not hold.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from springback.results.provenance import now, provenance
from springback.results.store import write_json

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "light_install.json"
#: Extras -> the most that they may take, MB.
CLAIMS = {"": 150, "[report]": 400}


def build_wheel(folder: Path) -> Path:
    """The package's wheel, built into ``folder`` with what is installed here."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, stdout=subprocess.DEVNULL, timeout=120)
    (built,) = folder.glob("springback-*.whl")
    return built


def new_environment(folder: Path) -> Path:
    """Make an empty environment with pip; its Python."""
    venv.create(folder, with_pip=True, symlinks=True)
    return folder / "bin" / "python"


def install_command(python: Path, wheel: Path, extras: str = "") -> list[str]:
    """What installs the wheel at the versions that are pinned."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
    what = f"springback{extras} @ {wheel.as_uri()}" if extras else str(wheel)
    return [*command, "-c", str(ROOT / "constraints.txt"), what]


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file for the result")
    out: Path = parser.parse_args().out
    started = now()
    installed = {}
    with tempfile.TemporaryDirectory() as place:
        wheel = build_wheel(Path(place))
        size = wheel.stat().st_size / 1e6
        for number, (extras, most) in enumerate(CLAIMS.items()):
            environment = Path(place, f"venv-{number}")
            command = [*install_command(new_environment(environment), wheel, extras)]
            began = time.perf_counter()
            subprocess.run([*command, "--no-cache-dir"], check=True, cwd=place, timeout=1200)
            installed[f"springback{extras}"] = {
                "megabytes": round(megabytes(environment), 1),
                "seconds": round(time.perf_counter() - began, 1),
                "at_most": most,
            }
    holds = all(one["megabytes"] < one["at_most"] for one in installed.values())
    write_json(
        out,
        {
            "claim": "MB in site-packages without pip and setuptools: "
            + ", ".join(f"springback{extras} under {most}" for extras, most in CLAIMS.items()),
            "holds": holds,
            "wheel_megabytes": round(size, 2),
            "installed": installed,
            "provenance": provenance(started=started, finished=now()),
        },
    )
    for name, one in installed.items():
        print(f"{name}: {one['megabytes']:.0f} MB, installed in {one['seconds']:.0f} s")
    print(f"claim: {'holds' if holds else 'FAILS'}; written to {out}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
