"""The release script: built archives are whole and run, and what does not agree is named.

Needs a package index (network, or pip's own settings).
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import release
from light_install import ROOT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small project that agrees with itself, committed and tagged."""
    root = tmp_path / "project"
    (root / "src" / "springback").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\nname = "springback"\nversion = "1.2.3"\n')
    (root / "src" / "springback" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2026-01-02)\n\n## 1.2.2 (old)\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"], ["tag", "v1.2.3"]):
        git(root, *words)
    return root


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(root), *who, *words], check=True)


def test_a_tree_that_agrees_has_no_fault(tree: Path) -> None:
    assert release.version_faults(tree, rehearse=False) == ("1.2.3", [])
    assert release.git_faults(tree, "1.2.3") == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("pyproject.toml", '[project]\nversion = "1.2.3.dev0"\n', "a release has three numbers"),
        ("pyproject.toml", '[project]\nversion = "1.2.4"\n', "another __version__ than 1.2.4"),
        ("src/springback/__init__.py", '__version__ = "1.2.2"\n', "another __version__ than 1.2.3"),
        ("CHANGELOG.md", "## 1.2.2 (2025-12-01)\n", "newest section of CHANGELOG.md is 1.2.2"),
        ("CHANGELOG.md", "none\n", "newest section of CHANGELOG.md is none"),
        ("CHANGELOG.md", "## 1.2.3 (unreleased)\n", "put the day of the release there"),
    ],
)
def test_versions_that_differ_are_named(tree: Path, file: str, text: str, fault: str) -> None:
    (tree / file).write_text(text)
    _, faults = release.version_faults(tree, rehearse=False)
    assert fault in faults[0] or fault in faults[1]
    assert "not as committed" in release.git_faults(tree, "1.2.3")[0]
    if "unreleased" in text:
        assert release.version_faults(tree, rehearse=True)[1] == []


def test_a_tag_elsewhere_is_no_tag(tree: Path) -> None:
    (tree / "more").write_text("")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "more")
    (fault,) = release.git_faults(tree, "1.2.3")
    assert "no tag v1.2.3 on this commit" in fault


def test_stray_and_missing_files_are_named() -> None:
    faults = release.content_faults(["a", "notes.txt"], ["a", "b"], ["b"])
    assert faults == ["notes.txt is in the archive and not in git", "b is not in the archive"]


def test_this_tree_is_built_checked_and_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "release.py"), "--rehearse", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "a rehearsal" in done.stdout.splitlines()[-1]
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*release.NEEDED, "tests/conftest.py", "constraints.txt", "Makefile"} <= names
    assert not [name for name in names if name.startswith((".ci", "docs/results"))]
    again = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "release.py"), "--rehearse", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert again.returncode == 1
    assert "is not empty" in again.stderr
