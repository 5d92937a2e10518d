"""What plans are asked: sizes, machine, price.  Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from springback.settings import Settings, setting

#: Machines that :mod:`springback.jobs.hardware` knows, and this one.
HARDWARE = ("here", "cpu", "l4", "a100", "h100", "h200")


@dataclass(frozen=True)
class PlanSettings(Settings, group="Plan"):
    """Only for a plan, of a model at hand or (``size``) of models that need not be there."""

    size: tuple[str, ...] = setting(
        (),
        "Plan for models of these sizes, of which nothing need be there: 1B, 7B, 8B, 14B, 32B, "
        "70B, 405B, or a number of weights such as 3B.",
    )
    hardware: str = setting("h100", f"With --size: on what, one of {', '.join(HARDWARE)}.")
    gpus: int = setting(0, "With --size: how many together hold one model; 0: as few as hold it.")
    price: float = setting(0.0, "Of one of them, an hour; 0: no cost is shown.")
    calibrate: bool = setting(
        False, "First time this machine, for ten seconds; later plans here go by it."
    )
