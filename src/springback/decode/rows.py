"""One model and a cache in which every row is as long as it is.

Rows of a batch accept different numbers of drafted tokens, and the amateur falls behind by
different amounts.  So keys and values lie in one buffer a layer, row by row without gaps, and
``lengths`` says how much of each row counts: rolling back is lowering a number.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


@dataclass
class _Call:
    """Where one forward pass reads and writes; shared by all layers."""

    rows: Tensor | None = None  # rows taken part, None for all
    total: int = 0  # rows in the buffer
    width: int = 0  # past columns handed out: the longest row's
    room: int = 0  # columns needed
    together: bool = True  # all rows, equally long, no padding: written in place, nothing copied
    source: tuple[Tensor, Tensor] = field(default=(torch.empty(0), torch.empty(0)))
    target: tuple[Tensor, Tensor] = field(default=(torch.empty(0), torch.empty(0)))


class _Layer(DynamicLayer):
    """Keys and values of one layer: (rows, heads, columns, width)."""

    def __init__(self, call: _Call) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.call = call

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.keys, keys = self._extend(self.keys, key_states)
        self.values, values = self._extend(self.values, value_states)
        self.is_initialized = True
        return keys, values

    def _extend(self, buffer: Tensor | None, new: Tensor) -> tuple[Tensor, Tensor]:
        """The buffer with ``new`` written, and the past with ``new`` at its end."""
        call = self.call
        if buffer is None or buffer.shape[2] < call.room:
            columns = call.room + call.room // 2
            larger = new.new_zeros(call.total, new.shape[1], columns, new.shape[3])
            if buffer is not None:
                larger[:, :, : buffer.shape[2]] = buffer
            buffer = larger
        end = call.width + new.shape[2]
        if call.together:
            buffer[:, :, call.width : end] = new
            return buffer, buffer[:, :, :end]
        past = (
            buffer[:, :, : call.width] if call.rows is None else buffer[call.rows, :, : call.width]
        )
        whole = torch.cat([past, new], dim=2)
        buffer[call.target[0], :, call.target[1]] = new[call.source[0], :, call.source[1]]
        return buffer, whole

    def get_seq_length(self) -> int:
        return self.call.width


def croppable(model: PreTrainedModel) -> bool:
    """Whether tokens can be taken back: every layer attends to the whole past, by position ids."""
    layers = DynamicCache(config=model.config).layers
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    return takes_positions and all(type(layer) is DynamicLayer for layer in layers)


class Half:
    """One model and its rows."""

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self.model = model
        self.lengths = [0] * rows
        self.calls = 0
        self.rows_run = 0
        self._call = _Call()
        count = len(DynamicCache(config=model.config).layers)
        self._layers = [_Layer(self._call) for _ in range(count)]
        self._cache = Cache(layers=[*self._layers])

    def run(
        self, rows: Sequence[int], blocks: Sequence[Sequence[int]], keep: int | Sequence[int]
    ) -> Tensor:
        """Feed ``blocks`` (one a row, not empty) after what the rows hold.

        Returns logits (len(rows), keep, vocabulary): the last ``keep`` positions, right-aligned,
        so those of a block's last token are at -1.  Instead of a number, columns may be given,
        counted from the end (-1 is the last): the others' logits are not computed.
        """
        self.calls += 1
        self.rows_run += len(rows)
        where, wide = self.model.device, max(len(b) for b in blocks)
        past = [self.lengths[r] for r in rows]
        width = max(past)
        self._begin(rows, blocks, wide)
        ids = torch.zeros(len(rows), wide, dtype=torch.long)
        positions = torch.zeros_like(ids)
        for at, block in enumerate(blocks):
            start = wide - len(block)
            ids[at, start:] = torch.tensor(block)
            positions[at, start:] = torch.arange(past[at], past[at] + len(block))
        out = self.model(
            input_ids=ids.to(where),
            attention_mask=self._mask(past, blocks, width, wide),
            position_ids=positions.to(where),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=(
                keep
                if isinstance(keep, int)
                else torch.tensor([wide + k for k in keep], device=where)
            ),
        )
        for r, block in zip(rows, blocks, strict=True):
            self.lengths[r] += len(block)
        logits: Tensor = out.logits
        return logits[:, -keep:] if isinstance(keep, int) else logits

    def _mask(
        self, past: Sequence[int], blocks: Sequence[Sequence[int]], width: int, wide: int
    ) -> Tensor | None:
        """Which columns (rows, past and new) count; None for all."""
        if self._call.together:
            return None
        mask = torch.zeros(len(blocks), width + wide, dtype=torch.long)
        for at, block in enumerate(blocks):
            mask[at, : past[at]] = 1
            mask[at, width + wide - len(block) :] = 1
        return mask.to(self.model.device)

    def _begin(self, rows: Sequence[int], blocks: Sequence[Sequence[int]], wide: int) -> None:
        call, where = self._call, self.model.device
        past = [self.lengths[r] for r in rows]
        everyone = list(rows) == list(range(len(self.lengths)))
        even = len(set(past)) == 1 and all(len(b) == wide for b in blocks)
        call.together = everyone and even
        call.rows = None if everyone else torch.tensor(rows, device=where)
        call.total, call.width, call.room = len(self.lengths), max(past), max(past) + wide
        if not call.together:
            places = [
                (at, wide - len(b) + j, r, self.lengths[r] + j)
                for at, (r, b) in enumerate(zip(rows, blocks, strict=True))
                for j in range(len(b))
            ]
            i, j, r, c = torch.tensor(places, device=where).unbind(1)
            call.source, call.target = (i, j), (r, c)

    def roll_back(self, row: int, length: int) -> None:
        """Forget what ``row`` holds past ``length`` tokens."""
        self.lengths[row] = min(self.lengths[row], length)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self.lengths = [self.lengths[r] for r in rows]
        index = torch.tensor(rows, dtype=torch.long, device=self.model.device)
        for layer in self._layers:
            if layer.keys is not None and layer.values is not None:
                layer.keys, layer.values = layer.keys[index], layer.values[index]


class TwinHalf:
    """Expert and amateur as rows of one batch: two adapters on one base.

    The first rows are the expert's, the second as many the amateur's; both read the same tokens.
    """

    def __init__(self, inner: Half) -> None:
        self.inner = inner

    @property
    def lengths(self) -> list[int]:
        return self.inner.lengths[: len(self.inner.lengths) // 2]

    @property
    def calls(self) -> int:
        return self.inner.calls

    def run(self, blocks: Sequence[Sequence[int]], keep: int) -> tuple[Tensor, Tensor]:
        """Logits of the expert and of the amateur, each (rows, keep, vocabulary)."""
        both = self.inner.run(range(2 * len(blocks)), [*blocks, *blocks], keep)
        strong, weak = both.chunk(2)
        return strong, weak

    def roll_back(self, row: int, length: int) -> None:
        for r in (row, row + len(self.inner.lengths) // 2):
            self.inner.roll_back(r, length)

    def keep(self, rows: Sequence[int]) -> None:
        half = len(self.inner.lengths) // 2
        self.inner.keep([*rows, *(half + r for r in rows)])
