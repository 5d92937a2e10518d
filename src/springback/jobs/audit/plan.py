"""What an audit will do, before it starts: runs, tokens, time, memory, disk."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from springback.core import ALGORITHMS, Run, byte_size
from springback.errors import ModelError
from springback.jobs.audit import runs
from springback.jobs.audit.accelerate_config import sharding
from springback.jobs.audit.branches import attacks
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.protections import parse_all
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.jobs.audit.training_run import kl_prompts
from springback.jobs.plan_lines import columns, duration, memory_lines, peak
from springback.jobs.speeds import known_speeds
from springback.models.hub import folder_here, local_folder
from springback.models.memory import Architecture, available_bytes, read_architecture
from springback.models.memory_parts import (
    LIBRARIES,
    Part,
    Parts,
    Training,
    audit_parts,
    judge_part,
    largest,
    libraries,
)
from springback.models.placement import audit_placement
from springback.probes.judges.naming import judge_model
from springback.probes.registry import probe_tokens
from springback.results.judge_info import split_judges
from springback.training.launch import Launch
from springback.weights import tensor_names

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

    ``parts``: what is in memory at the peak.  ``each``: seconds of every run that is not done, by
    its name, without what starting costs.  ``training``: those of ``seconds`` that go into
    training; the rest goes into probes.  ``speeds``: where the speeds are from.
    """

    runs: tuple[Planned, ...]
    seconds: float
    parts: Parts
    disk: int
    each: Mapping[str, float] = field(default_factory=dict)
    training: float = 0.0
    speeds: str = ""
    available: int | None = None

    @property
    def waiting(self) -> tuple[Planned, ...]:
        return tuple(p for p in self.runs if not p.done)

    @property
    def memory(self) -> int:
        return peak({"an audit": self.parts})

    @property
    def time(self) -> str:
        return duration(self.seconds)

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
        text = [*columns(rows), *memory_lines({"an audit": self.parts}, self.available)]
        return "\n".join([*text, f"what is left: {self.needs}", f"speeds: {self.speeds}"])

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


def make_plan(studies: list[Study]) -> Plan:
    """The plan of one study, or of a study and its opposite."""
    planned = tuple(p for study in studies for p in _planned(study))
    study = studies[0]
    s = study.settings
    shape = read_architecture(study.checkpoint.path, s.model)
    waiting = [p for p in planned if not p.done]
    speeds = known_speeds(s.precision, s.probe_precision if s.dtype == "auto" else s.dtype)
    train, score = speeds.train / (6 * shape.weights), speeds.score / (2 * shape.weights)
    each = {p.run.name: p.seconds(train, score) for p in waiting}
    launch, prompt = study.sharded, max(map(len, study.prompts))
    device = "cpu" if launch and launch.cpu else str(study.place.device)
    learned = 4 * int(shape.adapter_weights(s.lora_rank)) or study.weight_bytes
    return Plan(
        planned,
        sum(each.values()) + 30,
        (*memory_of(s, shape, device == "cpu", prompt, launch), libraries(device)),
        kept(s) * learned,
        each,
        sum(p.trained for p in waiting) / train,
        speeds.source,
        available_bytes(device),
    )


def memory_of(
    s: AuditSettings,
    shape: Architecture,
    cpu: bool = True,
    prompt: int | None = None,
    launch: Launch | None = None,
) -> Parts:
    """What a study holds beside the libraries, every row as long as ``max_tokens``.

    ``prompt``: tokens of the longest prompt that is answered, as far as it is known.  ``launch``:
    the processes over which its weights lie, none of which are the study's own.  On devices that is
    what each of these holds, on a CPU what all of them do.
    """
    prompt = s.prompt_tokens if prompt is None else prompt
    kl = s.prompts * s.sample_tokens if "kl" in s.probes else 0
    further = (attack.algorithm for attack in attacks(s) if attack.algorithm)
    names = {s.perturb_algorithm, *further} | ({s.algorithm} if any(s.n_pos) else set())
    ways = [_training(s, name, cpu) for name in names]
    target = 0
    if s.resistance_rows and s.resistance_data == "answers":
        answers = _training(s, "sft", cpu)
        ways.append(replace(answers, tokens=max(s.max_tokens, prompt + s.resistance_tokens)))
        target = kl_prompts(s) * s.sample_tokens
    fixed = 1 if s.base is None else 2
    shards = launch.processes if launch else 1
    if launch:  # whose part of a batch goes through the model at once
        ways = [replace(how, rows=-(-how.rows // shards), cpu=False) for how in ways]
    processes = 1 if launch else s.probe_processes
    parts = largest(
        *(audit_parts(shape, how, kl, processes, target, fixed, shards) for how in ways)
    )
    if launch:
        parts = _of_processes(parts, shards, cpu)
    if any(p.kind == "project" and p.rank is None for p in parse_all(s.mitigate)):
        parts = (*parts, Part("way back", 4 * int(shape.weights), "that updates are projected off"))
    return (*parts, *_judges(s, names))


def _of_processes(parts: Parts, shards: int, cpu: bool) -> Parts:
    """What one of so many pairs of processes holds, of which one trains and one measures: on a
    device of its own, or on a CPU all of them in one memory."""
    if not cpu:
        return (*parts, replace(libraries("cuda"), name="CUDA of the process that measures"))
    summed = (
        replace(part, bytes=shards * part.bytes, words=f"{part.words}; {shards} processes")
        for part in parts
    )
    more = Part("processes", 2 * shards * LIBRARIES, f"{2 * shards}: Python, torch, Transformers")
    return (*summed, more)


def _judges(s: AuditSettings, algorithms: Collection[str]) -> Iterator[Part]:
    """The models that judge: of sampled texts, and what RLOO maximises."""
    judges = split_judges(s.behaviour) if s.behaviour and "behaviour" in s.probes else []
    for spec in (*judges, *((s.reward,) if "rloo" in algorithms else ())):
        if (name := judge_model(spec)) is not None:
            folder, weights = folder_here(name), None
            if folder is not None:
                with suppress(ModelError):  # half fetched
                    weights = sum(math.prod(shape) for shape, _ in tensor_names(folder).values())
            yield judge_part(Path(name).name, weights)


def _training(s: AuditSettings, algorithm: str, cpu: bool) -> Training:
    """How an algorithm trains in a study, as far as its memory goes."""
    entry = ALGORITHMS[algorithm]
    rows, tokens = s.batch_size * (2 if entry.preference else 1), s.max_tokens
    reference = False
    if entry.learns == "prompts":
        rows, tokens = s.batch_size * s.generations, s.prompt_tokens + s.answer_tokens
        reference = not s.lora_rank and bool(s.recipe(0, algorithm).beta or entry.beta)
    return Training(
        rows,
        tokens,
        s.precision == "bf16-mixed",
        s.lora_rank,
        cpu,
        "float32" if s.dtype == "auto" else s.dtype,
        whole_logits=entry.learns != "rows",
        reference=reference,
        checkpointed=s.checkpoint_activations,
        quantize=s.quantize,
    )


def parts_of(settings: AuditSettings) -> Parts:
    """:func:`memory_of` the model that the settings name, from its files."""
    s = check_settings(settings)
    shape, launch = read_architecture(local_folder(s.model, s.revision), s.model), sharding(s)
    cpu = launch.cpu if launch else audit_placement(s).device.type == "cpu"
    return memory_of(s, shape, cpu, launch=launch)


def kept(s: AuditSettings) -> int:
    """Copies of the weights on disk at the peak: those that runs start from, and a run's state."""
    return runs.most_weights(runs.of(s)) + STATE


def _planned(study: Study) -> Iterator[Planned]:
    s = study.settings
    encoded = [r for rows in study.encoded.values() for r in rows]
    length = sum(len(r.ids) for r in encoded) / len(encoded)
    probe = probe_tokens(s, length)
    listed = runs.of(s)
    # What is done and has to be made again counts too: others start from weights that are gone.
    left = runs.left(study, listed)
    for run in listed:
        yield Planned(
            run.identity(study),
            run.seed if run.rows else None,
            round(run.trained_tokens(s, length)),
            round(run.scored_tokens(s, length, probe)),
            not any(run is one for one in left),
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
        f"align:    {s.algorithm} on {', '.join(map(str, s.n_pos))} of {s.align}"
        if any(s.n_pos)
        else "align:    nothing; the model as it is" + (f", made from {s.base}" if s.base else ""),
        f"perturb:  {s.perturb_algorithm} with {', '.join(map(str, s.doses))} of {s.perturb}",
        f"seeds:    {', '.join(map(str, s.seeds))}; learning rate {s.learning_rate:g}, batches of "
        f"{s.batch_size} rows of at most {s.max_tokens} tokens",
        *(f"  {len(n):>3} x {kind}: at most {sum(n):,.0f} tokens" for kind, n in kinds.items()),
        f"in all at most {every:,.0f} tokens of training; memory by part: audit plan",
    ]
    return "\n".join(lines)
