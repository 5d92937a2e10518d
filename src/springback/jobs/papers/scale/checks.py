"""What a study of scale may be asked for.  Light: checked before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from springback.errors import SpringbackError, describe
from springback.jobs.audit.checks import check_values
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.config import converted, kinds
from springback.jobs.papers.scale.settings import BEGIN, NAME, ScaleSettings
from springback.results.checks import check_positive


def size_of(text: str) -> tuple[int, int, int]:
    """``64x3`` as 64 wide and 3 deep, with its heads, which are 16 wide, from 256 on 64.

    Raises :class:`SpringbackError` on anything else.
    """
    width, _, depth = text.partition("x")
    if width.isascii() and width.isdigit() and depth.isascii() and depth.isdigit():
        hidden, layers = int(width), int(depth)
        head = 64 if hidden >= 256 else 16
        if hidden and layers and hidden % head == 0:
            return hidden, layers, hidden // head
    raise SpringbackError(
        "--sizes: "
        + describe(
            repr(text),
            "WIDTHxLAYERS, the width a multiple of 16, from 256 on of 64",
            "write such as 64x3",
        )
    )


def values_of(scale: str, given: Mapping[str, Any]) -> tuple[ScaleSettings, AuditSettings]:
    """What a scale begins from, ``given`` settings changed; raises on what cannot be.

    The study's ``precision`` may stay ``auto``.
    """
    if scale not in BEGIN:
        raise SpringbackError(f"--scale is {scale}; allowed: {', '.join(BEGIN)}")
    of_scale = {name: given[name] for name in kinds(ScaleSettings) if name in given}
    rest = {name: value for name, value in given.items() if name not in of_scale}
    if bad := sorted({"model", "series", "revision"} & {*rest}):
        raise SpringbackError(
            f"--{bad[0]} with {NAME}; it makes models of its own: use --sizes and --volumes"
        )
    begin, cell = BEGIN[scale]
    settings = replace(begin, **converted(ScaleSettings, of_scale))
    study = replace(cell, **converted(AuditSettings, rest))
    check_positive(
        {"vocabulary": settings.vocabulary, "pretraining-rate": settings.pretraining_rate}
    )
    shapes = [size_of(size) for size in settings.sizes]
    few = len(set(shapes)) < 2 or len(set(settings.volumes)) < 2
    if few or len(set(shapes)) < len(shapes) or len(study.seeds) < 1:
        raise SpringbackError(
            f"--sizes {', '.join(settings.sizes)} and --volumes "
            f"{', '.join(map(str, settings.volumes))}; give two different ones of each or more, "
            "and a seed"
        )
    if bad_volumes := [v for v in settings.volumes if v <= 0 or v % 16]:
        raise SpringbackError(
            f"--volumes has {bad_volumes}; allowed are multiples of the batch of 16 rows"
        )
    if settings.vocabulary < 300:
        raise SpringbackError(
            f"--vocabulary is {settings.vocabulary}; give 300 or more: 256 are the bytes"
        )
    settings = replace(settings, volumes=tuple(sorted(set(settings.volumes))))
    return settings, check_values(study)
