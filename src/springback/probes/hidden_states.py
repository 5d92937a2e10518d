"""Forward passes that need not be made again when the same rows are scored many times."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from springback.decoding.ragged_cache import croppable, shared_start
from springback.models.encoding import Batch, Encoded
from springback.models.placement import running_device


@dataclass
class MemoryBudget:
    """Bytes that may still be kept, by several :class:`LastStates` together."""

    left: int


@dataclass
class LastStates:
    """Last hidden states of one model over some rows: the second scoring of them costs the output
    layer alone, and gives the same logits.

    Kept batch by batch while there is ``room``, and only where the output layer's result is the
    model's: a model that scales or caps its logits after that layer is run again.
    """

    room: MemoryBudget
    _kept: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def logits(
        self, model: PreTrainedModel, batch: tuple[int, ...], run: Callable[[], Tensor]
    ) -> Tensor:
        """What ``run`` gives: the model's logits for the rows ``batch``."""
        head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if batch in self._kept:
            again: Tensor = head(self._kept[batch])
            return again
        if head is None:
            return run()
        seen: list[tuple[Tensor, Tensor]] = []
        hook = head.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
        try:
            logits = run()
        finally:
            hook.remove()
        # Of a spread model the output layer may be on another device than the model's output.
        if seen and seen[-1][1].device == logits.device and torch.equal(seen[-1][1], logits):
            states = seen[-1][0]
            if states.nbytes <= self.room.left:
                self.room.left -= states.nbytes
                self._kept[batch] = states.contiguous()
        return logits


class Passes:
    """One model over batches of ``rows``.

    With ``states``, what all rows begin with (a system prompt, worked examples) is read once, not
    in every row, and rows that are known are not read at all.  Logits are those of plain passes up
    to rounding.  A model whose layers do not all see the whole past reads every row from its first
    token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Encoded] = (),
        states: LastStates | None = None,
    ) -> None:
        self.model, self.states = model, states
        self._begin: tuple[int, ...] = ()
        if states is not None and croppable(model):
            # The last token before those that count is in every row: its logits are wanted.
            most = min(row.start for row in rows) - 1
            self._begin = rows[0].ids[: shared_start([row.ids for row in rows], most)]
        self._past: Cache | None = None

    def logits(self, batch: Batch, keep: int) -> Tensor:
        """Logits (rows, keep, vocabulary) of the last ``keep`` positions of a batch."""
        if self.states is None:
            return self._run(batch, keep)
        return self.states.logits(self.model, batch.index, lambda: self._run(batch, keep))

    def _run(self, batch: Batch, keep: int) -> Tensor:
        past = self._begun(len(batch.index))
        where = running_device(self.model)
        logits: Tensor = self.model(
            input_ids=batch.input_ids[:, len(self._begin) :].to(where),
            attention_mask=batch.attention_mask.to(where),
            use_cache=past is not None,
            logits_to_keep=keep,
            **({} if past is None else {"past_key_values": past}),
        ).logits
        return logits

    def _begun(self, rows: int) -> Cache | None:
        """The cache of what all rows begin with, for so many rows; None where that is nothing."""
        if not self._begin:
            return None
        if self._past is None:
            self._past = DynamicCache(config=self.model.config)
            ids = torch.tensor([self._begin], device=running_device(self.model))
            self.model(input_ids=ids, past_key_values=self._past, use_cache=True, logits_to_keep=1)
        past = copy.deepcopy(self._past)
        past.batch_repeat_interleave(rows)
        return past
