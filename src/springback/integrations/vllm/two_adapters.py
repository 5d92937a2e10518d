"""Expert and amateur as two LoRA adapters on one vLLM model: one set of base weights.

Each token is two rows: the expert's rows first, then as many of the amateur's.  Linear layers read
the base's weights once for both and add B_k A_k x, k being the row's adapter, as
:mod:`springback.decoding.lora_pair` does; attention is two layers with a KV cache each.  All else
works row by row.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from springback.decoding.lora_pair import refuse_more
from springback.errors import ModelError, describe
from springback.integrations.vllm.build import AMATEUR, BASE, TwoRoles, build
from springback.weights.adapters.reading import check_bases, open_adapter
from springback.weights.arithmetic import Floats
from springback.weights.io.stream import Reader


class Side(Protocol):
    """An adapter as one side has it: the modules it is on, and (B, A) of each of them."""

    @property
    def modules(self) -> Iterable[str]: ...

    def factors(self, reader: Reader, name: str) -> tuple[Floats, Floats] | None: ...


_WHOLE = "write whole weights: springback extrapolate --materialise"


class Sides:
    """How many rows a token is: 2, or in a boost 1, the expert's alone."""

    count = 2


class TwinAttention(nn.Module):
    """One attention layer for the expert's rows, its double for the amateur's."""

    def __init__(self, expert: Any, amateur: Any, sides: Sides) -> None:
        super().__init__()
        self.expert, self.amateur, self.sides = expert, amateur, sides

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **more: Any) -> Tensor:
        """(2 tokens, width) each."""
        if more.get("output_shape") is not None:
            raise ModelError(f"this model shapes the output of its attention; {_WHOLE}")
        if self.sides.count == 1:
            alone: Tensor = self.expert(query, key, value)
            return alone
        parts = zip(query.chunk(2), key.chunk(2), value.chunk(2), strict=True)
        layers = zip((self.expert, self.amateur), parts, strict=True)
        return torch.cat([layer(*rows) for layer, rows in layers])

    def __getattr__(self, name: str) -> Any:
        """What else a model asks its attention for is the same of both."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.expert, name)


class TwinLinear(nn.Module):
    """A (fused) linear layer of vLLM under two adapters.

    ``slices``: where the outputs of its parts begin and end; ``a``: (2, in, rank) and ``b``:
    (2, rank, out) for each part that an adapter is on.
    """

    def __init__(self, base: Any, sides: Sides) -> None:
        super().__init__()
        self.base, self.sides = base, sides
        self.clear()

    def clear(self) -> None:
        """Take all adapters off."""
        self.slices: list[slice] = []
        self.a, self.b = nn.ParameterList(), nn.ParameterList()

    def add(self, part: slice, a: Tensor, b: Tensor) -> None:
        """An adapter pair on the outputs ``part``."""
        self.slices.append(part)
        self.a.append(nn.Parameter(a, requires_grad=False))
        self.b.append(nn.Parameter(b, requires_grad=False))

    def forward(self, x: Tensor) -> Any:
        """(2 tokens, in)."""
        result = self.base(x)
        out: Tensor = result[0] if isinstance(result, tuple) else result
        n = self.sides.count
        flat = x.view(n, -1, x.shape[-1])  # (sides, tokens, in)
        for part, a, b in zip(self.slices, self.a, self.b, strict=True):
            out[:, part] += torch.bmm(torch.bmm(flat, a[:n]), b[:n]).flatten(0, 1)
        return result


class TwoAdapters(TwoRoles):
    """vLLM's own class for the base, with both adapters put in once its weights are there."""

    inner = BASE

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config)
        from vllm.model_executor.models.utils import maybe_prefix

        assert self.folder.adapter is not None
        assert self.folder.amateur is not None
        self.adapters = [open_adapter(self.folder.adapter), open_adapter(self.folder.amateur)]
        for adapter in self.adapters:
            refuse_more(adapter)
        check_bases(self.adapters[::-1])
        self.base = build(vllm_config, BASE, maybe_prefix(prefix, BASE))
        self.sides = Sides()
        layers = vllm_config.compilation_config.static_forward_context
        _double_attention(self.base, layers, self.sides)

    def hidden_states(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """(tokens, expert + amateur)."""
        self.sides.count = 1 if self.alone else 2
        if self.alone:
            hidden: Tensor = self.base(input_ids, positions)
            return torch.cat([hidden, hidden], -1)
        both = self.base(input_ids.repeat(2), positions.repeat(2))  # (2 tokens, width)
        return torch.cat(both.chunk(2), -1)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Combined logits (rows, vocabulary) in fp32."""
        halves = hidden_states.chunk(2, -1)
        if self.alone:
            alone: Tensor | None = self.base.compute_logits(halves[0])
            return alone
        logits = self.base.compute_logits(torch.cat(halves))
        return None if logits is None else self.combine(*logits.chunk(2))

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """The base's weights, then the adapters over them."""
        from vllm.model_executor.models.utils import AutoWeightsLoader

        wanted = {name for name, _ in self.named_parameters()}
        named = ((f"{BASE}.{name}", tensor) for name, tensor in weights)
        loaded: set[str] = AutoWeightsLoader(self).load_weights(named)
        if not wanted <= loaded:
            return loaded  # vLLM says which are missing
        self.adapt(self.adapters)
        return {name for name, _ in self.named_parameters()}

    def adapt(self, sides: Sequence[Side]) -> None:
        """Put the expert's and the amateur's adapter on, in place of those before."""
        for module in self.base.modules():
            if isinstance(module, TwinLinear):
                module.clear()
        _adapt(self.base, sides, self.sides)


def _double_attention(model: nn.Module, layers: dict[str, Any], sides: Sides) -> None:
    """Give each attention layer a double of its own name, and so a KV cache of its own."""
    from vllm.model_executor.layers.attention import Attention
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    shared: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    for name, module in list(model.named_modules()):
        if not isinstance(module, AttentionLayerBase):
            continue
        if type(module) is not Attention or module.kv_sharing_target_layer_name is not None:
            raise ModelError(
                describe(
                    f"adapters on a base with {type(module).__name__} that is shared or special",
                    "plain attention",
                    _WHOLE,
                )
            )
        double = copy.deepcopy(module, dict(shared))
        double.layer_name = f"{AMATEUR}.{module.layer_name}"
        layers[double.layer_name] = double
        _put(model, name, TwinAttention(module, double, sides))


def _put(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


def _adapt(model: Any, adapters: Sequence[Side], sides: Sides) -> None:
    """Put both adapters on the linear layers they name, fused ones included."""
    names = list(dict.fromkeys(name for adapter in adapters for name in adapter.modules))
    with Reader() as reader:
        for name in names:
            where, part = _place(model, name)
            layer = model.get_submodule(where)
            if not isinstance(layer, TwinLinear):
                layer = TwinLinear(layer, sides)
                _put(model, where, layer)
            weight = layer.base.weight
            factors_of_both = [adapter.factors(reader, name) for adapter in adapters]
            rank = max(b.shape[1] for b, _ in (f for f in factors_of_both if f is not None))
            a = weight.new_zeros(2, layer.base.input_size, rank)
            b = weight.new_zeros(2, rank, part.stop - part.start)
            for side, factors in enumerate(factors_of_both):
                if factors is not None:
                    left, right = (torch.from_numpy(f) for f in factors)  # (out, r), (r, in)
                    _require(left.shape[0] == b.shape[2], name)
                    _require(right.shape[1] == a.shape[1], name)
                    a[side, :, : right.shape[0]] = right.T.to(a)
                    b[side, : left.shape[1]] = left.T.to(b)
            layer.add(part, a, b)


def _require(fits: bool, name: str) -> None:
    if not fits:
        raise ModelError(
            describe(f"an adapter of another shape than {name}", "adapters of this base", _WHOLE)
        )


def _place(model: Any, name: str) -> tuple[str, slice]:
    """The layer that computes the module ``name`` of Transformers, and where its outputs are."""
    parent, _, leaf = name.rpartition(".")
    packed = getattr(model, "packed_modules_mapping", None) or {}
    for fused, parts in packed.items():
        where = f"{parent}.{fused}"
        if leaf in parts and _linear(model, where) is not None:
            sizes = list(_linear(model, where).output_sizes)
            begin = sum(sizes[: parts.index(leaf)])
            return where, slice(begin, begin + sizes[parts.index(leaf)])
    layer = _linear(model, name)
    if layer is None:
        raise ModelError(
            describe(
                f"an adapter on {name}, which this model has no linear layer for in vLLM",
                "adapters on its linear layers",
                _WHOLE,
            )
        )
    return name, slice(0, layer.output_size)


def _linear(model: Any, name: str) -> Any:
    from vllm.model_executor.layers.linear import LinearBase

    try:
        layer = model.get_submodule(name)
    except AttributeError:
        return None
    layer = layer.base if isinstance(layer, TwinLinear) else layer
    return layer if isinstance(layer, LinearBase) else None
