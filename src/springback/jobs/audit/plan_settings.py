"""What ``audit plan --size`` is asked: sizes, machine, price.  Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from springback.settings import Settings, setting

#: Machines that :mod:`springback.jobs.audit.plan_by_size` knows.
HARDWARE = ("cpu", "a100", "h100", "h200")


@dataclass(frozen=True)
class LargeSettings(Settings, group="Plan by size"):
    """Only for ``audit plan``: models that need not be there."""

    size: tuple[str, ...] = setting(
        (),
        "Plan for models of these sizes, of which nothing need be there: 1B, 7B, 70B, 405B, or a "
        "number of weights such as 3B.",
    )
    hardware: str = setting("h100", f"On what, one of {', '.join(HARDWARE)}.")
    gpus: int = setting(0, "How many together hold one model; 0: as few as hold it.")
    price: float = setting(0.0, "Of one of them, an hour; 0: no cost is shown.")
    like: str | None = setting(
        None,
        "Folder of a finished audit of yours on the machine in question: its time calibrates the "
        "plan.",
    )
