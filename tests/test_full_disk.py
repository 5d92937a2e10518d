"""A disk that is full in the middle of a job: one line, nothing half-written, and the way on."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from springback.cli import app
from springback.core import Run
from springback.errors import SpaceError, StoreError
from springback.models.quiet import one_line
from springback.results.store import Store, full_disk, whole_file, whole_folder, write_json

RUN = Run("score", {"a": 1}, "a" * 20)


class SafetensorError(Exception):
    """As safetensors has it: no OSError, and the system's words in it."""


def from_library() -> None:
    raise SafetensorError("Error while serializing: No space left on device (os error 28)")


def from_system() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")


def from_quota() -> None:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "some/file")


def from_below() -> None:
    try:
        from_system()
    except OSError as error:
        raise RuntimeError("the trainer failed") from error


FULL = [from_library, from_system, from_quota, from_below]


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes, as on a disk that is nearly full."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.fstat(fd).st_size > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@pytest.mark.parametrize("write", FULL)
def test_every_job_ends_in_one_line(write: Callable[[], None], tmp_path: Path) -> None:
    with (
        pytest.raises(SpaceError, match=r"on the disk of .*out; free some and run the same"),
        Store(tmp_path / "out").locked(),
    ):
        write()
    with Store(tmp_path / "out").locked():  # the lock is free again
        pass


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    assert full_disk(OSError(errno.EACCES, os.strerror(errno.EACCES))) is None
    with pytest.raises(ZeroDivisionError), Store(tmp_path / "out").locked():
        raise ZeroDivisionError


@pytest.mark.parametrize("write", FULL)
def test_no_folder_and_no_file_is_half_written(write: Callable[[], None], tmp_path: Path) -> None:
    def fill_folder() -> None:
        with whole_folder(tmp_path / "folder") as folder:
            (folder / "first").write_text("whole")
            write()

    def fill_file() -> None:
        with whole_file(tmp_path / "file") as out:
            out.write(b"whole")
            write()

    with pytest.raises(SpaceError):
        fill_folder()
    if write in (from_system, from_quota):
        with pytest.raises(SpaceError):
            fill_file()
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_recorded_or_not_and_the_same_call_goes_on(tmp_path: Path) -> None:
    with Store(tmp_path / "out").locked() as store:
        write_json(store.root / "result.json", {"old": 1})
        with limited(1000):
            with pytest.raises(SpaceError):
                store.commit(RUN, {"answers": ["x" * 5000]})
            with pytest.raises(SpaceError):
                write_json(store.root / "result.json", {"new": "x" * 5000})
        assert store.results(RUN) is None
        assert (store.root / "result.json").read_text() == '{\n "old": 1\n}\n'
        assert not [p for p in store.root.rglob("*") if p.name.endswith(".tmp")]
        store.commit(RUN, {"answers": ["x" * 5000]})
        assert store.results(RUN) == {"answers": ["x" * 5000]}


@pytest.mark.parametrize("write", FULL)
def test_a_command_says_so_and_exits_with_2(
    write: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "app", lambda **_: write())
    monkeypatch.setattr(sys, "argv", ["springback", "track", "folder"])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("free some space and run the same command again")


@pytest.mark.parametrize("place", ["model", "model/below/it"])
@pytest.mark.parametrize("name", ["model.safetensors", "adapter_model.safetensors"])
def test_no_results_among_the_files_of_a_model(name: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).write_bytes(b"weights")
    with (
        pytest.raises(StoreError, match=r"model folder .*; choose another folder"),
        Store(tmp_path / place).locked(),
    ):
        pass
    assert [p.name for p in (tmp_path / "model").iterdir()] == [name]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no such thing\nand a long story", "no such thing"),
        ("\n\n  the file is gone  \n", "the file is gone"),
        (
            "Error(s) in loading state_dict for Linear:\n\tsize mismatch for weight: 3 and 4.\n\tx",
            "Error(s) in loading state_dict for Linear: size mismatch for weight: 3 and 4.",
        ),
        (
            "2 validation errors for Config\nhidden_size\n  Input should be an integer",
            "2 validation errors for Config hidden_size Input should be an integer",
        ),
        ("Validation error\nlayers: not an integer", "Validation error layers: not an integer"),
        (
            "Cannot load:\n\n the cause:\n it is cut short",
            "Cannot load: the cause: it is cut short",
        ),
        ("Error:\n", "Error:"),
        ("", "ValueError"),
    ],
)
def test_a_message_is_told_as_far_as_it_says_something(text: str, line: str) -> None:
    assert one_line(ValueError(text)) == line
