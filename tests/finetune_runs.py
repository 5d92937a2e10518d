"""What the tests of fine-tuning share: small runs, plain log-probabilities, an interruption."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from springback.core import Recipe
from springback.models.loading import Model
from springback.training import (
    Labelled,
    Preference,
    Resume,
    Trained,
    preference,  # noqa: F401  loaded before the freeze
)

# Every run calls gc.collect(), 0.3 s over all that the libraries hold: let it pass that over.
gc.collect()
gc.freeze()

Rows = list[Preference] | list[Labelled]


def recipe(algorithm: str, **changes: Any) -> Recipe:
    return Recipe(
        **{
            "algorithm": algorithm,
            "learning_rate": 1e-3,
            "batch_size": 4,
            "precision": "float32",
            **changes,
        }
    )


def pairs_for(number: int) -> list[Preference]:
    """Random answers of several lengths; the wanted ones hold small ids, the others large ones."""
    draw = torch.Generator().manual_seed(number)

    def ids(low: int, high: int, length: int) -> tuple[int, ...]:
        return tuple(int(i) for i in torch.randint(low, high, (length,), generator=draw))

    return [
        Preference(ids(10, 200, 2 + n % 3), ids(10, 60, 3 + n % 4), ids(150, 200, 2 + n % 5))
        for n in range(number)
    ]


def rows_for(algorithm: str, number: int) -> Rows:
    """:func:`pairs_for`, or for KTO one of each pair, in turn."""
    pairs = pairs_for(number)
    if algorithm != "kto":
        return pairs
    return [
        Labelled(p.prompt, p.chosen if n % 2 else p.rejected, bool(n % 2))
        for n, p in enumerate(pairs)
    ]


def log_p(model: Model, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Sum of the answer's log-probabilities, one row alone, no padding."""
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, -1).gather(-1, torch.tensor(answer)[:, None]).sum()


def weights(model: Model) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(w, b[n]) for n, w in a.items())


class Stop(Exception):
    pass


class Killer:
    """Progress that ends the run after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= 1
        if self.left < 0:
            raise Stop

    def stage(self, title: str, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


def interrupted(
    start: Model, run: Callable[..., Trained], folder: Path, steps: int = 2
) -> tuple[tuple[Trained, Model], tuple[Trained, Model]]:
    """What a whole run gives, and one that is killed and goes on in a fresh model."""
    whole, killed, again = (copy.deepcopy(start) for _ in range(3))
    expected = run(whole)
    resume = Resume(folder / "state", save_every=0.0)
    with pytest.raises(Stop):
        run(killed, resume=resume, progress=Killer(steps))
    assert list((folder / "state").glob("step-*"))
    return (expected, whole), (run(again, resume=resume), again)
