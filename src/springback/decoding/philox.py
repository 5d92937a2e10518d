"""Philox4x64-10 (Salmon et al. 2011) in torch: NumPy's random numbers, made on any device.

A counter-based generator: each number is a hash of key and counter, so numbers of many rows are
made at once and none needs the one before.  Integers of 64 bits are torch's, which have a sign;
sums and products wrap, so their bits are those of integers without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Multipliers of a round, and what is added to the key after it.
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10
_LOW, _ALL = (1 << 32) - 1, (1 << 64) - 1


def raw(
    key: Sequence[int], places: Sequence[tuple[int, int]], width: int, device: torch.device
) -> Tensor:
    """The first ``width`` numbers, (n, width) of int64, from each (row, position) of ``places``.

    Bit for bit ``np.random.Philox(key=key, counter=[0, 0, position, row]).random_raw(width)``.
    """
    blocks = -(-width // 4)
    # NumPy counts before it makes a block of four.
    first = torch.arange(1, blocks + 1, device=device).expand(len(places), blocks)
    row, position = torch.tensor(places, device=device).T[:, :, None].expand(2, -1, blocks)
    words = [first, torch.zeros_like(first), position, row]
    keys = list(key)
    for _ in range(ROUNDS):
        high = [_high(words[2 * i], m) for i, m in enumerate(MULTIPLIERS)]
        low = [words[2 * i] * _signed(m) for i, m in enumerate(MULTIPLIERS)]
        words = [
            high[1] ^ words[1] ^ _signed(keys[0]),
            low[1],
            high[0] ^ words[3] ^ _signed(keys[1]),
            low[0],
        ]
        keys = [(k + step) & _ALL for k, step in zip(keys, STEPS, strict=True)]
    return torch.stack(words, -1).flatten(1)[:, :width]


def _signed(number: int) -> int:
    """The integer with a sign that has the bits of one without."""
    return number - (1 << 64) if number >> 63 else number


def _high(x: Tensor, multiplier: int) -> Tensor:
    """The upper 64 bits of the product without signs, by halves."""
    x_low, x_high = x & _LOW, (x >> 32) & _LOW
    m_low, m_high = multiplier & _LOW, multiplier >> 32
    first, second = x_low * m_high, x_high * m_low
    middle = (((x_low * m_low) >> 32) & _LOW) + (first & _LOW) + (second & _LOW)
    return x_high * m_high + ((first >> 32) & _LOW) + ((second >> 32) & _LOW) + (middle >> 32)
