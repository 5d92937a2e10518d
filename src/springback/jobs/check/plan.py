"""What a check would run: tokens, time, memory by part; measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from springback.core import Run, byte_size
from springback.jobs.check.content import Item
from springback.jobs.check.runs import Work, why_no_kl, why_no_weights
from springback.jobs.check.settings import CheckSettings
from springback.jobs.check.subject import Subject
from springback.jobs.plan_lines import columns, duration, memory_lines
from springback.jobs.speeds import known_speeds
from springback.models.hub import base_of, local_folder
from springback.models.memory import available_bytes, item_bytes, read_architecture
from springback.models.memory_parts import (
    Part,
    Parts,
    decoding_parts,
    largest,
    libraries,
    scoring_parts,
    total,
)
from springback.models.placement import dtype_name, placement
from springback.weights import is_adapter

#: Tokens of a prompt and its answer where no prompt is known yet.
COLUMNS = 256


@dataclass(frozen=True)
class PlannedRun:
    """One run: tokens that a model reads, tokens that it writes, whether it is done."""

    model: str
    what: str
    scored: int
    decoded: int
    done: bool


@dataclass(frozen=True)
class CheckPlan:
    """``seconds``: of what is left, an estimate; ``parts``: what memory holds at the most."""

    models: tuple[str, ...]
    runs: tuple[PlannedRun, ...]
    seconds: float
    parts: Parts
    available: int
    speeds: str

    @property
    def needs(self) -> str:
        return f"about {duration(self.seconds)}, {byte_size(total(self.parts))} of memory"

    def __str__(self) -> str:
        head = ("model", "what", "tokens read", "tokens written", "")
        rows = [
            (r.model, r.what, f"{r.scored:,}", f"{r.decoded:,}", "done" if r.done else "")
            for r in self.runs
        ]
        memory = memory_lines({"a check": self.parts}, self.available)
        lines = [*columns([head, *rows], left=2), *memory]
        return "\n".join([*lines, f"what it needs: {self.needs}", f"speeds: {self.speeds}"])


def make_plan(work: Work, base: Subject, tuned: Sequence[Subject]) -> CheckPlan:
    """Every run in order, as :func:`springback.jobs.check.job.check` makes them."""
    runs = list(_runs(work, base, tuned))
    s = work.settings
    shape = read_architecture(base.folder, base.name)
    dtype = _dtype(s, base)
    speeds = known_speeds("float32", dtype)
    left = [run for run in runs if not run.done]
    seconds = sum(2 * shape.weights * run.scored / speeds.score for run in left)
    steps = sum(run.decoded / s.batch_size for run in left)
    seconds += speeds.decoding(shape.weights, steps, sum(run.decoded for run in left))
    return CheckPlan(
        tuple(one.name for one in tuned),
        tuple(runs),
        seconds,
        parts_of(s),
        available_bytes(str(placement(s).device)),
        speeds.source,
    )


def _runs(work: Work, base: Subject, tuned: Sequence[Subject]) -> Iterator[PlannedRun]:
    def done(run: Run) -> bool:
        return work.store.results(run) is not None

    s = work.settings
    for subject in (base, *tuned):
        for item in work.items:
            read, written = _tokens(s, item, work.rows(subject, item))
            what = f"{item.source}, {item.kind}"
            finished = done(work.item_run(subject, item))
            yield PlannedRun(subject.name, what, read, written, finished)
    for one in tuned:
        prompts = [item for item in work.items if item.kind == "prompt"]
        for item in prompts if s.kl and not why_no_kl(base, one) else []:
            rows = work.rows(one, item)
            written = 2 * s.sample_tokens * len(rows)
            read = 6 * sum(map(len, rows)) + 2 * written
            finished = done(work.kl_run(base, one, item))
            yield PlannedRun(one.name, f"{item.source}, KL", read, written, finished)
        if s.weights and not why_no_weights(base, one):
            yield PlannedRun(one.name, "weights", 0, 0, done(work.weights_run(base, one)))


def _tokens(s: CheckSettings, item: Item, rows: Any) -> tuple[int, int]:
    """Tokens read and written for an item on one model; answers as long as they may be."""
    if item.kind == "text":
        return sum(len(row.ids) for row in rows), 0
    if item.kind == "choice":
        return sum(len(options[0].ids) for options in rows), 0
    if item.harness is not None and item.harness.by_likelihood:
        return sum(len(one.ids) for options in rows for one in options), 0
    longest = s.answer_tokens
    if item.harness is not None:
        longest = item.harness.max_new_tokens or s.task_tokens
    return sum(map(len, rows)), longest * len(rows)


def _dtype(s: CheckSettings, base: Subject) -> str:
    place = base.place
    assert place.dtype is not None  # Placement.of_files
    return dtype_name(place.dtype)


def parts_of(settings: CheckSettings) -> Parts:
    """What is in memory at the most: one model, or with KL both."""
    s = settings
    folder = local_folder(s.base)
    shape = read_architecture(base_of([folder]) if is_adapter(folder) else folder, s.base)
    place = placement(s)
    dtype = "bfloat16" if place.dtype is None else dtype_name(place.dtype)
    size = int(shape.weights) * item_bytes(dtype)
    words = f"{shape.weights / 1e6:,.0f}M weights in {dtype}"
    held = (libraries(str(place.device)), Part("base", size, words), Part("tuned", size, words))
    scoring = (*held, *scoring_parts(shape, dtype, models=2 if s.kl else 1))
    decoding = (*held, *decoding_parts(shape, dtype, s.batch_size, COLUMNS, models=1))
    return largest(scoring, decoding)
