from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from springback.report.text import duration
from springback.results import provenance as module
from springback.results.provenance import PACKAGES, provenance

ROOT = Path(__file__).resolve().parents[1]
START = "2030-01-01T12:00:00+00:00"


def test_times_are_written_in_utc_with_the_seconds_between() -> None:
    # 13:30 at +01:00 is 12:30 UTC, half an hour after the start: 1800 s.
    found = provenance(started=START, finished="2030-01-01T13:30:00+01:00")
    assert found["started"] == "2030-01-01T12:00:00+00:00"
    assert found["finished"] == "2030-01-01T12:30:00+00:00"
    assert found["seconds"] == 1800


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no zone"):
        provenance(started="2030-01-01T12:00:00", finished=START)


def test_a_clock_set_back_leaves_the_times_as_they_were_and_the_seconds_unknown() -> None:
    found = provenance(started=START, finished="2030-01-01T11:59:59+00:00")
    assert found["started"] == "2030-01-01T12:00:00+00:00"
    assert found["finished"] == "2030-01-01T11:59:59+00:00"
    assert found["seconds"] is None
    assert duration(found["seconds"]) == duration(-86400.0) == ""


def test_command_keeps_arguments_but_not_where_the_program_lies() -> None:
    typed = ["/home/someone/.venv/bin/springback", "demo", "--out", "x y"]
    found = provenance(typed, started=START, finished=START)
    assert found["command"] == ["springback", "demo", "--out", "x y"]


def test_everything_is_json_and_the_machine_is_described() -> None:
    found = provenance(started=START, finished=START)
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cpu"]
    assert found["cpus"] >= 1
    assert found["threads"] >= 1
    # This process holds at least its interpreter, and fits into the machine.
    assert 5_000_000 < found["memory_peak_bytes"] < found["memory_bytes"]
    assert found["packages"]["numpy"] == importlib.metadata.version("numpy")


def test_every_runtime_dependency_is_recorded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    for_tests = ("dev", "integrations")
    wanted += [
        line for extra, lines in optional.items() if extra not in for_tests for line in lines
    ]
    names = {re.split(r"[\[>=<~!; ]", line)[0].lower() for line in wanted} - {"springback"}
    assert names <= {name.lower() for name in PACKAGES}


def test_revision_of_a_source_tree_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*args: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *args]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    # Where the module lies below the tree's top, wherever that is moved to.
    source = tmp_path / Path(module.__file__).resolve().relative_to(ROOT)
    source.parent.mkdir(parents=True)
    source.write_text("one")
    monkeypatch.setattr(module, "__file__", str(source))
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    # A repository without our pyproject.toml at its top is somebody else's.
    assert module.source_revision() == (None, None)
    (tmp_path / "pyproject.toml").write_text("")
    git("add", ".")
    git("commit", "-qm", "two")
    assert module.source_revision() == (git("rev-parse", "HEAD"), False)
    source.write_text("two")
    assert module.source_revision() == (git("rev-parse", "HEAD"), True)


def test_no_revision_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / Path(module.__file__).resolve().relative_to(ROOT)
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr(module, "__file__", str(source))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module.source_revision() == (None, None)


@pytest.mark.parametrize(("limit", "smaller"), [("1000000\n", True), ("max\n", False)])
def test_memory_is_the_container_limit_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, smaller: bool
) -> None:
    file = tmp_path / "memory.max"
    file.write_text(limit)
    monkeypatch.setattr(module, "_CGROUP_LIMIT", file)
    assert (module.total_memory() == 1_000_000) is smaller


def test_provenance_loads_nothing_heavy() -> None:
    code = (
        "import sys; from springback.results.provenance import provenance;"
        f"provenance(started={START!r}, finished={START!r}); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "springback.results.provenance" in loaded  # the list is of the right process
    assert not {"torch", "transformers", "numpy", "matplotlib"} & loaded
