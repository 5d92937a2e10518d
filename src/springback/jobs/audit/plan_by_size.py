"""``audit plan --size``: hours, memory, disk and cost of a study of models that are not at hand.

Runs and tokens are counted exactly as :mod:`springback.jobs.audit.plan` counts them, every row
taken as long as ``--max-tokens``.  Time is work over speed: 6 N FLOP a trained token, 2 N a scored
one (Kaplan et al. 2020, N weights), with speeds that are measured where :class:`Machine` says so,
and else a share of the maker's peak that is assumed.  Weights also have to be read and written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from springback.core import byte_size
from springback.errors import SpringbackError, StoreError, describe
from springback.jobs.audit import runs
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.plan import columns, kept
from springback.jobs.audit.plan_settings import HARDWARE, LargeSettings
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.config import build
from springback.models.loading import count_parameters, resolve
from springback.probes.registry import probe_tokens
from springback.results.store import read_json

#: Bytes a weight: fp32 master, gradient and two moments of AdamW, and the fp32 start model beside.
FULL, START = 16, 4
#: Bytes of activations a token, layer and unit of width, in bf16 with attention not kept
#: (Korthikanti et al. 2022: 34 in 16 bit).
ACTIVATIONS = 34
#: Of a device's memory that weights and activations may fill.
USABLE_MEMORY = 0.85


@dataclass(frozen=True)
class Machine:
    """One device: FLOP a second of training and of scoring, bytes of memory, bytes a second of
    disk.  ``source`` says where its speeds are from, ``measured`` whether they were measured."""

    name: str
    train: float
    score: float
    memory: float
    disk: float
    measured: bool
    source: str


def _gpu(name: str, peak: float, memory: float) -> Machine:
    # Shares of peak that FSDP trainings report (0.3 to 0.5); scoring goes in fp32 (TF32 half).
    return Machine(
        name, 0.35 * peak, 0.15 * peak, memory, 2e9, False, "assumed: 35 % and 15 % of peak bf16"
    )


MACHINES = {
    "cpu": Machine(
        "cpu",
        3.4e11,
        1.2e11,
        24e9,
        5e8,
        True,
        "measured: SmolLM2-135M on 2 cores with AVX-512 bf16 (docs/results/imdb-audit, log.md)",
    ),
    "a100": _gpu("a100", 312e12, 80e9),
    "h100": _gpu("h100", 989e12, 80e9),
    "h200": _gpu("h200", 989e12, 141e9),
}
assert set(MACHINES) == set(HARDWARE)


@dataclass(frozen=True)
class Architecture:
    """Weights, layers and width: all that memory and work depend on here."""

    name: str
    weights: float
    layers: int
    width: int


#: The Llama models that these names stand for: 3.2 1B, 2 7B, 3 70B, 3.1 405B.
KNOWN = {
    "1B": Architecture("1B", 1.24e9, 16, 2048),
    "7B": Architecture("7B", 6.74e9, 32, 4096),
    "70B": Architecture("70B", 70.6e9, 80, 8192),
    "405B": Architecture("405B", 405.9e9, 126, 16384),
}
_UNITS = {"": 1.0, "M": 1e6, "B": 1e9}


def architecture(size: str) -> Architecture:
    """A known size, or one of so many weights, its width 128 for each layer.

    Raises :class:`SpringbackError` where it is no number of weights.
    """
    if size.upper() in KNOWN:
        return KNOWN[size.upper()]
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)([MB]?)", size.upper())
    weights = float(parts[1]) * _UNITS[parts[2]] if parts else 0.0
    if not 1e6 <= weights <= 1e13:
        raise SpringbackError(
            "--size: " + describe(repr(size), f"{', '.join(KNOWN)}, or 1M to 10000B", "write 3B")
        )
    layers = max(2, round((weights / (12 * 128**2)) ** (1 / 3)))
    return Architecture(size.upper(), weights, layers, 128 * layers)


@dataclass(frozen=True)
class Amount:
    """Tokens trained and scored, how often weights of the whole model are read or written."""

    runs: int
    trained: float
    scored: float
    moved: int


def amount(settings: AuditSettings) -> Amount:
    """Of all seeds of a study, every row as long as ``max_tokens``."""
    s, length = settings, float(settings.max_tokens)
    probe = probe_tokens(s, length)
    listed = [run for order in runs.orders(s) for run in runs.of(order)]
    return Amount(
        len(listed),
        sum(run.trained_tokens(s, length) for run in listed),
        sum(run.scored_tokens(s, length, probe) for run in listed),
        sum(run.weights_moved for run in listed),
    )


@dataclass(frozen=True)
class LargePlan:
    """One size.  Bytes, seconds; ``cost`` None without a price."""

    model: Architecture
    devices: int
    seconds: float
    memory: float
    disk: float
    cost: float | None


def large_plan(
    settings: AuditSettings, model: Architecture, machine: Machine, devices: int, price: float
) -> LargePlan:
    """``devices`` 0: the smallest power of two that holds the model.

    Memory: full training needs 20 bytes a weight, an adapter of rank r 8 for both frozen models
    and 16 for each of its own weights, and activations of one batch.  Raises
    :class:`SpringbackError` where so many devices do not hold it.
    """
    work = amount(settings)
    trained = model.weights
    memory = (FULL + START) * model.weights
    if settings.lora_rank:
        trained = 14 * model.layers * model.width * settings.lora_rank * 2
        memory = 2 * START * model.weights + FULL * trained
    tokens = settings.batch_size * settings.max_tokens
    memory += ACTIVATIONS * tokens * model.layers * model.width
    fits = max(1, math.ceil(memory / (USABLE_MEMORY * machine.memory)))
    if devices and devices < fits:
        raise SpringbackError(
            f"--gpus is {devices}; a {model.name} study needs {_size(memory)}, so {fits} or "
            f"more of {machine.name} ({machine.memory / 1e9:.0f} GB each); raise it, or train an "
            "adapter (--lora-rank)"
        )
    devices = devices or 2 ** math.ceil(math.log2(fits))
    flops = 6.0 * work.trained * model.weights / machine.train
    if settings.lora_rank:  # gradients of frozen weights are not made: 4 N instead of 6 N
        flops *= 4 / 6
    flops += 2.0 * work.scored * model.weights / machine.score
    moved = work.moved * 4.0 * trained / machine.disk + 2 * 4.0 * model.weights / machine.disk
    seconds = flops / devices + moved
    disk = kept(settings) * 4.0 * trained
    cost = seconds / 3600 * devices * price if price else None
    return LargePlan(model, devices, seconds, memory, disk, cost)


def calibrated(machine: Machine, folder: str | Path) -> Machine:
    """The machine with the speed that a finished audit had: its work over its seconds.

    Training and scoring keep the ratio that they have; what starting and writing took counts as
    work.  Raises :class:`StoreError` where the folder holds no finished audit of a model that is
    there, or one whose time covers a part of it, since it was resumed or spread over workers.
    """
    path = Path(folder) / "result.json"
    if not path.is_file():
        raise StoreError(
            f"--like is {folder}; it has no result.json: name a finished audit's folder"
        )
    data = read_json(path)
    seconds = data.get("provenance", {}).get("seconds")
    if data.get("kind") != "audit" or not isinstance(seconds, (int, float)) or seconds <= 0:
        raise StoreError(f"{path} is of no audit with a known time; name a finished audit's folder")
    runs = data["provenance"].get("runs", {})
    if runs.get("read"):
        raise StoreError(
            f"the {seconds:.0f} s of {path} cover {runs['made']} of {runs['made'] + runs['read']} "
            "runs: the others were made by an earlier call, a worker or another machine; name an "
            "audit that ran in one go"
        )
    given = {k: v for k, v in data["inputs"]["settings"].items() if v is not None}
    settings = check_settings(build(AuditSettings, given, file=str(path)))
    weights = count_parameters(resolve(settings.model, settings.revision))
    work = amount(settings)
    expected = weights * (6 * work.trained / machine.train + 2 * work.scored / machine.score)
    speed = expected / float(seconds)
    return replace(
        machine,
        train=machine.train * speed,
        score=machine.score * speed,
        measured=True,
        source=f"measured: {seconds:.0f} s of {folder}, {weights / 1e6:.0f}M weights",
    )


def make(settings: AuditSettings, large: LargeSettings) -> str:
    """The table of every size, and which part of it is measured.

    Raises :class:`SpringbackError` on what cannot be.
    """
    settings = check_settings(settings)
    if large.hardware not in MACHINES:
        raise SpringbackError(f"--hardware is {large.hardware}; allowed: {', '.join(MACHINES)}")
    for flag, value in (("gpus", large.gpus), ("price", large.price)):
        if value < 0:
            raise SpringbackError(f"--{flag} is {value}; give 0 or more")
    machine = MACHINES[large.hardware]
    if large.like is not None:
        machine = calibrated(machine, large.like)
    models = [architecture(size) for size in large.size]
    plans = [large_plan(settings, m, machine, large.gpus, large.price) for m in models]
    work = amount(settings)
    counted = (
        f"{work.runs} runs of {len(settings.seeds)} seed(s): {work.trained:,.0f} tokens trained, "
        f"{work.scored:,.0f} scored, rows taken as {settings.max_tokens} tokens long"
    )
    return "\n".join([counted, *_table(plans, large.hardware), *_basis(machine)])


def _table(plans: Sequence[LargePlan], hardware: str) -> list[str]:
    head = ("model", "weights", hardware, "hours", "device hours", "memory", "disk", "cost")
    rows: list[Sequence[str]] = [head]
    for plan in plans:
        hours = plan.seconds / 3600
        rows.append(
            (
                plan.model.name,
                f"{plan.model.weights / 1e9:.3g}B",
                f"{plan.devices}",
                _few(hours),
                _few(hours * plan.devices),
                f"{_size(plan.memory)}",
                f"{_size(plan.disk)}",
                "" if plan.cost is None else f"{plan.cost:,.2f}",
            )
        )
    return columns(rows, left=0)


def _few(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _basis(machine: Machine) -> list[str]:
    speeds = f"{machine.train / 1e12:.3g} and {machine.score / 1e12:.3g} TFLOP/s"
    return [
        f"Speed of training and scoring: {speeds}, {machine.source}.",
        "Counted: runs, tokens, bytes of weights. Assumed: work in proportion to weights and "
        "tokens, devices that add up without loss, activations of 34 bytes a token, layer and unit "
        "of width. Good to a factor of two where the speed is measured, of four where it is not.",
    ]


def _size(count: float) -> str:
    """Bytes as whole GB, below one of them as :func:`byte_size`."""
    return f"{count / 1e9:,.0f} GB" if count >= 1e9 else byte_size(count)
