"""The job around the stream: resume, hash, and publish a whole model folder."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from springback.core import byte_size
from springback.errors import ModelError, SpringbackError, StoreError, describe
from springback.progress import Progress
from springback.results.store import require_folder, require_space, write_text
from springback.weights.arithmetic import Tally
from springback.weights.io.folder import (
    INDEX,
    Weights,
    combine,
    file_digest,
    hash_weights,
    inside,
    readable_json,
)
from springback.weights.io.report import (
    DTYPES,
    RECORD,
    About,
    ExtrapolationReport,
    Source,
    change_config,
    copy_side_files,
    model_findings,
    model_meta,
    read_report,
    side_files,
    write_record,
)
from springback.weights.io.resume import Partial, Shard, drop_stale, open_partial
from springback.weights.io.safetensors import Layout, TensorFile, dtype_name, plan_layout
from springback.weights.io.stream import Part, Stream

#: More threads than this would hold more memory than promised and wait for the hash anyway.
MAX_THREADS = 16
#: Above this share of the step lost in rounding, the report warns.
COARSE = 0.1
#: What a job holds beside what its parts ask for: the interpreter and the pieces in flight.
FLOOR = 200_000_000
CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "auto": "auto"}


_Report = TypeVar("_Report")
#: Called with the names of the shards to make and the folder they go to, which every worker sees;
#: yields each one's name and record once it lies whole on the disk.
Spread = Callable[[list[str], Path], Iterable[tuple[str, Shard]]]


#: Files beside weights that every loader reads.
_READ = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")


@dataclass(frozen=True)
class Job:
    """What is to be done, parsed once.

    ``inputs`` are all weights that go in, by label, hashed and recorded; ``model`` is the one
    whose files, tensor names and small files the output takes over.  ``settings`` decide the
    result together with the inputs: a cut off call goes on, and a finished folder is recognised,
    under the same ones.  ``plan`` gives the parts of one shard.  ``memory`` is what they hold at
    most beyond :data:`FLOOR`, in bytes.  ``over`` is a folder whose small files go over the
    model's.  ``spread`` makes shards elsewhere, before those that are left are made here.
    ``config``: what the output's config.json says differently from the model's.
    ``check`` is called once there is room for the result, and raises if there can be none.
    """

    inputs: Mapping[str, Weights]
    model: Weights
    settings: Mapping[str, Any]
    plan: Callable[[TensorFile, Layout], Iterable[Part]]
    text: tuple[str, ...]
    out: Path
    threads: int
    progress: Progress
    memory: int = 0
    notes: tuple[str, ...] = ()
    over: Path | None = None
    spread: Spread | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None

    @property
    def dtype(self) -> str:
        return str(self.settings["dtype"])

    def made_of(self, shard: TensorFile) -> dict[str, Path]:
        """The files that one shard is made from: those with its tensors, and whole adapters."""
        sources = {}
        for label, weights in self.inputs.items():
            if weights is self.model:
                paths = {shard.name: shard.path}
            elif weights.tensors.keys() >= {t.name for t in shard.tensors}:
                files = (weights.tensors[t.name][0] for t in shard.tensors)
                paths = {f.name: f.path for f in files}
            else:
                paths = weights.hashed()
            sources.update({f"{label}/{name}": paths[name] for name in sorted(paths)})
        return sources


def check_settings(dtype: str, threads: int | None) -> int:
    """The number of threads to use; raises :class:`ModelError` for what is not allowed."""
    if dtype not in DTYPES:
        raise ModelError(describe(f"dtype {dtype!r}", ", ".join(DTYPES), "choose one of these"))
    if threads is not None and threads < 1:
        raise ModelError(describe(f"{threads} threads", "1 or more", "leave it out for a default"))
    return min(threads or min(len(os.sched_getaffinity(0)), 8), MAX_THREADS)


def run(job: Job) -> ExtrapolationReport:
    """Have ``job.out`` hold the result: write it, go on with it, or recognise it.

    Raises :class:`StoreError` if it holds something else or is being written,
    :class:`SpaceError` if the disk is too small, :class:`ModelError` from the parts.
    """
    if job.out.exists() and (report := _existing(job)) is not None:
        drop_stale(job.out)
        return report
    try:
        with open_partial(job.out, job.settings) as partial:
            return _fill(job, partial)
    finally:
        job.progress.close()


def _existing(job: Job) -> ExtrapolationReport | None:
    """The report of ``out`` if it is this very result; None if it is an empty folder."""
    if job.out.is_dir() and not any(job.out.iterdir()):
        require_folder(job.out)  # the result cannot take the place of another user's
        return None
    roots = {label: weights.root for label, weights in job.inputs.items()}
    return recognise(ExtrapolationReport, job.out, job.settings, roots, job.progress)


def recognise(
    kind: type[_Report],
    out: Path,
    settings: Mapping[str, Any],
    roots: Mapping[str, Path],
    progress: Progress,
) -> _Report:
    """The report of ``out``, which must hold the result of these settings and input folders.

    All folders are hashed again, so that a result that was edited is not taken for ours.  Raises
    :class:`StoreError` for anything else.
    """
    not_ours = StoreError(
        f"{out} exists and is not the result of these inputs; delete it or choose another --out"
    )
    if not (out / RECORD).is_file():
        raise not_ours
    progress.stage(f"checking {out}, which exists", len(roots) + 1)
    try:
        record = readable_json(out / RECORD)
        same = {name: record.get(name) for name in settings} == dict(settings)
        folders = [(record[label], root) for label, root in roots.items()]
        for entry, folder in (*folders, (record, out)):
            same = same and entry["content_hash"] == hash_weights(folder)
            progress.advance()
        report = read_report(kind, record)
    except (KeyError, TypeError, AttributeError, SpringbackError) as error:
        raise not_ours from error
    finally:
        progress.close()
    if not same:
        raise not_ours
    return report


def _fill(job: Job, partial: Partial) -> ExtrapolationReport:
    """Write the shards that are missing and what goes beside them; publish the folder."""
    layouts = {file.name: plan_layout(file, CODES[job.dtype]) for file in job.model.files}
    small = [
        inside(root, name)
        for root in (job.model.root, job.over)
        if root is not None
        for name in side_files(root)
    ]
    # Raises before the work rather than after it.  Of a full model only its config is read.
    read = _READ if job.over is not None else _READ[:1]
    for path in (path for path in small if path.name in read):
        readable_json(path)
    needed = sum(path.stat().st_size for path in small) + (1 << 20)
    needed += sum(x.nbytes for name, x in layouts.items() if name not in partial.shards)
    job.progress.note(
        f"extrapolating needs {byte_size(needed)} of disk in {job.out.parent} "
        f"and under {byte_size(FLOOR + job.memory)} of memory"
    )
    require_space(job.out.parent, needed, f"the extrapolated model {job.out.name}")
    job.check()
    job.progress.stage("extrapolating", len(job.model.tensors))
    with _Digests(job.threads) as digests:
        made = _elsewhere(job, partial, digests)
        for file in job.model.files:
            if file.name in made:
                continue
            _finish(job, partial, file, layouts[file.name], digests)
        hashes = {
            label: combine({name: digests.of(path) for name, path in weights.hashed().items()})
            for label, weights in job.inputs.items()
        }
    notes = (*job.notes, *copy_side_files(job.model.root, partial.folder, job.dtype))
    if job.over is not None:
        notes = (*notes, *copy_side_files(job.over, partial.folder, job.dtype))
    change_config(partial.folder, job.config)
    if job.model.index:
        _write_index(job, partial, layouts)
    shards = {name: partial.shards[name] for name in layouts}
    report = _report(list(layouts.values()), shards, hashes, notes)
    sources = {label: Source(weights.root) for label, weights in job.inputs.items()}
    about = About(job.settings, sources, job.text)
    meta = model_meta(partial.folder, about)
    write_record(partial.folder, report, about, meta, model_findings(report))
    partial.publish(job.out)
    return report


@dataclass
class _Digests:
    """Hashes of whole files, taken on a pool that also does the arithmetic, each once."""

    threads: int
    futures: dict[Path, Future[str]] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> _Digests:
        self.pool = ThreadPoolExecutor(self.threads, "springback-weights")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.pool.shutdown(cancel_futures=True)

    def start(self, path: Path) -> None:
        if path not in self.futures:
            self.futures[path] = self.pool.submit(file_digest, path, self.stop)

    def know(self, path: Path, digest: str) -> None:
        """Take the digest of a file that a worker computed."""
        if path not in self.futures:
            self.futures[path] = Future()
            self.futures[path].set_result(digest)

    def of(self, path: Path) -> str:
        self.start(path)
        return self.futures[path].result()


def _elsewhere(job: Job, partial: Partial, digests: _Digests) -> set[str]:
    """Have missing shards made by ``job.spread``; what it hashed is not hashed anew."""
    if job.spread is None:
        return set()
    files = {file.name: file for file in job.model.files}
    made = set()
    for name, shard in job.spread([n for n in files if n not in partial.shards], partial.folder):
        partial.finish_shard(name, shard)
        for label, path in job.made_of(files[name]).items():
            digests.know(path, shard.made_of[label])
        job.progress.advance(len(files[name].tensors), name)
        made.add(name)
    return made


def make_shard(job: Job, name: str, folder: Path) -> Shard:
    """One shard of ``job`` written whole into ``folder``; for a worker of :data:`Spread`.

    Raises :class:`ModelError` from the parts.
    """
    file = next(file for file in job.model.files if file.name == name)
    layout = plan_layout(file, CODES[job.dtype])
    with _Digests(job.threads) as digests:
        sources = job.made_of(file)
        for path in sources.values():
            digests.start(path)
        stream = Stream(digests.pool, 2 * job.threads + 2, lambda tensor: None)
        target = folder / file.name
        sha256, tally = stream.write(target, layout.header, job.plan(file, layout))
        made_of = {label: digests.of(path) for label, path in sources.items()}
    return Shard(sha256, layout.nbytes, made_of, tally)


def _finish(
    job: Job, partial: Partial, file: TensorFile, layout: Layout, digests: _Digests
) -> None:
    """Have one shard lie whole in the partial folder, made from the files as they are now."""
    sources = job.made_of(file)
    for path in sources.values():  # hashed just before they are combined: the disk reads them once
        digests.start(path)
    target, kept = partial.folder / file.name, partial.shards.get(file.name)
    if kept is not None and target.is_file():
        now = {name: digests.of(path) for name, path in sources.items()}
        if (dict(kept.made_of), kept.sha256) == (now, file_digest(target)):
            job.progress.advance(len(file.tensors), f"{file.name} was finished before")
            return
    stream = Stream(digests.pool, 2 * job.threads + 2, lambda name: job.progress.advance(1, name))
    try:
        sha256, tally = stream.write(target, layout.header, job.plan(file, layout))
    except ModelError:  # the same call would fail again: there is nothing to go on from
        partial.drop()
        raise
    made_of = {name: digests.of(path) for name, path in sources.items()}
    partial.finish_shard(file.name, Shard(sha256, layout.nbytes, made_of, tally))


def _write_index(job: Job, partial: Partial, layouts: Mapping[str, Layout]) -> None:
    """The model's index, with the new size when the dtype changed it."""
    source = job.model.index
    assert source is not None
    index = readable_json(source)
    listed = {info.name: name for name, x in layouts.items() for info, _, _ in x.entries}
    metadata = index.get("metadata")
    # Loaders write into the metadata, so an index must have some.
    if job.dtype == "auto" and index["weight_map"] == listed and isinstance(metadata, dict):
        (partial.folder / INDEX).write_bytes(source.read_bytes())
        return
    index["weight_map"] = listed
    size = sum(x.nbytes - len(x.header) for x in layouts.values())
    index["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "total_size": size}
    write_text(partial.folder / INDEX, json.dumps(index, indent=2, ensure_ascii=False) + "\n")


def _report(
    layouts: list[Layout],
    shards: Mapping[str, Shard],
    hashes: dict[str, str],
    notes: tuple[str, ...],
) -> ExtrapolationReport:
    total, codes = Tally(), Counter[str]()
    for layout, shard in zip(layouts, shards.values(), strict=True):
        total.add(shard.tally)
        codes.update(code for _, code, _ in layout.entries)
    error, moved = math.sqrt(total.error_sq), math.sqrt(total.step_sq)
    share = error / moved if moved else (math.inf if error else 0.0)
    early_hash, ft_hash = hashes.pop("early"), hashes.pop("ft")
    return ExtrapolationReport(
        tensors=codes.total(),
        parameters=total.parameters,
        changed_share=total.changed / total.parameters if total.parameters else 0.0,
        rounding_error=share,
        dtypes={dtype_name(code): count for code, count in sorted(codes.items())},
        bytes_written=sum(shard.nbytes for shard in shards.values()),
        early_hash=early_hash,
        ft_hash=ft_hash,
        out_hash=combine({name: shard.sha256 for name, shard in shards.items()}),
        warnings=(*coarse_warnings(share, codes, early_hash == ft_hash), *notes),
        other_hashes=hashes,
        energy_kept=total.kept / total.energy if total.energy else None,
    )


def coarse_warnings(share: float, codes: Mapping[str, int], same: bool) -> list[str]:
    """Warnings where there is no step, or where rounding changes more than :data:`COARSE` of it."""
    warnings = []
    if same:
        warnings.append("both checkpoints have the same weights, so there is no step to take")
    if share > COARSE:
        narrow = [dtype_name(code) for code in ("BF16", "F16") if codes.get(code)]
        remedy = "dtype float32 (--dtype float32) keeps it" if narrow else "the step is too small"
        kept = " and ".join(narrow) or "float32"
        warnings.append(f"rounding to {kept} changes the step by {share:.0%} of its norm; {remedy}")
    return warnings
