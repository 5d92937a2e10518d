"""The plain loop: one model, or expert and amateur both run at every position.

This is the reference that the fast decoder is tested against.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from springback.decoding import contrast
from springback.decoding.sampling import Answer, Chooser, noise_of, penalised
from springback.decoding.settings import NO_HOOKS, DecodeSettings, Hooks, Work, check
from springback.errors import ModelError, describe
from springback.models.placement import running_device


class PaddedModel:
    """One model and its cache, whose rows are padded on the left to one length."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.cache = DynamicCache(config=model.config)
        self.takes = set(inspect.signature(model.forward).parameters)
        # State-space models call their cache so; given under another name it would be ignored.
        names = [n for n in ("past_key_values", "cache_params") if n in self.takes]
        if not names:
            raise ModelError(
                describe(
                    f"a {type(model).__name__}, which takes no cache",
                    "causal models with past_key_values or cache_params",
                    "use another model",
                )
            )
        self.cache_name = names[0]
        self.begun = False

    def step(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after the last of ``ids`` (rows, new tokens)."""
        extra: dict[str, Any] = {self.cache_name: self.cache}
        if "position_ids" in self.takes:
            extra["position_ids"] = positions
        # A state holds no padding, so such a model gets the mask once, with the prompts.
        if self.cache_name == "past_key_values":
            extra["attention_mask"] = mask
        elif not self.begun and not bool(mask.all()):
            extra["attention_mask"] = self._padding(mask)
        self.begun = True
        out = self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **extra)
        logits: Tensor = out.logits[:, -1]
        return logits

    def _padding(self, mask: Tensor) -> Tensor:
        if "attention_mask" not in self.takes:
            raise ModelError(
                describe(
                    f"prompts of different lengths for a {type(self.model).__name__}, which "
                    "takes no mask",
                    "batches without padding",
                    "use batch_size=1",
                )
            )
        return mask

    def keep(self, rows: Any) -> None:
        self.cache.reorder_cache(rows)


def _padded(answers: Sequence[Answer], pad_id: int) -> tuple[Tensor, Tensor]:
    """Prompts (rows, longest), left-padded so that all end at the same place, and their mask."""
    longest = max(a.prompt_tokens for a in answers)
    ids = torch.full((len(answers), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, answer in enumerate(answers):
        ids[place, longest - answer.prompt_tokens :] = torch.tensor(answer.context)
        mask[place, longest - answer.prompt_tokens :] = 1
    return ids, mask


@torch.inference_mode()
def decode_batch(
    models: Sequence[PaddedModel], answers: list[Answer], chooser: Chooser, work: Work | None = None
) -> None:
    """Complete ``answers``.  Finished rows leave the batch when half are done."""
    settings, where = chooser.settings, running_device(models[0].model)
    ids, mask = (t.to(where) for t in _padded(answers, settings.pad_id))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    alive = list(answers)  # batch row -> answer
    while True:
        logits = [cached.step(ids, mask, positions) for cached in models]
        if chooser.hooks.processors:  # a user's may be written for the CPU
            logits = [each.cpu() for each in logits]
        going = [place for place, answer in enumerate(alive) if not answer.done]
        open_ = [alive[place] for place in going]
        if len(going) < len(alive):
            logits = [each[going] for each in logits]
        expert = penalised(logits[0], [a.context for a in open_], settings)
        amateur = logits[1] if len(logits) == 2 else None
        if work is not None:
            _count(work, expert, amateur, settings.alpha)
        chosen = torch.full((len(alive),), settings.pad_id, dtype=torch.long)
        tokens = chooser.next_tokens(expert, amateur, open_)
        chosen[going] = torch.tensor(tokens)
        for answer, token in zip(open_, tokens, strict=True):
            answer.take(token, settings, chooser.hooks)
        left = [place for place, answer in enumerate(alive) if not answer.done]
        if not left:
            return
        ids = chosen[:, None].to(where)
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        positions = positions[:, -1:] + 1
        if len(left) * 2 <= len(alive):
            keep = torch.tensor(left, device=where)
            for cached in models:
                cached.keep(keep.to(running_device(cached.model)))
            ids, mask, positions = ids[keep], mask[keep], positions[keep]
            alive = [alive[place] for place in left]


def _count(work: Work, expert: Tensor, amateur: Tensor | None, alpha: float) -> None:
    """Count one step of both models on ``expert`` (rows, vocabulary)."""
    work.expert_calls += 1
    if amateur is not None:
        work.amateur_calls += 1
        work.amateur_rows += len(expert)
        work.contested += int((contrast.plausible(expert, alpha).sum(-1) > 1).sum())


def sampling_groups(prompts: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Which prompts :func:`decode` takes together, by their numbers."""
    return [[answer.row for answer in answers] for answers in batches(prompts, size)]


def batches(prompts: Sequence[Sequence[int]], size: int) -> Iterator[list[Answer]]:
    """Empty answers, in batches of prompts of similar length, whatever the models."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for first in range(0, len(order), size):
        yield [Answer(i, list(prompts[i])) for i in order[first : first + size]]


def decode(
    expert: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: DecodeSettings,
    amateur: PreTrainedModel | None = None,
    on_batch: Callable[[int], None] | None = None,
    hooks: Hooks = NO_HOOKS,
    work: Work | None = None,
    numbers: Sequence[int] | None = None,
) -> list[list[int]]:
    """Answer token ids of every prompt, in order, without prompt and stop token.

    Batches hold prompts of similar length and do not depend on the models, so paired arms see
    the same batches.  ``lam > 0`` and ``average`` need ``amateur``; else it is not run.  ``work``
    takes the statistics of the run.  ``numbers``: the prompts' own in a larger set of which they
    are a part, whose noise they have; their places here without.
    """
    begin = time.perf_counter()
    check(settings, prompts, amateur, hooks, expert)
    chooser = Chooser(settings, hooks, noise_of(settings))
    tokens_by_prompt: list[list[int]] = [[] for _ in prompts]
    for answers in batches(prompts, settings.batch_size):
        models = [PaddedModel(expert)]
        if (settings.lam > 0 or settings.average) and amateur is not None:
            models.append(PaddedModel(amateur))
        places = [answer.row for answer in answers]
        if numbers is not None:
            for answer in answers:
                answer.row = numbers[answer.row]
        if settings.max_new_tokens:
            decode_batch(models, answers, chooser, work)
        for place, answer in zip(places, answers, strict=True):
            tokens_by_prompt[place] = answer.tokens
        if on_batch:
            on_batch(len(answers))
    if work is not None:
        work.tokens += sum(len(tokens) for tokens in tokens_by_prompt)
        work.seconds += time.perf_counter() - begin
    return tokens_by_prompt
