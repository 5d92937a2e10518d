"""``springback reproduce elasticity-scale --plan``: runs, tokens, time, memory and disk of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from springback.core import Slice
from springback.jobs.audit.plan import Plan, kept, memory_of
from springback.jobs.audit.plan_by_size import amount
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.papers.pretrain import Pretraining
from springback.jobs.papers.scale.job import STUDIES, cells_of, pretrainings, settings_of, shape_of
from springback.jobs.papers.scale.settings import NAME, ScaleSettings
from springback.jobs.plan_lines import columns
from springback.models.from_scratch import Shape
from springback.models.loading import training_speed
from springback.models.memory import Architecture
from springback.models.memory_parts import libraries
from springback.results.store import Store

#: Seconds that a step takes however small the model, and a study before and between its runs.
STEP, BEGIN = 0.01, 5.0


@dataclass(frozen=True)
class Row:
    """One size: how many pre-trainings and studies, how many are done, what they take at most."""

    name: str
    weights: int
    pretrainings: tuple[int, int]
    studies: tuple[int, int]
    trained: float
    scored: float
    seconds: float
    disk: int


def architecture_of(shape: Shape, vocabulary: int) -> Architecture:
    """The shape as plans take it."""
    width, weights = shape.hidden, weights_of(shape, vocabulary)
    return Architecture(
        shape.name,
        weights,
        shape.layers,
        width,
        4 * width,
        width,
        width,
        width,
        vocabulary,
        tied=True,
    )


def weights_of(shape: Shape, vocabulary: int) -> int:
    """All weights; the embeddings are tied."""
    return shape.parameters + vocabulary * shape.hidden


def plan(
    scale: str,
    out: str | Path = f"springback-{NAME}",
    given: Mapping[str, Any] | None = None,
) -> str:
    """What ``scale_study`` would do in ``out``, size by size, and what of it is done.

    Trains and writes nothing, and reads the corpus only where something is done.

    Tokens are at most so many: every row as long as its limit.  Raises as that function.
    """
    settings, study = settings_of(scale, given or {})
    store = Store(out)
    begun = store.runs.exists() or (store.root / STUDIES).exists()
    runs = pretrainings(settings, study, store) if begun else {}
    rows = [_row(settings, study, store, runs, shape_of(size)) for size in settings.sizes]
    seeds = len(study.seeds)
    volumes = ", ".join(f"{n:,}" for n in settings.volumes)
    largest = max(row.weights for row in rows)
    sizes = [architecture_of(shape_of(size), settings.vocabulary) for size in settings.sizes]
    left = Plan(
        (),
        sum(row.seconds for row in rows),
        (*memory_of(study, max(sizes, key=lambda size: size.weights)), libraries()),
        sum(row.disk for row in rows) + kept(study) * 4 * largest,
    )
    corpus = settings.corpus or "built-in problems and reviews"
    return "\n".join(
        [
            "Does elasticity grow with size, with volume of pre-training?",
            f"{len(rows)} sizes x {seeds} seeds, pre-trained on {corpus} and kept after {volumes} "
            f"rows; each checkpoint aligned on {', '.join(map(str, study.n_pos))} of "
            f"{study.align}, perturbed with up to {max(study.doses)} of {study.perturb}",
            *_table(rows),
            f"what is left: {left.needs} in one process; --executor ray spreads it",
        ]
    )


def _row(
    settings: ScaleSettings,
    study: AuditSettings,
    store: Store,
    runs: Mapping[tuple[str, int], Pretraining],
    shape: Shape,
) -> Row:
    of_size = {key: run for key, run in runs.items() if run.shape == shape}
    seeds, studies = len(study.seeds), len(study.seeds) * len(settings.volumes)
    cells = cells_of(of_size, study)
    left = [cell for cell in cells if not cell.done(store.root)]
    measured = len(cells) - len(left)
    # A pre-training is needed for the studies that are left, and for nothing else.
    waiting = {cell.seed for cell in left}
    made = sum(run.done(store) or seed not in waiting for (_, seed), run in of_size.items())
    recipe = Pretraining(settings.volumes, Slice.of("", "", (), 0), shape).recipe
    one = amount(replace(study, seeds=study.seeds[:1]))
    first = max(settings.volumes) * recipe.max_tokens
    weights = weights_of(shape, settings.vocabulary)
    train = training_speed(weights, recipe.precision)
    steps = max(settings.volumes) / recipe.batch_size
    each = first / train + steps * STEP
    again = one.trained / training_speed(weights, study.precision) + BEGIN
    again += one.scored / (3 * training_speed(weights, study.probe_precision))
    again += one.trained / study.max_tokens / study.batch_size * STEP
    return Row(
        shape.name,
        weights,
        (seeds, made),
        (studies, measured),
        seeds * first + studies * one.trained,
        studies * one.scored,
        (seeds - made) * each + (studies - measured) * again,
        studies * 4 * weights,
    )


def _table(rows: Sequence[Row]) -> list[str]:
    head = ("size", "weights", "pre-trainings", "done", "studies", "done", "tokens trained")
    counts = [(*row.pretrainings, *row.studies, row.trained, row.scored) for row in rows]
    sums = map(sum, zip(*counts, strict=True))
    lines = [
        (row.name, f"{row.weights:,.0f}", *(f"{n:,.0f}" for n in numbers))
        for row, numbers in zip(rows, counts, strict=True)
    ]
    return columns([(*head, "tokens probed"), *lines, ("all", "", *(f"{n:,.0f}" for n in sums))])
