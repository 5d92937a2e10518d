"""The fast decoder: the plain loop's tokens at about the price of one model.

Lazy amateur: where only one token is plausible the amateur cannot change the choice, so it does
not run; at the next contested position it catches up on what it skipped in one block.  Where the
expert's choice is rarely overruled, that waits too: the expert goes on, and the amateur checks
several contested positions in one block.
Speculation: a round feeds the expert the last token and a few drafted ones, and takes as many as
the plain loop would have chosen.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from springback.decoding.cpu_matmul import fast_products
from springback.decoding.deferral import DeferralPolicy
from springback.decoding.drafts import (
    DEFAULT_SPECULATION,
    ModelDrafts,
    NgramIndex,
    Pace,
    Speculation,
)
from springback.decoding.lora_pair import twin_of
from springback.decoding.plain import batches, decode
from springback.decoding.ragged_cache import CachedModel, CachedPair, croppable
from springback.decoding.sampling import Answer, Chooser, noise_of
from springback.decoding.settings import NO_HOOKS, Decoded, DecodeSettings, Hooks, Work, check
from springback.decoding.speculative import Batch
from springback.decoding.static_cache import CachedModels
from springback.errors import SpringbackError, describe
from springback.settings import check_speed

Pair = tuple[PreTrainedModel, PreTrainedModel | None]

#: Up to so many rows, two adapters on one base run in one batch: reading the weights is then what
#: a step costs.  With more rows it is arithmetic, of which the lazy amateur needs less.
TWIN_ROWS = 4

_TOLD: set[str] = set()


def _tell_once(model: PreTrainedModel) -> None:
    name = type(model).__name__
    if name not in _TOLD:
        _TOLD.add(name)
        warnings.warn(
            f"{name} has a cache that cannot be cropped (sliding window, state space, no position "
            "ids) or an attention other than sdpa and eager, so it is decoded the plain way: same "
            "tokens, without the speed",
            stacklevel=3,
        )


def decode_fast(
    expert: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: DecodeSettings,
    amateur: PreTrainedModel | None = None,
    on_batch: Callable[[int], None] | None = None,
    hooks: Hooks = NO_HOOKS,
    speculation: Speculation = DEFAULT_SPECULATION,
) -> Decoded:
    """The answers of :func:`springback.decoding.decode`, token for token, sooner.

    Equal up to rounding: a block and a single step may differ in the last bits of a logit, which
    can tip a tie.  Sampling needs ``settings.keyed_noise``.  A model whose cache cannot be cropped
    is decoded by the plain loop, with one warning.  Of a pair of
    :mod:`springback.decoding.lora_pair` both run in one batch.
    """
    check(settings, prompts, amateur, hooks, expert)
    _check_fast(settings, speculation)
    begin, pair = time.perf_counter(), (expert, amateur if settings.lam > 0 else None)
    work = Work()
    for model in (*pair, speculation.model):
        if model is not None and not croppable(model):
            _tell_once(model)
            answers = decode(expert, prompts, settings, amateur, on_batch, hooks, work)
            return Decoded(answers, work, plain=True)
    chooser = Chooser(settings, hooks, noise_of(settings))
    # For all batches: what is learned stays.
    pace, deferral = Pace(speculation.length), DeferralPolicy()
    tokens_by_prompt: list[list[int]] = [[] for _ in prompts]
    size = min(settings.batch_size, len(prompts))
    longest = max(map(len, prompts), default=0) + settings.max_new_tokens
    caches = CachedModels(speculation.cache, size, longest)
    # Of adapters on one base the model that runs both is a third one, with the same weights.
    every = [*pair, speculation.model, twin_of(*pair)]
    models = every if speculation.cache != "compiled" else []
    with fast_products(models):
        for rows in batches(prompts, settings.batch_size):
            batch = _begin(pair, rows, chooser, speculation, caches)
            batch.pace, batch.deferral, batch.work = pace, deferral, work
            _run_batch(batch)
            caches.release()
            for answer in rows:
                tokens_by_prompt[answer.row] = answer.tokens
            if on_batch:
                on_batch(len(rows))
    work.tokens = sum(len(tokens) for tokens in tokens_by_prompt)
    work.seconds = time.perf_counter() - begin
    return Decoded(tokens_by_prompt, work)


def _check_fast(settings: DecodeSettings, speculation: Speculation) -> None:
    if settings.temperature > 0 and not settings.keyed_noise:
        raise SpringbackError(
            describe("sampling with a stream of noise", "keyed_noise=True", "set it, or use decode")
        )
    if settings.average:
        raise SpringbackError(
            describe("the average of two models in decode_fast", "contrast", "use decode")
        )
    check_speed(speculation.draft, speculation.cache, speculation.model)
    if speculation.defer < 0:
        raise SpringbackError(
            describe(f"defer = {speculation.defer}", "0 (ask at once) or more", "change it")
        )


def _begin(
    pair: Pair,
    answers: list[Answer],
    chooser: Chooser,
    speculation: Speculation,
    caches: CachedModels,
) -> Batch:
    rows, by = len(answers), speculation.draft
    expert: CachedModel | CachedPair
    amateur = drafter = None
    twin = twin_of(*pair) if by != "amateur" and rows <= TWIN_ROWS else None
    if twin is not None:
        expert = caches.twin(twin, rows, TWIN_ROWS)
    else:
        expert = caches.one(pair[0], rows)
        amateur = caches.one(pair[1], rows) if pair[1] is not None else None
    if by == "amateur" and amateur is not None:
        drafter = ModelDrafts(amateur)
    elif by == "model" and speculation.model is not None:
        drafter = ModelDrafts(caches.one(speculation.model, rows))
    ngrams = [NgramIndex() for _ in answers] if by == "ngram" else None
    return Batch(list(answers), chooser, expert, amateur, drafter, ngrams, defer=speculation.defer)


@torch.inference_mode()
def _run_batch(batch: Batch) -> None:
    if batch.chooser.settings.max_new_tokens:
        batch.complete()
    work, drafter = batch.work, batch.drafter
    work.expert_calls += batch.expert.calls
    if isinstance(batch.expert, CachedPair):
        work.amateur_calls += batch.expert.calls
        work.joint_calls += batch.expert.calls
    if batch.amateur is not None:
        work.amateur_calls += batch.amateur.calls
        work.amateur_rows += batch.amateur.rows_run
    if drafter is not None and drafter.model is not batch.amateur:
        work.draft_calls += drafter.model.calls
