"""Paths that are not UTF-8 are read, written and told like any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from springback.results.store import read_json, write_json
from weights_files import pair

ODD = os.fsdecode(b"bad\xff")


def test_json_that_names_such_a_path_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {ODD: [ODD]})
    assert read_json(tmp_path / "x.json") == {ODD: [ODD]}


def test_extrapolate_takes_and_makes_folders_of_any_name(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    ft = ft.rename(tmp_path / ODD)
    out = tmp_path / (ODD + "-out")
    words = ["extrapolate", str(early), str(ft), "--mu", "0.5", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "springback.cli", *words],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert b"bad\\udcff-out" in done.stdout
    (record,) = out.glob("springback*.json")
    assert ODD in json.dumps(json.loads(record.read_text()), ensure_ascii=False)
