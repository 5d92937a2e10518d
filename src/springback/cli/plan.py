"""``springback audit plan`` and ``springback boost plan``: what would run, and what it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from springback.cli.flags import take
from springback.cli.say import say, say_block
from springback.errors import SpringbackError
from springback.jobs.audit.plan_settings import LargeSettings
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.plan_settings import PlanSettings

Asked = TypeVar("Asked", bound=PlanSettings)


def plan_settings(cls: type[Asked], given: dict[str, Any], only_plan: bool, command: str) -> Asked:
    """The flags of a plan, taken out of ``given``; raises where no plan is asked for.

    With ``--calibrate`` a plan by size is of this machine unless the flags name another.
    """
    elsewhere = "hardware" in given
    asked = take(cls, given)
    for flag in ("size", "calibrate"):
        if getattr(asked, flag) and not only_plan:
            raise SpringbackError(f"--{flag} is for a plan: springback {command} plan --{flag} …")
    return replace(asked, hardware="here") if asked.calibrate and not elsewhere else asked


def audit_plan(settings: AuditSettings, asked: LargeSettings, out: Path) -> None:
    """Print the plan of one study, of each of a series, or of models by size."""
    if asked.calibrate:
        _calibrate(asked, (*settings.series, settings.model)[0], settings)
    if asked.size:
        from springback.jobs.audit.plan_by_size import make

        say_block(make(settings, asked))
        return
    from springback.jobs.audit.job import plan
    from springback.jobs.audit.studies import planned

    for single, folder in planned(settings, out):
        say(f"{single.name}:")
        say_block(str(plan(single.settings, folder)))


def boost_plan(settings: BoostSettings, asked: PlanSettings) -> None:
    """Print the plan of a boost at hand, or of models by size (which loads no torch)."""
    if asked.calibrate:
        _calibrate(asked, settings.ft or settings.model or "", settings)
    if asked.size:
        from springback.jobs.boost.plan import plan_by_size

        say_block(plan_by_size(settings, asked))
        return
    from springback.jobs.boost.plan_at_hand import plan

    say_block(str(plan(settings)))


def _calibrate(asked: PlanSettings, model: str, settings: AuditSettings | BoostSettings) -> None:
    """Time this machine at the shape of the first size, or of the model at hand."""
    from springback.jobs.calibrate import calibrate, shape_of
    from springback.models.loading import default_precision
    from springback.models.placement import accelerator

    precision = default_precision() if settings.precision == "auto" else settings.precision
    shape = shape_of(model, asked.size)
    if isinstance(settings, AuditSettings):
        scoring = settings.probe_precision if settings.dtype == "auto" else settings.dtype
    else:
        stored = "auto" if accelerator().type == "cpu" else "bfloat16"
        scoring = stored if settings.dtype == "auto" else settings.dtype
    say("timing this machine, about ten seconds …", err=True)
    calibrate(shape, precision, scoring)
