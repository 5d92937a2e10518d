"""Later training that may not lead back: every update loses its part along the way back.

With d = aligned - start of a weight tensor and D its update (what an optimizer's step changes), D
becomes D - min(0, <D, d>) d / |d|^2.  With a rank K a matrix has the top K singular directions of d
instead, each for itself: D - sum_i min(0, u_i^T D v_i) u_i v_i^T.  So the changes of any number of
steps add up to no way back along them.  Gravitational reversion (arXiv 2606.28525) is what is
blocked; Safe LoRA (arXiv 2405.16833) projects adapters by means of the same difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from springback.errors import ModelError, describe
from springback.models.loading import Model, trainable
from springback.models.placement import wide_device
from springback.weights.lowrank import top_directions

#: Elements turned into float64 at a time.
BLOCK = 1 << 22


@dataclass(frozen=True)
class Whole:
    """The difference of one tensor at length 1, flat."""

    along: Tensor

    def parts(self, weights: Tensor) -> Tensor:
        """How far the weights lie along it, (1,) in float64."""
        where = wide_device(weights.device)
        flat, total = weights.detach().reshape(-1), torch.zeros(1, dtype=torch.float64)
        for first in range(0, len(flat), BLOCK):
            here, there = (t[first : first + BLOCK].to(where).double() for t in (flat, self.along))
            total += torch.dot(here, there).cpu()
        return total

    def remove(self, weights: Tensor, parts: Tensor) -> None:
        """Take so much of it out, in place."""
        flat = weights.detach().view(-1)
        flat.add_(self.along.to(flat.device), alpha=-float(parts))


@dataclass(frozen=True)
class Top:
    """The top singular directions of a matrix: ``left`` (m, k), ``right`` (n, k), float64."""

    left: Tensor
    right: Tensor

    def parts(self, weights: Tensor) -> Tensor:
        """How far the weights lie along each, (k,) in float64."""
        image = weights.detach().to(self.right.device).double() @ self.right
        return (self.left * image).sum(0).cpu()

    def remove(self, weights: Tensor, parts: Tensor) -> None:
        """Take so much of each out, in place."""
        change = (self.left * parts.to(self.left.device)) @ self.right.T
        weights.detach().sub_(change.to(weights.device, weights.dtype))


Directions = Mapping[str, Whole | Top]


@torch.no_grad()
def alignment_directions(
    model: Model, aligned: Mapping[str, Tensor], start: Mapping[str, Tensor], rank: int | None
) -> Directions:
    """Of every trainable tensor that aligning changed, by name.

    ``aligned`` and ``start``: tensors by the names of the model's parameters.  ``rank``: so many of
    a matrix, and of what is no matrix the whole.  Holds the model's weights a second time without
    a rank.  Raises :class:`ModelError` on a rank below 1, other names or shapes.
    """
    if rank is not None and rank < 1:
        raise ModelError(describe(f"rank {rank}", "1 or more", "leave it out for the whole"))
    made: dict[str, Whole | Top] = {}
    for name, parameter in trainable(model).items():
        if name not in aligned or name not in start or aligned[name].shape != parameter.shape:
            raise ModelError(
                f"the aligned and the start weights have no tensor {name} of the model's shape; "
                "use checkpoints of one run"
            )
        where = wide_device(parameter.device)
        difference = aligned[name].to(where).double() - start[name].to(where).double()
        length = float(difference.norm())
        if length == 0:
            continue
        if rank is None or difference.ndim != 2:
            made[name] = Whole((difference / length).reshape(-1).to(parameter.dtype))
        else:
            made[name] = _top(difference, rank)
    return made


def _top(difference: Tensor, rank: int) -> Top:
    values = difference.cpu().numpy()
    found = top_directions(
        lambda first, end: values[first:end],
        (values.shape[0], values.shape[1]),
        min(rank, *values.shape),
        block=len(values),
    )
    image = values @ found.right
    lengths = np.linalg.norm(image, axis=0)
    there = lengths > 1e-9 * lengths.max()  # a difference of lower rank has fewer
    left, right = image[:, there] / lengths[there], found.right[:, there]
    return Top(*(torch.from_numpy(part.copy()).to(difference.device) for part in (left, right)))


@contextmanager
def way_back_blocked(model: Model, directions: Directions) -> Iterator[None]:
    """Within, no step of an optimizer moves ``model`` against any of the directions.

    It keeps nothing between steps, so a run that is cut off goes on as it would have.
    """
    parameters = trainable(model)
    before: dict[str, Tensor] = {}

    def keep(*_: Any) -> None:
        before.update((name, d.parts(parameters[name])) for name, d in directions.items())

    def take_out(*_: Any) -> None:
        for name, direction in directions.items():
            back = (direction.parts(parameters[name]) - before[name]).clamp(max=0)
            if bool((back < 0).any()):
                direction.remove(parameters[name], back)

    handles = [
        register_optimizer_step_pre_hook(keep),
        register_optimizer_step_post_hook(take_out),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
