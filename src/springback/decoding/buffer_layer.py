"""A cache layer whose keys and values lie in a buffer made once."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer


class BufferLayer(DynamicLayer):
    """Keys and values of one layer: (rows, heads, columns, width).

    A subclass decides where new columns go (``extend``) and how many a row holds
    (``get_seq_length``).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.keys, keys = self.extend(self.keys, key_states)
        self.values, values = self.extend(self.values, value_states)
        self.is_initialized = True
        return keys, values

    def extend(self, buffer: Tensor | None, new: Tensor) -> tuple[Tensor, Tensor]:
        """The buffer with ``new`` (rows, heads, new columns, width) written, made if there is none;
        and what of it the rows of this pass may see."""
        raise NotImplementedError
