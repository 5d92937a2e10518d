"""What an audit will do, before it starts: runs, tokens, time, memory, disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from springback.core import Run, byte_size
from springback.jobs.audit import runs
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.loading import training_speed
from springback.probes.registry import probe_tokens

#: Copies of the weights in fp32 that are in memory at the peak: the start model, the one in
#: training with its gradient and two moments, and a copy in bf16.
MEMORY_COPIES = 5.5
#: What a step, the probes and the libraries take beside them, in bytes: SFT 1.5 GB at the most,
#: RLOO with its sampled answers a GB more (benchmarks/memory.py).
MEMORY_BESIDE = 2_500_000_000
#: Likewise of a further process that measures (``--probe-processes``): both models, and this.
WORKER_COPIES, WORKER_BESIDE = 2, 1_000_000_000
#: Copies on disk of a run's state: weights and two moments, the new one beside the old.
STATE = 6


@dataclass(frozen=True)
class Planned:
    """One run: tokens it trains on, tokens that probes score or sample, and whether it is done."""

    run: Run
    seed: int | None
    trained: int
    scored: int
    done: bool

    def seconds(self, train: float, score: float) -> float:
        """At so many tokens a second trained and scored."""
        return self.trained / train + self.scored / score


@dataclass(frozen=True)
class Plan:
    """``seconds`` is an estimate, good to a factor of about two; sizes are in bytes.

    ``each``: seconds of every run that is not done, by its name, without what starting costs.
    ``training``: those of ``seconds`` that go into training; the rest goes into probes.
    """

    runs: tuple[Planned, ...]
    seconds: float
    memory: int
    disk: int
    each: Mapping[str, float] = field(default_factory=dict)
    training: float = 0.0

    @property
    def waiting(self) -> tuple[Planned, ...]:
        return tuple(p for p in self.runs if not p.done)

    @property
    def time(self) -> str:
        minutes = max(1, round(self.seconds / 60))
        return f"{minutes} min" if minutes < 100 else f"{self.seconds / 3600:.1f} h"

    @property
    def needs(self) -> str:
        share = ""
        if self.waiting:
            share = f" ({100 * self.training / self.seconds:.0f} % training, the rest probes)"
        return (
            f"about {self.time}{share}, "
            f"{byte_size(self.memory)} of memory, "
            f"{byte_size(self.disk)} of disk at the most"
        )

    def __str__(self) -> str:
        """A table by kind of run, and the sum."""
        rows: list[tuple[str, ...]] = [
            ("run", "seeds", "runs", "done", "tokens trained", "tokens probed", "minutes left")
        ]
        kinds = dict.fromkeys(p.run.kind for p in self.runs)
        for kind in kinds:
            rows.append(self._row(kind, [p for p in self.runs if p.run.kind == kind]))
        rows.append(self._row("all", self.runs))
        return "\n".join([*columns(rows), f"what is left: {self.needs}"])

    def _row(self, kind: str, runs: Sequence[Planned]) -> tuple[str, ...]:
        seeds = {p.seed for p in runs if p.seed is not None}
        left = sum(self.each.get(p.run.name, 0.0) for p in runs if not p.done)
        numbers = (
            len(seeds) or 1,
            len(runs),
            sum(p.done for p in runs),
            sum(p.trained for p in runs),
            sum(p.scored for p in runs),
            round(left / 60),
        )
        return (kind, *(f"{n:,}" for n in numbers))


def columns(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Cells as lines of a table; the first ``left`` columns begin at the left, the others end at
    the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def make_plan(studies: list[Study]) -> Plan:
    """The plan of one study, or of a study and its opposite."""
    planned = tuple(p for study in studies for p in _planned(study))
    study = studies[0]
    s, parameters = study.settings, study.weight_bytes // 4
    waiting = [p for p in planned if not p.done]
    train = training_speed(parameters, s.precision)
    # A forward pass is a third of a training step's work.
    score = 3 * training_speed(parameters, s.probe_precision)
    each = {p.run.name: p.seconds(train, score) for p in waiting}
    seconds = sum(each.values()) + 30
    return Plan(
        planned,
        seconds,
        round(MEMORY_COPIES * study.weight_bytes)
        + MEMORY_BESIDE
        + (s.probe_processes - 1) * (WORKER_COPIES * study.weight_bytes + WORKER_BESIDE),
        kept(s) * study.weight_bytes,
        each,
        sum(p.trained for p in waiting) / train,
    )


def kept(s: AuditSettings) -> int:
    """Copies of the weights on disk at the peak: those that runs start from, and a run's state."""
    return runs.most_weights(runs.of(s)) + STATE


def _planned(study: Study) -> Iterator[Planned]:
    s = study.settings
    encoded = [r for rows in study.encoded.values() for r in rows]
    length = sum(len(r.ids) for r in encoded) / len(encoded)
    probe = probe_tokens(s, length)
    for run in runs.of(s):
        yield Planned(
            run.identity(study),
            run.seed if run.rows else None,
            round(run.trained_tokens(s, length)),
            round(run.scored_tokens(s, length, probe)),
            run.done(study),
        )


def outline(settings: AuditSettings) -> str:
    """A plan that needs neither model nor data: runs, and tokens if every row is full.

    For studies whose models are not here yet; ``springback audit plan`` reads both.
    """
    s = check_settings(settings)
    kinds: dict[str, list[float]] = {}
    for order, suffix in zip(runs.orders(s), ("", ", opposite order"), strict=False):
        for run in runs.of(order):
            if run.rows:
                tokens = run.trained_tokens(order, s.max_tokens)
                kinds.setdefault(run.phase + suffix, []).append(tokens)
    every = sum(map(sum, kinds.values()))
    lines = [
        f"model:    {s.model}" + (f" at {s.revision}" if s.revision else ""),
        f"align:    {s.algorithm} on {', '.join(map(str, s.n_pos))} of {s.align}",
        f"perturb:  {s.perturb_algorithm} with {', '.join(map(str, s.doses))} of {s.perturb}",
        f"seeds:    {', '.join(map(str, s.seeds))}; learning rate {s.learning_rate:g}, batches of "
        f"{s.batch_size} rows of at most {s.max_tokens} tokens",
        *(f"  {len(n):>3} x {kind}: at most {sum(n):,.0f} tokens" for kind, n in kinds.items()),
        f"in all at most {every:,.0f} tokens of training, and {MEMORY_COPIES:g} times the weights "
        f"in fp32 and {MEMORY_BESIDE / 1e9:g} GB in memory",
    ]
    return "\n".join(lines)
