"""Several studies by name: one for each model of a series.  Light to import."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from springback.errors import SpringbackError
from springback.jobs.audit.settings import AuditSettings

#: Where the single audits lie below the folder of them all.
FOLDER = "studies"


@dataclass(frozen=True)
class NamedStudy:
    """A name for people, and the study's settings."""

    name: str
    settings: AuditSettings


def slug(name: str) -> str:
    """``name`` as a folder's name: letters, digits, points and dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "study"


def by_model(settings: AuditSettings) -> list[NamedStudy]:
    """One study for each model of the series, which may be ``NAME@REVISION``."""
    if len(settings.series) < 2:
        raise SpringbackError(
            f"--series has {len(settings.series)} model(s); give two or more, or use --model"
        )
    studies = []
    for name in settings.series:
        model, _, revision = name.partition("@")
        single = replace(settings, series=(), model=model, revision=revision or None)
        studies.append(NamedStudy(name, single))
    return studies


def planned(settings: AuditSettings, out: str | Path) -> list[tuple[NamedStudy, Path]]:
    """Every study that ``audit`` would run with these settings, and its folder."""
    if not settings.series:
        return [(NamedStudy(settings.model, settings), Path(out))]
    return [(s, Path(out) / FOLDER / slug(s.name)) for s in by_model(settings)]
