"""What an audit checks before it starts, and its data."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from springback.core import Slice
from springback.errors import SpringbackError
from springback.jobs.common import check_positive, require_disjoint, train_and_holdout
from springback.jobs.settings import EXPERIMENTS, PROBES, RESISTANCE_DATA, AuditSettings
from springback.models import default_precision
from springback.slices import load_slice


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
            "epsilon": settings.epsilon,
            "utility-rows": settings.utility_rows,
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
    if ("behaviour" in settings.probes) != (settings.behaviour is not None):
        raise SpringbackError(
            f"--probes is {', '.join(settings.probes)} and --behaviour is {settings.behaviour}; "
            "give both: the probe behaviour and what scores the texts"
        )
    if 0 < settings.resistance_rows < settings.batch_size:
        raise SpringbackError(
            f"--resistance-rows is {settings.resistance_rows}; give 0 (leave it out) or at "
            f"least the batch size ({settings.batch_size})"
        )
    if bad_mix := [m for m in settings.mix if not 0 <= m <= 1]:
        raise SpringbackError(f"--mix has {bad_mix}; give shares from 0 to 1, such as 0.5,1")
    for rate in settings.attack_learning_rates:
        check_positive({"attack-learning-rates": rate})
    _among("experiments", settings.experiments, EXPERIMENTS)
    _among("resistance-data", (settings.resistance_data,), RESISTANCE_DATA)
    if "rebound" not in settings.experiments:
        raise SpringbackError(
            f"--experiments is {', '.join(settings.experiments)}; rebound has to be among them, "
            "since the others build on its runs"
        )
    auto = settings.precision == "auto"
    return replace(
        settings,
        resistance_rows=settings.resistance_rows if "resistance" in settings.experiments else 0,
        n_pos=tuple(sorted(set(settings.n_pos))),
        doses=tuple(sorted(set(settings.doses))),
        seeds=tuple(dict.fromkeys(settings.seeds)),
        precision=default_precision() if auto else settings.precision,
    )


def _among(flag: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    if bad := [name for name in given if name not in allowed]:
        raise SpringbackError(f"--{flag} has {', '.join(bad)}; allowed: {', '.join(allowed)}")


@dataclass(frozen=True)
class Data:
    """All rows of a study: disjoint training and held-out parts.

    ``again``: fresh aligning rows for the second alignment; ``benign``: rows that mixed
    perturbations take from.  None where the settings do not ask for them.
    """

    align: Slice
    perturb: Slice
    wanted: Slice
    unwanted: Slice
    again: Slice | None = None
    benign: Slice | None = None


def load_data(settings: AuditSettings) -> Data:
    """Rows by the study's settings; the held-out ones are the same for every seed."""
    align_rows = max(settings.n_pos) + 4 * settings.resistance_rows
    second = max(settings.n_pos) if "realign" in settings.experiments else 0
    fields = settings.fields or None
    align, wanted, again = train_and_holdout(
        settings.align, align_rows, settings.holdout, 0, fields, more=second
    )
    perturb, unwanted, _ = train_and_holdout(
        settings.perturb, max(settings.doses), settings.holdout, 0, fields
    )
    benign = None
    if shares := [m for m in settings.mix if m]:
        rows = math.ceil(max(shares) * max(settings.doses))
        benign = load_slice(settings.benign, fields=fields, limit=rows)
    parts = [align, perturb, wanted, unwanted, again, benign]
    require_disjoint([part for part in parts if part is not None])
    return Data(align, perturb, wanted, unwanted, again, benign)


def shuffle(part: Slice, seed: int) -> Slice:
    """``part`` in the order of ``seed``; prefixes of it are what doses count."""
    rows = list(part.rows)
    random.Random(seed).shuffle(rows)
    return Slice.of(part.name, part.source, rows, seed)
