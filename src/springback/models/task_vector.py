"""Weights moved along an alignment, in memory: overbending, and its use as a repair.

``theta + mu * (theta_aligned - theta_start)``.  With theta the aligned model itself this is paper
B's extrapolation (ME) applied to paper A's alignment; with theta a model that later training has
worn down, it adds the alignment back.  Low-rank: each matrix moves along the top singular
directions of the difference alone (LoX, Perin et al., arXiv 2506.15606).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from springback.errors import ModelError, describe
from springback.models.loading import Model, trainable
from springback.weights.lowrank import top_directions

#: Elements turned into float64 at a time.
BLOCK = 1 << 22


@dataclass(frozen=True)
class Bent:
    """What was moved: length of ``mu * direction`` and, low-rank, the share of the squared length
    of the matrices' differences that the kept directions hold (1 for a dense step)."""

    norm: float
    kept: float


@torch.no_grad()
def add_direction(
    model: Model,
    aligned: Mapping[str, Tensor],
    start: Model,
    mu: float,
    rank: int | None = None,
) -> Bent:
    """Add ``mu * (aligned - start)`` to the weights of ``model``, in place.

    Taken in float64 and rounded once to fp32.  ``aligned``: tensors by the names of the model's
    parameters (:func:`springback.probes.stored_weights`); it may be the model's own weights.
    ``rank``: move a matrix along so many directions; vectors, and matrices that have no more, move
    whole.  Raises :class:`ModelError` on a rank below 1, other names or shapes, or a weight that
    is not finite afterwards; the model is then not to be used.
    """
    if rank is not None and rank < 1:
        raise ModelError(describe(f"rank {rank}", "1 or more", "leave it out to move all"))
    begin = dict(start.named_parameters())
    moved = energy = kept = 0.0
    for name, parameter in trainable(model).items():
        if name not in aligned or name not in begin:
            raise ModelError(
                f"the aligned and the start weights have no tensor {name} of the model; "
                "use checkpoints of one run"
            )
        ahead, behind = aligned[name], begin[name]
        if not ahead.shape == behind.shape == parameter.shape:
            raise ModelError(
                f"tensor {name} has shapes {tuple(parameter.shape)}, {tuple(ahead.shape)} and "
                f"{tuple(behind.shape)}; use checkpoints of one run"
            )
        low = rank if parameter.ndim == 2 and rank is not None and rank < min(ahead.shape) else None
        found = _move(parameter, ahead, behind, mu, low)
        moved, energy, kept = moved + found[0], energy + found[1], kept + found[2]
    if not math.isfinite(moved):
        raise ModelError(
            f"mu {mu:g} leads to weights that are not finite; give a smaller one, or look at the "
            "checkpoints"
        )
    return Bent(math.sqrt(moved), kept / energy if energy else 1.0)


def _move(
    parameter: Tensor, ahead: Tensor, behind: Tensor, mu: float, rank: int | None
) -> tuple[float, float, float]:
    """Move one tensor; squared lengths of the step, of the difference, and of what is kept of it.

    The difference is taken before anything is written, block by block: ``ahead`` may share memory
    with ``parameter``.
    """
    rows = parameter.reshape(1, -1) if parameter.ndim < 2 else parameter.reshape(len(parameter), -1)
    there, here = ahead.reshape(rows.shape), behind.reshape(rows.shape)
    block = max(1, BLOCK // rows.shape[1])

    def difference(first: int, last: int) -> Tensor:
        a = there[first:last].to(rows.device, torch.float64)
        return a - here[first:last].to(rows.device, torch.float64)

    def numbers(first: int, last: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        found: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
        found = difference(first, last).cpu().numpy()
        return found

    top = None
    if rank is not None:
        top = top_directions(numbers, (len(rows), rows.shape[1]), rank, block=block)
    moved = energy = 0.0
    for first in range(0, len(rows), block):
        last = min(first + block, len(rows))
        step = difference(first, last)
        energy += float((step * step).sum())
        if top is not None:
            step = torch.from_numpy(top.project(step.cpu().numpy())).to(rows.device)
        step *= mu
        moved += float((step * step).sum())
        rows[first:last] = (rows[first:last].double() + step).to(rows.dtype)
    return moved, energy, energy if top is None else top.kept


@torch.no_grad()
def scale_adapter(model: Model, factor: float) -> None:
    """Multiply what a LoRA adapter adds by ``factor``, in place: overbending by ``factor - 1``.

    Exact in real numbers, since the start has no adapter: (1 + mu) B A.  Raises
    :class:`ModelError` on a model without an adapter.
    """
    found = [p for name, p in model.named_parameters() if ".lora_B." in name]
    if not found:
        raise ModelError("the model has no adapter; use add_direction for full weights")
    for parameter in found:
        parameter.mul_(factor)
