"""One step along a direction in weight space, tensor by tensor: + mu * (ahead - behind)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from springback.models.placement import wide_device
from springback.weights.lowrank import top_directions

#: Elements turned into float64 at a time.
BLOCK = 1 << 22


@dataclass(frozen=True)
class Moved:
    """Squared lengths: of the step that was taken, of the difference ``ahead - behind``, and of
    what the kept directions hold of it (all of it for a dense step)."""

    step: float
    difference: float
    kept: float


@torch.no_grad()
def move_(
    parameter: Tensor,
    ahead: Tensor,
    behind: Tensor,
    mu: float,
    *,
    rank: int | None = None,
) -> Moved:
    """Add ``mu * (ahead - behind)`` to ``parameter``, in place.

    Taken in float64 block by block and rounded once to the parameter's dtype.  ``rank``: a matrix
    moves along so many top singular directions of the difference only.  A block's difference is
    taken before that block is written, so ``ahead`` may share memory with ``parameter``.
    """
    last = parameter.shape[-1] if parameter.ndim > 1 else parameter.numel()
    rows = parameter.reshape(-1, last)  # short rows, so that a block holds few elements
    after, before = ahead.reshape(rows.shape), behind.reshape(rows.shape)
    width = max(1, BLOCK // rows.shape[1])
    where = wide_device(rows.device)

    def difference(first: int, end: int) -> Tensor:
        double = after[first:end].to(where).double()
        return double - before[first:end].to(where).double()

    def numbers(first: int, end: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        block: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
        block = difference(first, end).cpu().numpy()
        return block

    top = None
    if rank is not None:
        top = top_directions(numbers, (len(rows), rows.shape[1]), rank, block=width)
    moved = energy = 0.0
    for first in range(0, len(rows), width):
        end = min(first + width, len(rows))
        step = difference(first, end)
        energy += float((step * step).sum())
        if top is not None:
            step = torch.from_numpy(top.project(step.cpu().numpy())).to(where)
        step *= mu
        moved += float((step * step).sum())
        target = rows[first:end].to(where).double() + step
        rows[first:end] = rounded(target, rows.dtype)
    return Moved(moved, energy, energy if top is None else top.kept)


def rounded(values: Tensor, stored: torch.dtype) -> Tensor:
    """Float64 values rounded once to ``stored`` (torch goes to float16 by way of float32)."""
    if stored is not torch.float16:
        return values.to(stored)
    with np.errstate(over="ignore"):
        return torch.from_numpy(values.cpu().numpy().astype(np.float16)).to(values.device)
