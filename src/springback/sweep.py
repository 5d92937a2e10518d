"""Two checkpoints in memory, and the extrapolated model at any mu without writing it (paper B)."""

from __future__ import annotations

import copy

import torch
from transformers import PreTrainedModel

from springback.core import Checkpoint
from springback.errors import ModelError
from springback.models import (
    check_same_tokenizer,
    load_model,
    load_tokenizer,
)


class Sweep:
    """Expert at mu, and the two checkpoints it is made of.

    ``expert`` is the extrapolated model theta_ft + mu * (theta_ft - theta_early), computed in
    fp32 and rounded to the dtype of the fine-tuned weights, exactly what
    :func:`springback.weights.extrapolate` writes.
    """

    def __init__(self, early: Checkpoint, ft: Checkpoint) -> None:
        self.tokenizer = load_tokenizer(ft)
        check_same_tokenizer(load_tokenizer(early), self.tokenizer, (early.path, ft.path))
        self.stored = {n: p.dtype for n, p in load_model(ft, "auto").named_parameters()}
        self.early: PreTrainedModel = load_model(early)
        self.ft: PreTrainedModel = load_model(ft)
        self._check_shapes(early, ft)
        self.expert: PreTrainedModel = copy.deepcopy(self.ft)
        self.mu = 0.0

    def _check_shapes(self, early: Checkpoint, ft: Checkpoint) -> None:
        a = {n: tuple(p.shape) for n, p in self.early.named_parameters()}
        b = {n: tuple(p.shape) for n, p in self.ft.named_parameters()}
        if a == b:
            return
        names = sorted(n for n in a.keys() | b.keys() if a.get(n) != b.get(n))
        raise ModelError(
            f"{early.path} and {ft.path} differ in {len(names)} tensors, first {names[0]}: "
            f"{a.get(names[0])} against {b.get(names[0])}; use two checkpoints of one run"
        )

    @torch.no_grad()
    def at(self, mu: float) -> PreTrainedModel:
        """The expert with its weights set for ``mu``."""
        if mu != self.mu:
            early = dict(self.early.named_parameters())
            ft = dict(self.ft.named_parameters())
            for name, parameter in self.expert.named_parameters():
                step = ft[name] - early[name]
                step *= mu
                step += ft[name]
                parameter.copy_(step.to(self.stored[name]))
            self.mu = mu
        return self.expert
