"""What can be made again may go, and nothing else: the same command still shows its result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boost_pair import choice_settings
from springback.core import Run
from springback.errors import FreedError, StoreError
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.clean import find, free, remaking
from springback.models.loading import load_model, resolve
from springback.progress import Silent
from springback.results.store import Store, read_json, write_json
from springback.weights import hash_weights
from springback.weights.io import freed
from springback.weights.io.folder import FREED, freed_record, tensor_names

RUN = Run.of("train", seed=1)


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, title: str, total: int | None = None) -> None:
        self.stages.append(title)


@pytest.fixture(scope="module")
def settings(tiny_llama: Path) -> BoostSettings:
    """A boost that fine-tunes by itself."""
    plain = choice_settings((tiny_llama, tiny_llama), early=None, ft=None, train_rows=16)
    return replace(
        plain, model=str(tiny_llama), train="problems", epochs=2, train_batch_size=8, max_tokens=256
    )


@pytest.fixture(scope="module")
def finished(settings: BoostSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    boost(settings, out)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def job_folder(root: Path, tiny_llama: Path) -> Path:
    """Two checkpoints of a run that is done, as a job leaves them; nothing is trained."""
    store = Store(root)
    with store.locked():
        for name in ("epoch-1", "epoch-2"):
            place = store.checkpoint(RUN, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(tiny_llama, place)
        store.commit(RUN, {"losses": []})
    return root


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def result(out: Path) -> dict[str, Any]:
    data: dict[str, Any] = read_json(out / "result.json")
    return {key: value for key, value in data.items() if key != "provenance"}


def test_listing_changes_nothing_and_has_bytes_cost_and_time(out: Path) -> None:
    before = files(out)
    listed = find(out)
    assert files(out) == before
    assert [one.what for one in listed.spare] == ["weights", "weights"]
    assert all("fine-tuning" in one.again for one in listed.spare)
    assert all(one.seconds is not None and one.seconds > 0 for one in listed.spare)
    assert listed.bytes > 0


def test_a_file_with_another_name_frees_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    """As the weak model of a boosted folder is the fine-tuned one by another name."""
    root = job_folder(tmp_path / "out", tiny_llama)
    weights = Store(root).checkpoint(RUN, "epoch-2") / "model.safetensors"
    os.link(weights, tmp_path / "elsewhere")
    sizes = {one.path.name: one.bytes for one in find(root).spare}
    assert sizes == {"epoch-1": weights.stat().st_size, "epoch-2": 0}


def test_after_clean_the_same_command_shows_its_result_without_training(
    settings: BoostSettings, out: Path
) -> None:
    before, model = result(out), files(out / "model")
    boost(settings, out)  # the paths of a copied folder are its own
    before, freed_bytes, notes = result(out), free(out).bytes, Notes()
    assert freed_bytes > 0
    assert not list((out / "checkpoints").rglob("*.safetensors"))
    boost(settings, out, notes)
    assert not any("fine-tuning" in stage for stage in notes.stages)
    assert result(out) == before
    assert files(out / "model") == model
    assert find(out).spare == ()


def test_what_needs_weights_says_so_and_makes_them_again(
    settings: BoostSettings, out: Path
) -> None:
    boost(settings, out)
    before, hashes = result(out), {}
    for place in (out / "checkpoints").glob("*/*"):
        hashes[place.name] = hash_weights(place)
    free(out)
    shutil.rmtree(out / "model")  # written from the weights
    for run in (out / "runs").glob("score-*"):
        shutil.rmtree(run)
    notes = Notes()
    boost(settings, out, notes)
    assert any("freed and are needed: fine-tuning again" in note for note in notes.notes)
    assert {p.name: hash_weights(p) for p in (out / "checkpoints").glob("*/*")} == hashes
    assert result(out) == before


def test_of_freed_weights_the_identity_stays_and_loading_is_refused(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    known = hash_weights(folder), tensor_names(folder)
    freed.free_weights(folder)
    freed.free_weights(folder)
    assert (hash_weights(folder), tensor_names(folder)) == known
    assert resolve(folder).content_hash == known[0]
    with pytest.raises(FreedError, match=r"were freed.*run the command again that made it"):
        load_model(resolve(folder))
    shutil.copy(tiny_llama / "model.safetensors", folder)  # put back
    assert freed_record(folder) is None
    load_model(resolve(folder))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_kill_in_between_leaves_checkpoints_whole_or_freed(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """``after`` so many of a record and three files; the same call then goes on."""
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.save_pretrained(folder, max_shard_size="150KB")
    assert (folder / "model.safetensors.index.json").exists()
    known, unlink = hash_weights(folder), Path.unlink
    done: list[Path] = []

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.parent == folder and path.name.startswith("model"):
            if len(done) == after:
                raise KeyboardInterrupt
            done.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        freed.free_weights(folder)
    monkeypatch.undo()
    assert hash_weights(folder) == known
    if after:
        with pytest.raises(FreedError):
            load_model(resolve(folder))
    else:
        load_model(resolve(folder))
    freed.free_weights(folder)
    assert not list(folder.glob("*.safetensors"))
    assert hash_weights(folder) == known


def test_partial_states_go_at_the_end_where_their_run_is_done_else_by_clean(
    settings: BoostSettings, out: Path
) -> None:
    done = next((out / "runs").glob("train-*")).name
    left = Run.of("train", seed=9).name
    for name in (done, left):
        (out / "partial" / name / "step-00000007").mkdir(parents=True)
        (out / "partial" / name / "step-00000007" / "state.safetensors").write_bytes(b"x" * 9)
    words = {one.path.name: one.again for one in find(out).spare if one.what == "partial state"}
    assert "nothing needs it" in words[done]
    assert "up to step 7" in words[left]
    boost(settings, out)
    assert [p.name for p in (out / "partial").iterdir()] == [left]
    free(out)
    assert not list((out / "partial").iterdir())


def test_what_the_user_named_stays(tiny_llama: Path, tmp_path: Path) -> None:
    """A checkpoint of one job that another one in the same folder was given."""
    root = job_folder(tmp_path / "out", tiny_llama)
    place, facts = Store(root).checkpoint(RUN, "epoch-2"), {"schema_version": 1, "kind": "audit"}
    for name in (str(place), f"{place}/", f"out/checkpoints/{RUN.name}/epoch-2", str(place.parent)):
        given = {"provenance": {"command": ["springback", "audit"]}, "measurements": []}
        inputs = {"settings": {"model": name}}
        write_json(root / "sub/result.json", {**facts, **given, "inputs": inputs})
        listed = find(root)
        assert place in listed.kept
        assert place not in [one.path for one in listed.spare]
        free(root)
        assert (place / "model.safetensors").exists()


def test_files_that_are_not_ours_stay(tiny_llama: Path, tmp_path: Path) -> None:
    root = job_folder(tmp_path / "out", tiny_llama)
    for name in ("checkpoints/mine", "partial/mine", "model", "notes"):
        shutil.copytree(tiny_llama, root / name)
    before = {n: b for n, b in files(root).items() if RUN.name not in n}
    free(root)
    assert {n: b for n, b in files(root).items() if RUN.name not in n} == before


@pytest.mark.parametrize("kind", ["nothing", "file", "foreign", "model", "lock alone", "link"])
def test_folders_that_are_not_ours_are_refused(tiny_llama: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "x"
    if kind == "file":
        folder.write_text("")
    elif kind == "foreign":
        (folder / "checkpoints" / "train-1").mkdir(parents=True)
        (folder / "result.json").write_text('{"accuracy": 1}')
    elif kind == "model":
        shutil.copytree(tiny_llama, folder)
    elif kind == "lock alone":
        (folder / "runs" / "tensorboard").mkdir(parents=True)
        (folder / ".lock").write_text("")
    elif kind == "link":
        folder.symlink_to(job_folder(tmp_path / "out", tiny_llama))
    before = files(tmp_path)
    for act in (find, free):
        with pytest.raises(StoreError, match="allowed"):
            act(folder)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "place", ["checkpoints", "partial", "runs", "run", "label", "weights", "partial run", ".lock"]
)
def test_planted_links_are_refused_and_nothing_behind_them_goes(
    tiny_llama: Path, tmp_path: Path, place: str
) -> None:
    root = job_folder(tmp_path / "out", tiny_llama)
    victim = job_folder(tmp_path / "home", tiny_llama)
    other = Run.of("train", seed=2).name
    path = {
        "run": root / "checkpoints" / other,
        "label": root / "checkpoints" / RUN.name / "epoch-3",
        "weights": root / "checkpoints" / RUN.name / "epoch-1" / "model.safetensors",
        "partial run": root / "partial" / other,
    }.get(place, root / place)
    target = victim / "checkpoints" / RUN.name / "epoch-1" / "model.safetensors"
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target if place in ("weights", ".lock") else victim / "checkpoints")
    if place == ".lock":
        write_json(root / "result.json", {"schema_version": 1, "kind": "boost", "provenance": {}})
    before = files(victim)
    for act in (find, free):
        with pytest.raises(StoreError, match="is a link"):
            act(root)
    assert files(victim) == before


def test_a_linked_folder_of_jobs_below_is_passed_by(tiny_llama: Path, tmp_path: Path) -> None:
    root, victim = (job_folder(tmp_path / name, tiny_llama) for name in ("out", "home"))
    (root / "audit").symlink_to(victim)
    before = files(victim)
    free(root)
    assert files(victim) == before


def test_a_running_job_is_respected(tiny_llama: Path, tmp_path: Path) -> None:
    root = job_folder(tmp_path / "out", tiny_llama)
    inner = job_folder(root / "work" / "one", tiny_llama)
    for held in (root, inner):
        with Store(held).locked():
            before = files(root)
            for act in (find, free):
                with pytest.raises(StoreError, match="another springback process is writing"):
                    act(root)
            assert files(root) == before
    free(root)
    assert not list(root.rglob("*.safetensors"))


def test_weights_of_other_folders_are_not_made_again(tmp_path: Path) -> None:
    elsewhere = tmp_path / "home" / "model"

    def job() -> None:
        raise FreedError(elsewhere)

    elsewhere.mkdir(parents=True)
    with pytest.raises(FreedError):
        remaking(tmp_path / "out", Silent(), job)
    assert elsewhere.is_dir()


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "springback.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_command_lists_frees_and_has_json(tiny_llama: Path, tmp_path: Path) -> None:
    root = job_folder(tmp_path / "out", tiny_llama)
    listed = command("clean", root)
    assert listed.returncode == 0, listed.stderr
    assert f"springback clean {root} --yes" in listed.stdout
    assert (Store(root).checkpoint(RUN, "epoch-1") / "model.safetensors").exists()
    freed_now = command("clean", root, "--yes", "--json")
    facts = json.loads(freed_now.stdout)
    assert facts["freed"] is True
    assert facts["bytes"] > 0
    assert [Path(item["path"]).name for item in facts["items"]] == ["epoch-1", "epoch-2"]
    assert (Store(root).checkpoint(RUN, "epoch-1") / FREED).exists()
    assert "nothing to free" in command("clean", root).stdout
    refused = command("clean", tmp_path)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
