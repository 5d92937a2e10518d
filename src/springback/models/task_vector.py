"""The task vector of an alignment added to weights in memory: more alignment, or its repair.

``theta + mu * (theta_aligned - theta_start)``.  With theta the aligned model itself this is paper
B's extrapolation (ME) applied to paper A's alignment; with theta a model whose alignment later
training has weakened, it adds the alignment back.  Low-rank: each matrix moves along the top
singular directions of the difference alone (LoX, Perin et al., arXiv 2506.15606).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from springback.errors import ModelError, describe
from springback.models.loading import Model
from springback.models.stored_model import AnyModel, parameters_to_change, parameters_to_read
from springback.models.weight_step import move_


@dataclass(frozen=True)
class Shift:
    """What was moved: length of ``mu * direction`` and, low-rank, the share of the squared length
    of the matrices' differences that the kept directions hold (1 for a dense step)."""

    norm: float
    kept: float


@torch.no_grad()
def add_direction(
    model: AnyModel,
    aligned: Mapping[str, Tensor],
    start: AnyModel,
    mu: float,
    rank: int | None = None,
) -> Shift:
    """Add ``mu * (aligned - start)`` to the weights of ``model``, in place.

    Taken in float64 and rounded once to fp32.  ``aligned``: tensors by the names of the model's
    parameters (:func:`springback.probes.stored_weights`); it may be the model's own weights.
    ``rank``: move a matrix along so many directions; vectors, and matrices that have no more, move
    whole.  Raises :class:`ModelError` on a rank below 1, other names or shapes, or a weight that
    is not finite afterwards; the model is then not to be used.
    """
    if rank is not None and rank < 1:
        raise ModelError(describe(f"rank {rank}", "1 or more", "leave it out to move all"))
    with parameters_to_read(start) as begin, parameters_to_change(model) as parameters:
        return _move(parameters, aligned, begin, mu, rank)


def _move(
    parameters: Iterable[tuple[str, Tensor]],
    aligned: Mapping[str, Tensor],
    begin: Mapping[str, Tensor],
    mu: float,
    rank: int | None,
) -> Shift:
    moved = energy = kept = 0.0
    for name, parameter in parameters:
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
        step = move_(parameter, ahead, behind, mu, rank=low)
        moved, energy, kept = moved + step.step, energy + step.difference, kept + step.kept
    if not math.isfinite(moved):
        raise ModelError(
            f"mu {mu:g} leads to weights that are not finite; give a smaller one, or look at the "
            "checkpoints"
        )
    return Shift(math.sqrt(moved), kept / energy if energy else 1.0)


@torch.no_grad()
def scale_adapter(model: Model, factor: float) -> None:
    """Multiply what a LoRA adapter adds by ``factor``, in place: overbending by ``factor - 1``.

    Exact in real numbers, since the start has no adapter: (1 + mu) B A.  Raises
    :class:`ModelError` on a model without an adapter.
    """
    outputs = [p for name, p in model.named_parameters() if ".lora_B." in name]
    if not outputs:
        raise ModelError("the model has no adapter; use add_direction for full weights")
    for parameter in outputs:
        parameter.mul_(factor)
