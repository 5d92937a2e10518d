"""The job around the stream: check the inputs, resume, hash, and publish a whole model folder."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from springback.errors import ModelError, SpringbackError, StoreError, describe
from springback.progress import Progress, Silent
from springback.store import require_space, write_text
from springback.weights.arithmetic import Tally
from springback.weights.folder import (
    ADAPTER_CONFIG,
    INDEX,
    Weights,
    combine,
    file_digest,
    hash_weights,
    inside,
    open_weights,
    readable_json,
)
from springback.weights.format import (
    COPIED,
    FLOAT_BYTES,
    Layout,
    TensorFile,
    dtype_name,
    plan_layout,
)
from springback.weights.partial import Partial, Shard, drop_stale, open_partial
from springback.weights.result import (
    DTYPES,
    KIND,
    RECORD,
    ExtrapolationReport,
    OutputDtype,
    Source,
    copy_side_files,
    read_report,
    side_files,
    write_record,
)
from springback.weights.stream import Stream

#: More threads than this would hold more memory than promised and wait for the hash anyway.
MAX_THREADS = 16
#: Above this share of the step lost in rounding, the report warns.
COARSE = 0.1
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "auto": "auto"}
_SHOWN = 3


@dataclass(frozen=True)
class _Job:
    """What is to be done, parsed once."""

    early: Weights
    ft: Weights
    mu: float
    dtype: str
    out: Path
    threads: int
    progress: Progress

    def early_files(self, file: TensorFile) -> list[TensorFile]:
        """The files of the early checkpoint that hold the tensors of one shard of ft."""
        files = {f.name: f for f, _ in (self.early.tensors[t.name] for t in file.tensors)}
        return [files[name] for name in sorted(files)]


def extrapolate(
    early: str | Path,
    ft: str | Path,
    mu: float,
    out: str | Path,
    *,
    dtype: OutputDtype = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> ExtrapolationReport:
    """Write theta_ft + mu * (theta_ft - theta_early) as the model folder ``out`` (paper B, ME).

    ``early`` and ``ft`` are folders with safetensors weights of the same names, shapes and
    dtypes, sharded as they like; ``out`` is sharded as ``ft``, in the dtype of each of its
    tensors or in ``dtype``, with ft's tokenizer and configs, ``springback.json`` and a model
    card.  Tensors that are not floats must be equal in both and are copied.  mu = 0 gives ft's
    tensors to the bit, mu = -1 gives early within one rounding.

    At most about 150 MB of memory whatever the model; no torch.  ``out`` appears when it is
    whole.  A call that was cut off leaves ``.<name>.partial`` beside it, and the same call goes
    on from the last finished shard.  If ``out`` is the result of the same inputs already, its
    report is returned.

    Raises :class:`ModelError` for weights that are missing, pickled, of an adapter, do not fit
    each other, or give NaN or infinity; :class:`StoreError` if ``out`` holds something else or
    is being written; :class:`SpaceError` if the disk is too small.
    """
    _check_settings(mu, dtype, threads)
    before, after = _open_pair(early, ft)
    workers = threads or min(len(os.sched_getaffinity(0)), 8)
    place = Path(os.path.realpath(out))
    speaker = progress or Silent()
    job = _Job(before, after, float(mu), dtype, place, min(workers, MAX_THREADS), speaker)
    if place.exists() and (found := _existing(job)) is not None:
        drop_stale(place)
        return found
    try:
        with open_partial(job.out, job.mu, job.dtype) as partial:
            return _fill(job, partial)
    finally:
        speaker.close()


def _check_settings(mu: float, dtype: str, threads: int | None) -> None:
    if not math.isfinite(mu):
        raise ModelError(describe(f"mu {mu}", "a finite number", "try 0.1 to 1"))
    if dtype not in DTYPES:
        raise ModelError(describe(f"dtype {dtype!r}", ", ".join(DTYPES), "choose one of these"))
    if threads is not None and threads < 1:
        raise ModelError(describe(f"{threads} threads", "1 or more", "leave it out for a default"))


def _open_pair(early: str | Path, ft: str | Path) -> tuple[Weights, Weights]:
    for folder in (early, ft):
        if (Path(folder) / ADAPTER_CONFIG).exists():
            raise ModelError(
                f"{folder} holds an adapter ({ADAPTER_CONFIG}); LoRA adapters are not extrapolated "
                "by this version yet; merge it into its base model first (merge_and_unload in PEFT)"
            )
    before, after = open_weights(early), open_weights(ft)
    _require_same(before, after)
    return before, after


def _require_same(early: Weights, ft: Weights) -> None:
    """Raise :class:`ModelError` naming the first differences in names, shapes or dtypes."""
    differences = []
    for name in sorted(early.tensors.keys() | ft.tensors.keys()):
        if name not in ft.tensors:
            differences.append(f"{name} is only in {early.root}")
            continue
        if name not in early.tensors:
            differences.append(f"{name} is only in {ft.root}")
            continue
        (_, a), (_, b) = early.tensors[name], ft.tensors[name]
        if (a.shape, a.code) != (b.shape, b.code):
            first, second = (f"{dtype_name(t.code)} {list(t.shape)}" for t in (a, b))
            differences.append(f"{name} is {first} in one and {second} in the other")
        elif a.code not in FLOAT_BYTES and a.code not in COPIED:
            raise ModelError(
                f"{name} is {dtype_name(a.code)}, which is not extrapolated; allowed: float32, "
                "bfloat16, float16, float64 and equal integers; dequantise both models first"
            )
    if differences:
        more = len(differences) - _SHOWN
        rest = f" and {more} more" if more > 0 else ""
        raise ModelError(
            f"{early.root} and {ft.root} do not fit: {'; '.join(differences[:_SHOWN])}{rest}; "
            "allowed: two checkpoints of one run, saved in the same way"
        )


def _existing(job: _Job) -> ExtrapolationReport | None:
    """The report of ``out`` if it is this very result; None if it is an empty folder.

    All three folders are hashed again, so that a result that was edited is not taken for ours.
    """
    if job.out.is_dir() and not any(job.out.iterdir()):
        return None
    other = StoreError(
        f"{job.out} exists and is not the result of these inputs; delete it or choose another --out"
    )
    if not (job.out / RECORD).is_file():
        raise other
    job.progress.stage(f"checking {job.out}, which exists", 3)
    try:
        record = readable_json(job.out / RECORD)
        same = [record["kind"], record["mu"], record["dtype"]] == [KIND, job.mu, job.dtype]
        sources = ((record["early"], job.early.root), (record["ft"], job.ft.root))
        for entry, folder in (*sources, (record, job.out)):
            same = same and entry["content_hash"] == hash_weights(folder)
            job.progress.advance()
        report = read_report(record)
    except (KeyError, TypeError, SpringbackError) as error:
        raise other from error
    finally:
        job.progress.close()
    if not same:
        raise other
    return report


def _fill(job: _Job, partial: Partial) -> ExtrapolationReport:
    """Write the shards that are missing and what goes beside them; publish the folder."""
    layouts = {file.name: plan_layout(file, _CODES[job.dtype]) for file in job.ft.files}
    small = [inside(job.ft.root, name) for name in side_files(job.ft.root)]
    needed = sum(path.stat().st_size for path in small) + (1 << 20)
    needed += sum(x.nbytes for name, x in layouts.items() if name not in partial.shards)
    job.progress.note(
        f"extrapolating needs {needed / 1e9:.2f} GB of disk in {job.out.parent} "
        "and under 0.2 GB of memory"
    )
    require_space(job.out.parent, needed, f"the extrapolated model {job.out.name}")
    job.progress.stage("extrapolating", len(job.ft.tensors))
    with _Digests(job.threads) as digests:
        for file in job.ft.files:
            _finish(job, partial, file, layouts[file.name], digests)
        early, ft = (
            combine({file.name: digests.of(file.path) for file in side.files})
            for side in (job.early, job.ft)
        )
    notes = copy_side_files(job.ft.root, partial.folder, job.dtype)
    if job.ft.index:
        _write_index(job, partial, layouts)
    shards = {name: partial.shards[name] for name in layouts}
    hashes = early, ft, combine({name: shard.sha256 for name, shard in shards.items()})
    report = _report(list(layouts.values()), shards, hashes, notes)
    write_record(
        partial.folder, report, job.mu, job.dtype, (Source(job.early.root), Source(job.ft.root))
    )
    partial.publish(job.out)
    return report


@dataclass
class _Digests:
    """Hashes of whole files, taken on a pool that also does the arithmetic, each once."""

    threads: int
    found: dict[Path, Future[str]] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> _Digests:
        self.pool = ThreadPoolExecutor(self.threads, "springback-weights")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.pool.shutdown(cancel_futures=True)

    def start(self, path: Path) -> None:
        if path not in self.found:
            self.found[path] = self.pool.submit(file_digest, path, self.stop)

    def of(self, path: Path) -> str:
        self.start(path)
        return self.found[path].result()


def _finish(
    job: _Job, partial: Partial, file: TensorFile, layout: Layout, digests: _Digests
) -> None:
    """Have one shard lie whole in the partial folder, made from the files as they are now."""
    sources = [*job.early_files(file), file]
    for source in sources:  # hashed just before they are combined: the disk reads them once
        digests.start(source.path)
    target, kept = partial.folder / file.name, partial.shards.get(file.name)
    if kept is not None and target.is_file():
        made_of = {f.name: digests.of(f.path) for f in sources[:-1]}
        now = (dict(kept.early), kept.ft, kept.sha256)
        if now == (made_of, digests.of(file.path), file_digest(target)):
            job.progress.advance(len(file.tensors), f"{file.name} was finished before")
            return
    stream = Stream(
        digests.pool,
        2 * job.threads + 2,
        job.mu,
        lambda name: job.progress.advance(1, name),
    )
    try:
        sha256, tally = stream.write(target, layout, file, job.early.tensors)
    except ModelError:  # the same call would fail again: there is nothing to go on from
        partial.drop()
        raise
    made_of = {f.name: digests.of(f.path) for f in sources[:-1]}
    shard = Shard(sha256, layout.nbytes, made_of, digests.of(file.path), tally)
    partial.finish_shard(file.name, shard)


def _write_index(job: _Job, partial: Partial, layouts: Mapping[str, Layout]) -> None:
    """ft's index, with the new size when the dtype changed it."""
    source = job.ft.index
    assert source is not None
    if job.dtype == "auto":
        (partial.folder / INDEX).write_bytes(source.read_bytes())
        return
    index = readable_json(source)
    size = sum(x.nbytes - len(x.header) for x in layouts.values())
    metadata = index.get("metadata")
    index["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "total_size": size}
    write_text(partial.folder / INDEX, json.dumps(index, indent=2, ensure_ascii=False) + "\n")


def _report(
    layouts: list[Layout],
    shards: Mapping[str, Shard],
    hashes: tuple[str, str, str],
    notes: tuple[str, ...],
) -> ExtrapolationReport:
    total, codes = Tally(), Counter[str]()
    for layout, shard in zip(layouts, shards.values(), strict=True):
        total.add(shard.tally)
        codes.update(code for _, code, _ in layout.entries)
    error, moved = math.sqrt(total.error_sq), math.sqrt(total.step_sq)
    share = error / moved if moved else (math.inf if error else 0.0)
    early_hash, ft_hash, out_hash = hashes
    return ExtrapolationReport(
        tensors=codes.total(),
        parameters=total.parameters,
        changed_share=total.changed / total.parameters if total.parameters else 0.0,
        rounding_error=share,
        dtypes={dtype_name(code): count for code, count in sorted(codes.items())},
        bytes_written=sum(shard.nbytes for shard in shards.values()),
        early_hash=early_hash,
        ft_hash=ft_hash,
        out_hash=out_hash,
        warnings=(*_warnings(share, codes, early_hash == ft_hash), *notes),
    )


def _warnings(share: float, codes: Counter[str], same: bool) -> list[str]:
    found = []
    if same:
        found.append("both checkpoints have the same weights, so there is no step to take")
    if share > COARSE:
        narrow = [dtype_name(code) for code in ("BF16", "F16") if codes[code]]
        remedy = "dtype float32 (--dtype float32) keeps it" if narrow else "the step is too small"
        kept = " and ".join(narrow) or "float32"
        found.append(f"rounding to {kept} changes the step by {share:.0%} of its norm; {remedy}")
    return found
