"""Decode with one model, or contrastively with two: the plain two-model loop, batched.

This is the reference: expert and amateur both run at every position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from springback import contrast
from springback.errors import SpringbackError


@dataclass(frozen=True)
class DecodeSettings:
    """How to decode.  ``temperature`` 0 is greedy; ``lam`` 0 leaves the amateur out.

    ``stop_ids`` end a row and are not part of its answer; ``forbidden_ids`` are never chosen (with
    the stop ids among them, every answer has ``max_new_tokens`` tokens).  Sampling draws Gumbel
    noise keyed by (seed, row, position), so a row's draw does not depend on the batch it is in.
    """

    max_new_tokens: int = 128
    lam: float = 0.0
    alpha: float = 0.1
    temperature: float = 0.0
    seed: int = 0
    batch_size: int = 32
    stop_ids: tuple[int, ...] = ()
    forbidden_ids: tuple[int, ...] = ()
    pad_id: int = 0


@dataclass
class _Half:
    """One model and its cache."""

    model: PreTrainedModel
    cache: DynamicCache = field(default_factory=DynamicCache)

    def step(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after the last of ``ids`` (rows, new tokens)."""
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)


def _noise(seed: int, row: int) -> torch.Generator:
    key = hashlib.sha256(f"{seed}/{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)


@torch.inference_mode()
def _decode_batch(
    halves: list[_Half],
    prompts: Sequence[Sequence[int]],
    row_numbers: Sequence[int],
    settings: DecodeSettings,
) -> list[list[int]]:
    """Answers of one batch, in its order.  Finished rows leave the batch when half are done."""
    where = halves[0].model.device
    longest = max(len(p) for p in prompts)
    ids = torch.full((len(prompts), longest), settings.pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for at, prompt in enumerate(prompts):  # left padding: all rows end at the same place
        ids[at, longest - len(prompt) :] = torch.tensor(prompt)
        mask[at, longest - len(prompt) :] = 1
    ids, mask = ids.to(where), mask.to(where)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    stops = torch.tensor(settings.stop_ids, dtype=torch.long)
    answers: list[list[int]] = [[] for _ in prompts]
    generators = [_noise(settings.seed, n) for n in row_numbers]
    alive = list(range(len(prompts)))  # batch row -> answer
    done = torch.zeros(len(prompts), dtype=torch.bool)
    for _ in range(settings.max_new_tokens):
        logits = [half.step(ids, mask, positions).float().cpu() for half in halves]
        if settings.forbidden_ids:
            logits[0][:, list(settings.forbidden_ids)] = -torch.inf
        scores = logits[0]  # (rows, vocabulary)
        if len(logits) == 2:
            scores = contrast.combine(logits[0], logits[1], settings.lam, settings.alpha)
        chosen = _choose(scores, settings, [generators[a] for a in alive])  # (rows,)
        stopped = torch.isin(chosen, stops)
        for at, answer in enumerate(alive):
            if not done[at] and not stopped[at]:
                answers[answer].append(int(chosen[at]))
        done |= stopped
        if bool(done.all()):
            break
        ids = chosen[:, None].to(where)
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        positions = positions[:, -1:] + 1
        if int(done.sum()) * 2 >= len(alive):
            rows = (~done).nonzero()[:, 0]
            keep = rows.to(where)
            for half in halves:
                half.keep(keep)
            ids, mask, positions = ids[keep], mask[keep], positions[keep]
            alive, done = [alive[int(r)] for r in rows], done[rows]
    return answers


def _choose(
    scores: Tensor, settings: DecodeSettings, generators: Sequence[torch.Generator]
) -> Tensor:
    """Next token of every row: the top score, or the top of score / T + Gumbel noise."""
    if settings.temperature == 0:
        return scores.argmax(-1)
    width = scores.shape[-1]
    uniform = torch.stack([torch.rand(width, generator=g) for g in generators])
    gumbel = -torch.log(-torch.log(uniform.clamp_(1e-20, 1 - 1e-7)))
    return (scores / settings.temperature + gumbel).argmax(-1)


def decode(
    expert: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: DecodeSettings,
    amateur: PreTrainedModel | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Answer token ids of every prompt, in order, without prompt and stop token.

    Batches hold prompts of similar length and do not depend on the models, so paired arms see
    the same batches.  ``lam > 0`` needs ``amateur``; with ``lam = 0`` it is not run.
    """
    contrast.check_settings(settings.lam, settings.alpha)
    if settings.lam > 0 and amateur is None:
        raise SpringbackError(
            f"lambda is {settings.lam} but no second model was given; give one or set lambda to 0"
        )
    if any(not p for p in prompts):
        raise SpringbackError("a prompt is empty; every prompt needs at least one token")
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    answers: list[list[int]] = [[] for _ in prompts]
    for at in range(0, len(order), settings.batch_size):
        chunk = order[at : at + settings.batch_size]
        halves = [_Half(expert)]
        if settings.lam > 0 and amateur is not None:
            halves.append(_Half(amateur))
        found = _decode_batch(halves, [prompts[i] for i in chunk], chunk, settings)
        for i, answer in zip(chunk, found, strict=True):
            answers[i] = answer
        if on_batch:
            on_batch(len(chunk))
    return answers
