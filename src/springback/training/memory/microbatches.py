"""A batch in pieces that go through the model one after the other; their gradients add up."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

#: Padded tokens that go through the model at once on a CPU: the activations of SmolLM2-135M take
#: 1 MB a token under autocast, and a batch of long rows would take gigabytes.
AT_ONCE = 384
#: Two pieces may be so much larger if a batch then has no more: each costs a pass over all
#: gradients.  More of them may not, since pieces of many shapes leave holes in the heap.
IN_TWO = 4 / 3


def groups(lengths: Tensor, most: int | None, each: int = 1) -> list[list[int]]:
    """Indices of rows of similar length, at most ``most`` padded tokens together.

    ``lengths`` (rows,) in tokens; a row stands for ``each`` sequences of that length.  A group has
    one row at least.  One group, in order, where all rows fit or ``most`` is None.
    """
    rows = len(lengths)
    if most is None or rows * each * int(lengths.max()) <= most:
        return [list(range(rows))]
    full: list[list[int]] = []
    waiting: list[int] = []
    for row in torch.argsort(lengths, stable=True).tolist():
        if waiting and (len(waiting) + 1) * each * int(lengths[row]) > most:
            full.append(waiting)
            waiting = []
        waiting.append(row)
    return [*full, waiting]


def pieces(inputs: Mapping[str, Tensor], most: int | None) -> Iterator[dict[str, Tensor]]:
    """A right-padded batch in pieces of at most ``most`` padded tokens (one row at least).

    Rows of similar length go together and lose the padding that they no longer need.  A batch
    that is small enough stays as it is, and two pieces may have :data:`IN_TWO` times as much.
    """
    mask = inputs["attention_mask"]
    lengths = mask.sum(1)
    if most is not None and mask.numel() <= 2 * int(most * IN_TWO):
        most = int(most * IN_TWO)
    if most is None or mask.numel() <= most:
        yield dict(inputs)
        return
    for rows in groups(lengths, most):
        yield cut(inputs, rows, int(lengths[rows].max()), inputs)


def cut(
    inputs: Mapping[str, Tensor], rows: Sequence[int], width: int, names: Collection[str]
) -> dict[str, Tensor]:
    """These rows of every tensor, and of those in ``names`` only the first ``width`` columns."""
    return {
        name: value[rows, :width] if name in names else value[rows]
        for name, value in inputs.items()
    }
