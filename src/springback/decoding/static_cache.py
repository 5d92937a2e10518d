"""Caches of fixed shape, for accelerators: passes of one width do the same work in one place.

Rows lie without gaps, so a token's column is its position, and what it sees is every column up to
its own: masks follow from positions alone, and rolling back is lowering a number.  Blocks are
padded to one of a few widths.  Padding, and rows that do not take part, write into a last column
that nobody sees.  On CUDA a pass of a width is recorded as a graph and replayed, so that a step
costs one launch instead of hundreds; or the model is compiled.  On a CPU it runs as it is.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from springback.decoding.ragged_cache import ATTENTION, CachedModel, CachedPair
from springback.errors import SpringbackError, describe
from springback.models.placement import is_spread

#: Tokens a row that blocks are padded to; longer ones (prompts) run as they are.
WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16)
#: A compilation takes half a minute, so fewer of them.
COMPILED_WIDTHS = (1, 4, 12)
#: Columns are a multiple of this, so that runs of similar length share their buffers.
COLUMNS = 64

#: What makes of a pass, whose inputs and outputs stay in place, a quicker way of running it again.
Recorder = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]


def as_it_is(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """No recording: for what has no graphs."""
    return run


def cuda_graph(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``run`` recorded as a CUDA graph.  It may run any number of times on the same inputs."""
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries set themselves up outside the recording
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = run()

    def again() -> Tensor:
        graph.replay()
        return logits

    return again


class _Layer(CacheLayerMixin):
    """Keys and values of one layer: (rows, heads, columns, width)."""

    is_sliding = False
    is_compileable = True

    def __init__(self, rows: int, columns: int, compiled: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shape, self.compiled = (rows, columns), compiled
        self.targets = torch.empty(0)  # (rows, wide): the columns that the pass writes

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, columns = self.shape
        # Zeros: what is masked must still be finite.
        self.keys = key_states.new_zeros(rows, key_states.shape[1], columns, key_states.shape[3])
        self.values = value_states.new_zeros(
            rows, value_states.shape[1], columns, value_states.shape[3]
        )
        if self.compiled:  # else the compiler makes no CUDA graph of a pass that writes here
            for buffer in (self.keys, self.values):
                torch._dynamo.mark_static_address(buffer)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.keys, self.values
        assert keys is not None
        assert values is not None
        for buffer, new in ((keys, key_states), (values, value_states)):
            buffer.scatter_(2, self.targets[:, None, :, None].expand_as(new), new)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.shape[1], 0

    def get_seq_length(self) -> int:
        return 0  # places are given by position ids and mask

    def get_max_length(self) -> int:
        return self.shape[1]


def _pass(model: Any, cache: Any, feed: Tensor, keep: Any, additive: bool) -> Tensor:
    """Logits of ``feed`` (3, rows, wide): token ids, columns, positions."""
    ids, columns, positions = feed.unbind(0)
    for layer in cache.layers:
        layer.targets = columns
    room = torch.arange(cache.layers[0].shape[1], device=feed.device)
    mask = (room <= positions[..., None])[:, None]  # (rows, 1, wide, columns)
    if additive:
        low = torch.finfo(model.dtype).min
        mask = torch.zeros_like(mask, dtype=model.dtype).masked_fill(~mask, low)
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    logits: Tensor = out.logits
    return logits


def _recordable(model: PreTrainedModel) -> bool:
    """Whether a pass does the same at any length: not where frequencies depend on it."""
    config = model.config.get_text_config()
    rope = str(getattr(config, "rope_parameters", None) or "")
    return "dynamic" not in rope and "longrope" not in rope


class Slots:
    """Buffers of one model for ``rows`` rows of ``columns`` tokens, and what was recorded on them.

    Raises :class:`SpringbackError` for a way of attention that takes no mask of ours.
    """

    def __init__(self, model: PreTrainedModel, rows: int, columns: int, kind: str) -> None:
        attention = model.config._attn_implementation
        if attention not in ATTENTION:
            raise SpringbackError(
                describe(
                    f"a {kind} cache for a model with attention {attention!r}",
                    f"attn_implementation {' or '.join(ATTENTION)}",
                    "load the model with it, or use the dynamic cache",
                )
            )
        self.rows, self.columns, self.kind = rows, columns, kind
        self.widths = COMPILED_WIDTHS if kind == "compiled" else WIDTHS
        self.record: Recorder = as_it_is
        self._model = weakref.ref(model)  # slots are kept by model and must not keep it alive
        self._additive = attention == "eager"
        self._place = model.device, model.dtype
        count = len(DynamicCache(config=model.config).layers)
        compiled = kind == "compiled"
        layers = [_Layer(rows, columns + 1, compiled) for _ in range(count)]
        self._cache, self._first = Cache(layers=[*layers]), layers[0]
        self._ready: dict[int, tuple[Tensor, Callable[[], Tensor]]] = {}
        self._compiled: Any = _pass
        on_cuda = model.device.type == "cuda"
        if compiled:
            # Its CUDA graphs are made by the compiler.
            mode = "reduce-overhead" if on_cuda else None
            self._compiled = torch.compile(_pass, dynamic=False, mode=mode)
        elif on_cuda and _recordable(model):
            self.record = cuda_graph

    def fits(self, rows: int, columns: int, kind: str, model: PreTrainedModel) -> bool:
        """Whether these serve as slots of this kind, without being far too large."""
        same = (self.rows, self.kind, self._place) == (rows, kind, (model.device, model.dtype))
        return same and columns <= self.columns <= 4 * columns

    @torch.inference_mode()
    def run(self, feed: Tensor, keep: Any) -> Tensor:
        """Logits (rows, kept, vocabulary) of ``feed`` (3, rows, wide), overwritten by the next run.

        Of a width that is recorded all positions are kept, whatever ``keep`` is.
        """
        model, wide = self._model(), feed.shape[-1]
        assert model is not None
        if wide not in self.widths or not self._first.is_initialized:
            return _pass(model, self._cache, feed.to(model.device), keep, self._additive)
        if wide not in self._ready:
            recorded_feed = feed.to(model.device).clone()
            self._ready[wide] = recorded_feed, self.record(lambda: self._again(recorded_feed))
        inputs, again = self._ready[wide]
        inputs.copy_(feed)
        return again()

    def _again(self, feed: Tensor) -> Tensor:
        if self.kind == "compiled" and feed.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        logits: Tensor = self._compiled(self._model(), self._cache, feed, 0, self._additive)
        return logits


class StaticCachedModel(CachedModel):
    """As :class:`CachedModel`, on slots: ``slot_of_row`` names the slot of each row."""

    def __init__(self, model: PreTrainedModel, slots: Slots, slot_of_row: Sequence[int]) -> None:
        super().__init__(model, len(slot_of_row))
        self.slots, self.slot_of_row = slots, list(slot_of_row)

    def run(
        self, rows: Sequence[int], blocks: Sequence[Sequence[int]], keep: int | Sequence[int]
    ) -> Tensor:
        self.calls += 1
        self.rows_run += len(rows)
        wide = max(len(b) for b in blocks)
        wide = next((w for w in self.slots.widths if w >= wide), wide)
        ids = [[0] * wide for _ in range(self.slots.rows)]
        columns = [[self.slots.columns] * wide for _ in ids]  # the one that nobody sees
        positions = [[0] * wide for _ in ids]
        for row, block in zip(rows, blocks, strict=True):
            slot, start, past = self.slot_of_row[row], wide - len(block), self.lengths[row]
            ids[slot][start:] = block
            columns[slot][start:] = positions[slot][start:] = range(past, past + len(block))
            self.lengths[row] += len(block)
        feed = torch.tensor([ids, columns, positions])
        where = self.device
        kept: Any = keep
        if not isinstance(keep, int):
            kept = torch.tensor(sorted(wide + k for k in keep), device=where)
        logits = self.slots.run(feed, kept)
        if isinstance(kept, int):
            logits = logits[:, -kept:]
        elif logits.shape[1] != len(kept):  # of a recorded width
            logits = logits[:, kept]
        # A copy: the next pass writes into the same place.
        return logits[torch.tensor([self.slot_of_row[r] for r in rows], device=where)]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these: their slots lie idle."""
        self.lengths = [self.lengths[r] for r in rows]
        self.slot_of_row = [self.slot_of_row[r] for r in rows]


#: Slots that no run uses, by model.
_SPARE: weakref.WeakKeyDictionary[PreTrainedModel, list[Slots]] = weakref.WeakKeyDictionary()


class CachedModels:
    """Makes the cached models of a run, batch by batch, on caches of one kind.

    ``rows``: of the largest batch; ``tokens``: of the longest row, prompt and answer.  Slots are
    kept with their model for later runs of the same shape.
    """

    def __init__(self, kind: str, rows: int, tokens: int) -> None:
        self.kind, self.rows = kind, rows
        self.columns = -(-tokens // COLUMNS) * COLUMNS
        self._taken: list[tuple[PreTrainedModel, Slots]] = []

    def one(self, model: PreTrainedModel, rows: int) -> CachedModel:
        """``model`` with a cache of ``rows`` rows."""
        if self._kind(model) == "dynamic":
            return CachedModel(model, rows)
        return StaticCachedModel(model, self._slots(model, self.rows), range(rows))

    def twin(self, model: PreTrainedModel, rows: int, most: int) -> CachedPair:
        """Expert and amateur as rows of one batch; of no batch more than ``most`` rows each."""
        if self._kind(model) == "dynamic":
            return CachedPair(CachedModel(model, 2 * rows))
        size = min(self.rows, most)
        slots = self._slots(model, 2 * size)
        return CachedPair(
            StaticCachedModel(model, slots, [*range(rows), *range(size, size + rows)])
        )

    def _kind(self, model: PreTrainedModel) -> str:
        """The kind of ``model``'s caches: hooks that move weights cannot be recorded."""
        if self.kind == "dynamic" or not is_spread(model):
            return self.kind
        warnings.warn(
            f"a model spread by a device map is decoded with the dynamic cache, not {self.kind}: "
            "same tokens",
            stacklevel=5,
        )
        return "dynamic"

    def _slots(self, model: PreTrainedModel, rows: int) -> Slots:
        spare = _SPARE.setdefault(model, [])
        while spare:  # what does not fit is given up first
            slots = spare.pop()
            if slots.fits(rows, self.columns, self.kind, model):
                break
        else:
            slots = Slots(model, rows, self.columns, self.kind)
        self._taken.append((model, slots))
        return slots

    def release(self) -> None:
        """The batch, or the run, is over: its slots are free."""
        for model, slots in self._taken:
            _SPARE.setdefault(model, []).append(slots)
        self._taken = []
