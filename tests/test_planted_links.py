"""Links, pipes and other users' folders, planted where springback would write: nothing behind them
is read into a result, emptied, written or removed, and the refusal is one line that names them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from report_fixture import audit_result
from springback import report
from springback.core import Checkpoint, Run
from springback.errors import SpringbackError, StoreError
from springback.integrations.ray.shared_storage import Shared
from springback.jobs.boost import test_set_log
from springback.jobs.boost.export import Strengths, write_boosted
from springback.progress import Silent
from springback.results import store
from springback.results.store import (
    Store,
    clear_folder,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)
from springback.weights import extrapolate
from springback.weights.adapters.extrapolation import AdapterExtrapolation
from springback.weights.adapters.pair import Contrast, write_adapter_pair
from weights_files import pair

RUN = Run.of("align", seed=1)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of the user's that links are planted to."""
    folder = tmp_path / "home"
    (folder / "thesis").mkdir(parents=True)
    (folder / "thesis/chapter.tex").write_text("years of work")
    (folder / "keys.txt").write_text("secret")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def refused(act: Callable[[], object], *words: str) -> str:
    """The message of the refusal, which is one line with ``words`` in it."""
    with pytest.raises(SpringbackError) as info:
        act()
    message = str(info.value)
    assert "\n" not in message
    assert all(word in message for word in (*words, "allowed"))
    return message


def hold(root: Path) -> None:
    with Store(root).locked():
        pass


def plant(kind: str, path: Path, victim: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        ends = {"link": victim, "file link": victim / "keys.txt", "dangling": victim / "new"}
        path.symlink_to(ends[kind])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("link", ".out.partial"),
        ("dangling", ".out.partial"),
        ("link", ".out.partial/folder"),
        ("dangling", ".out.partial/folder"),
        ("link", ".out.partial/folder/sub"),
        ("file link", ".out.partial/folder/model-00001-of-00002.safetensors"),
        ("dangling", ".out.partial/folder/config.json"),
        ("pipe", ".out.partial/folder/config.json"),
        ("file link", ".out.partial/state.json"),
        ("pipe", ".out.partial/state.json"),
        ("file link", ".out.partial/.lock"),
        ("dangling", ".out.partial/.lock"),
        ("pipe", ".out.partial/.lock"),
        ("folder", ".out.partial/.lock"),
        ("dangling", "out"),
    ],
)
def test_extrapolate_refuses_what_is_planted_beside_its_output(
    tmp_path: Path, victim: Path, kind: str, name: str
) -> None:
    early, ft = pair(tmp_path)
    before = content(victim)
    plant(kind, tmp_path / "shared" / name, victim)
    message = refused(lambda: extrapolate(early, ft, 0.5, tmp_path / "shared/out"), Path(name).name)
    assert ("link" if kind in ("link", "file link", "dangling") else kind) in message
    assert content(victim) == before
    assert not (tmp_path / "shared/out").exists()


def test_extrapolate_from_the_command_line_refuses_with_exit_code_2(
    tmp_path: Path, victim: Path
) -> None:
    early, ft = pair(tmp_path)
    before = content(victim)
    plant("link", tmp_path / ".out.partial/folder", victim)
    words = ["extrapolate", str(early), str(ft), "--mu", "0.5", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "springback.cli", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stderr.splitlines() if "extrapolating" not in line]
    assert (done.returncode, len(errors)) == (2, 1)
    assert errors[0].startswith("error: ")
    assert ".out.partial/folder is a link" in errors[0]
    assert content(victim) == before


def test_a_shard_is_never_written_through_another_name_of_a_file(
    tmp_path: Path, victim: Path
) -> None:
    """A hard link cannot be told from a file: what lies under the name is removed, not emptied."""
    early, ft = pair(tmp_path)
    name = "model-00001-of-00002.safetensors"
    write_json(tmp_path / ".out.partial/state.json", {"key": 0})
    (tmp_path / ".out.partial/folder").mkdir()
    os.link(victim / "keys.txt", tmp_path / ".out.partial/folder" / name)
    extrapolate(early, ft, 0.5, tmp_path / "out")
    assert (victim / "keys.txt").read_text() == "secret"


def test_a_result_that_is_there_is_recognised_and_what_is_planted_beside_it_stays(
    tmp_path: Path, victim: Path
) -> None:
    early, ft = pair(tmp_path)
    report = extrapolate(early, ft, 0.5, tmp_path / "out")
    before = content(victim)
    (tmp_path / ".out.partial").mkdir()
    plant("file link", tmp_path / ".out.partial/.lock", victim)
    assert extrapolate(early, ft, 0.5, tmp_path / "out") == report
    plant("link", tmp_path / ".other.partial", victim)
    assert content(victim) == before


class Look(Silent):
    """Notes the mode of a folder while a call is at work."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mode = folder, 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.mode = stat.S_IMODE(self.folder.stat().st_mode)


@pytest.mark.parametrize("left", [False, True])
def test_what_grows_is_closed_to_others_and_what_is_published_is_not(
    tmp_path: Path, left: bool
) -> None:
    early, ft = pair(tmp_path)
    if left:  # by a version, or under a umask, that left it open
        (tmp_path / ".out.partial").mkdir()
        (tmp_path / ".out.partial").chmod(0o777)
    (tmp_path / "plain").mkdir()
    look = Look(tmp_path / ".out.partial")
    extrapolate(early, ft, 0.5, tmp_path / "out", progress=look)
    assert look.mode == 0o700
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_links_that_the_user_made_are_followed(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    disk = tmp_path / "disk"
    (disk / "empty").mkdir(parents=True)
    (tmp_path / "data").symlink_to(disk)  # a parent
    extrapolate(early, ft, 0.5, tmp_path / "data/out")
    assert (disk / "out/springback.json").is_file()
    (tmp_path / "model").symlink_to(disk / "empty")  # the output itself
    extrapolate(early, ft, 0.5, tmp_path / "model")
    assert (disk / "empty/springback.json").is_file()
    (disk / "study").mkdir()
    (tmp_path / "study").symlink_to(disk / "study")
    with Store(tmp_path / "study").locked() as held:
        held.commit(RUN, {"value": 1})
    assert (disk / "study/runs" / RUN.name / "run.json").is_file()


@pytest.mark.parametrize("kind", ["file link", "dangling", "pipe", "folder"])
def test_a_lock_is_opened_without_following_or_emptying(
    tmp_path: Path, victim: Path, kind: str
) -> None:
    before = content(victim)
    plant(kind, tmp_path / "study/.lock", victim)
    refused(lambda: hold(tmp_path / "study"), ".lock")
    assert content(victim) == before


def test_a_lock_keeps_what_it_holds(tmp_path: Path) -> None:
    write_text(tmp_path / ".lock", "kept")
    hold(tmp_path)
    assert (tmp_path / ".lock").read_text() == "kept"


@pytest.mark.parametrize("name", ["runs", "checkpoints", "partial", "charts"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_a_result_folder_whose_parts_are_links_is_refused(
    tmp_path: Path, victim: Path, name: str, kind: str
) -> None:
    (victim / ".x.1234.tmp").mkdir()
    plant(kind, tmp_path / "study" / name, victim)
    refused(lambda: hold(tmp_path / "study"), name)
    assert (victim / ".x.1234.tmp").is_dir()
    assert sorted(p.name for p in victim.iterdir()) == [".x.1234.tmp", "keys.txt", "thesis"]


def test_of_a_link_among_leftovers_the_link_is_swept(tmp_path: Path, victim: Path) -> None:
    before = content(victim)
    for kind in ("link", "file link", "dangling", "pipe"):
        plant(kind, tmp_path / f"study/runs/.{kind}.1234.tmp", victim)
    hold(tmp_path / "study")
    assert list((tmp_path / "study/runs").iterdir()) == []
    assert content(victim) == before


@pytest.mark.parametrize(
    ("part", "act"),
    [
        ("runs", lambda s: s.results(RUN)),
        ("runs", lambda s: s.commit(RUN, {"value": 1})),
        ("partial", lambda s: s.partial(RUN)),
        ("partial", lambda s: s.drop_partial(RUN)),
        ("checkpoints", lambda s: s.checkpoint(RUN, "early")),
        ("checkpoints", lambda s: s.drop_checkpoint(RUN, "thesis")),
        ("checkpoints", lambda s: s.drop_checkpoints(RUN)),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_what_was_planted_since_is_refused_where_it_is_used(
    tmp_path: Path, victim: Path, part: str, act: Callable[[Store], object], deep: bool
) -> None:
    (victim / RUN.name).mkdir()
    (victim / RUN.name / "run.json").write_text("{}")
    before = content(victim)
    held = Store(tmp_path / "study")
    plant("link", held.root / part / RUN.name if deep else held.root / part, victim)
    refused(lambda: act(held), part)
    assert content(victim) == before


@pytest.mark.parametrize("kind", ["file link", "pipe"])
def test_a_run_is_read_from_a_plain_file_only(tmp_path: Path, victim: Path, kind: str) -> None:
    plant(kind, tmp_path / "runs" / RUN.name / "run.json", victim)
    refused(lambda: Store(tmp_path).results(RUN), "run.json")


def test_files_and_folders_take_the_place_of_a_link_or_are_refused(
    tmp_path: Path, victim: Path
) -> None:
    before = content(victim)
    for name in ("text", "bytes"):
        plant("file link", tmp_path / name, victim)
    write_text(tmp_path / "text", "new")
    with whole_file(tmp_path / "bytes") as out:
        out.write(b"new")
    assert not (tmp_path / "text").is_symlink()
    assert not (tmp_path / "bytes").is_symlink()
    plant("link", tmp_path / "folder", victim)

    def write() -> None:
        with whole_folder(tmp_path / "folder"):
            pass

    refused(write, "folder is a link")
    assert content(victim) == before


def test_the_ledger_of_openings_is_not_written_through_links(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(victim)
    monkeypatch.setenv("SPRINGBACK_STATE", str(tmp_path / "state"))

    def look() -> None:
        with test_set_log._log_files(Store(tmp_path / "study"), "key"):
            pass

    for kind in ("file link", "dangling", "pipe"):
        plant(kind, tmp_path / "state/tests/.lock", victim)
        refused(look, ".lock")
        (tmp_path / "state/tests/.lock").unlink()
    (tmp_path / "state/tests").rmdir()
    plant("link", tmp_path / "state/tests", victim)
    refused(look, "tests is a link")
    assert content(victim) == before


def test_charts_are_not_written_through_a_link_and_links_among_them_stay_links(
    tmp_path: Path, victim: Path
) -> None:
    write_json(tmp_path / "result.json", audit_result())
    plant("link", tmp_path / "charts", victim)
    before = content(victim)
    refused(lambda: report.build(tmp_path), "charts is a link")
    assert content(victim) == before
    (tmp_path / "charts").unlink()
    plant("link", tmp_path / "charts/mine", victim)
    plant("file link", tmp_path / "charts/mine.txt", victim)
    report.build(tmp_path)
    assert (tmp_path / "charts/mine").is_symlink()
    assert (tmp_path / "charts/mine.txt").is_symlink()


def test_a_boosted_folder_is_not_made_through_a_link(tmp_path: Path, victim: Path) -> None:
    before = content(victim)
    one = Checkpoint("nowhere", content_hash="0")
    both = Strengths(0.5, 0.5, 0.1)
    for name in (".model.new", "model"):
        plant("link", tmp_path / name, victim)
        refused(lambda: write_boosted((one, one), both, tmp_path / "model"), name)
        (tmp_path / name).unlink()
    plant("link", tmp_path / "amateur", victim)
    how, pair = AdapterExtrapolation(0.5), Contrast(0.5)
    refused(lambda: write_adapter_pair(["early", "ft"], how, pair, tmp_path), "amateur is a link")
    assert content(victim) == before


@pytest.mark.parametrize("name", ["runs", "runs/a", "runs/a/run.json", "runs/a.whole"])
def test_what_workers_exchange_is_not_written_or_removed_through_links(
    tmp_path: Path, victim: Path, name: str
) -> None:
    write_text(tmp_path / "store/runs/a/run.json", "{}")
    shared = Shared(f"file://{tmp_path}/shared")
    kind = "file link" if "." in name else "link"
    plant(kind, tmp_path / "shared" / name, victim)
    before = content(victim)
    refused(lambda: shared.push(tmp_path / "store", "runs/a"), Path(name).name)
    if name != "runs/a/run.json":  # of which the folder is removed, and the link with it
        refused(lambda: shared.drop("runs/a"), Path(name).name)
    assert content(victim) == before


def test_a_worker_hands_over_plain_files_only(tmp_path: Path, victim: Path) -> None:
    plant("file link", tmp_path / "store/runs/a/run.json", victim)
    shared = Shared(f"file://{tmp_path}/shared")
    refused(lambda: shared.push(tmp_path / "store", "runs/a"), "run.json is a link")
    assert not (tmp_path / "shared/runs/a/run.json").exists()


def test_a_folder_that_cannot_be_cleared_is_not_written_to(tmp_path: Path, victim: Path) -> None:
    before = content(victim)
    plant("link", tmp_path / "log", victim)
    refused(lambda: clear_folder(tmp_path / "log"), "log is a link")
    assert content(victim) == before
    (tmp_path / "log").unlink()
    clear_folder(tmp_path / "log")  # which is not there
    plant("folder", tmp_path / "log/part", victim)
    clear_folder(tmp_path / "log")
    assert not (tmp_path / "log").exists()


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``path`` another user's: for real where the tests may, else as this process sees it."""
    if os.geteuid() == 0:
        os.chown(path, 1001, 1001, follow_symlinks=False)
        return
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(store, "_owner_of_new", lambda folder: None)


def test_another_users_partial_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, ft = pair(tmp_path)
    partial = tmp_path / ".out.partial"
    (partial / "folder").mkdir(parents=True)
    (partial / "folder/theirs").write_text("theirs")
    give_away(partial, monkeypatch)
    refused(lambda: extrapolate(early, ft, 0.5, tmp_path / "out"), "another user", "uid")
    assert (partial / "folder/theirs").read_text() == "theirs"


def test_an_output_that_is_another_users_link_is_refused(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, ft = pair(tmp_path)
    (victim / "empty").mkdir()
    before = content(victim)
    (tmp_path / "out").symlink_to(victim / "empty")
    give_away(tmp_path / "out", monkeypatch)
    refused(lambda: extrapolate(early, ft, 0.5, tmp_path / "out"), "a link of another user")
    refused(lambda: hold(tmp_path / "out"), "a link of another user")
    assert content(victim) == before
    assert list((victim / "empty").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to other users, which needs root")
def test_other_users_count_where_everyone_may_write(tmp_path: Path, victim: Path) -> None:
    early, ft = pair(tmp_path)
    shared = tmp_path / "shared"
    (shared / "study/runs").mkdir(parents=True)
    (shared / "up").symlink_to(victim)
    for path in (shared / "study/runs", shared / "up"):
        os.chown(path, 1001, 1001, follow_symlinks=False)
    hold(shared / "study")  # a colleague's, in a folder that is not open to everyone
    extrapolate(early, ft, 0.5, shared / "up/first")
    shared.chmod(0o1777)
    (shared / "study").chmod(0o1777)
    refused(lambda: hold(shared / "study"), "runs is a folder of another user")
    refused(lambda: extrapolate(early, ft, 0.5, shared / "up/second"), "up is a link of another")
    os.chown(shared / "study", 1001, 1001)
    hold(shared / "study")  # all of it is one user's, as in a container that runs as root


@pytest.mark.parametrize("own", [True, False])
def test_a_disk_that_gives_all_files_one_owner_is_no_other_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    early, ft = pair(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    if own:
        (tmp_path / ".out.partial").mkdir()
    extrapolate(early, ft, 0.5, tmp_path / "out")
    assert (tmp_path / "out/springback.json").is_file()


def test_a_name_that_somebody_chose_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    folder = tmp_path / ".out.partial/folder"
    folder.mkdir(parents=True)
    (folder / "a\x1b[2J\nb").symlink_to(tmp_path)
    with pytest.raises(StoreError) as info:
        extrapolate(early, ft, 0.5, tmp_path / "out")
    assert str(info.value).isprintable()
