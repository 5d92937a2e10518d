"""When decoding may go on with the expert's own choice before the amateur has been run.

At a contested position the amateur overrules the expert's choice g if, for some plausible b,
lambda * (D_b - D_g) exceeds the lead of g over b, D being expert minus amateur logits.  For two
checkpoints of one run D is nearly the same for all plausible tokens, so a large lead is rarely
overruled.  How rarely is learned from the positions seen so far.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque

import torch
from torch import Tensor


class DeferralPolicy:
    """Decides which contested positions may wait for the amateur.

    A wrong guess costs the expert's steps after it, at most the window; a right one saves up to
    one call of the amateur.  :data:`RISK` bounds the chance that any token has the push it takes,
    which is about three times the chance of being overruled (docs/log.md).
    Depends on logits alone, not on time: the same run defers the same positions.
    """

    RISK = 0.2
    MEMORY = 256
    FEWEST = 8

    def __init__(self) -> None:
        self._seen: deque[float] = deque()
        self._sorted: list[float] = []

    def may_wait(self, lead: float, lam: float) -> bool:
        """Whether the risk of being overruled is small; ``lead`` in logits."""
        return len(self._sorted) >= self.FEWEST and self._pushed(lead, lam) <= self.RISK

    def chance(self, lead: float, lam: float) -> float:
        """How likely the amateur is to overrule; 1 before enough has been seen."""
        return self._pushed(lead, lam) / 3 if len(self._sorted) >= self.FEWEST else 1.0

    def _pushed(self, lead: float, lam: float) -> float:
        """Share of the positions seen where some token had the push that it takes."""
        n = len(self._sorted)
        above = n - bisect_right(self._sorted, lead / lam)
        return (above + 0.5) / (n + 1)

    def observe(self, strong: Tensor, weak: Tensor, allowed: Tensor, guess: int) -> None:
        """Learn from one position: logits (vocabulary,) of both, which tokens are plausible."""
        difference = strong[allowed] - weak.to(strong)[allowed]
        push = float(difference.max() - (strong[guess] - weak[guess].to(strong)))
        if push != push:  # NaN: a token that both forbid
            return
        self._seen.append(push)
        insort(self._sorted, push)
        if len(self._seen) > self.MEMORY:
            old = self._seen.popleft()
            del self._sorted[bisect_right(self._sorted, old) - 1]


def lead_of(values: Tensor) -> float:
    """How far the largest of ``values`` (n,) is ahead of the next; infinite if it is alone."""
    if len(values) < 2:
        return float("inf")
    first, second = torch.topk(values, 2).values.tolist()
    return float(first - second)
