"""Two checkpoints in memory, and the extrapolated model at any mu without writing it (paper B)."""

from __future__ import annotations

import copy

import torch
from transformers import PreTrainedModel

from springback.core import Checkpoint
from springback.errors import ModelError
from springback.models.loading import check_same_tokenizer, load_model, load_tokenizer
from springback.models.weight_step import move_
from springback.settings import ChatSettings
from springback.weights import tensor_names

_FLOATS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class CheckpointPair:
    """Two checkpoints in memory and the expert, the model extrapolated from them to ``mu``.

    ``expert`` is the extrapolated model theta_ft + mu * (theta_ft - theta_early), computed in
    float64 and rounded once to the dtype that the fine-tuned weights are stored in: bit for bit
    what :func:`springback.weights.extrapolate` writes (held here in fp32, which all but float64
    weights fit).
    """

    def __init__(
        self, early: Checkpoint, ft: Checkpoint, *, chat: ChatSettings | None = None
    ) -> None:
        """``chat``: what the chat template is given beside the messages."""
        self.tokenizer = load_tokenizer(ft, chat)
        check_same_tokenizer(load_tokenizer(early), self.tokenizer, (early.path, ft.path))
        self.early: PreTrainedModel = load_model(early)
        self.ft: PreTrainedModel = load_model(ft)
        self._check_shapes(early, ft)
        self.stored = stored_dtypes(ft.path, self.ft)
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
                if mu == 0:  # as in springback.weights: -0.0 stays
                    parameter.copy_(ft[name])
                    continue
                move_(parameter, ft[name], early[name], mu, base=ft[name], stored=self.stored[name])
            self.mu = mu
        return self.expert


def stored_dtypes(folder: str, model: PreTrainedModel) -> dict[str, torch.dtype]:
    """The dtype in which each parameter of ``model`` is stored, from the headers of its files.

    A parameter that Transformers builds under another name than the file has (merged experts,
    say) takes the file's only dtype.  Raises :class:`ModelError` if the file has several.
    """
    stored = {n: _FLOATS[d] for n, (_, d) in tensor_names(folder).items() if d in _FLOATS}
    kinds = set(stored.values())
    dtypes = {}
    for name, _ in model.named_parameters():
        if name not in stored and len(kinds) != 1:
            raise ModelError(
                f"{folder} stores no tensor {name}, and its tensors are of {len(kinds)} dtypes, so "
                "what extrapolating would round to is not known; save the model in one dtype"
            )
        dtypes[name] = stored.get(name) or next(iter(kinds))
    return dtypes
