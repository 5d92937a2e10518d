"""Lambda and alpha by request, and in a boost the weights of the adapters.

vLLM tells which request is in which row of the coming batch before the models run: its V1 runner a
logits processor, :class:`RequestStrengths`, its V2 runner the model's own state
(:mod:`springback.integrations.vllm.pair_state`).  That is kept in a table, which the model reads
when it combines its logits.  So grammars, allowed tokens and penalties act on the request's own
combined logits, none of them is undone, and returned log-probabilities are of these logits.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from springback.decoding import contrast
from springback.errors import describe
from springback.integrations.vllm.folder import ALPHA, LAMBDA, strengths_of
from springback.integrations.vllm.runners import (
    Sides,
    Strengths,
    asked_for,
    chosen,
    interfaces,
    sides_of,
)


@dataclass
class Table:
    """The strengths of the rows of the coming batch, where a request asked for its own.

    ``announced``: whether a V2 runner tells of its batches.  ``rows``: how many there are.
    ``fresh``: a batch was announced and its logits not yet taken;
    what the model computes besides (log-probabilities of prompts, warm-up) has other rows.
    ``sides``: of its requests, by their place in it.  ``starts``: says at which token of the batch
    each request begins, and where the last one ends.
    """

    strengths: dict[int, Strengths] = field(default_factory=dict)
    announced: bool = False
    rows: int = 0
    fresh: bool = False
    sides: dict[int, Sides] = field(default_factory=dict)
    starts: Callable[[], Any] | None = None

    def take(self, rows: int, lam: float, alpha: float) -> tuple[Tensor, Tensor] | None:
        """Lambda and alpha for each row (rows,), once a batch; None where all are the folder's."""
        fresh, self.fresh = self.fresh, False
        if not fresh or not self.strengths:
            return None
        if rows != self.rows:
            raise RuntimeError(
                f"{rows} rows of logits for {self.rows} requests: this version of vLLM lays "
                "batches out in another way; serve without lambda by request"
            )
        lams, alphas = torch.full((rows,), lam), torch.full((rows,), alpha, dtype=torch.float64)
        for row, (own_lam, own_alpha) in self.strengths.items():
            lams[row] = lam if own_lam is None else own_lam
            alphas[row] = alpha if own_alpha is None else own_alpha
        return lams, alphas

    def weights(self, tokens: int, adapters: int) -> Tensor | None:
        """Weights of the adapters for each token of a pass (sides, tokens, adapters) of the strong
        model, and of the weak one where any request has one; None for what is no batch."""
        if not self.fresh or not self.sides or self.starts is None:
            return None
        counts = np.diff(self.starts())
        lost = tokens - int(counts.sum())
        if lost < 0 or set(self.sides) != set(range(len(counts))):
            raise RuntimeError(
                f"{tokens} tokens for requests of {counts.tolist()}: this version of vLLM lays "
                "batches out in another way; use --engine transformers"
            )
        asked = [self.sides[place] for place in range(len(counts))]
        by_request = [[strong for strong, _ in asked]]
        if any(weak is not None for _, weak in asked):
            by_request.append([[0.0] * adapters if weak is None else weak for _, weak in asked])
        repeats = torch.from_numpy(counts.astype(np.int64))
        by_token = torch.tensor(by_request).repeat_interleave(repeats, 1)
        return torch.nn.functional.pad(by_token, (0, 0, 0, lost))


#: The table of each engine of this process, by its configuration, which has no hash.
_TABLES: list[tuple[weakref.ref[Any], Table]] = []


def table_of(vllm_config: Any) -> Table:
    """The one table of an engine: processor and model are made for the same configuration."""
    _TABLES[:] = [(ref, table) for ref, table in _TABLES if ref() is not None]
    for ref, table in _TABLES:
        if ref() is vllm_config:
            return table
    _TABLES.append((weakref.ref(vllm_config), Table()))
    return _TABLES[-1][1]


class RequestStrengths(*interfaces().values()):  # type: ignore[misc]
    """Has vLLM take the strengths that a request asks for; logits pass unchanged.

    A logits processor of both runners, whichever of them are installed.
    """

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise :class:`ValueError` (status 400) for strengths out of range."""
        given = strengths_of(sampling_params.extra_args)
        if given != (None, None) and sampling_params.prompt_logprobs is not None:
            raise ValueError(
                f"given: {LAMBDA} or {ALPHA} with prompt_logprobs; allowed: one of them, since "
                "those of a prompt are taken with the folder's own strengths; ask twice"
            )

    def __init__(self, vllm_config: Any, *_: Any) -> None:
        self.table = table_of(vllm_config)
        if chosen(vllm_config) == 2 and not self.table.announced:
            given = "lambda by request with a V2 model runner that asks no model for its state"
            do = "set VLLM_USE_V2_MODEL_RUNNER=0"
            raise RuntimeError(describe(given, "vLLM 0.32's, or the V1 runner", do))

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Of the V2 runner: whether it changes the request's logits."""
        return False

    def is_argmax_invariant(self) -> bool:
        return True  # it changes nothing itself

    def update_state(self, batch_update: Any) -> None:
        """Of the V1 runner: who is in which row of the coming batch."""
        if batch_update is not None:
            from vllm.v1.sample.logits_processor.builtin import process_dict_updates

            self.table.rows = batch_update.batch_size
            process_dict_updates(
                self.table.strengths, batch_update, lambda params, *_: asked_for(params)
            )
            process_dict_updates(
                self.table.sides, batch_update, lambda params, *_: sides_of(params)
            )
        self.table.fresh = True

    def apply(self, logits: Tensor, context: Any = None) -> Tensor:
        return logits


@dataclass
class Combiner:
    """Both halves' logits to the combined ones; ``alpha`` None masks no token, as given texts are
    scored, which is for batches of such texts alone."""

    lam: float
    alpha: float | None
    table: Table

    def __call__(self, strong: Tensor, weak: Tensor) -> Tensor:
        """All (rows, vocabulary); fp32 back.  Implausible tokens stay finite: a grammar that
        forbids all plausible ones leaves the expert's order among the rest."""
        if self.alpha is None:
            return contrast.contest(strong, weak, self.lam)
        strengths = self.table.take(len(strong), self.lam, self.alpha)
        if strengths is None:
            return contrast.stepped(strong, weak, self.lam, self.alpha)
        return contrast.stepped_rows(strong, weak, *(t.to(strong.device) for t in strengths))

    def contested(self, strong: Tensor) -> Tensor:
        """Rows (rows,) in which the amateur counts, with the folder's strengths."""
        if self.alpha is None:
            return torch.ones(len(strong), dtype=torch.bool, device=strong.device)
        return contrast.plausible(strong.float(), self.alpha).sum(-1) > 1
