"""One run as its trainer is built from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from springback.core import Recipe
from springback.models.loading import Model, Tokenizer
from springback.progress import Progress
from springback.training.examples import Examples
from springback.training.trainer import State


@dataclass(frozen=True)
class Task:
    """Everything a trainer needs.

    ``start``: the trainable weights as the run found them, where its algorithm needs them later.
    """

    model: Model
    tokenizer: Tokenizer
    examples: Examples
    recipe: Recipe
    batches: list[list[int]]
    seen: list[int]
    state: State
    optimizers: tuple[torch.optim.Optimizer, Any]
    progress: Progress
    start: dict[str, Tensor] | None = None

    @property
    def beta(self) -> float:
        return self.recipe.beta or 0.0

    def autocast(self) -> torch.autocast:
        """What the recipe's precision means for a forward pass."""
        enabled = self.recipe.precision == "bf16-mixed"
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=enabled)
