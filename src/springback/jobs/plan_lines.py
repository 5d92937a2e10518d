"""Plans in words: tables, memory by part, what there is.  One form for all jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from springback.core import byte_size
from springback.jobs.hardware import Machine
from springback.models.memory import Architecture
from springback.models.memory_parts import Parts, lines, total


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


def peak(phases: Mapping[str, Parts]) -> int:
    """Bytes of the largest of phases that follow one another."""
    return max((total(parts) for parts in phases.values()), default=0)


def memory_lines(phases: Mapping[str, Parts], available: int | None = None) -> list[str]:
    """Memory of each phase by part, and beside the peak what is free."""
    text: list[str] = []
    for phase, parts in phases.items():
        rows = [(name, size.rjust(8), words) for name, size, words in lines(parts)]
        text += [f"memory of {phase}, by part:", *(f"  {line}" for line in columns(rows, left=3))]
    if available is not None:
        short = peak(phases) - available
        text.append(
            f"free: {byte_size(available)}"
            + (f", {byte_size(short)} too little" if short > 0 else "")
        )
    return text


def duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


def few(value: float) -> str:
    """A number with two digits, a large one whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


@dataclass(frozen=True)
class LargePlan:
    """A job on a model of one size.  Bytes, seconds; ``parts`` of all devices together; ``cost``
    None without a price.  ``kind``: how, where there are several ways."""

    model: Architecture
    devices: int
    seconds: float
    parts: Parts
    disk: float
    cost: float | None
    kind: str = ""

    @property
    def memory(self) -> int:
        return total(self.parts)

    @property
    def name(self) -> str:
        return f"{self.model.name} {self.kind}".rstrip()


def large_lines(plans: Sequence[LargePlan], machine: Machine) -> list[str]:
    """Plans as a table, their memory by part, and what all of it rests on."""
    head = ("model", "weights", machine.name, "hours", "device hours", "memory", "disk", "cost")
    rows: list[Sequence[str]] = [head]
    for plan in plans:
        hours = plan.seconds / 3600
        rows.append(
            (
                plan.name,
                f"{plan.model.weights / 1e9:.3g}B",
                f"{plan.devices}",
                few(hours),
                few(hours * plan.devices),
                _size(plan.memory),
                _size(plan.disk),
                "" if plan.cost is None else f"{plan.cost:,.2f}",
            )
        )
    return [*columns(rows, left=0), *_parts_table(plans), *_basis(machine)]


def _parts_table(plans: Sequence[LargePlan]) -> list[str]:
    """Memory by part, a column for each plan."""
    by_plan = [{part.name: part.bytes for part in plan.parts} for plan in plans]
    rows = [("memory, by part", *(plan.name for plan in plans))]
    for name in dict.fromkeys(part.name for plan in plans for part in plan.parts):
        held = (parts.get(name, 0) for parts in by_plan)
        rows.append((name, *(_size(n, 1) if n else "" for n in held)))
    return columns(rows)


def _basis(machine: Machine) -> list[str]:
    speeds = f"{machine.train / 1e12:.3g} and {machine.score / 1e12:.3g} TFLOP/s"
    return [
        f"Speed of training and scoring: {speeds}, {machine.source}.",
        "Counted: runs, tokens, bytes of weights. Assumed: work in proportion to weights and "
        "tokens, devices that add up without loss, the shape of a Llama. Good to a factor of two "
        "where the speed is measured, of four where it is not.",
    ]


def _size(count: float, decimals: int = 0) -> str:
    """Bytes as GB, below one of them as :func:`byte_size`."""
    return f"{count / 1e9:,.{decimals}f} GB" if count >= 1e9 else byte_size(count)
