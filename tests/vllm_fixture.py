"""What vLLM's answers are held against: the plain loop of two models, near-ties counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from springback.decoding import DecodeSettings, contrast, decode
from springback.inference import Loaded

#: Scores closer than this may change places: sums in another order differ by about 1e-6.
NEAR = 1e-4


def tokens_of(count: int, seed: int = 0) -> list[list[int]]:
    """Random prompts of 3 to 200 tokens; every second one begins with the same 64."""
    draw = random.Random(seed)
    common = [draw.randrange(4, 260) for _ in range(64)]
    found = []
    for i in range(count):
        own = [draw.randrange(4, 260) for _ in range(draw.randint(3, 136))]
        found.append(common + own if i % 2 else own)
    return found


def told_by(
    engine: Any, prompts: Sequence[list[int]], lams: Sequence[float], *how: Any
) -> list[list[list[int]]]:
    """The answers of each arm, by what an engine of a boost's worker tells while it decodes."""
    messages: list[dict[str, Any]] = []
    engine.tell = messages.append
    engine.decode(prompts, lams, *how)
    answers = dict(message["part"] for message in messages if "part" in message)
    return [answers[arm] for arm in range(len(lams))]


@dataclass
class Answers:
    """The answers of the plain loop (``reference=True``) and how far others are from them.

    ``near``: rows in which a near-tie went the other way; from there on they may differ.
    """

    loaded: Loaded
    near: int = 0
    known: dict[Any, list[list[int]]] = field(default_factory=dict)

    def of(
        self, prompts: Sequence[list[int]], length: int, lam: float | None = None
    ) -> list[list[int]]:
        """``length`` tokens for each prompt, whatever they are; ``lam``: another than its own."""
        key = (tuple(map(tuple, prompts)), length, lam)
        if key not in self.known:
            lam = self.loaded.lam if lam is None else lam
            how = DecodeSettings(max_new_tokens=length, lam=lam, alpha=self.loaded.alpha, pad_id=3)
            amateur = self.loaded.amateur if lam else None
            self.known[key] = decode(self.loaded.expert, prompts, how, amateur)
        return self.known[key]

    def check(
        self,
        prompts: Sequence[list[int]],
        found: Sequence[Sequence[int]],
        lam: float | None = None,
    ) -> None:
        """Raise unless ``found`` are the plain loop's tokens, near-ties aside."""
        wanted = self.of(prompts, max(map(len, found)), lam)
        for prompt, ours, theirs in zip(prompts, wanted, found, strict=True):
            differ = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
            if not differ:
                continue
            at = differ[0]
            scores = self.scores([*prompt, *ours[:at]], lam)
            gap = float(scores[ours[at]] - scores[theirs[at]])
            assert gap < NEAR, f"token {at} is {theirs[at]} for {ours[at]}, {gap:.3g} below"
            self.near += 1

    @torch.inference_mode()
    def scores(self, ids: Sequence[int], lam: float | None = None) -> Tensor:
        """Combined scores (vocabulary,) after ``ids``, implausible tokens a step below."""
        lam = self.loaded.lam if lam is None else lam
        row = torch.tensor([ids])
        expert: Tensor = self.loaded.expert(row).logits[0, -1]
        if not lam:
            return expert
        assert self.loaded.amateur is not None
        amateur: Tensor = self.loaded.amateur(row).logits[0, -1]
        return contrast.stepped(expert, amateur, lam, self.loaded.alpha)
