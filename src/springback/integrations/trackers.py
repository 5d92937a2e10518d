"""Finished jobs in MLflow, TensorBoard or Weights & Biases.

A tracker is a function of a :class:`Record`, made of a result folder, and a place; it returns
where it wrote.  Writing the same result again changes nothing but its time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from springback.core import Measurement, content_hash
from springback.errors import MissingExtraError, SpringbackError, describe
from springback.results.redaction import redacted
from springback.results.schema import read
from springback.results.store import clear_folder, read_json, require_named

#: Tags that are no part of a series' name: its position, and what the name begins with.
_PLACED = ("phase", "n_pos", "n_neg", "job", "order")
#: Slices that tell values of one probe and one checkpoint apart: sides, and sets of rates.
PARTS = ("wanted", "unwanted", "pretraining", "aligning", "perturbing")
#: What MLflow takes in a name; the others take more.
_ODD = re.compile(r"[^\w./ -]+")


@dataclass(frozen=True)
class Point:
    """One value of a series.  ``step``: examples of the phase so far (0 where there is none)."""

    name: str
    step: int
    value: float


@dataclass(frozen=True)
class Record:
    """A finished job in a tracker's terms.  ``id`` is a hash of the results."""

    id: str
    name: str
    kind: str
    verdict: str
    params: Mapping[str, str]
    points: tuple[Point, ...]
    files: tuple[Path, ...]


def record_of(folder: str | Path) -> Record:
    """The record of a result folder; raises :class:`SpringbackError` without a result.json."""
    folder = Path(folder)
    path = folder / "result.json"
    if not path.exists():
        raise SpringbackError(
            describe(folder, "a folder with a result.json", "name the --out of a finished job")
        )
    data = read_json(path)
    result = read(data)
    kept = {k: v for k, v in data.items() if k != "provenance"}
    params = dict(_flat("", result.inputs))
    versions = {k: redacted(v) for k, v in result.provenance.items() if isinstance(v, str)}
    params |= {f"provenance.{k}": v for k, v in versions.items()}
    report = folder / "report.html"
    return Record(
        id=content_hash(kept)[:20],
        name=folder.resolve().name,
        kind=result.kind,
        verdict=result.verdict.text if result.verdict is not None else "",
        params=params,
        points=tuple(_point(m) for m in result.measurements if m.value is not None),
        files=tuple(p for p in (path, report) if p.exists()),
    )


def _flat(above: str, values: Any) -> Iterator[tuple[str, str]]:
    """Nested settings under dotted names; lists of plain values as text."""
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            yield from _flat(name, value)
        elif value is not None:
            yield _ODD.sub("_", name), redacted(str(value))


def _point(record: Measurement) -> Point:
    """Such as ``perturb/margin/n_pos 256/seed 0`` at step ``n_neg``."""
    tags = record.tags
    phase = tags.get("phase")
    step_tag = "n_pos" if phase == "align" else "n_neg"
    probe = f"{record.probe} {record.slice}" if record.slice in PARTS else record.probe
    head = [tags.get("job"), tags.get("order"), phase, probe]
    rest = {k: v for k, v in tags.items() if k not in _PLACED}
    if step_tag != "n_pos" and tags.get("n_pos") is not None and phase != "start":
        rest["n_pos"] = tags["n_pos"]
    words = [str(w) for w in head if w] + [f"{k} {rest[k]}" for k in sorted(rest)]
    name = "/".join(_ODD.sub("_", word.replace("/", "_")) for word in words)
    return Point(name, int(tags.get(step_tag) or 0), record.value or 0.0)


def _mlflow(record: Record, place: str) -> str:
    """``place``: a tracking URI (default: MLflow's own setting, else ``sqlite:///mlflow.db``)."""
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag
    except ImportError as error:
        raise MissingExtraError("mlflow", "track", "--to mlflow") from error
    uri = place or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    client: Any = MlflowClient(tracking_uri=uri)
    existing = client.get_experiment_by_name("springback")
    experiment = existing.experiment_id if existing else client.create_experiment("springback")
    same = client.search_runs([experiment], f"tags.springback_id = '{record.id}'")
    if same:
        return f"{uri}, run {same[0].info.run_id} (was there)"
    run = client.create_run(experiment, run_name=record.name).info.run_id
    params = [Param(k[:250], v[:500]) for k, v in record.params.items()]
    tags = [RunTag("springback_id", record.id), RunTag("springback_kind", record.kind)]
    tags.append(RunTag("mlflow.note.content", record.verdict))
    metrics = [Metric(p.name, p.value, 0, p.step) for p in record.points]
    for first in range(0, len(params), 100):  # as many as a call takes
        client.log_batch(run, params=params[first : first + 100])
    for first in range(0, len(metrics), 1000):
        client.log_batch(run, metrics=metrics[first : first + 1000])
    for path in record.files:
        client.log_artifact(run, str(path))
    client.log_batch(run, tags=tags)  # last: a run that was cut off is not taken for whole
    client.set_terminated(run)
    return f"{uri}, run {run}"


def _tensorboard(record: Record, place: str) -> str:
    """``place``: a folder (default ``runs``)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "track", "--to tensorboard") from error
    folder = Path(place or "runs") / f"{record.name}-{record.id}"
    require_named(folder)
    clear_folder(folder)
    make: Any = SummaryWriter  # untyped where TensorBoard is, Any where it is not
    with make(str(folder)) as writer:
        for point in record.points:
            writer.add_scalar(point.name, point.value, point.step)
        writer.add_text("verdict", record.verdict)
        rows = [f"| {k} | {v.replace('|', '/')} |" for k, v in sorted(record.params.items())]
        writer.add_text("inputs", "\n".join(["| setting | value |", "|---|---|", *rows]))
    return str(folder)


def _wandb(record: Record, place: str) -> str:
    """``place``: a project (default ``springback``).  Offline unless WANDB_MODE says otherwise."""
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError("wandb", "wandb", "--to wandb") from error
    sdk: Any = wandb
    run = sdk.init(
        project=place or "springback",
        id=record.id,
        name=record.name,
        job_type=record.kind,
        config=dict(record.params),
        notes=record.verdict,
        mode=os.environ.get("WANDB_MODE", "offline"),
        settings=sdk.Settings(silent=True, console="off"),
    )
    for name in sorted({p.name for p in record.points}):
        run.define_metric(name, step_metric=f"{name}/examples")
    for point in record.points:
        run.log({point.name: point.value, f"{point.name}/examples": point.step})
    for path in record.files:
        run.save(str(path), base_path=str(path.parent), policy="now")
    where = str(Path(run.dir).parent)
    run.finish()
    return where


TRACKERS: Mapping[str, Callable[[Record, str], str]] = {
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}


def check_targets(targets: Sequence[str]) -> None:
    """Raise :class:`SpringbackError` unless each is a tracker or ``TRACKER:PLACE``."""
    for target in targets:
        if target.partition(":")[0] not in TRACKERS:
            allowed = ", ".join(f"{name}[:PLACE]" for name in TRACKERS)
            raise SpringbackError(describe(redacted(target), allowed, "name one of these"))


def track(folder: str | Path, targets: Sequence[str]) -> list[str]:
    """Write the result in ``folder`` to every target; returns a line for each with its place.

    >>> track("springback-audit", ["mlflow:sqlite:///mlflow.db", "tensorboard:runs"])
    ... # doctest: +SKIP
    """
    check_targets(targets)
    record = record_of(folder)
    lines = []
    for target in targets:
        name, _, place = target.partition(":")
        lines.append(f"{name}: {redacted(TRACKERS[name](record, place))}")
    return lines
