"""What a run is asked for and what it gives back: recipe, batches, marks, resume."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from springback.core import Recipe
from springback.errors import SpringbackError
from springback.results.timing import Timer

#: Called with the number of examples seen and the model (in files where it is trained sharded in
#: other processes, :mod:`springback.models.stored_model`); returns what to record (JSON).
OnMark = Callable[[int, Any], Any]


@dataclass(frozen=True)
class Marks:
    """``call`` sees the model after these numbers of examples, multiples of the batch or 0."""

    examples: tuple[int, ...] = ()
    call: OnMark | None = None


@dataclass(frozen=True)
class Resume:
    """Where a run keeps its state (None: nowhere) and how often, in seconds of work.

    ``timer``: what takes the time of saving it.
    """

    folder: Path | None = None
    save_every: float = 45.0
    timer: Timer = field(default_factory=Timer)


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
