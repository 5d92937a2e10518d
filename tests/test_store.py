"""Results appear whole or not at all, and are found again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from springback.core import Run
from springback.errors import SpaceError, SpringbackWarning, StoreError
from springback.results.store import (
    Store,
    require_space,
    whole_file,
    whole_folder,
    write_text,
)

RUN = Run.of("align", rows="abc", seed=1)


def test_a_run_is_found_again_with_its_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.results(RUN) is None
    assert store.commit(RUN, {"value": 0.1, "pairs": (1, 2)}) == {"value": 0.1, "pairs": [1, 2]}
    assert Store(tmp_path).results(RUN) == {"value": 0.1, "pairs": [1, 2]}


def test_where_runs_were_made_is_told_and_changes_nothing_in_them(tmp_path: Path) -> None:
    """One made here, one that knows by whom it was made, one that does not; two machines."""
    other, bare = (Run.of("align", rows="abc", seed=seed) for seed in (2, 3))
    before = Store(tmp_path)
    for run in (other, bare):
        before.commit(run, {"value": 1})
    (tmp_path / "runs" / bare.name / "made.json").unlink()
    facts = {
        "finished": "2025-03-14T09:26:53+00:00",
        "springback": "0.1.0",
        "git_revision": None,
        "cpu": "another processor",
        "threads": 8,
        "gpu": "some GPU",
    }
    (tmp_path / "runs" / other.name / "made.json").write_text(json.dumps(facts))
    store = Store(tmp_path)
    assert store.origins()["made"] == store.origins()["read"] == 0
    assert store.results(RUN) is None
    for run in (other, bare):
        assert store.results(run) == {"value": 1}
    record = (tmp_path / "runs" / bare.name / "run.json").read_text()
    store.commit(RUN, {"value": 2})
    assert store.results(RUN) == {"value": 2}
    found = store.origins()
    assert (found["made"], found["read"], found["unknown"]) == (1, 2, 1)
    assert found["first"] == facts["finished"] < found["last"]
    assert len(found["machines"]) == 2
    assert "some GPU, another processor, 8 threads" in found["machines"]
    assert "0.1.0" in found["revisions"]
    assert Store(tmp_path / "b").commit(bare, {"value": 1}) == {"value": 1}
    assert (tmp_path / "b" / "runs" / bare.name / "run.json").read_text() == record


def test_run_ids_follow_the_inputs_and_nothing_else() -> None:
    assert Run.of("align", seed=1, rows="abc").id == RUN.id
    assert Run.of("align", rows="abc", seed=2).id != RUN.id
    assert Run.of("perturb", rows="abc", seed=1).id != RUN.id


def test_a_failed_block_leaves_no_folder(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "x") as tmp:
            (tmp / "part").write_text("half")
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="the disk failed"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    (tmp_path / "runs" / ".align-x.1234.tmp").mkdir(parents=True)
    with Store(tmp_path).locked():
        assert list((tmp_path / "runs").iterdir()) == []


def test_a_folder_made_for_what_is_then_refused_goes_again(tmp_path: Path) -> None:
    def refused(root: Path, file: str | None = None) -> None:
        with Store(root).locked() as store:
            store.checkpoint(RUN, "early").mkdir(parents=True)
            if file:
                write_text(root / file, "kept")
            raise StoreError("no")

    for root, file in ((tmp_path / "new", None), (tmp_path / "full", "ledger.json")):
        with pytest.raises(StoreError, match="no"):
            refused(root, file)
        assert root.exists() == bool(file)
    (tmp_path / "mine").mkdir()
    with pytest.raises(StoreError, match="no"):
        refused(tmp_path / "mine")
    assert (tmp_path / "mine").exists()


def test_two_processes_cannot_write_to_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom springback.results.store import Store\n"
        "with Store(sys.argv[1]).locked():\n    print('held', flush=True)\n    input()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ},
    )
    assert other.stdout is not None
    assert other.stdin is not None
    with other:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(StoreError, match="another springback process"),
            Store(tmp_path).locked(),
        ):
            pass
        other.kill()
    with Store(tmp_path).locked():  # the lock ended with the process
        pass


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"kind": "align", "id"',
        b"\xff\xfe",
        b"[" * 5000,
        b"9" * 5000,
        b"[]",
        b"null",
        b'{"results": {}}',
        json.dumps({"id": RUN.id}).encode(),
        json.dumps({"id": RUN.id, "results": None}).encode(),
        json.dumps({"id": RUN.id, "results": [1, 2]}).encode(),
    ],
)
def test_a_damaged_result_is_said_and_made_again(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.commit(RUN, {"value": 1})
    path = tmp_path / "runs" / RUN.name / "run.json"
    path.write_bytes(content)
    with pytest.warns(SpringbackWarning, match="damaged and counts for nothing") as warned:
        assert Store(tmp_path).results(RUN) is None
    assert str(path) in str(warned[0].message)
    store.commit(RUN, {"value": 1})
    assert Store(tmp_path).results(RUN) == {"value": 1}


def test_facts_of_other_types_count_as_unknown_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(RUN, {"value": 1})
    path = tmp_path / "runs" / RUN.name / "made.json"
    facts = json.loads(path.read_text())
    changes: list[dict[str, Any]] = [
        {"finished": True},
        {"finished": {}},
        {"git_revision": {"x": None}},
    ]
    for change in changes:
        path.write_text(json.dumps({**facts, **change}))
        assert (store.origins()["made"], store.origins()["unknown"]) == (1, 1)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"finished": 1, "cpu": "x"}'])
def test_damaged_facts_about_a_run_count_as_unknown(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    store.commit(RUN, {"value": 1})
    (tmp_path / "runs" / RUN.name / "made.json").write_text(content)
    assert (store.origins()["made"], store.origins()["unknown"]) == (1, 1)


def test_a_result_of_another_run_or_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(RUN, {"value": 1})
    path = tmp_path / "runs" / RUN.name / "run.json"
    if os.geteuid():  # root may read everything
        path.chmod(0)
        with pytest.raises(StoreError, match="delete that file"):
            store.results(RUN)
        path.chmod(0o600)
    path.write_text(json.dumps({"id": "other", "results": {}}))
    with pytest.raises(StoreError, match="belongs to another run"):
        store.results(RUN)


def test_what_a_killed_process_left_of_a_file_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from springback.results.store import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as out:\n"
        "    out.write(b'half'); print('ready', flush=True); sys.stdin.read()\n"
    )
    path = tmp_path / "out[1].sbc"
    stray = [
        tmp_path / name for name in (".out1.sbc.01234567.tmp", ".out[1].sbc.mine.tmp", "x.tmp")
    ]
    for file in stray:
        file.write_text("another's")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes)  # type: ignore[call-overload]
    with process:
        process.stdout.readline()
        (half,) = (p for p in tmp_path.iterdir() if p not in stray)
        with whole_file(path) as out:
            out.write(b"first")
        assert half.exists()
        process.kill()
    with whole_file(path) as out:
        out.write(b"second")
    assert path.read_bytes() == b"second"
    assert set(tmp_path.iterdir()) == {path, *stray}


def test_what_a_killed_process_left_of_a_folder_goes_and_a_living_ones_stays(
    tmp_path: Path,
) -> None:
    path, other = tmp_path / "model", tmp_path / ".other.00112233.tmp"
    stale, link = tmp_path / ".model.00112233.tmp", tmp_path / ".model.44556677.tmp"
    for folder in (stale, other):
        folder.mkdir()
        (folder / "half").write_text("x")
    link.symlink_to(other)
    with whole_folder(path) as living:
        with whole_folder(path) as second:
            (second / "weights").write_text("second")
        assert living.is_dir()
        (living / "weights").write_text("living")
    assert (path / "weights").read_text() == "living"
    assert sorted(tmp_path.iterdir()) == sorted([path, other, link]), "no link is followed"


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="GB are free"):
        require_space(tmp_path / "not" / "yet", 10**18, "this audit")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB; making one takes root."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_weights_that_find_the_disk_full_are_one_line_and_leave_nothing(small_disk: Path) -> None:
    import torch
    from safetensors.torch import save_file

    def save() -> None:
        with whole_folder(small_disk / "step-1") as tmp:
            save_file({"w": torch.zeros(1_000_000)}, tmp / "weights.safetensors")

    with pytest.raises(SpaceError, match=r"no space left on the disk of .*run the same command"):
        save()
    with pytest.raises(SpaceError, match="no space left"):
        write_text(small_disk / "notes.txt", "x" * 1_000_000)
    assert list(small_disk.iterdir()) == []


def test_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(StoreError, match="name a folder"):
        Store(tmp_path / "f")


def test_a_file_appears_when_it_is_whole_and_the_old_one_stays_until_then(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "x"
    with whole_file(path) as out:
        out.write(b"first")
        assert not path.exists()
        out.seek(0)
        assert out.read() == b"first"  # what is written can be read back before it appears
    assert path.read_bytes() == b"first"

    def fail() -> None:
        with whole_file(path) as out:
            out.write(b"half")
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        fail()
    assert path.read_bytes() == b"first"
    assert [p.name for p in path.parent.iterdir()] == ["x"]
