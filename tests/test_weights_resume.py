"""A call that was cut off leaves finished shards, and the same call goes on from them."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from springback.errors import SpringbackWarning, StoreError
from springback.progress import Silent
from springback.weights import ExtrapolationReport, extrapolate
from weights_files import pair, plain, read_model, write_file

FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


class CutOff(Exception):
    """What stops a call in these tests."""


class StopAfter(Silent):
    """Raises once ``tensors`` of the four are written; two are in the first shard."""

    def __init__(self, tensors: int, error: type[BaseException] = CutOff) -> None:
        self.left, self.error = tensors, error

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= steps
        if self.left == 0:
            raise self.error


class Notes(Silent):
    """Keeps what a call says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.said.append(note)


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def undisturbed(early: Path, ft: Path, root: Path) -> tuple[ExtrapolationReport, dict[str, bytes]]:
    report = extrapolate(early, ft, 0.5, root / "whole")
    return report, content(root / "whole")


@pytest.mark.parametrize("error", [CutOff, KeyboardInterrupt])
def test_the_same_call_goes_on_from_the_last_finished_shard(
    tmp_path: Path, error: type[BaseException]
) -> None:
    early, ft = pair(tmp_path)
    expected = undisturbed(early, ft, tmp_path)
    out, partial = tmp_path / "out", tmp_path / ".out.partial"
    with pytest.raises(error):
        extrapolate(early, ft, 0.5, out, progress=StopAfter(3, error))
    assert not out.exists()
    kept = (partial / "folder" / FIRST).stat()
    notes = Notes()
    report = extrapolate(early, ft, 0.5, out, progress=notes)
    again = (out / FIRST).stat()
    assert (again.st_ino, again.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    assert notes.said == [f"{FIRST} was finished before", "c", "d"]
    assert (report, content(out)) == expected
    assert not partial.exists()


def test_a_killed_process_leaves_no_output_and_its_finished_shard_is_used(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    expected = undisturbed(early, ft, tmp_path)
    code = (
        "import os, signal, sys\n"
        "from springback.progress import Silent\n"
        "from springback.weights import extrapolate\n"
        "class Die(Silent):\n"
        "    def advance(self, steps=1, note=''):\n"
        "        if note == 'c': os.kill(os.getpid(), signal.SIGKILL)\n"
        "extrapolate(*sys.argv[1:3], 0.5, sys.argv[3], progress=Die())\n"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", code, str(early), str(ft), str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    kept = (tmp_path / ".out.partial/folder" / FIRST).stat()
    report = extrapolate(early, ft, 0.5, out)
    assert (out / FIRST).stat().st_ino == kept.st_ino
    assert (report, content(out)) == expected


def test_a_kill_after_the_folder_got_its_name_leaves_a_result_that_is_recognised(
    tmp_path: Path,
) -> None:
    early, ft = pair(tmp_path)
    report = extrapolate(early, ft, 0.5, tmp_path / "out")
    (tmp_path / ".out.partial").mkdir()  # as a kill just before the last step leaves it
    (tmp_path / ".out.partial/state.json").write_text("{}")
    assert extrapolate(early, ft, 0.5, tmp_path / "out") == report
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize("which", ["early", "ft"])
def test_shards_made_from_an_input_that_changed_are_made_again(tmp_path: Path, which: str) -> None:
    early, ft = pair(tmp_path)
    with pytest.raises(CutOff):
        extrapolate(early, ft, 0.5, tmp_path / "out", progress=StopAfter(3))
    tensors = read_model(tmp_path / which)
    tensors["a"] = plain(tensors["a"][1] + np.float32(1))
    if which == "early":
        write_file(early / "model.safetensors", tensors)
    else:
        write_file(ft / FIRST, {n: tensors[n] for n in "ab"})
    expected = undisturbed(early, ft, tmp_path)
    assert (extrapolate(early, ft, 0.5, tmp_path / "out"), content(tmp_path / "out")) == expected


def test_shards_of_other_settings_are_made_again(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    expected = undisturbed(early, ft, tmp_path)
    for mu, dtype in ((0.4, "auto"), (0.5, "bfloat16")):
        out = tmp_path / f"out-{dtype}"
        with pytest.raises(CutOff):
            extrapolate(early, ft, mu, out, dtype=dtype, progress=StopAfter(3))  # type: ignore[arg-type]
        assert (extrapolate(early, ft, 0.5, out), content(out)) == expected


def test_a_damaged_shard_is_made_again(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    expected = undisturbed(early, ft, tmp_path)
    out = tmp_path / "out"
    with pytest.raises(CutOff):
        extrapolate(early, ft, 0.5, out, progress=StopAfter(3))
    shard = tmp_path / ".out.partial/folder" / FIRST
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    assert (extrapolate(early, ft, 0.5, out), content(out)) == expected


@pytest.mark.parametrize("state", ["", "{}", '{"key": 1}', "[]", '{"shards": {"x": 1}}'])
def test_a_state_file_that_says_nothing_useful_means_a_fresh_start(
    tmp_path: Path, state: str
) -> None:
    other = state == '{"key": 1}'  # whole, and of other settings
    said = (
        nullcontext() if other else pytest.warns(SpringbackWarning, match="state.json is damaged")
    )
    early, ft = pair(tmp_path)
    expected = undisturbed(early, ft, tmp_path)
    with pytest.raises(CutOff):
        extrapolate(early, ft, 0.5, tmp_path / "out", progress=StopAfter(3))
    (tmp_path / ".out.partial/state.json").write_text(state)
    (tmp_path / ".out.partial/folder/stray.json").write_text("not ours")
    with said:
        report = extrapolate(early, ft, 0.5, tmp_path / "out")
    assert (report, content(tmp_path / "out")) == expected


def test_sums_in_the_state_that_are_no_numbers_are_made_again(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    expected = undisturbed(early, ft, tmp_path)
    with pytest.raises(CutOff):
        extrapolate(early, ft, 0.5, tmp_path / "out", progress=StopAfter(3))
    path = tmp_path / ".out.partial/state.json"
    state = json.loads(path.read_text())
    for shard in state["shards"].values():
        shard["tally"]["changed"] = "many"
    path.write_text(json.dumps(state))
    with pytest.warns(SpringbackWarning, match="state.json is damaged"):
        report = extrapolate(early, ft, 0.5, tmp_path / "out")
    assert (report, content(tmp_path / "out")) == expected


def test_two_processes_do_not_write_the_same_output(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    with (partial / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another springback process is writing"):
            extrapolate(early, ft, 0.5, tmp_path / "out")
    extrapolate(early, ft, 0.5, tmp_path / "out")
    assert (tmp_path / "out").is_dir()


def test_a_write_that_the_system_refuses_is_one_line_and_can_be_gone_on_from(
    tmp_path: Path,
) -> None:
    early, ft = pair(tmp_path)
    write_file(ft / FIRST, {n: read_model(ft)[n] for n in "a"})  # 4 kB: fits below the limit
    tensors = read_model(early)
    write_file(early / "model.safetensors", {n: tensors[n] for n in "acd"})
    index = ft / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(f'"b": "{FIRST}", ', ""))
    out = tmp_path / "out"

    limit = 6000  # bytes a file may have; the second shard is larger
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StoreError, match="cannot write") as caught:
            extrapolate(early, ft, 0.5, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    kept = os.stat(tmp_path / ".out.partial/folder" / FIRST)
    extrapolate(early, ft, 0.5, out)
    assert (out / FIRST).stat().st_ino == kept.st_ino
