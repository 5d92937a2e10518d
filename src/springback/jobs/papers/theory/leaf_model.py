"""Tiny Llamas on responses that can all be listed: NLL without sampling noise, exact weights.

A response has ``length`` symbols out of ``symbols``; it is one leaf of a full token tree.  All
prefixes of length - 1 symbols go through a model at once, which gives the cost of every leaf:
a set's NLL is then an exact mean, and a joint data set is a weight on each leaf (paper A, A1).
Models of one shape are trained side by side, each on its own weights as if it were alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from springback.models.from_scratch import Shape, bare_llama
from springback.models.loading import Model
from springback.theory import responses

Floats = NDArray[np.float64]
#: Of AdamW.  The second is larger than the audits' 0.95: the last steps average over more.
BETAS = (0.9, 0.99)
#: Steps over which the learning rate of a joint training rises.
WARM_UP = 20


@dataclass(frozen=True)
class Tree:
    """All responses: ``symbols`` at each of ``length`` places."""

    symbols: int
    length: int

    @property
    def leaves(self) -> int:
        return int(self.symbols**self.length)


class LeafModels:
    """Tiny Llamas over a tree's symbols and one more, which stands before each response."""

    def __init__(self, tree: Tree, shape: Shape, seeds: Sequence[int]) -> None:
        """One model for each of ``seeds``, which draws its weights; equal seeds, equal weights."""
        self.tree = tree
        prefixes = (
            responses(tree.symbols, tree.length - 1)
            if tree.length > 1
            else np.zeros((1, 0), dtype=np.int64)
        )
        begin = np.full((len(prefixes), 1), tree.symbols)
        # (prefixes, length): the beginning, then all but a response's last symbol.
        self.ids = torch.tensor(np.concatenate([begin, prefixes], axis=1))
        made = [bare_llama(tree.symbols + 1, shape, seed, tree.length + 1) for seed in seeds]
        self._like: Model = made[0]
        #: Every weight with a first dimension for the model.
        self.weights, self._buffers = torch.func.stack_module_state(made)

    def __len__(self) -> int:
        return int(next(iter(self.weights.values())).shape[0])

    def costs(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """-ln q of every leaf in the tree's order, nats, (models, leaves); with gradient."""

        def logits(weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
            inputs = {"input_ids": self.ids, "use_cache": False}
            out = torch.func.functional_call(self._like, (weights, buffers), kwargs=inputs)
            scores: Tensor = out.logits
            return scores

        weights = {name: value.to(dtype) for name, value in self.weights.items()}
        scores = torch.func.vmap(logits)(weights, self._buffers)
        # What stands before a response is no next symbol.  (models, prefixes, length, symbols)
        logp = torch.log_softmax(scores[..., : self.tree.symbols], -1)
        ids = self.ids[:, 1:, None].expand(len(self), -1, -1, -1)
        before = logp[:, :, :-1].gather(-1, ids)[..., 0].sum(-1)  # (models, prefixes)
        return -(before[..., None] + logp[:, :, -1]).reshape(len(self), -1)

    @torch.no_grad()
    def exact_costs(self) -> Floats:
        """:meth:`costs` computed in float64 from the weights as they are."""
        costs: Floats = self.costs(torch.float64).numpy()
        return costs

    def copied(self) -> dict[str, Tensor]:
        """A copy of the weights."""
        return {name: value.detach().clone() for name, value in self.weights.items()}

    @torch.no_grad()
    def load(self, weights: Sequence[dict[str, Tensor]]) -> None:
        """Take over the weights of stacks of one model each, as :meth:`copied` gives them."""
        for name, value in self.weights.items():
            value.copy_(torch.cat([each[name] for each in weights]))

    def optimiser(self, learning_rate: float) -> torch.optim.AdamW:
        """Elementwise, so that models in a stack do not touch each other."""
        weights = self.weights.values()
        return torch.optim.AdamW(weights, lr=learning_rate, betas=BETAS, weight_decay=0.0)

    def step(self, optimiser: torch.optim.AdamW, leaves: Floats) -> None:
        """One step of every model on its mean NLL under ``leaves`` (models, leaves), sums 1."""
        loss = (torch.tensor(leaves, dtype=torch.float32) * self.costs()).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def fit_joint(models: LeafModels, leaves: Floats, steps: int, learning_rate: float) -> None:
    """Train to the optimum of each weighting (models, leaves): full batches, a cosine to 0."""
    optimiser = models.optimiser(learning_rate)
    for step in range(steps):
        share = min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * share
        models.step(optimiser, leaves)


def fit_stream(
    models: LeafModels,
    masses: Floats,
    batches: Sequence[int],
    learning_rate: float,
    rng: np.random.Generator,
    after: Callable[[int], None] = lambda seen: None,
) -> None:
    """Train on responses drawn from ``masses`` (leaves,), each seen once, at a constant rate.

    ``batches``: responses of each step; all models get the same ones.  ``after`` is called with
    how many were seen.  A batch goes in as its share of every leaf, which gives the same gradient
    as row by row.
    """
    optimiser = models.optimiser(learning_rate)
    seen = 0
    for size in batches:
        drawn = rng.multinomial(size, masses) / size
        models.step(optimiser, np.tile(drawn, (len(models), 1)))
        seen += size
        after(seen)
