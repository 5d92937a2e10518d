"""Logit errors of a strong and a weak model against a reference, on given texts (paper B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from springback.decoding import contrast
from springback.errors import ModelError
from springback.models.encoding import Encoded, scoring_batches
from springback.models.loading import Tokenizer
from springback.models.placement import wide_device
from springback.probes.hidden_states import Passes
from springback.probes.likelihood import CHUNK, Precision, chunks, counted_logits
from springback.theory.logit_errors import TextErrors

Three = tuple[PreTrainedModel, PreTrainedModel, PreTrainedModel]


@torch.inference_mode()
def logit_errors(
    models: Three,
    rows: Sequence[Encoded],
    tokenizer: Tokenizer,
    alpha: float = 0.1,
    precision: Precision | None = None,
) -> list[TextErrors]:
    """Sums of centred squared logit errors of every row, in order, from teacher-forced logits.

    ``models``: strong, weak, reference, of one vocabulary.  Counted tokens' positions only (as
    :func:`springback.probes.nll`); at each, errors are centred over the tokens that the strong
    model finds plausible, ``p >= alpha * max p``.  In fp32, :data:`CHUNK` positions at a time.
    Cost: one forward pass of each model.

    Raises :class:`ModelError` where the vocabularies differ in size.
    """
    precision = precision or Precision()
    sums = torch.zeros(len(rows), 6, dtype=torch.float64)
    for batch in scoring_batches(rows, tokenizer.pad_token_id, precision.batch_tokens):
        with precision.autocast(models[0]):
            passes = [counted_logits(Passes(model), batch) for model in models]
        where = wide_device(passes[0][0].device)
        # (counted, vocabulary) each
        strong, weak, best = (logits.to(where) for logits, _, _ in passes)
        if not strong.shape == weak.shape == best.shape:
            sizes = ", ".join(str(x.shape[-1]) for x in (strong, weak, best))
            raise ModelError(
                f"strong, weak and reference model have vocabularies of {sizes} tokens; allowed: "
                "one size; take a reference with the same tokenizer"
            )
        index = torch.tensor(batch.index)[passes[0][2]]  # row of every counted position
        for part in chunks(len(index), CHUNK):
            here = _sums(strong[part].float(), weak[part].float(), best[part].float(), alpha)
            sums.index_add_(0, index[part], here.cpu())
    return [
        TextErrors(strong_, weak_, cross, round(freedom), round(positions), round(contested))
        for strong_, weak_, cross, freedom, positions, contested in sums.tolist()
    ]


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
