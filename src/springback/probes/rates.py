"""Rates of held-out sets of texts, the terms of the elasticity theorem (paper A, section A1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from springback.models.encoding import Encoded
from springback.probes import TextNLL, bits_per_byte
from springback.theory import TokenTree

#: What is measured of each set, and its unit.
UNITS = {"bits_per_byte": "bits/byte", "rate": "bits/token", "normalised": "bits/token"}


@dataclass(frozen=True)
class RateSet:
    """Held-out texts of one set, and ``leaves``: M of their tree at the study's depth."""

    rows: list[Encoded]
    leaves: int


def rate_set(rows: list[Encoded], depth: int) -> RateSet:
    """The set with M counted: its texts' different beginnings of ``depth`` counted tokens."""
    tree = TokenTree.from_responses([row.ids[row.start :] for row in rows])
    return RateSet(rows, len(tree.prune(depth).leaves))


def measured(scores: Sequence[TextNLL], leaves: int) -> dict[str, float]:
    """Bits per byte, rate and normalised rate of one set under one model."""
    bits = sum(s.nats for s in scores) / math.log(2)
    rate = bits / sum(s.tokens for s in scores)
    return {
        "bits_per_byte": bits_per_byte(scores),
        "rate": rate,
        "normalised": rate - math.log2(leaves),
    }
