"""KL divergence between a model and the start model, both ways, exact over the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from springback.encode import Batch, Encoded, scoring_batches
from springback.models import Tokenizer
from springback.probes.likelihood import CHUNK, Precision, counted_logits


class StartDistribution:
    """The start model's log-probabilities at the counted positions of fixed rows.

    They are computed once and kept in fp32 if they fit ``keep_bytes``, else anew at every call.
    The rows should be texts sampled from the start model.
    """

    def __init__(
        self,
        start: PreTrainedModel,
        rows: Sequence[Encoded],
        tokenizer: Tokenizer,
        precision: Precision | None = None,
        keep_bytes: int = 500_000_000,
    ) -> None:
        self.start, self.rows = start, rows
        self.precision = precision or Precision()
        self.batches = list(
            scoring_batches(rows, tokenizer.pad_token_id, self.precision.batch_tokens)
        )
        size = 4 * sum(r.counted for r in rows) * int(start.config.get_text_config().vocab_size)
        self.kept: list[Tensor] | None = None
        if size <= keep_bytes:
            self.kept = [self._logits(start, b)[0] for b in self.batches]

    @torch.inference_mode()
    def _logits(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
        with self.precision.autocast(model):
            logits, _, owner = counted_logits(
                model, batch.input_ids, batch.attention_mask, batch.labels
            )
        return logits, owner

    @torch.inference_mode()
    def kl(self, model: PreTrainedModel) -> list[float]:
        """KL(start || model), mean over each row's counted positions (nats a token), in order.

        Exact over the whole vocabulary, :data:`CHUNK` positions at a time in fp32; 0 means equal
        distributions.  Cost: one forward pass of ``model`` over the rows.
        """
        found = torch.zeros(len(self.rows), dtype=torch.float64)
        for at_batch, batch in enumerate(self.batches):
            kept = self.kept[at_batch] if self.kept else self._logits(self.start, batch)[0]
            logits, owner = self._logits(model, batch)
            index = torch.tensor(batch.index)
            for at in range(0, len(owner), CHUNK):
                part = slice(at, at + CHUNK)
                p = torch.log_softmax(kept[part].float(), -1)
                q = torch.log_softmax(logits[part].float(), -1)
                each = (p.exp() * (p - q)).sum(-1).double()
                found.index_add_(0, index[owner[part]], each)
        return [float(f) / r.counted for f, r in zip(found, self.rows, strict=True)]
