"""The step that codes and decodes: one token of every chunk in a batch, always the same way.

Arithmetic coding fails if the decoder's probabilities differ from the encoder's in one bit.
Floating point sums depend on the order in which they are taken, and that on shapes, threads and
kernels.  So both directions run :func:`walk`, which decides everything but where the next token
comes from, and both round probabilities to integers in one place, :func:`quantise`.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from springback.compression.container import Group
from springback.decoding.buffer_layer import BufferLayer
from springback.errors import CodecError, MissingExtraError, ModelError

#: Probabilities are multiples of 2 ** -PRECISION: what constriction's default coder works with.
PRECISION = 24

Weights = NDArray[np.float64]
Tokens = NDArray[np.int32]


def plan(tokens: int, chunk: int, batch: int) -> list[tuple[int, ...]]:
    """Lengths of the chunks of ``tokens`` tokens, group by group, longest first.

    As few chunks of at most ``chunk`` as hold them, all equally long but for one token, so that
    hardly a row of a batch ends before the others; groups of at most ``batch``, alike in size.
    """
    if not tokens:
        return []
    chunks = -(-tokens // chunk)
    short, longer = divmod(tokens, chunks)
    lengths = [short + 1] * longer + [short] * (chunks - longer)
    groups = -(-chunks // batch)
    small, larger = divmod(chunks, groups)
    plans, first = [], 0
    for index in range(groups):
        size = small + (index < larger)
        plans.append(tuple(lengths[first : first + size]))
        first += size
    return plans


def quantise(logits: Tensor) -> Weights:
    """Integer weights w (rows, vocabulary) as float64: token i has probability (w_i + 1) / 2**24.

    A row sums to 2**24 - vocabulary, so every token can be coded, at a loss of vocabulary / 2**24
    of the mass at most (0.3 % for 49,152 tokens: 0.004 bits a token).  What rounding down leaves
    over goes to the likeliest token.  constriction takes such weights as they are: the factor by
    which it would scale them is exactly 1, and so is every sum of them.
    """
    room = (1 << PRECISION) - logits.shape[-1]
    p = torch.softmax(logits.float(), -1).double()  # (rows, vocabulary)
    top = p.argmax(-1, keepdim=True)
    if not bool(torch.isfinite(p.gather(-1, top)).all()):
        raise ModelError(
            "the model's logits are not all finite numbers; use float32, or another model"
        )
    weights = p.mul_(room).floor_()
    weights.scatter_add_(-1, top, room - weights.sum(-1, keepdim=True))
    array: Weights = weights.cpu().numpy()
    return array


@dataclass
class _Place:
    """Columns filled so far, and how many there will be; shared by all layers."""

    rows: int
    columns: int
    filled: int = 0


class _Layer(BufferLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer in buffers made once: (rows, heads, columns, width)."""

    def __init__(self, place: _Place) -> None:
        super().__init__()
        self.place = place

    def extend(self, buffer: Tensor | None, new: Tensor) -> tuple[Tensor, Tensor]:
        place, rows = self.place, new.shape[0]
        if buffer is None:
            buffer = new.new_zeros(place.rows, new.shape[1], place.columns, new.shape[3])
        end = place.filled + 1
        buffer[:rows, :, place.filled : end] = new
        return buffer, buffer[:rows, :, :end]

    def get_seq_length(self) -> int:
        return self.place.filled


class Stepper:
    """A model that reads one token of every row at a time; rows leave from the last one up."""

    def __init__(self, model: PreTrainedModel, rows: int, columns: int) -> None:
        self.model = model
        self._rows = rows
        self._place = _Place(rows, columns)
        cache = DynamicCache(config=model.config)
        # Sliding windows and states keep to Transformers' own cache.
        self._plain = all(type(layer) is DynamicLayer for layer in cache.layers)
        self._cache: Cache = cache
        if self._plain:
            self._cache = Cache(layers=[_Layer(self._place) for _ in cache.layers])
        self._positions = "position_ids" in inspect.signature(model.forward).parameters

    def step(self, ids: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after ``ids`` (rows,), the first rows of those before."""
        rows, where = len(ids), self.model.device
        if rows < self._rows and not self._plain:
            kept: Any = torch.arange(rows, device=where)
            self._cache.reorder_cache(kept)
        self._rows = rows
        extra: dict[str, Any] = {}
        if self._positions:
            extra["position_ids"] = torch.full((rows, 1), self._place.filled, device=where)
        out = self.model(
            input_ids=ids[:, None].to(where),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **extra,
        )
        self._place.filled += 1
        logits: Tensor = out.logits[:, -1]
        return logits


@torch.inference_mode()
def walk(
    model: PreTrainedModel,
    lengths: Sequence[int],
    start: int,
    take: Callable[[int, Weights], Tokens],
    on_step: Callable[[int], None],
) -> None:
    """Run chunks of ``lengths`` (longest first) in lockstep, each from the token ``start``.

    ``take(position, weights)`` gives the tokens at a position (rows,), known or decoded, from their
    weights (rows, vocabulary).  ``on_step(rows)`` is called after each.
    """
    stepper = Stepper(model, len(lengths), lengths[0])
    ids = torch.full((len(lengths),), start)
    for position in range(lengths[0]):
        rows = sum(length > position for length in lengths)
        weights = quantise(stepper.step(ids[:rows]))
        ids = torch.from_numpy(take(position, weights).astype(np.int64))
        on_step(rows)


def coder_library() -> Any:
    """The package constriction, which has the range coder."""
    try:
        import constriction
    except ImportError as error:
        raise MissingExtraError("constriction", "compress", "compressing") from error
    return constriction


def _family() -> Any:
    return coder_library().stream.model.Categorical(perfect=False)


def token_check(ids: Tokens) -> int:
    """CRC-32 of token ids."""
    return zlib.crc32(ids.astype("<i4").tobytes())


def _grid(ids: Tokens, lengths: Sequence[int]) -> Tokens:
    """One row a chunk (chunks, longest); what lies past a chunk's end is 0 and never read."""
    grid = np.zeros((len(lengths), lengths[0]), dtype=np.int32)
    first = 0
    for row, length in enumerate(lengths):
        grid[row, :length] = ids[first : first + length]
        first += length
    return grid


def encode_group(
    model: PreTrainedModel,
    ids: Tokens,
    lengths: Sequence[int],
    start: int,
    on_step: Callable[[int], None],
) -> Group:
    """Code the chunks that ``ids`` (sum of lengths,) holds one after the other."""
    grid, family = _grid(ids, lengths), _family()
    encoder = coder_library().stream.queue.RangeEncoder()

    def take(position: int, weights: Weights) -> Tokens:
        tokens = np.ascontiguousarray(grid[: len(weights), position])
        encoder.encode(tokens, family, weights)
        return tokens

    walk(model, lengths, start, take, on_step)
    coded = encoder.get_compressed().astype("<u4").tobytes()
    return Group(coded, token_check(ids))


def decode_group(
    model: PreTrainedModel,
    group: Group,
    lengths: Sequence[int],
    start: int,
    on_step: Callable[[int], None],
) -> Tokens:
    """What :func:`encode_group` was given.

    Raises :class:`CodecError` if the tokens fail their checksum: the probabilities were not those
    of the encoder.
    """
    if len(group.coded) % 4:
        raise CodecError("a coded stream is no whole number of words; the file is damaged")
    words = np.frombuffer(group.coded, dtype="<u4").astype(np.uint32)
    decoder, family = coder_library().stream.queue.RangeDecoder(words), _family()
    grid = np.zeros((len(lengths), lengths[0]), dtype=np.int32)
    differs = CodecError("the tokens fail their checksum")

    def take(position: int, weights: Weights) -> Tokens:
        try:
            tokens: Tokens = decoder.decode(family, weights)
        except (AssertionError, ValueError) as error:  # no such stream under these probabilities
            raise differs from error
        grid[: len(weights), position] = tokens
        return tokens

    walk(model, lengths, start, take, on_step)
    ids = np.concatenate([grid[row, :length] for row, length in enumerate(lengths)])
    if token_check(ids) != group.check:
        raise differs
    return ids
