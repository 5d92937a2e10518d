"""Likelihood of given texts: NLL, bits per byte, margin (paper A, section A1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from springback.decoding import contrast
from springback.models.encoding import Batch, Encoded, scoring_batches
from springback.models.loading import Tokenizer
from springback.models.placement import running_device
from springback.probes.hidden_states import LastStates, Passes

#: Positions whose logits are turned into fp32 log-probabilities at a time.
CHUNK = 256


def chunks(positions: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` of so many positions, in order."""
    return (slice(first, first + size) for first in range(0, positions, size))


@dataclass(frozen=True)
class Precision:
    """How scoring runs: in the weights' dtype (``float32``, ``bfloat16``) or ``bf16-mixed``
    (autocast of float32 weights), and padded tokens a batch."""

    name: str = "float32"
    batch_tokens: int = 1024

    def autocast(self, model: PreTrainedModel) -> torch.autocast:
        enabled = self.name == "bf16-mixed"
        return torch.autocast(running_device(model).type, torch.bfloat16, enabled=enabled)


@dataclass(frozen=True)
class TextNLL:
    """Negative log likelihood of one text in nats, over its counted tokens and their bytes."""

    nats: float
    tokens: int
    text_bytes: int

    @property
    def per_token(self) -> float:
        return self.nats / self.tokens


@dataclass(frozen=True)
class CountedLogits:
    """Logits of a batch (rows, positions, vocabulary) at its counted tokens alone, which are taken
    some at a time: a copy of all would be as large as what is there.

    ``rows``, ``places``: where each stands.  ``targets``: the tokens that they predict.  All lie on
    the model's device, so that a GPU's vocabularies are not moved.
    """

    whole: Tensor
    rows: Tensor
    places: Tensor
    targets: Tensor

    def __getitem__(self, part: slice) -> Tensor:
        """Logits (some, vocabulary) of some counted tokens."""
        return self.whole[self.rows[part], self.places[part]]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def owner(self) -> Tensor:
        """The row within the batch of each, on the CPU, where it indexes sums."""
        return self.rows.cpu()


def counted_logits(passes: Passes, batch: Batch) -> CountedLogits:
    """What a model says before the counted tokens of a batch."""
    first = int((batch.labels != -100).any(0).nonzero()[0])
    # Logits before the first counted token are not needed.
    logits = passes.logits(batch, batch.labels.shape[1] - first + 1)
    labels = batch.labels[:, first:]  # of every position but the last
    rows, places = (at.to(logits.device) for at in (labels != -100).nonzero(as_tuple=True))
    return CountedLogits(logits, rows, places, labels.to(logits.device)[rows, places])


def _gold(scores: Tensor, targets: Tensor) -> Tensor:
    """log softmax(scores) at the targets: (n, vocabulary), (n,) -> (n,), float64 on the CPU."""
    logp = torch.log_softmax(scores, -1)
    return logp.gather(-1, targets[:, None])[:, 0].cpu().double()


@torch.inference_mode()
def nll(
    model: PreTrainedModel,
    rows: Sequence[Encoded],
    tokenizer: Tokenizer,
    precision: Precision | None = None,
    states: LastStates | None = None,
) -> list[TextNLL]:
    """Negative log likelihood of every row's counted tokens (nats; lower is better), in order.

    Left out: prompt tokens, padding, the first token of a bare text.  Log-probabilities are taken
    in fp32, :data:`CHUNK` positions at a time.  Cost: one forward pass; with the ``states`` of
    this model and these rows less (:class:`springback.probes.hidden_states.Passes`).
    """
    precision = precision or Precision()
    sums = torch.zeros(len(rows), dtype=torch.float64)
    passes = Passes(model, rows, states)
    for batch in scoring_batches(rows, tokenizer.pad_token_id, precision.batch_tokens):
        with precision.autocast(model):
            logits = counted_logits(passes, batch)
        index = torch.tensor(batch.index)[logits.owner]
        for part in chunks(len(logits), CHUNK):
            sums.index_add_(0, index[part], -_gold(logits[part].float(), logits.targets[part]))
        del logits  # before the next batch has its own
    return _text_nlls(sums, rows)


def _text_nlls(sums: Tensor, rows: Sequence[Encoded]) -> list[TextNLL]:
    """Every row's sum of nats (rows,) with what it is over."""
    return [TextNLL(float(s), r.counted, r.text_bytes) for s, r in zip(sums, rows, strict=True)]


def pair_chunks(
    models: tuple[PreTrainedModel, PreTrainedModel | None],
    rows: Sequence[Encoded],
    tokenizer: Tokenizer,
    precision: Precision,
    states: tuple[LastStates | None, LastStates | None] | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """fp32 logits of both models (chunk, vocabulary) at counted tokens, the tokens, their rows.

    One model, the second being None, stands in for both.
    """
    known = states or (None, None)
    both = [Passes(m, rows, s) for m, s in zip(models, known, strict=True) if m is not None]
    for batch in scoring_batches(rows, tokenizer.pad_token_id, precision.batch_tokens):
        with precision.autocast(models[0]):
            strong = counted_logits(both[0], batch)
            weak = counted_logits(both[-1], batch) if both[1:] else strong
        index = torch.tensor(batch.index)[strong.owner]
        for part in chunks(len(strong), CHUNK):
            ours = strong[part].float()
            theirs = ours if weak is strong else weak[part].to(ours.device).float()
            yield ours, theirs, strong.targets[part], index[part]
        del strong, weak  # before the next batch has its own


@torch.inference_mode()
def pair_nll(
    expert: PreTrainedModel,
    amateur: PreTrainedModel,
    rows: Sequence[Encoded],
    tokenizer: Tokenizer,
    lambdas: Sequence[float],
    precision: Precision | None = None,
    gate: contrast.Gate | None = None,
    states: tuple[LastStates, LastStates] | None = None,
) -> dict[float, list[TextNLL]]:
    """:func:`nll` under the contrasted pair, for every lambda in one pass.

    With a ``gate`` lambda is 0 where it is closed.  The combined scores are normalised over the
    full vocabulary, without the plausibility mask (a gold token outside it would cost infinity).
    Cost: one forward pass of each model; with ``states`` less, as in :func:`nll`.
    """
    precision = precision or Precision()
    sums = {lam: torch.zeros(len(rows), dtype=torch.float64) for lam in lambdas}
    for ep, ft, targets, owner in pair_chunks(
        (expert, amateur), rows, tokenizer, precision, states
    ):
        ft = contrast.gated(ep, ft, gate)
        for lam in lambdas:
            sums[lam].index_add_(0, owner, -_gold(ep + lam * (ep - ft), targets))
    return {lam: _text_nlls(by_row, rows) for lam, by_row in sums.items()}


@torch.inference_mode()
def mixed_nll(
    models: tuple[PreTrainedModel, PreTrainedModel],
    rows: Sequence[Encoded],
    tokenizer: Tokenizer,
    mix: contrast.Mix,
    precision: Precision | None = None,
    states: tuple[LastStates | None, LastStates | None] | None = None,
) -> list[TextNLL]:
    """:func:`nll` under two models whose logits ``mix`` combines.  Cost as :func:`pair_nll`."""
    precision, sums = precision or Precision(), torch.zeros(len(rows), dtype=torch.float64)
    for first, second, targets, owner in pair_chunks(models, rows, tokenizer, precision, states):
        sums.index_add_(0, owner, -_gold(mix(first, second), targets))
    return _text_nlls(sums, rows)


@torch.inference_mode()
def first_tokens(
    models: tuple[PreTrainedModel, PreTrainedModel | None],
    rows: Sequence[Encoded],
    tokenizer: Tokenizer,
    tokens: Sequence[Sequence[int]],
    mix: contrast.Mix,
    precision: Precision | None = None,
    states: tuple[LastStates | None, LastStates | None] | None = None,
) -> list[list[float]]:
    """Log-probabilities, nats, that each row's counted part begins with each of its ``tokens``.

    ``tokens``: token ids by row.  ``mix`` combines the logits of both models; None in place of the
    second leaves it out.  Cost as :func:`pair_nll`, with ``states`` too.
    """
    precision, scores = precision or Precision(), {}
    for strong, weak, _, owner in pair_chunks(models, rows, tokenizer, precision, states):
        places: dict[int, int] = {}
        for place, row in enumerate(owner.tolist()):
            if row not in scores:
                places.setdefault(row, place)
        if not places:
            continue
        here = list(places.values())
        logp = torch.log_softmax(mix(strong[here], weak[here]), -1)
        for line, row in zip(logp, places, strict=True):
            scores[row] = line[list(tokens[row])].double().tolist()
    return [scores[row] for row in range(len(rows))]


@dataclass(frozen=True)
class MaskedNLL:
    """NLL of one text under the masked pair: ``nats`` over ``tokens`` that are plausible.

    ``masked`` counted tokens are implausible: each would cost infinity, and is left out.
    """

    nats: float
    tokens: int
    masked: int

    @property
    def per_token(self) -> float:
        """Nats a plausible token; nan if there is none."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def masked_share(self) -> float:
        return self.masked / (self.tokens + self.masked)


@torch.inference_mode()
def pair_nll_masked(
    models: tuple[PreTrainedModel, PreTrainedModel],
    rows: Sequence[Encoded],
    tokenizer: Tokenizer,
    lam: float,
    alpha: float = 0.1,
    precision: Precision | None = None,
) -> list[MaskedNLL]:
    """NLL under the pair as it decodes, implausible tokens masked (paper B, section B2).

    ``models`` are expert and amateur.  Scores are normalised over the plausible tokens.  Read it
    together with the share of tokens masked, by which it flatters; :func:`pair_nll` masks none.
    """
    contrast.check_settings(lam, alpha)
    nats = torch.zeros(len(rows), dtype=torch.float64)
    kept = torch.zeros(len(rows), dtype=torch.long)
    for ep, ft, targets, owner in pair_chunks(models, rows, tokenizer, precision or Precision()):
        gold = _gold(contrast.combine(ep, ft, lam, alpha), targets)
        fine = gold > -math.inf
        nats.index_add_(0, owner[fine], -gold[fine])
        kept.index_add_(0, owner[fine], torch.ones_like(owner[fine]))
    return [
        MaskedNLL(float(s), int(k), r.counted - int(k))
        for s, k, r in zip(nats, kept, rows, strict=True)
    ]


def bits_per_byte(scores: Sequence[TextNLL]) -> float:
    """Bits a UTF-8 byte over all texts together (lower is better), whatever the tokenizer.

    Counts the bytes that the scored tokens decode to; special tokens cost bits but no bytes.
    """
    total = sum(s.text_bytes for s in scores)
    return sum(s.nats for s in scores) / math.log(2) / total if total else math.nan


def margin(wanted: Sequence[TextNLL], unwanted: Sequence[TextNLL]) -> float:
    """Mean NLL a token of the unwanted minus that of the wanted held-out texts.

    Nats a token; higher means more aligned.  Each text weighs the same.
    """
    mean_unwanted = sum(s.per_token for s in unwanted) / len(unwanted)
    return mean_unwanted - sum(s.per_token for s in wanted) / len(wanted)
