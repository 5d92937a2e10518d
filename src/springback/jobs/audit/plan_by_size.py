"""``audit plan --size``: hours, memory, disk and cost of a study of models that are not at hand.

Runs and tokens are counted exactly as :mod:`springback.jobs.audit.plan` counts them, every row
taken as long as ``--max-tokens``.  Time is work over speed: 6 N FLOP a trained token, 2 N a scored
one (Kaplan et al. 2020, N weights), with speeds that are measured where :class:`Machine` says so,
and else a share of the maker's peak that is assumed.  Weights also have to be read and written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from springback.errors import StoreError
from springback.jobs.audit import runs
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.plan import kept, memory_of
from springback.jobs.audit.plan_settings import LargeSettings
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.config import build
from springback.jobs.hardware import MACHINES, Machine, architecture, machine_of
from springback.jobs.plan_lines import LargePlan, large_lines
from springback.models.loading import count_parameters, resolve
from springback.models.memory import Architecture
from springback.probes.registry import probe_tokens
from springback.results.store import read_json


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


def large_plan(
    settings: AuditSettings, model: Architecture, machine: Machine, devices: int, price: float
) -> LargePlan:
    """``devices`` 0: the smallest power of two that holds the model.

    Raises :class:`SpringbackError` where so many devices do not hold it.
    """
    work, rank = amount(settings), settings.lora_rank
    parts = memory_of(settings, model, cpu=machine.is_cpu)
    devices = machine.devices(parts, devices, f"a {model.name} study", "--lora-rank")
    trained = model.adapter_weights(rank) if rank else model.weights
    flops = 6.0 * work.trained * model.weights / machine.train
    if rank:  # gradients of frozen weights are not made: 4 N instead of 6 N
        flops *= 4 / 6
    flops += 2.0 * work.scored * model.weights / machine.score
    moved = work.moved * 4.0 * trained / machine.disk + 2 * 4.0 * model.weights / machine.disk
    seconds = flops / devices + moved
    disk = kept(settings) * 4.0 * trained
    cost = seconds / 3600 * devices * price if price else None
    return LargePlan(model, devices, seconds, parts, disk, cost)


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
    given.setdefault("controls", ())  # made before there were any
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
    machine = machine_of(large, settings.precision, settings.probe_precision)
    if large.like is not None:
        machine = calibrated(machine, large.like)
    models = [architecture(size) for size in large.size]
    plans = [large_plan(settings, m, machine, large.gpus, large.price) for m in models]
    work = amount(settings)
    counted = (
        f"{work.runs} runs of {len(settings.seeds)} seed(s): {work.trained:,.0f} tokens trained, "
        f"{work.scored:,.0f} scored, rows taken as {settings.max_tokens} tokens long"
    )
    return "\n".join([counted, *large_lines(plans, machine)])


__all__ = ["MACHINES", "Architecture", "Machine", "architecture", "calibrated", "large_plan"]
