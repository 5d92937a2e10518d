"""Gumbel noise for sampling: argmax(score / T + noise) draws from softmax(score / T).

Noise belongs to a row and a position, not to a batch or a decoder, so that different ways of
computing the same scores draw the same tokens.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from springback.decoding.settings import DecodeSettings


class RowStreams:
    """One stream of random numbers for each row: positions have to be drawn in order."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[int, torch.Generator] = {}

    def gumbel(self, row: int, position: int, width: int, tokens: Tensor) -> Tensor:
        """fp32 noise of ``tokens`` (n,) out of ``width``; advances the row's stream."""
        if row not in self._streams:
            key = hashlib.sha256(f"{self.seed}/{row}".encode()).digest()
            seed = int.from_bytes(key[:8], "little") >> 1
            self._streams[row] = torch.Generator().manual_seed(seed)
        uniform = torch.rand(width, generator=self._streams[row])[tokens]
        return -torch.log(-torch.log(uniform.clamp_(1e-20, 1 - 1e-7)))


class KeyedNoise:
    """Noise keyed by (seed, row, position), by the counter-based generator Philox.

    The key is the seed; row and position are the upper half of the counter, so no two places share
    numbers and any of them can be made without the ones before.
    """

    def __init__(self, seed: int) -> None:
        digest = hashlib.sha256(f"springback/{seed}".encode()).digest()
        self._key = np.frombuffer(digest[:16], dtype="<u8")

    def gumbel(self, row: int, position: int, width: int, tokens: Tensor) -> Tensor:
        """fp64 noise of ``tokens`` (n,) out of ``width``."""
        if len(tokens) == 1:  # whatever it is, it changes no choice
            return torch.zeros(1, dtype=torch.float64)
        counter = np.array([0, 0, position, row], dtype=np.uint64)
        raw = np.random.Philox(key=self._key, counter=counter).random_raw(width)
        # The middles of 2^53 equal steps: never 0 or 1.
        uniform = ((raw[tokens.numpy()] >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return torch.from_numpy(-np.log(-np.log(uniform)))


Noise = RowStreams | KeyedNoise


def noise_of(settings: DecodeSettings) -> Noise:
    """The noise that ``settings`` ask for."""
    return KeyedNoise(settings.seed) if settings.keyed_noise else RowStreams(settings.seed)
