"""What ``audit plan`` is asked.  Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from springback.jobs.plan_settings import PlanSettings
from springback.settings import setting


@dataclass(frozen=True)
class LargeSettings(PlanSettings, group="Plan"):
    """Of an audit: a finished one may calibrate its plan."""

    like: str | None = setting(
        None,
        "Folder of a finished audit of yours on the machine in question: its time calibrates the "
        "plan.",
    )
