"""Results in real trackers: an MLflow database, TensorBoard files, an offline W&B run."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elasticity_fixture import audit_result
from models_fixture import series_result
from springback.core import Measurement
from springback.errors import SpringbackError
from springback.integrations.trackers import Point, _point, record_of, track

# MLflow's own database layer uses what SQLAlchemy is leaving.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def folder_of(tmp_path: Path, result: dict[str, Any], name: str = "my-audit") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "report.html").write_text("<!doctype html><title>report</title>")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path, audit_result("org/small", (0.4, 0.5), 0.6))


def margins(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Margins under perturbation by series, straight from the file."""
    found: dict[str, list[tuple[int, float]]] = {}
    for m in json.loads((folder / "result.json").read_text())["measurements"]:
        tags = m["tags"]
        if m["probe"] == "margin" and tags.get("phase") == "perturb":
            name = f"perturb/margin/n_pos {tags['n_pos']}/seed {tags['seed']}"
            found.setdefault(name, []).append((tags["n_neg"], m["value"]))
    assert len(found) >= 2
    return {name: sorted(values) for name, values in found.items()}


def test_a_name_says_what_is_not_the_step() -> None:
    tags = {"phase": "perturb", "seed": 1, "n_pos": 64, "n_neg": 32, "attack": "50 % benign"}
    measured = Measurement("kl", value=0.5, tags=tags)
    assert _point(measured) == Point("perturb/kl/attack 50 _ benign/n_pos 64/seed 1", 32, 0.5)
    measured = replace(measured, tags={"phase": "align", "seed": 1, "n_pos": 64, "n_neg": 0})
    assert _point(measured) == Point("align/kl/seed 1", 64, 0.5)
    sides = [replace(measured, probe="nll", slice=side) for side in ("wanted", "unwanted")]
    names = [f"align/nll {side}/seed 1" for side in ("wanted", "unwanted")]
    assert [_point(m).name for m in sides] == names
    measured = replace(measured, tags={"method": "ME only", "mu": 0.2, "lambda": 0})
    assert _point(measured) == Point("kl/lambda 0/method ME only/mu 0.2", 0, 0.5)


def test_mlflow_has_every_value_and_the_report(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed (make integrations)")
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed (make integrations)")
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    here = Path.cwd()
    os.chdir(tmp_path)  # artifacts of a bare database go below the working folder
    try:
        (told,) = track(folder, [f"mlflow:{uri}"])
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("springback")
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.run_id in told
        assert run.info.run_name == "my-audit"
        assert run.info.status == "FINISHED"
        for name, values in margins(folder).items():
            history = client.get_metric_history(run.info.run_id, name)
            assert sorted((m.step, m.value) for m in history) == values
        assert run.data.params["model.path"] == "org/small"
        names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert names == {"result.json", "report.html"}
        (again,) = track(folder, [f"mlflow:{uri}"])
        assert "was there" in again
        assert len(client.search_runs([experiment.experiment_id])) == 1
    finally:
        os.chdir(here)


def test_tensorboard_has_every_value(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (make integrations)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # again: the same, not twice
        (told,) = track(folder, [f"tensorboard:{tmp_path / 'runs'}"])
    (logs,) = (tmp_path / "runs").iterdir()
    assert told == f"tensorboard: {logs}"
    held = EventAccumulator(str(logs))
    held.Reload()
    for name, values in margins(folder).items():
        found = [(event.step, event.value) for event in held.Scalars(name)]
        assert sorted(found) == [(step, pytest.approx(value, rel=1e-6)) for step, value in values]
    assert "verdict/text_summary" in held.Tags()["tensors"]


def records(data: bytes) -> list[bytes]:
    """What a .wandb file holds: LevelDB's log format after seven bytes that say what it is."""
    found, at, begun = [], 7, b""
    while at < len(data):
        left = 32768 - at % 32768  # blocks; no header is cut by their ends
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        begun += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(begun)
            begun = b""
    return found


def test_wandb_writes_an_offline_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (make integrations)")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (told,) = track(folder, ["wandb:my-project"])
    (file,) = tmp_path.rglob("*.wandb")
    assert str(file.parent) in told
    found: dict[str, list[float]] = {}
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.history.item:
            key = item.key or "/".join(item.nested_key)
            found.setdefault(key, []).append(json.loads(item.value_json))
        if record.HasField("run"):
            assert record.run.project == "my-project"
    for name, values in margins(folder).items():
        assert sorted(found[name]) == sorted(value for _, value in values)
        assert sorted(found[f"{name}/examples"]) == [step for step, _ in values]


def test_a_result_without_numbers_of_its_own_is_fine(tmp_path: Path) -> None:
    record = record_of(folder_of(tmp_path, series_result(), "series"))
    assert record.kind == "series"
    assert record.points == ()
    assert record.verdict == "The gain rises with size; the share lost does not."


def test_the_id_is_of_what_was_found_not_of_when(folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "result.json").read_text())
    data["provenance"] = {"finished": "2031-01-01T00:00:00+00:00"}
    assert record_of(folder_of(tmp_path, data, "later")).id == record_of(folder).id
    data["measurements"][0]["value"] += 1
    shutil.rmtree(tmp_path / "later")
    assert record_of(folder_of(tmp_path, data, "later")).id != record_of(folder).id


def test_an_unknown_tracker_or_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpringbackError, match=r"given: neptune; allowed: mlflow\[:PLACE\]"):
        track(folder, ["neptune"])
    with pytest.raises(SpringbackError, match=r"allowed: a folder with a result\.json"):
        track(tmp_path, ["tensorboard"])
