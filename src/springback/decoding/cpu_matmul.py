"""Matrix products of a few tokens at the speed of memory.

Decoding multiplies every weight matrix by one to eight rows, which costs what reading the weights
costs if the library is good at it.  PyTorch's fp32 ``linear`` on a CPU often is not: two rows may
take nearly twice the time of one (``benchmarks/decode.py``, ``blocks``).  The same product the
other way round, W xᵀ, may not; one row goes through it as two.  Which is faster depends on the
processor and the library, so both are timed once a process on the model's own weights.

The sums are the same; low bits may differ, as they do between blocks of different lengths.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear

#: Rows that are timed; a number between two of them goes with the larger.
ROWS = (1, 2, 4, 8)
#: Bytes of weights that are timed with: more than caches hold, so that memory is what is measured.
SAMPLE = 96_000_000
#: The other way round is taken where it needs at most so much of ``linear``'s time.
GAIN = 0.9

Product = Callable[[Tensor, Tensor], Tensor]
_MEASURED: dict[tuple[int, int], frozenset[int]] = {}


def transposed_product(x: Tensor, weight: Tensor) -> Tensor:
    """``linear(x, weight)`` as (W xᵀ)ᵀ: ``x`` (rows, in), ``weight`` (out, in) -> (rows, out)."""
    rows = len(x)
    block = torch.cat([x, x]) if rows == 1 else x
    return torch.mm(weight, block.t())[:, :rows].t().contiguous()


def _linears(models: Iterable[nn.Module]) -> list[nn.Linear]:
    """Layers whose product can be replaced: plain ones in fp32 on the CPU, without own hooks."""
    layers = {
        id(layer): layer
        for model in models
        for layer in model.modules()
        if type(layer) is nn.Linear
        and "forward" not in vars(layer)
        and not isinstance(layer.weight, DTensor)
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and layer.weight.is_contiguous()
    }
    return list(layers.values())


def _sample(layers: Iterable[nn.Linear]) -> list[Tensor]:
    """Weights of :data:`SAMPLE` bytes or a little more; none if the model is smaller."""
    weights: dict[int, Tensor] = {}
    size = 0
    for layer in layers:
        if layer.weight.data_ptr() not in weights:
            weights[layer.weight.data_ptr()] = layer.weight
            size += layer.weight.nbytes
        if size >= SAMPLE:
            return list(weights.values())
    return []


def _seconds(product: Product, weights: list[Tensor], inputs: dict[int, Tensor]) -> float:
    begin = time.perf_counter()
    for weight in weights:
        product(inputs[weight.shape[1]], weight)
    return time.perf_counter() - begin


@torch.inference_mode()
def faster_rows(weights: list[Tensor]) -> frozenset[int]:
    """Which of :data:`ROWS` :func:`transposed_product` is faster for.

    By the medians of three timings each, after a first one that does not count.
    """
    faster = set()
    for rows in ROWS:
        inputs = {w.shape[1]: torch.ones(rows, w.shape[1]) for w in weights}
        turns = [
            [_seconds(product, weights, inputs) for product in (linear, transposed_product)]
            for _ in range(4)
        ]
        plain, transposed = (median(t) for t in zip(*turns[1:], strict=True))
        if transposed <= GAIN * plain:
            faster.add(rows)
    return frozenset(faster)


def _measured(layers: list[nn.Linear]) -> frozenset[int]:
    """What was measured in this process with as many threads; measures it the first time."""
    weights = _sample(layers)
    if not weights:  # fits into caches, or is no such model: nothing to gain
        return frozenset()
    key = (torch.get_num_threads(), weights[0].shape[1])
    if key not in _MEASURED:
        _MEASURED[key] = faster_rows(weights)
    return _MEASURED[key]


def _forward(layer: nn.Linear, takes: frozenset[int]) -> Callable[[Tensor], Tensor]:
    """The layer's forward pass; inputs of ``takes`` rows go by :func:`transposed_product`."""
    weight, bias = layer.weight, layer.bias

    def forward(x: Tensor) -> Tensor:
        rows = x.numel() // x.shape[-1]
        if rows not in takes:
            return linear(x, weight, bias)
        product = transposed_product(x.reshape(rows, x.shape[-1]), weight)  # (rows, out)
        output = product.view(*x.shape[:-1], len(weight))
        return output if bias is None else output + bias

    return forward


@contextmanager
def fast_products(
    models: Iterable[nn.Module | None], rows: frozenset[int] | None = None
) -> Iterator[None]:
    """Within it, products of a few rows in ``models`` run the faster way round; for inference.

    ``rows``: the numbers of :data:`ROWS` that do; None: those that were measured to be faster.
    Models in another precision, on another device or too small for it to matter stay as they are.
    """
    layers = _linears(model for model in models if model is not None)
    chosen = _measured(layers) if rows is None else rows
    if not chosen:
        yield
        return
    takes = frozenset(n for n in range(1, ROWS[-1] + 1) if min(r for r in ROWS if r >= n) in chosen)
    for layer in layers:
        vars(layer)["forward"] = _forward(layer, takes)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
