"""What a run is asked for and what it gives back: recipe, batches, marks, resume."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from springback.core import ALGORITHMS, PRECISIONS, SCHEDULES, Recipe, algorithms_reading
from springback.errors import SpringbackError, describe
from springback.models.loading import Model

#: Called with the number of examples seen and the model; returns what to record (JSON).
OnMark = Callable[[int, Model], Any]


@dataclass(frozen=True)
class Marks:
    """``call`` sees the model after these numbers of examples, multiples of the batch or 0."""

    examples: tuple[int, ...] = ()
    call: OnMark | None = None


@dataclass(frozen=True)
class Resume:
    """Where a run keeps its state (None: nowhere) and how often, in seconds of work."""

    folder: Path | None = None
    save_every: float = 45.0


@dataclass(frozen=True)
class Trained:
    """The algorithm's loss of every step, before that step's update, and what the marks recorded.

    SFT's loss is in nats a token.  ``tokens``: how many the losses counted.  ``rewards``: RLOO's
    mean reward of every step, which is what to read there: its loss stays near 0.
    """

    losses: tuple[float, ...]
    tokens: int
    marks: Mapping[int, Any]
    rewards: tuple[float, ...] = ()


def check_recipe(recipe: Recipe) -> None:
    """Raise unless every field has an allowed value and is one that the algorithm reads."""
    for value, allowed, flag in (
        (recipe.algorithm, (*ALGORITHMS,), "algorithm"),
        (recipe.schedule, SCHEDULES, "schedule"),
        (recipe.precision, PRECISIONS, "precision"),
    ):
        if value not in allowed:
            raise SpringbackError(
                describe(f"{flag} {value!r}", ", ".join(allowed), f"change the {flag}")
            )
    for field in dataclasses.fields(recipe):
        readers = algorithms_reading(field.name)
        unread = readers and recipe.algorithm not in readers
        if unread and getattr(recipe, field.name) != field.default:
            given = f"{field.name} {getattr(recipe, field.name)} with algorithm {recipe.algorithm}"
            raise SpringbackError(describe(given, f"with {', '.join(readers)}", "leave it out"))
    positive = ["learning_rate", "batch_size", "epochs", "max_tokens", "lora_alpha"]
    positive += ["desirable_weight", "undesirable_weight", "new_tokens", "temperature"]
    lowest = dict.fromkeys(positive, 0.0) | {"generations": 1.0}
    if recipe.lora_rank is not None:
        lowest["lora_rank"] = 0
    if ALGORITHMS[recipe.algorithm].preference and recipe.beta is not None:
        lowest["beta"] = 0
    for name, above in lowest.items():
        value = getattr(recipe, name)
        if not (math.isfinite(value) and value > above):
            raise SpringbackError(
                describe(f"{name} {value}", f"a number above {above:g}", f"change {name}")
            )
    if not 0 <= recipe.seed < 1 << 32:  # what NumPy's generator takes
        raise SpringbackError(describe(f"seed {recipe.seed}", "0 to 4294967295", "change the seed"))
    for name in ("gamma", "beta"):
        value = getattr(recipe, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise SpringbackError(describe(f"{name} {value}", "0 or more", f"change {name}"))


def plan_batches(rows: int, recipe: Recipe) -> list[list[int]]:
    """Row indices of every batch.

    The first epoch keeps the rows' order, so that a longer run extends a shorter one; later
    epochs are shuffled by the recipe's seed.  Batches do not cross epochs.
    """
    batches: list[list[int]] = []
    for epoch in range(recipe.epochs):
        order = list(range(rows))
        if epoch:
            random.Random(f"{recipe.seed}/{epoch}").shuffle(order)
        size = recipe.batch_size
        batches += [order[i : i + size] for i in range(0, rows, size)]
    return batches


def share(batch: Sequence[int], rank: int, processes: int) -> list[int]:
    """A process's rows of a batch; the first row where there are fewer rows than processes."""
    return list(batch[rank::processes]) or [batch[0]]


def examples_seen(batches: Sequence[Sequence[int]], marks: Marks, recipe: Recipe) -> list[int]:
    """Examples seen before each batch and after the last; raises if a mark is none of them."""
    seen = [0]
    for batch in batches:
        seen.append(seen[-1] + len(batch))
    if missing := [m for m in marks.examples if m not in seen]:
        raise SpringbackError(
            f"asked to stop at {missing} examples, but with batches of {recipe.batch_size} over "
            f"{seen[-1] // recipe.epochs} rows that is not between two batches; "
            "use multiples of the batch size"
        )
    return seen
