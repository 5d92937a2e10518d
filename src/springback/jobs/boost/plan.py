"""What a boost will do, before it starts: training, searches, test, memory by part, time, disk.

Counted from the settings and, for a model at hand, from the lengths of its questions; no weights
are loaded and nothing of the test set is scored.  Sizes that are not at hand need no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from springback.core import byte_size
from springback.jobs.boost.candidates import candidates
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.hardware import Machine, architecture, machine_of
from springback.jobs.plan_lines import (
    LargePlan,
    columns,
    duration,
    few,
    large_lines,
    memory_lines,
    peak,
)
from springback.jobs.plan_settings import PlanSettings
from springback.jobs.speeds import Speeds
from springback.models.memory import Architecture, item_bytes
from springback.models.memory_parts import (
    Answering,
    Parts,
    Scored,
    Training,
    boost_parts,
    total,
    training_parts,
)

#: Rows of built-in data, and held-out rows of a file that is split, unless a flag says so.
ROWS = {"validation": 200, "test": 200, "train": 256}
#: Rank of the adapters in plans of models that are not at hand.
RANK = 16
#: Points along mu, and rows at most, of the pre-check.
PRECHECK_MUS, PRECHECK_ROWS = 12, 64


@dataclass(frozen=True)
class Tokens:
    """Of texts: on average, and of the longest."""

    mean: float
    most: int

    @staticmethod
    def of(lengths: Sequence[int]) -> Tokens:
        return Tokens(fmean(lengths), max(lengths)) if lengths else Tokens(0, 0)


@dataclass(frozen=True)
class Load:
    """Rows of each part, and tokens on average and at most: of questions, of answers (as long as
    the reference solutions, where these are known), of questions with their solutions, of rows to
    train on.  ``scored``: whether the NLL of the solutions is taken; ``counted``:
    tokens of the longest one without its question."""

    rows: Mapping[str, int]
    prompt: Tokens
    answer: Tokens
    solved: Tokens
    learned: Tokens
    scored: bool = True
    counted: int = 0


@dataclass(frozen=True)
class Stage:
    """Work of one kind: how many ways to decode, on how many questions, and tokens.

    ``trained``, ``scored``: tokens through the model; ``passes``: steps of decoding, each of one
    model for a batch; ``decoded``: tokens that these decode, each model's counted.  ``share``: of
    the work of training all weights.
    """

    name: str
    arms: int
    questions: int
    trained: float = 0.0
    scored: float = 0.0
    passes: float = 0.0
    decoded: float = 0.0
    share: float = 1.0


def rows_of(settings: BoostSettings) -> Load:
    """By the settings alone: rows as long as ``max_tokens``, parts as large as they say."""
    full = Tokens(settings.max_tokens, settings.max_tokens)
    answer = Tokens(settings.max_new_tokens, settings.max_new_tokens)
    counts = {name: getattr(settings, f"{name}_rows") or ROWS[name] for name in ROWS}
    return Load(counts, full, answer, full, full, counted=settings.max_tokens)


def batch_of(settings: BoostSettings) -> int:
    """Questions decoded at once, as the settings have it or a plan takes it."""
    given = settings.batch_size
    return given if isinstance(given, int) and given > 0 else 32


def stages(settings: BoostSettings, load: Load) -> list[Stage]:
    """Everything that a boost runs, in its order."""
    s, batch, times = settings, batch_of(settings), settings.samples
    solution = load.solved.mean if load.scored else 0.0

    def decoded(name: str, arms: int, questions: int, models: int, nll: int) -> Stage:
        """``nll``: passes over the solutions."""
        batches = -(-questions * times // batch)
        return Stage(
            name,
            arms,
            questions,
            scored=questions * (arms * models * times * load.prompt.mean + nll * solution),
            passes=arms * models * batches * load.answer.most,
            decoded=arms * models * questions * times * load.answer.mean,
        )

    mu, lam, alone = (
        candidates(values, flag, s.positive)
        for values, flag in ((s.mu, "mu"), (s.lam, "lambda"), (s.lam_cd, "cd-lambda"))
    )

    def left(arms: int) -> int:
        return min(arms, s.narrow + 1) if s.narrow else arms

    contrasts = sum(value > 0 for value in lam)  # at lambda 0 an answer is known already
    named = {*s.ablate_weak, *(("other",) if s.weak else ())}
    more = len(named) + bool(s.gate)
    found = []
    if s.train and not (s.early and s.ft):
        trained = s.epochs * load.rows["train"] * load.learned.mean
        share = 2 / 3 if s.lora_rank else 1.0  # of an adapter no gradients of the other weights
        found.append(Stage("training", 1, load.rows["train"], trained=trained, share=share))
    if s.precheck:
        rows = min(PRECHECK_ROWS, load.rows["validation"])
        scored = PRECHECK_MUS * rows * solution
        found.append(Stage("pre-check", PRECHECK_MUS, rows, scored=scored))
    valid, test = load.rows["validation"], load.rows["test"]
    found.append(decoded("search of mu", left(len(mu)), valid, 1, len(mu)))
    joint = s.search == "joint"
    pairs = left(contrasts * len(mu) if joint else contrasts)
    found.append(decoded("search of both" if joint else "search of lambda", pairs, valid, 2, 0))
    found.append(decoded("search of CD only", left(sum(v > 0 for v in alone)), valid, 2, 1))
    if s.rewind:
        found.append(decoded("search of rewind", left(len(s.rewind)), valid, 1, len(s.rewind)))
    if more:
        found.append(decoded("further searches", more * left(contrasts), valid, 2, more))
    if s.baselines:
        found.append(decoded("search of the best checkpoint", max(2, len(s.run)), valid, 1, 0))
        if times < 3:  # else these samples of the fine-tuned model are there already
            found.append(decoded("majority of samples", -(-3 // times), test, 1, 0))
        found.append(decoded("average of probabilities", 1, test, 2, 2))
        found.append(decoded("best checkpoint", 1, test, 1, 1))
    plain = 2 + bool(s.rewind)
    found.append(decoded("test, one model", plain, test, 1, plain))
    found.append(decoded("test, two models", 2 + more, test, 2, 2 + more))
    return found


def phases_of(
    settings: BoostSettings,
    shape: Architecture,
    load: Load,
    dtype: str,
    adapter: float = 0,
    cpu: bool = True,
    beside: Parts = (),
) -> dict[str, Parts]:
    """Memory of training, where there is some, and of searching and testing.

    ``beside``: what is held in either, such as the libraries.
    """
    s, phases = settings, dict[str, Parts]()
    adapter = adapter or shape.adapter_weights(s.lora_rank)
    if s.train and not (s.early and s.ft):
        mixed = s.precision == "bf16-mixed"
        learning = Training(
            s.train_batch_size,
            load.learned.most,
            mixed,
            s.lora_rank,
            cpu=cpu,
            checkpointed=s.checkpoint_activations,
        )
        phases["training"] = (*training_parts(shape, learning), *beside)
    solved, prompt = load.solved, load.prompt.most
    texts = None
    if load.scored:
        rows = max(load.rows["validation"], load.rows["test"])
        share = min(1.0, load.counted / max(solved.most, 1))
        texts = Scored(round(rows * solved.mean), share)
    answering = Answering(batch_of(s), prompt, s.max_new_tokens, texts)
    parts = boost_parts(shape, dtype, answering, adapter, s.quantize)
    phases["searching and testing"] = (*parts, *beside)
    return phases


def disk_bytes(
    settings: BoostSettings, shape: Architecture, stored: int, adapter: float = 0
) -> float:
    """At the most: a checkpoint an epoch, the states of training, the boosted folder.

    ``stored``: bytes of a weight as the fine-tuned model is stored.
    """
    s, disk = settings, 0.0
    if s.train and not (s.early and s.ft):
        stored = 4
        adapter = adapter or shape.adapter_weights(s.lora_rank)
        disk = (s.epochs + 4) * 4 * (adapter or shape.weights)
    if s.write_model:  # the expert, and the weak model beside it
        disk += 2 * stored * (adapter or shape.weights)
    return disk


@dataclass(frozen=True)
class BoostPlan:
    """``seconds`` by stage, an estimate; ``phases``: what memory holds, by part; ``disk`` in bytes.

    ``model``: in words; ``speeds``: where the speeds are from; ``available``: free memory.
    """

    model: str
    stages: tuple[Stage, ...]
    seconds: tuple[float, ...]
    phases: Mapping[str, Parts]
    disk: float
    speeds: str
    available: int | None = None

    @property
    def memory(self) -> int:
        return peak(self.phases)

    @property
    def needs(self) -> str:
        return (
            f"about {duration(sum(self.seconds))}, {byte_size(self.memory)} of memory, "
            f"{byte_size(self.disk)} of disk"
        )

    def __str__(self) -> str:
        """Stages, memory by part, and the sum."""
        return "\n".join(
            [
                self.model,
                *stage_lines(self.stages, self.seconds),
                *memory_lines(self.phases, self.available),
                f"what it needs: {self.needs}",
                f"speeds: {self.speeds}",
            ]
        )


def stage_lines(stages: Sequence[Stage], seconds: Sequence[float] = ()) -> list[str]:
    """The stages as a table, with what each takes where ``seconds`` are given."""
    head = ("stage", "arms", "questions", "tokens trained", "tokens scored", "tokens decoded")
    rows: list[tuple[str, ...]] = [(*head, "minutes") if seconds else head]
    for i, one in enumerate(stages):
        numbers = (one.arms, one.questions, one.trained, one.scored, one.decoded)
        minutes = (few(seconds[i] / 60),) if seconds else ()
        rows.append((one.name, *(f"{n:,.0f}" for n in numbers), *minutes))
    return columns(rows)


def plan_by_size(settings: BoostSettings, asked: PlanSettings) -> str:
    """The table for models that are not at hand: two full checkpoints, and two adapters on a base.

    Raises :class:`SpringbackError` on what cannot be.
    """
    dtype = dtype_of_size(settings, asked)
    mixed = "bf16-mixed" if settings.precision == "auto" else settings.precision
    machine = machine_of(asked, mixed, dtype)
    load = rows_of(settings)
    listed = stages(settings, load)
    plans = []
    for model in map(architecture, asked.size):
        trains = listed[0].trained > 0
        learned = model.adapter_weights(settings.lora_rank)
        for adapter in (learned,) if trains else (0.0, model.adapter_weights(RANK)):
            plans.append(_large(settings, model, (machine, asked), dtype, adapter))
    head = f"a boost computed in {dtype}, questions of {load.prompt.most} tokens and answers of "
    head += f"{settings.max_new_tokens} at the most, {batch_of(settings)} at once"
    return "\n".join([head, *stage_lines(listed), *large_lines(plans, machine)])


def _large(
    settings: BoostSettings,
    model: Architecture,
    place: tuple[Machine, PlanSettings],
    dtype: str,
    adapter: float,
) -> LargePlan:
    """Two full checkpoints, or two adapters of so many weights, of one size."""
    machine, asked = place
    load = rows_of(settings)
    mixed = "bf16-mixed" if settings.precision == "auto" else settings.precision
    phases = phases_of(
        replace(settings, precision=mixed), model, load, dtype, adapter, cpu=machine.is_cpu
    )
    parts = max(phases.values(), key=total)
    devices = machine.devices(parts, asked.gpus, f"a boost of {model.name}", "and boost that")
    speeds = machine.speeds(dtype)
    seconds = sum(seconds_of(stage, model, speeds) for stage in stages(settings, load)) / devices
    stored = item_bytes(dtype)
    disk = disk_bytes(settings, model, stored, adapter)
    seconds += (4 * stored * model.weights + disk) / machine.disk
    cost = seconds / 3600 * devices * asked.price if asked.price else None
    kind = "adapters" if adapter else "full"
    return LargePlan(model, devices, seconds, parts, disk, cost, kind)


def dtype_of_size(settings: BoostSettings, asked: PlanSettings) -> str:
    """What is computed in where nothing is at hand: bf16 on a GPU, fp32 on a CPU."""
    if settings.dtype != "auto":
        return settings.dtype
    return "float32" if asked.hardware in ("cpu", "here") else "bfloat16"


def seconds_of(stage: Stage, model: Architecture, speeds: Speeds) -> float:
    """Work over speed: 6 N FLOP a trained token, 2 N a scored one, weights read at every pass."""
    n = model.weights
    return (
        6 * n * stage.trained * stage.share / speeds.train
        + 2 * n * stage.scored / speeds.score
        + speeds.decoding(n, stage.passes, stage.decoded)
    )
