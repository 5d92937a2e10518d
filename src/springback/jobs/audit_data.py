"""What an audit checks before it starts, and its data."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from springback.core import Slice
from springback.errors import SpringbackError
from springback.jobs.common import check_positive, require_disjoint, train_and_holdout
from springback.jobs.settings import PROBES, AuditSettings
from springback.models import default_precision


def check_settings(settings: AuditSettings) -> AuditSettings:
    """The settings with ``auto`` filled in and lists sorted; raises on what cannot be."""
    check_positive(
        {
            "learning-rate": settings.learning_rate,
            "batch-size": settings.batch_size,
            "max-tokens": settings.max_tokens,
            "holdout": settings.holdout,
            "prompts": settings.prompts,
            "prompt-tokens": settings.prompt_tokens,
            "sample-tokens": settings.sample_tokens,
        }
    )
    if not settings.n_pos or not settings.doses or not settings.seeds:
        raise SpringbackError("--n-pos, --doses and --seeds each need at least one number")
    for name, values in (("n-pos", settings.n_pos), ("doses", settings.doses)):
        bad = [v for v in values if v <= 0 or v % settings.batch_size]
        if bad:
            raise SpringbackError(
                f"--{name} has {bad}; allowed are multiples of the batch size "
                f"({settings.batch_size}): change them or --batch-size"
            )
    unknown = [p for p in settings.probes if p not in PROBES]
    if unknown or "margin" not in settings.probes:
        raise SpringbackError(
            f"--probes is {', '.join(settings.probes)}; allowed: {', '.join(PROBES)}, "
            "with margin among them, since gain and fall are measured in it"
        )
    if 0 < settings.resistance_rows < settings.batch_size:
        raise SpringbackError(
            f"--resistance-rows is {settings.resistance_rows}; give 0 (leave it out) or at "
            f"least the batch size ({settings.batch_size})"
        )
    auto = settings.precision == "auto"
    return replace(
        settings,
        n_pos=tuple(sorted(set(settings.n_pos))),
        doses=tuple(sorted(set(settings.doses))),
        seeds=tuple(dict.fromkeys(settings.seeds)),
        precision=default_precision() if auto else settings.precision,
    )


@dataclass(frozen=True)
class Data:
    """All rows of a study: disjoint training and held-out parts."""

    align: Slice
    perturb: Slice
    wanted: Slice
    unwanted: Slice


def load_data(settings: AuditSettings) -> Data:
    """Rows by the study's settings; the held-out ones are the same for every seed."""
    align_rows = max(settings.n_pos) + 4 * settings.resistance_rows
    fields = settings.fields or None
    align, wanted = train_and_holdout(settings.align, align_rows, settings.holdout, 0, fields)
    perturb, unwanted = train_and_holdout(
        settings.perturb, max(settings.doses), settings.holdout, 0, fields
    )
    require_disjoint([align, perturb, wanted, unwanted])
    return Data(align, perturb, wanted, unwanted)


def shuffle(part: Slice, seed: int) -> Slice:
    """``part`` in the order of ``seed``; prefixes of it are what doses count."""
    rows = list(part.rows)
    random.Random(seed).shuffle(rows)
    return Slice.of(part.name, part.source, rows, seed)
