"""Logit errors of a strong and a weak model against a reference, on given texts (paper B)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from springback.decoding import contrast
from springback.errors import ModelError
from springback.models.encoding import Encoded, scoring_batches
from springback.models.loading import Tokenizer
from springback.probes.hidden_states import Passes
from springback.probes.likelihood import CHUNK, Precision, chunks, counted_logits
from springback.theory.logit_errors import TextErrors

#: Positions whose errors are summed at a time, over the whole vocabulary in float64.
_SUMMED = 32


@dataclass
class _Open:
    """The tokens that the strong model finds plausible at some counted positions.

    ``row``: of each position.  ``place``: position and token of each, (2, tokens).  ``logits``: of
    each model in turn, (tokens,).
    """

    row: Tensor
    place: Tensor
    logits: list[Tensor] = field(default_factory=list)

    def keep(self, logits: Tensor) -> None:
        """Of the next model's logits, (positions, vocabulary), those of the open tokens."""
        position, token = self.place.to(logits.device)
        self.logits.append(logits[position, token].float().cpu())

    def dense(self, k: int, part: slice, vocabulary: int) -> Tensor:
        """Logits of model ``k`` at ``part`` of the positions; -inf where a token is not open."""
        position, token = self.place
        chosen = (position >= part.start) & (position < part.stop)
        logits = torch.full((len(self.row[part]), vocabulary), float("-inf"))
        logits[position[chosen] - part.start, token[chosen]] = self.logits[k][chosen]
        return logits


@torch.inference_mode()
def logit_errors(
    models: Iterable[PreTrainedModel],
    rows: Sequence[Encoded],
    tokenizer: Tokenizer,
    alpha: float = 0.1,
    precision: Precision | None = None,
) -> list[TextErrors]:
    """Sums of centred squared logit errors of every row, in order, from teacher-forced logits.

    ``models``: strong, weak, reference, of one vocabulary; each is done with before the next is
    taken from there, so not all need be in memory.  Counted tokens' positions only (as
    :func:`springback.probes.nll`); at each, errors are centred over the tokens that the strong
    model finds plausible, ``p >= alpha * max p``, whose logits are kept.  In fp32, :data:`CHUNK`
    positions at a time.  Cost: one forward pass of each model.

    Raises :class:`ModelError` where the vocabularies differ in size.
    """
    precision = precision or Precision()
    batches = list(scoring_batches(rows, tokenizer.pad_token_id, precision.batch_tokens))
    parts: list[list[_Open]] = [[] for _ in batches]
    sizes: list[int] = []
    for model in models:
        for batch, kept in zip(batches, parts, strict=True):
            with precision.autocast(model):
                logits = counted_logits(Passes(model), batch)
            here = list(chunks(len(logits), CHUNK))
            if not sizes:
                index = torch.tensor(batch.index)[logits.owner]  # row of every counted position
                kept += [_open(logits[part], index[part], alpha) for part in here]
            vocabulary = logits.whole.shape[-1]
            if not sizes or vocabulary == sizes[0]:
                for part, these in zip(here, kept, strict=True):
                    these.keep(logits[part])
        sizes.append(vocabulary)
        del model  # the next may be loaded in its place
    if len(set(sizes)) > 1:
        raise ModelError(
            f"strong, weak and reference model have vocabularies of {', '.join(map(str, sizes))} "
            "tokens; allowed: one size; take a reference with the same tokenizer"
        )
    sums = torch.zeros(len(rows), 6, dtype=torch.float64)
    for these in (one for kept in parts for one in kept):
        for part in chunks(len(these.row), _SUMMED):
            strong, weak, best = (these.dense(k, part, sizes[0]) for k in range(3))
            sums.index_add_(0, these.row[part], _sums(strong, weak, best, alpha))
    return [
        TextErrors(strong_, weak_, cross, round(freedom), round(positions), round(contested))
        for strong_, weak_, cross, freedom, positions, contested in sums.tolist()
    ]


def _open(strong: Tensor, row: Tensor, alpha: float) -> _Open:
    return _Open(row, contrast.plausible(strong.float(), alpha).nonzero().T.cpu())


def _sums(strong: Tensor, weak: Tensor, best: Tensor, alpha: float) -> Tensor:
    """By position (positions, 6): as the fields of :class:`TextErrors`; inputs (.., vocabulary)."""
    open_ = contrast.plausible(strong, alpha)
    many = open_.sum(-1, keepdim=True)  # (positions, 1), at least 1

    def centred(logits: Tensor) -> Tensor:
        error = (logits - best).masked_fill(~open_, 0.0).double()
        mean = error.sum(-1, keepdim=True) / many
        return (error - mean).masked_fill(~open_, 0.0)

    a, b = centred(strong), centred(weak)
    ones = torch.ones_like(many[:, 0], dtype=torch.float64)
    freedom = (many[:, 0] - 1).double()
    contested = (many[:, 0] > 1).double()
    products = [(a * a).sum(-1), (b * b).sum(-1), (a * b).sum(-1)]
    return torch.stack([*products, freedom, ones, contested], dim=1)
