"""Expert and amateur as two LoRA adapters on one base: one set of base weights.

Each adapted layer computes W x + B_k A_k x, k being the row's adapter (the scaling is part of B).
Three models share all parameters: ``both`` takes the expert's rows and then as many of the
amateur's, ``expert`` and ``amateur`` take rows of one kind.  Which adapter a row has is thus its
place in the batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from springback.errors import ModelError, describe
from springback.models.placement import running_device
from springback.models.quantized import computing_dtype, is_quantized
from springback.models.views import view_of
from springback.weights.adapters.reading import check_bases, open_adapter, refuse_more
from springback.weights.arithmetic import Floats
from springback.weights.io.stream import Reader

EXPERT, AMATEUR = 0, 1


class LoraLinear(nn.Module):
    """A linear layer under two adapters.

    ``a``: (2, in, rank), ``b``: (2, rank, out), the expert's first.  ``side``: whose rows come in;
    None: the expert's first, then as many of the amateur's.
    """

    side: int | None = None

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        # Of a spread base the weights may be away; the adapters stay where it runs.
        dtype, device = computing_dtype(base), running_device(base)
        a = torch.zeros(2, base.in_features, rank, dtype=dtype, device=device)
        b = torch.zeros(2, rank, base.out_features, dtype=dtype, device=device)
        self.a, self.b = (nn.Parameter(t, requires_grad=False) for t in (a, b))

    @property
    def weight(self) -> Tensor:
        """The base's, for code that asks a layer for its dtype or device."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (rows, positions, in)."""
        output: Tensor = self.base(x)
        if self.side is not None:
            flat = x.reshape(-1, x.shape[-1])
            more = (flat @ self.a[self.side]) @ self.b[self.side]
            return output + more.view_as(output)
        flat = x.reshape(2, -1, x.shape[-1])  # (2, rows / 2 * positions, in)
        more = torch.bmm(torch.bmm(flat, self.a), self.b)
        return output + more.view_as(output)


def install(model: PreTrainedModel, modules: Sequence[str], rank: int) -> None:
    """Put a :class:`LoraLinear` without effect in the place of each named layer of ``model``.

    Raises :class:`ModelError` for a name that is no plain linear layer.
    """
    for name in modules:
        layer: Any
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            layer = None
        if type(layer) is not nn.Linear and not is_quantized(layer):
            what = "missing" if layer is None else f"a {type(layer).__name__}"
            raise ModelError(
                describe(
                    f"an adapter on {name}, which is {what} in the base model",
                    "adapters on linear layers of their own base",
                    "name that base, or write a full model with extrapolate --materialise",
                )
            )
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, LoraLinear(layer, rank))


def _view(both: PreTrainedModel, side: int) -> PreTrainedModel:
    """``both`` for rows of one kind, sharing all its parameters and buffers."""
    model = view_of(both)
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.side = side
    return model


_TWINS: weakref.WeakKeyDictionary[PreTrainedModel, tuple[Any, PreTrainedModel]] = (
    weakref.WeakKeyDictionary()
)


def views(both: PreTrainedModel) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Expert and amateur of ``both``; they are known as a pair from now on."""
    expert, amateur = _view(both, EXPERT), _view(both, AMATEUR)
    _TWINS[expert] = weakref.ref(amateur), both
    return expert, amateur


def twin_of(expert: PreTrainedModel, amateur: PreTrainedModel | None) -> PreTrainedModel | None:
    """The model that runs both in one batch, if they are two adapters on one base."""
    partner, both = _TWINS.get(expert, (None, None))
    return both if partner is not None and amateur is not None and partner() is amateur else None


def load_twin(
    base: PreTrainedModel, expert: str | Path, amateur: str | Path | None
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Expert and amateur, adapter folders, on ``base``, which becomes part of both.

    Without an amateur, its place has no effect: it is the base.  Memory: the base once, and both
    adapters at one rank.  Factors are taken in float64 and rounded once to the base's dtype.
    Raises :class:`ModelError` for adapters of different bases, and for what is not LoRA on linear
    layers.
    """
    adapters = [
        open_adapter(folder, dora=True) for folder in (expert, amateur) if folder is not None
    ]
    for adapter in adapters:
        refuse_more(adapter)
    check_bases(adapters[::-1])
    names = list(dict.fromkeys(name for adapter in adapters for name in adapter.modules))
    rank = max(m.rank for adapter in adapters for m in adapter.modules.values())
    install(base, names, rank)
    with Reader() as reader:
        for side, adapter in enumerate(adapters):
            set_side(base, side, partial(adapter.factors, reader))
    base.train(False)
    return views(base)


@torch.no_grad()
def set_side(
    model: PreTrainedModel, side: int, factors: Callable[[str], tuple[Floats, Floats] | None]
) -> None:
    """Set the adapter of one side: (scaling * B, A) of each layer by its name, None for none."""
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLinear):
            given = factors(name)
            layer.a[side].zero_()
            layer.b[side].zero_()
            if given is not None:
                _fill(layer, side, given, name)


def _fill(layer: LoraLinear, side: int, factors: tuple[Floats, Floats], name: str) -> None:
    # In fp32, as an extrapolated adapter is written, and then the base's dtype.
    b, a = (torch.from_numpy(f).float() for f in factors)  # (out, r), (r, in)
    into = layer.a[side].shape[0], layer.b[side].shape[1]
    if (a.shape[1], b.shape[0]) != into:
        raise ModelError(
            describe(
                f"an adapter of {a.shape[1]} x {b.shape[0]} on {name}",
                f"{into[0]} x {into[1]}, as the base model has",
                "name the base it was trained on",
            )
        )
    # Rounded before they are moved: not every device has float64.
    layer.a[side, :, : a.shape[0]] = a.T.to(layer.a.dtype).to(layer.a.device)
    layer.b[side, : b.shape[1]] = b.T.to(layer.b.dtype).to(layer.b.device)
