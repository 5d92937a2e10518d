"""Scores by question out of other harnesses' files: lm-eval's samples, inspect_ai's logs."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from springback.errors import DataError

#: Bytes of one JSON text that are read at most.
MOST = 1 << 30
_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[.\d]*)\.jsonl")
#: What a row of lm-eval's samples has beside its metrics.
_SAMPLE = {"doc_id", "doc", "target"}
#: Fields of a question whose equal values make a cluster: what several questions share.
_SHARED = ("passage", "article", "story", "context", "paragraph", "document")
#: Values that inspect_ai's scorers give beside numbers: correct, incorrect, partial, no answer.
_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}

_SAMPLE_FILE = re.compile(r"samples/[^/]+\.json")
#: The number of its packing in zip files.
ZSTANDARD = 93

#: What tells one question from another: lm-eval's hash or number of it, inspect_ai's id.
Question = str


@dataclass(frozen=True)
class TaskScores:
    """What one run scored on one task by one metric.

    ``scores``: by question.  ``clusters``: by question, where questions share something; then
    ``cluster`` says what.  ``prompts``: a hash of each question as it was put, where known.
    ``higher``: whether higher is better, None where the file does not say.
    """

    task: str
    metric: str
    scores: Mapping[Question, float]
    version: str | None = None
    higher: bool | None = None
    clusters: Mapping[Question, str] = field(default_factory=dict)
    cluster: str | None = None
    prompts: Mapping[Question, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EvalRun:
    """One run's tasks; ``kind`` is ``lm-eval`` or ``inspect_ai``; ``model`` by its own words."""

    place: str
    kind: str
    model: str
    tasks: tuple[TaskScores, ...]


def is_eval(place: str | Path) -> bool:
    """Whether a file or a folder holds lm-eval's samples or an inspect_ai log, by its content."""
    return bool(_sample_files(Path(place)) or _inspect_files(Path(place)))


def read_eval(place: str | Path, answers: str | None = None) -> EvalRun:
    """The scores in a file or a folder.

    ``answers``: the filter of lm-eval whose scores are taken, where a task has several.
    Raises :class:`DataError` for what holds none, several filters, a question twice, or two runs.
    """
    path = Path(place)
    if files := _sample_files(path):
        return _lm_eval(path, files, answers)
    if logs := _inspect_files(path):
        return _inspect(path, logs)
    raise DataError(
        f"no scores by question in '{place}'; allowed: samples_TASK_DATE.jsonl of lm-eval "
        "(--log_samples), a log of inspect_ai, or the folder of either; name one"
    )


def _below(path: Path, endings: tuple[str, ...]) -> list[Path]:
    """The file itself, or the files right in a folder or in the folders of one more level."""
    if path.is_file():
        return [path]
    inside = [*path.glob("*"), *path.glob("*/*")] if path.is_dir() else []
    return sorted(f for f in inside if f.is_file() and f.suffix in endings)


def _sample_files(path: Path) -> list[Path]:
    """Files whose first row is a sample of lm-eval."""
    return [f for f in _below(path, (".jsonl",)) if _first_row(f).keys() >= _SAMPLE]


def _first_row(file: Path) -> dict[str, Any]:
    try:
        with file.open(encoding="utf-8") as lines:
            row = json.loads(lines.readline(MOST) or "{}")
    except (OSError, ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or "doc_id" not in row:
                raise DataError(
                    f"{file}, line {number} is no sample of lm-eval; run it again with "
                    "--log_samples"
                )
            yield row


def _lm_eval(path: Path, files: list[Path], answers: str | None) -> EvalRun:
    about = _aggregates(files)
    by_task: dict[str, Path] = {}
    for file in files:
        match = _SAMPLES.fullmatch(file.name)
        task = match["task"] if match else file.stem.removeprefix("samples_")
        if task in by_task:
            raise DataError(
                f"'{path}' holds two runs of {task}: {by_task[task].name} and {file.name}; "
                "allowed: one; name a file"
            )
        by_task[task] = file
    tasks: list[TaskScores] = []
    for task, file in by_task.items():
        tasks += _lm_eval_task(task, file, about, answers)
    return EvalRun(str(path), "lm-eval", str(about.get("model_name") or path.name), tuple(tasks))


def _aggregates(files: list[Path]) -> dict[str, Any]:
    """What lm-eval says of the run in the newest ``results_DATE.json`` beside its samples."""
    for file in sorted({r for f in files for r in f.parent.glob("results_*.json")}, reverse=True):
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(about, dict):
            return about
    return {}


def _lm_eval_task(
    task: str, file: Path, about: Mapping[str, Any], answers: str | None
) -> list[TaskScores]:
    rows = list(_rows(file))
    filters = sorted({str(row.get("filter", "none")) for row in rows})
    if answers is not None and answers in filters:
        rows = [row for row in rows if str(row.get("filter", "none")) == answers]
    elif len(filters) > 1:
        given = "" if answers is None else f", not {answers}"
        raise DataError(
            f"{task} in {file} has several filters ({', '.join(filters)}){given}; allowed: one; "
            "name it by --filter"
        )
    hashes = [str(row.get("doc_hash") or row["doc_id"]) for row in rows]
    if len(set(hashes)) < len(hashes):  # one text asked several times
        hashes = [f"{row['doc_id']}/{h}" for row, h in zip(rows, hashes, strict=True)]
    _require_unique(hashes, f"{task} in {file}")
    named = list(zip(hashes, rows, strict=True))
    metrics = list(dict.fromkeys(str(m) for row in rows for m in row.get("metrics") or ()))
    shared, cluster = clusters_of({name: _mapping(row.get("doc")) for name, row in named})
    versions = _mapping(about.get("versions"))
    higher = _mapping(_mapping(about.get("higher_is_better")).get(task))
    made = []
    for metric in metrics:
        scores = {name: _number(row.get(metric)) for name, row in named}
        if any(value is None for value in scores.values()):
            continue  # no mean over questions: perplexities have weights beside their sums
        made.append(
            TaskScores(
                task,
                metric,
                {name: value for name, value in scores.items() if value is not None},
                str(versions[task]) if task in versions else None,
                higher.get(metric) if isinstance(higher.get(metric), bool) else None,
                shared,
                cluster,
                {name: str(row["prompt_hash"]) for name, row in named if "prompt_hash" in row},
            )
        )
    if not made:
        raise DataError(
            f"{task} in {file} has no metric with a number for every question "
            f"({', '.join(metrics) or 'none at all'}); allowed: acc, exact_match and the like; "
            "compare another task"
        )
    return made


def clusters_of(
    documents: Mapping[Question, Mapping[str, Any]],
) -> tuple[dict[Question, str], str | None]:
    """Clusters by the first field that questions share, and its name; empty where none is.

    ``documents``: what each question was made of.
    """
    for name in _SHARED:
        values = {q: document.get(name) for q, document in documents.items()}
        texts = {q: v for q, v in values.items() if isinstance(v, str) and v.strip()}
        if len(texts) == len(documents) and len(set(texts.values())) < len(texts):
            return texts, name
    return {}, None


def _inspect_files(path: Path) -> list[Path]:
    return [f for f in _below(path, (".json", ".eval")) if _is_log(f)]


def _is_log(file: Path) -> bool:
    if file.suffix == ".eval":
        return zipfile.is_zipfile(file)
    try:
        with file.open(encoding="utf-8") as text:
            begin = text.read(4096)
    except (OSError, ValueError):
        return False
    return bool(re.match(r'\s*\{\s*"version"', begin)) and '"eval"' in begin


def _inspect(path: Path, logs: list[Path]) -> EvalRun:
    models, tasks = [], []
    for file in logs:
        log = _log(file)
        head = _mapping(log.get("eval"))
        if log.get("status") != "success":
            raise DataError(
                f"{file} ended as {str(log.get('status'))[:20]!r}; allowed: a log of a run that "
                "ended well; run it again (inspect eval-retry)"
            )
        models.append(str(head.get("model") or path.name))
        tasks += _inspect_task(file, head, log.get("samples"))
    names = [(t.task, t.metric) for t in tasks]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"'{path}' holds two logs of {twice[0]}; allowed: one; name a file")
    return EvalRun(str(path), "inspect_ai", ", ".join(dict.fromkeys(models)), tuple(tasks))


def _log(file: Path) -> dict[str, Any]:
    """A log as one object, whichever of the two formats it is written in."""
    try:
        if file.suffix == ".eval":
            return _unpacked(file)
        log = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, RecursionError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is no whole log of inspect_ai; write it again") from error
    return log if isinstance(log, dict) else {}


def _unpacked(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        infos = {i.filename: i for i in archive.infolist()}
        if sum(info.file_size for info in infos.values()) > MOST:
            raise DataError(f"{file} unpacks to over {MOST >> 30} GiB; allowed: less")
        log = json.loads(_entry(archive, file, infos["header.json"]))
        parts = [info for name, info in infos.items() if _SAMPLE_FILE.fullmatch(name)]
        return {**log, "samples": [json.loads(_entry(archive, file, part)) for part in parts]}


def _entry(archive: zipfile.ZipFile, file: Path, info: zipfile.ZipInfo) -> bytes:
    """One file of a log.  inspect_ai packs by Zstandard, which Python knows from 3.14 on."""
    if info.compress_type != ZSTANDARD or sys.version_info >= (3, 14):
        return archive.read(info)
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(
            f"{file} is packed by Zstandard; allowed without pyarrow: logs in JSON; install "
            "pyarrow, or: inspect log convert FILE --to json --output-dir DIR"
        ) from error
    with file.open("rb") as raw:
        raw.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", raw.read(4))
        raw.seek(name + extra, os.SEEK_CUR)
        packed = raw.read(info.compress_size)
    plain: bytes = pyarrow.Codec("zstd").decompress(packed, info.file_size, asbytes=True)
    if zlib.crc32(plain) != info.CRC:
        raise zipfile.BadZipFile(info.filename)
    return plain


def _inspect_task(file: Path, head: Mapping[str, Any], samples: Any) -> list[TaskScores]:
    """Every scorer of a log; where a sample ran several times (epochs), the mean over them."""
    if not isinstance(samples, list) or not samples:
        raise DataError(f"{file} has no samples; allowed: a log with samples (log_samples)")
    task, version = str(head.get("task") or file.stem), head.get("task_version")
    epochs: list[str] = []
    values: dict[str, dict[Question, list[float]]] = {}
    clusters = dict(_clusters(head, samples))
    for sample in map(_mapping, samples):
        name = str(sample.get("id"))
        epochs.append(f"{name}, epoch {sample.get('epoch', 1)}")
        for scorer, score in _mapping(sample.get("scores")).items():
            for metric, value in _parts(scorer, _mapping(score).get("value")):
                number = _number(_LETTERS.get(value, value) if isinstance(value, str) else value)
                if number is not None:
                    values.setdefault(metric, {}).setdefault(name, []).append(number)
    _require_unique(epochs, f"{task} in {file}")
    names = {str(_mapping(sample).get("id")) for sample in samples}
    made = []
    for metric, by_question in values.items():
        if by_question.keys() == names:
            scores = {q: sum(v) / len(v) for q, v in by_question.items()}
            named = "" if version is None else str(version)
            made.append(
                TaskScores(
                    task, metric, scores, named or None, None, clusters,
                    _cluster_field(head) if clusters else None,
                )
            )  # fmt: skip
    if not made:
        raise DataError(
            f"{task} in {file} has no scorer with a number for every sample; allowed: numbers, or "
            "C, I, P and N; compare another task"
        )
    return made


def _parts(scorer: str, value: Any) -> Iterable[tuple[str, Any]]:
    """A score of several named parts is a metric each."""
    if isinstance(value, dict):
        return [(f"{scorer}/{name}", part) for name, part in value.items()]
    return [(scorer, value)]


def _cluster_field(head: Mapping[str, Any]) -> str | None:
    """The field of a sample's metadata that the task's own standard error is clustered by."""
    for scorer in head.get("scorers") or ():
        for metric in _mapping(scorer).get("metrics") or ():
            cluster = _mapping(_mapping(metric).get("options")).get("cluster")
            if isinstance(cluster, str):
                return cluster
    return None


def _clusters(head: Mapping[str, Any], samples: list[Any]) -> Iterator[tuple[Question, str]]:
    name = _cluster_field(head)
    for sample in map(_mapping, samples):
        if name is not None and name in _mapping(sample.get("metadata")):
            yield str(sample.get("id")), str(sample["metadata"][name])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    """A finite number; None for anything else.  True is 1."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _require_unique(names: list[str], where: str) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]
        raise DataError(
            f"{where} scores the question {twice[:60]} twice; allowed: once; name the file of one "
            "run"
        )
