"""What a reproduction can refuse before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from springback.errors import SpringbackError, did_you_mean
from springback.jobs.audit import checks as audit_checks
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.config import converted
from springback.jobs.papers.claims import check_names
from springback.jobs.papers.epicode import plan as epicode
from springback.jobs.papers.epicode.settings import NAMES as EPICODE
from springback.jobs.papers.reproductions import REPRODUCTIONS
from springback.jobs.papers.scale.checks import values_of
from springback.jobs.papers.scale.settings import NAME as SCALE
from springback.jobs.papers.settings import THEORY


def refuse(name: str, scale: str, out: str | Path, given: Mapping[str, Any]) -> None:
    """Raise :class:`SpringbackError` for what is seen to be wrong without torch; the studies
    themselves raise the same, and more."""
    if name in THEORY:
        return
    if name == SCALE:
        values_of(scale, given)
    elif name in EPICODE:
        epicode.check(epicode.settings_of(name, scale, given), name == "epicode-theory")
    else:
        known = (*REPRODUCTIONS, SCALE, *THEORY, *EPICODE)
        if name not in known:
            near = did_you_mean(name, known)
            raise SpringbackError(f"no reproduction '{name}'{near}; allowed: {', '.join(known)}")
        settings = settings_of(name, scale, given)
        for study in REPRODUCTIONS[name].studies(scale, settings, given):
            audit_checks.refuse(study.settings, out)


def settings_of(name: str, scale: str, given: Mapping[str, Any]) -> AuditSettings:
    """The settings that the studies of a reproduction start from, ``given`` ones changed."""
    check_names(REPRODUCTIONS, name, scale)
    settings = replace(REPRODUCTIONS[name].begin[scale], **converted(AuditSettings, given))
    if "behaviour" not in (*settings.probes, *given):  # the user's own probes do without
        return replace(settings, behaviour=None)
    return settings
