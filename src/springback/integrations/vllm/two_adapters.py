"""Expert and amateur as LoRA adapters on one vLLM model: one set of base weights.

Each token is two rows: the expert's rows first, then as many of the amateur's.  Linear layers read
the base's weights once for both and add sum_i w_i B_i A_i x, w being the row's weights of the
adapters; attention is two layers with a KV cache each.  All else works row by row.

Of a pair the expert's rows have one adapter and the amateur's the other.  In a boost the adapters
are those of a line of checkpoints, and each request brings the weights of its rows, so that any
points of the line are decoded in one batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from springback.errors import ModelError, describe
from springback.integrations.vllm.build import AMATEUR, BASE, TwoRoles, build
from springback.integrations.vllm.folder import LINE_KEY
from springback.weights.adapters.reading import Adapter, check_bases, open_adapter, refuse_more
from springback.weights.io.stream import Reader

_WHOLE = "write whole weights: springback extrapolate --materialise"


class Rows:
    """The rows of a pass.

    ``sides``: how many of them a token is, 2, or in a boost 1, the expert's alone.  ``first``: the
    adapters before it weigh nothing in any row.
    """

    def __init__(self) -> None:
        self.set(torch.zeros(2, 0, 1))

    def set(self, weights: Tensor) -> None:
        """``weights``: of the adapters (sides, tokens, adapters), on the CPU."""
        self.sides, self.weights = len(weights), weights.flatten(0, 1)
        used = self.weights.any(0).nonzero().flatten().tolist()
        self.first = used[0] if used else weights.shape[-1] - 1
        self._spread: dict[tuple[int, ...], Tensor] = {}

    def spread(self, ranks: tuple[int, ...], device: torch.device) -> Tensor:
        """The weight of each column (rows, ranks of the adapters from ``first`` on), fp32."""
        if ranks not in self._spread:
            times = torch.tensor(ranks[self.first :])
            wide = self.weights[:, self.first :].repeat_interleave(times, 1)
            self._spread[ranks] = wide.to(device)
        return self._spread[ranks]


class TwinAttention(nn.Module):
    """One attention layer for the expert's rows, its double for the amateur's."""

    def __init__(self, expert: Any, amateur: Any, rows: Rows) -> None:
        super().__init__()
        self.expert, self.amateur, self.rows = expert, amateur, rows

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **more: Any) -> Tensor:
        """(2 tokens, width) each."""
        if more.get("output_shape") is not None:
            raise ModelError(f"this model shapes the output of its attention; {_WHOLE}")
        if self.rows.sides == 1:
            alone: Tensor = self.expert(query, key, value)
            return alone
        parts = zip(query.chunk(2), key.chunk(2), value.chunk(2), strict=True)
        layers = zip((self.expert, self.amateur), parts, strict=True)
        return torch.cat([layer(*part) for layer, part in layers])

    def __getattr__(self, name: str) -> Any:
        """What else a model asks its attention for is the same of both."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.expert, name)


class TwinLinear(nn.Module):
    """A (fused) linear layer of vLLM under adapters.

    For each part that an adapter is on: ``parts``, where its outputs begin and end and the rank of
    each adapter, 0 of one that is not on it; ``a``: (in, ranks) and ``b``: (ranks, out).
    """

    def __init__(self, base: Any, rows: Rows) -> None:
        super().__init__()
        self.base, self.rows = base, rows
        self.parts: list[tuple[slice, tuple[int, ...]]] = []
        self.a, self.b = nn.ParameterList(), nn.ParameterList()

    def add(self, part: slice, ranks: tuple[int, ...], a: Tensor, b: Tensor) -> None:
        """Adapters on the outputs ``part``."""
        self.parts.append((part, ranks))
        self.a.append(nn.Parameter(a, requires_grad=False))
        self.b.append(nn.Parameter(b, requires_grad=False))

    def forward(self, x: Tensor) -> Any:
        """(rows, in)."""
        result = self.base(x)
        out: Tensor = result[0] if isinstance(result, tuple) else result
        for (part, ranks), a, b in zip(self.parts, self.a, self.b, strict=True):
            idle = sum(ranks[: self.rows.first])
            # In fp32, so that no weight is rounded.
            thin = (x @ a[:, idle:]) * self.rows.spread(ranks, x.device)
            out[:, part] += thin.to(x.dtype) @ b[idle:]
        return result


class TwoAdapters(TwoRoles):
    """vLLM's own class for the base, with the adapters put in once its weights are there."""

    inner = BASE

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config)
        from vllm.model_executor.models.utils import maybe_prefix

        assert self.folder.adapter is not None
        assert self.folder.amateur is not None
        line = getattr(vllm_config.model_config.hf_config, LINE_KEY, None)
        self.weighed = line is not None
        folders = line or (self.folder.adapter, self.folder.amateur)
        self.adapters = [open_adapter(Path(folder)) for folder in folders]
        for adapter in self.adapters:
            refuse_more(adapter)
        check_bases(self.adapters[::-1])
        self.base = build(vllm_config, BASE, maybe_prefix(prefix, BASE))
        self.rows = Rows()
        layers = vllm_config.compilation_config.static_forward_context
        _double_attention(self.base, layers, self.rows)

    def hidden_states(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """(tokens, expert + amateur)."""
        self.rows.set(self._weights(len(input_ids)))
        n = self.rows.sides
        self.alone = n == 1
        hidden: Tensor = self.base(input_ids.repeat(n), positions.repeat(n))
        return torch.cat([hidden, hidden] if self.alone else hidden.chunk(2), -1)

    def _weights(self, tokens: int) -> Tensor:
        """Of the adapters (sides, tokens, adapters): as the requests say, else the first of them
        for the expert and the last for the amateur."""
        count = len(self.adapters)
        asked = self.combine.table.weights(tokens, count) if self.weighed else None
        if asked is not None:
            return asked
        return torch.eye(count)[[0, -1], None].expand(-1, tokens, -1)

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
        _adapt(self.base, self.adapters, self.rows)
        return {name for name, _ in self.named_parameters()}


def _double_attention(model: nn.Module, layers: dict[str, Any], rows: Rows) -> None:
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
        _put(model, name, TwinAttention(module, double, rows))


def _put(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


def _adapt(model: Any, adapters: Sequence[Adapter], rows: Rows) -> None:
    """Put the adapters on the linear layers they name, fused ones included."""
    names = list(dict.fromkeys(name for adapter in adapters for name in adapter.modules))
    with Reader() as reader:
        for name in names:
            where, part = _place(model, name)
            layer = model.get_submodule(where)
            if not isinstance(layer, TwinLinear):
                layer = TwinLinear(layer, rows)
                _put(model, where, layer)
            factors = [adapter.factors(reader, name) for adapter in adapters]
            ranks = tuple(0 if f is None else len(f[1]) for f in factors)
            width = part.stop - part.start
            pairs = [(left, right) for left, right in filter(None, factors)]  # (out, r), (r, in)
            shapes = {(len(left), right.shape[1]) for left, right in pairs}
            if shapes != {(width, layer.base.input_size)}:
                given = f"an adapter of another shape than {name}"
                raise ModelError(describe(given, "adapters of this base", _WHOLE))
            a = np.concatenate([right.T for _, right in pairs], 1)
            b = np.concatenate([left.T for left, _ in pairs], 0)
            weight = layer.base.weight
            layer.add(part, ranks, *(torch.from_numpy(f).to(weight) for f in (a, b)))


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
