"""KL divergence between a model and the start model, both ways, exact over the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from springback.decoding.contrast import Mix
from springback.models.encoding import Batch, Encoded, pad_batch, scoring_batches
from springback.models.loading import Tokenizer
from springback.probes.behaviour import SampleSettings, sample
from springback.probes.hidden_states import Passes
from springback.probes.likelihood import (
    CHUNK,
    CountedLogits,
    Precision,
    chunks,
    counted_logits,
    pair_chunks,
)

#: Of log-probabilities that are kept rather than computed anew, at most.
KEEP_BYTES = 500_000_000


def _add_kl(
    sums: Tensor, owner: Tensor, p_logits: Tensor | CountedLogits, q_logits: Tensor | CountedLogits
) -> None:
    """Add KL(p || q) of every position to its row's sum (rows,), float64, nats.

    Logits are (positions, vocabulary), on any device; ``owner`` (positions,) is the row of each.
    :data:`CHUNK` positions at a time become fp32 log-probabilities.
    """
    for part in chunks(len(owner), CHUNK):
        p = torch.log_softmax(p_logits[part].float(), -1)
        q = torch.log_softmax(q_logits[part].to(p.device).float(), -1)
        each = (p.exp() * (p - q)).sum(-1).cpu().double()
        sums.index_add_(0, owner[part], each)


def _logits(model: PreTrainedModel, batch: Batch, precision: Precision) -> CountedLogits:
    """Logits (counted, vocabulary) of a batch."""
    with precision.autocast(model):
        return counted_logits(Passes(model), batch)


def _means(sums: Tensor, rows: Sequence[Encoded]) -> list[float]:
    """Every row's sum (rows,) over its counted positions."""
    return [float(s) / r.counted for s, r in zip(sums, rows, strict=True)]


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
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self.start, self.rows = start, rows
        self.precision, self.pad = precision or Precision(), int(tokenizer.pad_token_id)
        self.batches = list(scoring_batches(rows, self.pad, self.precision.batch_tokens))
        size = 4 * sum(r.counted for r in rows) * int(start.config.get_text_config().vocab_size)
        self.kept: list[Tensor] | None = None
        if size <= keep_bytes:
            with torch.inference_mode():
                self.kept = [_logits(start, b, self.precision)[:] for b in self.batches]

    @torch.inference_mode()
    def kl(self, model: PreTrainedModel) -> list[float]:
        """KL(start || model), mean over each row's counted positions (nats a token), in order.

        Exact over the whole vocabulary, :data:`CHUNK` positions at a time in fp32; 0 means equal
        distributions.  Cost: one forward pass of ``model`` over the rows.
        """
        sums = torch.zeros(len(self.rows), dtype=torch.float64)
        for batch, p in self._start_logits():
            q = _logits(model, batch, self.precision)
            _add_kl(sums, torch.tensor(batch.index)[q.owner], p, q)
            del q  # before the next batch has its own
        return _means(sums, self.rows)

    @torch.inference_mode()
    def kl_to_itself(self, batch_rows: int = 3) -> list[float]:
        """KL(start || start), the start model scored once more in batches of ``batch_rows``.

        What is not 0 is rounding that depends on the batch: the noise floor of :meth:`kl`.
        """
        sums = torch.zeros(len(self.rows), dtype=torch.float64)
        for batch, p in self._start_logits():
            again, owners = [], []
            for first in range(0, len(batch.index), batch_rows):
                part = pad_batch(self.rows, batch.index[first : first + batch_rows], self.pad)
                q = _logits(self.start, part, self.precision)
                again.append(q[:])
                owners.append(torch.tensor(part.index)[q.owner])
            _add_kl(sums, torch.cat(owners), p, torch.cat(again))
        return _means(sums, self.rows)

    def _start_logits(self) -> Iterator[tuple[Batch, Tensor | CountedLogits]]:
        """Every batch with the start model's logits at its counted positions."""
        for i, batch in enumerate(self.batches):
            kept = self.kept[i] if self.kept else None
            yield batch, _logits(self.start, batch, self.precision) if kept is None else kept


def reverse_kl(
    model: PreTrainedModel,
    start: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: SampleSettings,
    precision: Precision | None = None,
) -> list[float]:
    """KL(model || start) on a continuation of each prompt that ``model`` samples itself.

    Returns the mean over each continuation's positions (nats a token), in the order of
    ``prompts``; 0 means equal distributions, higher means further from the start model.  It sees
    what the model came to say and the start model would not, where KL(start || model)
    (:class:`StartDistribution`) sees what it forgot.  Exact over the whole vocabulary at every
    position; only the texts are sampled, with ``settings.seed``, and every one has
    ``settings.new_tokens`` tokens whatever ``settings.exact_length`` says.

    Left out: the prompts, and everything after an end token, none of which is drawn (its
    probability does count).  Cost: sampling, then one forward pass of each model over the texts.
    """
    texts = sample(model, tokenizer, prompts, replace(settings, exact_length=True))
    return kl_on(model, start, continued(prompts, texts), tokenizer, precision)


def continued(prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> list[Encoded]:
    """Prompts with their continuations, whose tokens count."""
    return [Encoded((*p, *t), len(p), 0) for p, t in zip(prompts, texts, strict=True)]


@torch.inference_mode()
def kl_on(
    model: PreTrainedModel,
    start: PreTrainedModel,
    rows: Sequence[Encoded],
    tokenizer: Tokenizer,
    precision: Precision | None = None,
) -> list[float]:
    """KL(model || start), mean over each row's counted positions (nats a token), in order."""
    precision = precision or Precision()
    sums = torch.zeros(len(rows), dtype=torch.float64)
    for batch in scoring_batches(rows, tokenizer.pad_token_id, precision.batch_tokens):
        p, q = (_logits(each, batch, precision) for each in (model, start))
        _add_kl(sums, torch.tensor(batch.index)[p.owner], p, q)
        del p, q  # before the next batch has its own
    return _means(sums, rows)


#: A model, or a pair of which the second is None, and what takes both logits to its own.
Side = tuple[tuple[PreTrainedModel, PreTrainedModel | None], Mix]


@torch.inference_mode()
def mixed_kl(p: Side, q: Side, rows: Sequence[Encoded], tokenizer: Tokenizer) -> list[float]:
    """KL(p || q) of two models or contrasted pairs, mean over each row's counted positions (nats a
    token), in order.

    Over the tokens that both have a logit for, since models pad their vocabulary differently.
    Cost: a forward pass of each model over the rows.
    """
    streams = [pair_chunks(models, rows, tokenizer, Precision()) for models, _ in (p, q)]
    sums = torch.zeros(len(rows), dtype=torch.float64)
    for (p_strong, p_weak, _, owner), (q_strong, q_weak, _, _) in zip(*streams, strict=True):
        ours, theirs = p[1](p_strong, p_weak), q[1](q_strong, q_weak)  # (chunk, vocabulary)
        width = min(ours.shape[-1], theirs.shape[-1])
        _add_kl(sums, owner, ours[:, :width], theirs[:, :width])
    return _means(sums, rows)
