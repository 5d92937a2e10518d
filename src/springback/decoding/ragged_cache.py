"""One model with a ragged cache: rows of different lengths, without padding.

Rows of a batch accept different numbers of drafted tokens, and the amateur falls behind by
different amounts.  So keys and values lie in one buffer a layer, row by row without gaps, and
``lengths`` has the number of tokens of each row that count: rolling back lowers it.  What lies
behind a row's end is masked and overwritten, so only the rows of a part of the batch are copied.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from springback.decoding.buffer_layer import BufferLayer
from springback.models.placement import running_device

#: What a pass takes beside its tokens, in tokens: reading the weights, launching.
CPU_PASS, DEVICE_PASS = 50, 512

#: A beginning that rows share is read once if it has at least so many tokens.
SHORTEST_START = 4

#: Ways of attention that take a mask for each row and position.
ATTENTION = ("sdpa", "eager")


@dataclass
class _Call:
    """Where one forward pass reads and writes; shared by all layers."""

    rows: Tensor | None = None  # rows taken part, None for all
    total: int = 0  # rows in the buffer
    width: int = 0  # past columns: the longest row's
    end: int = 0  # columns handed out, past and new
    columns: int = 0  # of the buffer; the last is for padding, and never handed out
    targets: Tensor | None = None  # (rows, new): columns written; None: the next of all rows


class _Layer(BufferLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer: (rows, heads, columns, width)."""

    def __init__(self, call: _Call) -> None:
        super().__init__()
        self.call = call

    def extend(self, buffer: Tensor | None, new: Tensor) -> tuple[Tensor, Tensor]:
        """The buffer with ``new`` written, and what of it the rows taking part may see."""
        call = self.call
        if buffer is None or buffer.shape[2] < call.columns:
            larger = new.new_zeros(call.total, new.shape[1], call.columns, new.shape[3])
            if buffer is not None:
                larger[:, :, : buffer.shape[2]] = buffer
            buffer = larger
        if call.targets is None:
            buffer[:, :, call.width : call.end] = new
            return buffer, buffer[:, :, : call.end]
        targets = call.targets.to(new.device)  # layers of a spread model lie on several
        if call.rows is None:
            buffer.scatter_(2, targets[:, None, :, None].expand_as(new), new)
        else:
            rows = call.rows.to(new.device)
            buffer[rows[:, None], :, targets] = new.transpose(1, 2)
            return buffer, buffer[rows, :, : call.end]
        return buffer, buffer[:, :, : call.end]

    def get_seq_length(self) -> int:
        return self.call.width


def shared_start(rows: Sequence[Sequence[int]], most: int) -> int:
    """How many tokens all ``rows`` begin with, at most ``most``; 0 if too few to pay."""
    if len(rows) < 2:
        return 0
    low, high = min(map(tuple, rows)), max(map(tuple, rows))  # these two differ first
    pairs = enumerate(zip(low, high, strict=False))
    same = min(next((i for i, (a, b) in pairs if a != b), len(low)), most)
    return same if same >= SHORTEST_START else 0


def by_length(lengths: Sequence[int], fixed: int) -> list[list[int]]:
    """Places of ``lengths`` in groups, the longest first, each to be padded to its longest.

    The partition with the least rows x width, where every group takes ``fixed`` tokens more.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    cost, cut = [0], [0]  # of the first n; where the last group of them begins
    for n in range(1, len(order) + 1):
        ways = [(cost[m] + (n - m) * lengths[order[m]] + fixed, m) for m in range(n)]
        least, begin = min(ways)
        cost.append(least)
        cut.append(begin)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.insert(0, order[cut[end] : end])
        end = cut[end]
    return groups


def croppable(model: PreTrainedModel) -> bool:
    """Whether tokens can be taken back: every layer attends to the whole past, by position ids.

    And by a mask of ours, so the way of attention must be one that takes it.
    """
    if model.config._attn_implementation not in ATTENTION:
        return False
    layers = DynamicCache(config=model.config).layers
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    return takes_positions and all(type(layer) is DynamicLayer for layer in layers)


class CachedModel:
    """One model with the cached keys and values of its rows, each of its own length."""

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self.model = model
        self.lengths = [0] * rows
        self.calls = 0
        self.rows_run = 0
        self.device = running_device(model)
        self._tokens_of_a_pass = CPU_PASS if self.device.type == "cpu" else DEVICE_PASS
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

        Blocks of very different lengths run in several passes, so that less is padding; columns
        that a pass does not have are then zero.
        """
        groups = by_length([len(b) for b in blocks], self._tokens_of_a_pass)
        if len(groups) == 1:
            return self._pass(rows, blocks, keep)
        columns = range(-keep, 0) if isinstance(keep, int) else keep
        all_logits: Tensor | None = None
        for group in groups:
            wide = max(len(blocks[i]) for i in group)
            there = [i for i, column in enumerate(columns) if column >= -wide]
            logits = self._pass(
                [rows[i] for i in group], [blocks[i] for i in group], [columns[i] for i in there]
            )
            if all_logits is None:
                all_logits = logits.new_zeros(len(rows), len(columns), logits.shape[-1])
            index = torch.tensor(group, device=all_logits.device)
            all_logits[index[:, None], torch.tensor(there, device=all_logits.device)] = logits
        assert all_logits is not None
        return all_logits

    def _pass(
        self, rows: Sequence[int], blocks: Sequence[Sequence[int]], keep: int | Sequence[int]
    ) -> Tensor:
        self.calls += 1
        self.rows_run += len(rows)
        wide = max(len(b) for b in blocks)
        ids, positions, mask = self._begin(rows, blocks, wide)
        where = self.device
        out = self.model(
            input_ids=ids.to(where),
            attention_mask=mask,
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
        logits: Tensor = out.logits  # (rows, keep, vocabulary)
        return logits[:, -keep:] if isinstance(keep, int) else logits

    def _begin(
        self, rows: Sequence[int], blocks: Sequence[Sequence[int]], wide: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Token ids and positions (rows, wide), and what each may see; None for all before it."""
        call, where = self._call, self.device
        past = [self.lengths[r] for r in rows]
        everyone = list(rows) == list(range(len(self.lengths)))
        even = len(set(past)) == 1 and all(len(b) == wide for b in blocks)
        call.rows = None if everyone else torch.tensor(rows, device=where)
        call.total, call.width = len(self.lengths), max(past)
        call.end = max(n + len(b) for n, b in zip(past, blocks, strict=True))
        if call.columns <= call.end:
            call.columns = call.end + call.end // 2 + 1
        ends = [(n, n + len(b), wide - len(b)) for n, b in zip(past, blocks, strict=True)]
        ids = torch.tensor([[0] * (wide - len(b)) + list(b) for b in blocks])
        if everyone and even:
            call.targets = None
            return ids, torch.tensor([[*range(n, end)] for n, end, _ in ends]), None
        trash = call.columns - 1
        targets = torch.tensor([[trash] * pad + [*range(n, end)] for n, end, pad in ends])
        positions = torch.where(targets == trash, 0, targets)
        call.targets = targets.to(where)
        # Rows have no gaps, so a column is a position: each sees those up to its own.
        seen = torch.arange(call.end) <= positions[..., None]  # (rows, wide, columns)
        return ids, positions, self._mask(seen[:, None])

    def _mask(self, seen: Tensor) -> Tensor:
        """``seen`` (rows, 1, wide, columns) as the model's way of attention takes it."""
        if self.model.config._attn_implementation == "eager":
            low = torch.finfo(self.model.dtype).min
            seen = torch.zeros(seen.shape, dtype=self.model.dtype).masked_fill(~seen, low)
        return seen.to(self.device)

    @classmethod
    def begun(cls, model: PreTrainedModel, contexts: Sequence[Sequence[int]]) -> CachedModel:
        """A row for each context, which have read what all of them begin with, once."""
        shared = shared_start(contexts, min(map(len, contexts)) - 1)
        if not shared:
            return cls(model, len(contexts))
        cached = cls(model, 1)
        cached.run([0], [contexts[0][:shared]], 1)
        cached.keep([0] * len(contexts))
        return cached

    def roll_back(self, row: int, length: int) -> None:
        """Forget what ``row`` holds past ``length`` tokens."""
        self.lengths[row] = min(self.lengths[row], length)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self.lengths = [self.lengths[r] for r in rows]
        kept = torch.tensor(rows, dtype=torch.long, device=self.device)
        for layer in self._layers:
            if layer.keys is not None and layer.values is not None:
                index = kept.to(layer.keys.device)
                layer.keys, layer.values = layer.keys[index], layer.values[index]


class CachedPair:
    """Expert and amateur as rows of one batch: two adapters on one base.

    The first rows are the expert's, the second as many the amateur's; both read the same tokens.
    """

    def __init__(self, inner: CachedModel) -> None:
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
        rows_each = len(self.inner.lengths) // 2
        self.inner.keep([*rows, *(rows_each + r for r in rows)])
