"""Changes of weights: how far from the start, and whether a later change leads back to it.

Lengths are Euclidean, over all parameters as one vector.  Sums run tensor by tensor, in blocks of
fp64; no model is copied.  Tied weights count once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from springback.errors import ModelError
from springback.models.loading import WEIGHTS_FILE
from springback.models.placement import wide_device
from springback.models.stored_model import AnyModel, StoredModel
from springback.probes.context import ProbeContext
from springback.probes.likelihood import chunks
from springback.probes.registry import Part, Probe, ProbeValue

#: Elements turned into fp64 at a time.
BLOCK = 1 << 22

#: A model, or tensors by the names of its parameters.
Weights = nn.Module | Mapping[str, Tensor]


class _Stored(Mapping[str, Tensor]):
    """The tensors of an open safetensors file, each read when it is asked for."""

    def __init__(self, file: Any) -> None:
        self.file, self.names = file, tuple(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        tensor: Tensor = self.file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@contextmanager
def stored_weights(folder: Path) -> Iterator[Mapping[str, Tensor]]:
    """The tensors that :func:`springback.models.loading.save_weights` wrote, read one at a time.

    Raises :class:`ModelError` if there is no such file or it is damaged.
    """
    path = folder / WEIGHTS_FILE
    try:
        file = safe_open(str(path), framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"cannot read {path} ({error}); allowed: a folder that save_weights wrote; "
            "make the branch point again"
        ) from error
    with file as opened:
        yield _Stored(opened)


@dataclass(frozen=True)
class WeightChange:
    """Length of a change of weights, of the start's weights, and the number of parameters."""

    norm: float
    start_norm: float
    parameters: int

    @property
    def relative(self) -> float:
        """Change as a share of the start's length; NaN if that is 0."""
        return self.norm / self.start_norm if self.start_norm else math.nan


def weight_change(model: Weights, start: Weights) -> WeightChange:
    """How far ``model`` is from ``start``, in weights (no unit; 0 = the same, higher = further).

    Left out: buffers, and what the change does; equal lengths may change behaviour much or
    little.  Cost: one pass over both models' weights.

    Raises :class:`ModelError` if names or shapes differ.
    """
    change_sq = start_sq = 0.0
    parameters = 0
    for here, begin in _blocks([model, start]):
        change_sq += _dot(here - begin, here - begin)
        start_sq += _dot(begin, begin)
        parameters += begin.numel()
    return WeightChange(math.sqrt(change_sq), math.sqrt(start_sq), parameters)


@dataclass(frozen=True)
class WayBack:
    """A later change against the way from the aligned weights back to the start.

    ``later_norm`` and ``way_norm`` are the lengths of the two, ``product`` is their scalar product.
    """

    later_norm: float
    way_norm: float
    product: float

    @property
    def cosine(self) -> float:
        """-1 to 1: 1 = straight back to the start, 0 = aside, -1 = further on.

        NaN if either length is 0.  Two random directions of n weights have 0 +- 1/sqrt(n).
        """
        lengths = self.later_norm * self.way_norm
        return self.product / lengths if lengths else math.nan

    @property
    def share(self) -> float:
        """Share of the way back that the later change covers (its projection).

        0 = none, 1 = all of it (and perhaps aside), below 0 = further on.  NaN without a way.
        """
        return self.product / self.way_norm**2 if self.way_norm else math.nan


def way_back(model: Weights, aligned: Weights, start: Weights) -> WayBack:
    """Whether what changed since alignment leads back to the start: model - aligned against
    start - aligned.

    Left out: buffers, and that weights which matter little count as much as the others.  Cost: one
    pass over the weights of all three.  On disk ``aligned`` may be :func:`stored_weights`.

    Raises :class:`ModelError` if names or shapes differ.
    """
    later_sq = way_sq = product = 0.0
    for here, branch, begin in _blocks([model, aligned, start]):
        later, way = here - branch, begin - branch
        later_sq += _dot(later, later)
        way_sq += _dot(way, way)
        product += _dot(later, way)
    return WayBack(math.sqrt(later_sq), math.sqrt(way_sq), product)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a, b))


@torch.no_grad()
def _blocks(weights: Sequence[Weights]) -> Iterator[tuple[Tensor, ...]]:
    """The same stretch of every one's weights, flat and in fp64, on the first one's device."""
    tables: list[Mapping[str, Tensor]] = [
        dict(w.named_parameters()) if isinstance(w, nn.Module) else w for w in weights
    ]
    for name in _names(weights):
        tensors = [table[name] for table in tables]  # reads a stored tensor once
        if len({tuple(t.shape) for t in tensors}) > 1:
            shapes = " and ".join(str(tuple(t.shape)) for t in tensors)
            raise ModelError(f"tensor {name} has shapes {shapes}; use checkpoints of one run")
        flat = [t.detach().reshape(-1) for t in tensors]
        where = wide_device(flat[0].device)
        for part in chunks(len(flat[0]), BLOCK):
            yield tuple(t[part].to(where).double() for t in flat)


def _names(weights: Sequence[Weights]) -> list[str]:
    """Names that all have in common, each tied weight under its first name.

    Raises :class:`ModelError` if one has a name that another lacks, other names of tied weights
    aside.
    """
    ties: set[str] = set()
    tables = []
    for w in weights:
        if isinstance(w, nn.Module):
            once = [name for name, _ in w.named_parameters()]
            ties |= {name for name, _ in w.named_parameters(remove_duplicate=False)} - set(once)
            tables.append(once)
        else:
            tables.append(list(w))
    first = [name for name in tables[0] if name not in ties]
    for table in tables[1:]:
        if differing := sorted(set(first) ^ (set(table) - ties)):
            raise ModelError(
                f"{len(differing)} tensors are in one model and not in the other, first "
                f"{differing[0]}; use checkpoints of one run"
            )
    return first


def _weights(model: AnyModel) -> AbstractContextManager[Weights]:
    """Those of a model that lies in files are read as they are asked for."""
    return model.tensors() if isinstance(model, StoredModel) else nullcontext(model)


@Probe("weight_change")
def _weight_change(context: ProbeContext) -> ProbeValue:
    """:func:`weight_change` since the start model."""
    with _weights(context.subject) as here, _weights(context.inputs.start) as begin:
        change = weight_change(here, begin)
    return {"value": change.relative, "norm": change.norm}


def _cosine(value: ProbeValue) -> list[Part]:
    cosine = value["cosine"]
    return [] if cosine is None else [Part("way_back_cosine", "held-out", float(cosine), "cosine")]


@Probe("way_back", parts=_cosine)
def _way_back(context: ProbeContext) -> ProbeValue:
    """:func:`way_back` since the branch point, which itself counts as 0: it has no way to go."""
    if context.aligned is None:
        return {"value": 0.0, "cosine": None}
    with (
        stored_weights(context.aligned) as branch,
        _weights(context.subject) as here,
        _weights(context.inputs.start) as begin,
    ):
        way = way_back(here, branch, begin)
    return {"value": way.share, "cosine": None if math.isnan(way.cosine) else way.cosine}
