"""What an audit checks before it starts, and its data."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from springback.core import ALGORITHMS, Slice
from springback.errors import DataError, SpringbackError
from springback.finetune import NEUTRAL_PROMPT, check_recipe, with_prompt
from springback.jobs.common import check_positive
from springback.jobs.settings import EXPERIMENTS, PROBES, RESISTANCE_DATA, AuditSettings
from springback.models import default_precision
from springback.slices import check_disjoint, content_key, is_built_in, load_slice, split_rows

#: Algorithms that learn from wanted and unwanted answers together.
PREFERENCES = ("dpo", "kto", "simpo")


def check_settings(settings: AuditSettings) -> AuditSettings:
    """The settings with ``auto`` filled in and lists sorted; raises on what cannot be."""
    if settings.series:
        raise SpringbackError(
            "audit measures one model; for a series use springback.jobs.several.series"
        )
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
    if settings.precision == "auto":
        settings = replace(settings, precision=default_precision())
    _check_algorithms(settings)
    pairs = {settings.algorithm, settings.perturb_algorithm} & {*PREFERENCES}
    return replace(
        settings,
        resistance_rows=settings.resistance_rows if "resistance" in settings.experiments else 0,
        n_pos=tuple(sorted(set(settings.n_pos))),
        doses=tuple(sorted(set(settings.doses))),
        seeds=tuple(dict.fromkeys(settings.seeds)),
        prompt=NEUTRAL_PROMPT if pairs and settings.prompt is None else settings.prompt,
    )


def _check_algorithms(settings: AuditSettings) -> None:
    for flag in ("algorithm", "perturb_algorithm"):
        _among(flag.replace("_", "-"), (getattr(settings, flag),), ALGORITHMS)
        check_recipe(settings.recipe(0, getattr(settings, flag)))
    if settings.perturb_algorithm != "sft" and any(settings.mix):
        raise SpringbackError(
            f"--mix with --perturb-algorithm {settings.perturb_algorithm}; benign rows have no "
            "opposite to learn against: leave out one of the two"
        )
    geometry = [p for p in settings.probes if p in ("weight_change", "way_back")]
    if settings.lora_rank and geometry:
        raise SpringbackError(
            f"--probes has {', '.join(geometry)} with --lora-rank {settings.lora_rank}; an adapter "
            "has no weights to compare with the start's: leave the probe out or train all weights"
        )


def _among(flag: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    if bad := [name for name in given if name not in allowed]:
        raise SpringbackError(f"--{flag} has {', '.join(bad)}; allowed: {', '.join(allowed)}")


@dataclass(frozen=True)
class Data:
    """All rows of a study: disjoint training and held-out parts.

    ``again``: fresh aligning rows for the second alignment; ``benign``: rows that mixed
    perturbations take from; None where the settings do not ask for them.  ``against``: the other
    side's answers for algorithms that learn from both, by phase (``align``, ``perturb``,
    ``again``).
    """

    align: Slice
    perturb: Slice
    wanted: Slice
    unwanted: Slice
    again: Slice | None = None
    benign: Slice | None = None
    against: Mapping[str, Slice] = field(default_factory=dict)


def load_data(settings: AuditSettings) -> Data:
    """Rows by the study's settings; the held-out ones are the same for every seed.

    Both sides may answer the same prompts (safe and unsafe answers): prompts are then held out of
    both sides together.
    """
    again = max(settings.n_pos) if "realign" in settings.experiments else 0
    both = settings.algorithm in PREFERENCES
    swapped = settings.perturb_algorithm in PREFERENCES
    align = _Side(
        settings.align,
        settings,
        max(settings.n_pos) + 4 * settings.resistance_rows,
        {"again": again, "perturb": max(settings.doses) * swapped},
    )
    perturb = _Side(
        settings.perturb,
        settings,
        max(settings.doses),
        {"align": max(settings.n_pos) * both, "again": again * both},
    )
    wanted, unwanted = align.held(), perturb.held()
    ours, theirs = align.train(unwanted), perturb.train(wanted)
    benign = None
    if shares := [m for m in settings.mix if m]:
        rows = math.ceil(max(shares) * max(settings.doses))
        benign = load_slice(settings.benign, fields=settings.fields or None, limit=rows)
    fresh = ours.pop("again", None)
    against = {"perturb": ours.get("perturb"), **{k: theirs.get(k) for k in ("align", "again")}}
    data = Data(
        ours["train"],
        theirs["train"],
        wanted,
        unwanted,
        fresh,
        benign,
        {phase: rows for phase, rows in against.items() if rows is not None},
    )
    _check(data)
    return _with_prompts(data, settings.prompt)


class _Side:
    """One side's source, read once: held-out rows, then training rows in disjoint parts.

    The first parts are the same whatever the later ones' sizes.
    """

    def __init__(
        self, source: str, settings: AuditSettings, train: int, more: Mapping[str, int]
    ) -> None:
        self.source, self.holdout, self.built_in = source, settings.holdout, is_built_in(source)
        self.sizes = {"train": train, **{name: n for name, n in more.items() if n}}
        limit = sum(self.sizes.values()) if self.built_in else None
        self.rows = load_slice(source, fields=settings.fields or None, limit=limit)

    def held(self) -> Slice:
        if self.built_in:  # it has a split of its own
            return load_slice(self.source, limit=self.holdout, split="test")
        return split_rows(self.rows, {"holdout": self.holdout}, 0)["holdout"]

    def train(self, others: Slice) -> dict[str, Slice]:
        """The training parts; none has a prompt that stands in ``others``."""
        if self.built_in:
            return _cut(self.rows, self.sizes)
        keys = {content_key(row) for row in others.rows}
        barred = dict.fromkeys(self.sizes, keys)
        parts = split_rows(self.rows, {"holdout": self.holdout, **self.sizes}, 0, barred)
        return {name: parts[name] for name in self.sizes}


def _check(data: Data) -> None:
    """No held-out prompt in training, and no row on two sides of it."""
    training = [data.align, data.perturb, data.again, data.benign, *data.against.values()]
    given = [part for part in training if part is not None]
    for held in (data.wanted, data.unwanted):
        for part in given:
            check_disjoint(held, part)
    if all(not row.prompt for row in (*data.wanted.rows, *data.unwanted.rows)):
        check_disjoint(data.wanted, data.unwanted)
    for at, a in enumerate(given):
        rows = {(row.turns, row.prompt, row.response) for row in a.rows}
        for b in given[at + 1 :]:
            if shared := sum((row.turns, row.prompt, row.response) in rows for row in b.rows):
                raise DataError(
                    f"{shared} of the {len(b)} rows of {b.name!r} ({b.source}) are also in "
                    f"{a.name!r} ({a.source}); allowed: none; remove them from one of the two"
                )


def _with_prompts(data: Data, prompt: str | None) -> Data:
    """Bare texts as answers to ``prompt``, in training and probes alike."""
    if prompt is None:
        return data

    def answer(part: Slice) -> Slice:
        rows = [with_prompt(row, prompt) for row in part.rows]
        return Slice.of(part.name, part.source, rows, part.seed)

    return replace(
        data,
        align=answer(data.align),
        perturb=answer(data.perturb),
        wanted=answer(data.wanted),
        unwanted=answer(data.unwanted),
        again=data.again and answer(data.again),
        benign=data.benign and answer(data.benign),
        against={phase: answer(part) for phase, part in data.against.items()},
    )


def _cut(rows: Slice, sizes: Mapping[str, int]) -> dict[str, Slice]:
    """``rows`` in consecutive parts of the sizes."""
    parts, at = {}, 0
    for name, size in sizes.items():
        kept = rows.rows[at : at + size]
        parts[name] = Slice.of(rows.name, rows.source, kept, rows.seed)
        at += size
    return parts


def shuffle(part: Slice, seed: int) -> Slice:
    """``part`` in the order of ``seed``; prefixes of it are what doses count."""
    rows = list(part.rows)
    random.Random(seed).shuffle(rows)
    return Slice.of(part.name, part.source, rows, seed)
