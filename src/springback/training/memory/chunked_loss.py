"""Cross-entropy of a batch without the logits of a whole batch.

Logits are the largest thing in a step of a small model: 16 rows of 512 tokens of a vocabulary of
49,152 are 1.6 GB in fp32, and a plain loss holds three or four such tensors.  Here the head runs
over :data:`CHUNK` counted positions at a time, and each chunk's gradients are taken at once, so
that its logits can go before the next chunk's come.  The arithmetic is the plain one; nothing is
computed twice, and positions that do not count are not computed at all.

The loss takes the head's place in the model's own forward pass, so a model that is spread over
processes (DDP, FSDP) communicates as for any other loss.  In one process the gradients of head and
embedding are added where they belong: blocks of 50 and 110 MB that come and go beside a batch's
activations would leave holes in the heap, and the embedding's are zero but for the rows that a
batch has.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from springback.models.loading import Model
from springback.training.trainer import evaluation, forwards

#: Positions whose logits exist at one time.
CHUNK = 224
#: Rows of the head's gradient that are added at once.
BLOCK = 8192


class _Buffers:
    """What a chunk of logits needs, allocated once a run; ``dtype`` is that of the products."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.dtype = dtype
        low = dtype in (torch.bfloat16, torch.float16)
        shape, device = (CHUNK, len(weight)), weight.device
        self.wide = torch.empty(shape, dtype=torch.float32 if low else dtype, device=device)
        self.logits = torch.empty(shape, dtype=dtype, device=device) if low else self.wide
        # A head that is held in the products' type, as of a frozen base, needs no copy.
        self._rounded = torch.empty_like(weight, dtype=dtype) if dtype != weight.dtype else None

    def rounded(self, weight: Tensor) -> Tensor:
        """The head's weight in ``dtype``."""
        return weight if self._rounded is None else self._rounded.copy_(weight)


class _HeadLoss(torch.autograd.Function):
    """``scale`` times the summed NLL of ``targets`` (n,) under a linear head of ``hidden`` (n, d).

    All gradients are taken in the forward pass, as those of the loss itself: its backward pass has
    to begin with 1.  With p the softmax, the gradient by the logits is
    ``scale * (p - onehot(target))``.  Products are of the buffers' type, sums and the softmax fp32,
    as in the plain loss under autocast.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        buffers: _Buffers,
        targets: Tensor,
        scale: float,
        in_place: bool,
    ) -> Tensor:
        of_hidden = torch.empty_like(hidden)
        gradient = _gradient if in_place else torch.zeros_like
        of_weight = gradient(weight) if ctx.needs_input_grad[1] else None
        of_bias = gradient(bias) if bias is not None and ctx.needs_input_grad[2] else None
        total = torch.zeros((), dtype=buffers.wide.dtype, device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            x, w = hidden.to(buffers.dtype), buffers.rounded(weight)
            for first in range(0, len(targets), CHUNK):
                part = slice(first, first + CHUNK)
                gold = targets[part, None]
                # Both are (chunk, vocabulary).
                logits, p = buffers.logits[: len(gold)], buffers.wide[: len(gold)]
                torch.mm(x[part], w.T, out=logits)
                if bias is not None:
                    logits += bias.to(buffers.dtype)
                if p is not logits:
                    p.copy_(logits)
                p -= p.amax(-1, keepdim=True)
                of_gold = p.gather(-1, gold)
                norm = p.exp_().sum(-1, keepdim=True)
                total += scale * (norm.log() - of_gold).sum()
                p *= scale / norm
                p.scatter_add_(-1, gold, torch.full_like(of_gold, -scale))
                g = p if p is logits else logits.copy_(p)
                of_hidden[part] = (g @ w).to(hidden.dtype)
                if of_bias is not None:
                    of_bias.add_(p.sum(0))
                if of_weight is not None:
                    for row in range(0, len(weight), BLOCK):
                        block = slice(row, row + BLOCK)
                        of_weight[block] += g[:, block].T @ x[part]
        ctx.gradients = (of_hidden, None, None) if in_place else (of_hidden, of_weight, of_bias)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.gradients, None, None, None, None)


def _gradient(parameter: Tensor) -> Tensor:
    """The parameter's gradient, zeros where there is none yet."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


class _Lookup(torch.autograd.Function):
    """``embedding(ids, weight)`` whose gradient is added to the weight's own, row by row."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, padding: int | None, ids: Tensor) -> Tensor:
        ctx.weight, ctx.padding, ctx.ids = weight, padding, ids
        return nn.functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        ids, rows = ctx.ids.flatten(), gradient.flatten(0, -2).to(ctx.weight.dtype)
        if ctx.padding is not None:  # the row of the padding token has no gradient
            ids, rows = ids[ids != ctx.padding], rows[ids != ctx.padding]
        _gradient(ctx.weight).index_add_(0, ids, rows)
        return None, None, None


def _is_plain(layer: Any) -> bool:
    """Whether ``layer`` looks rows up and does nothing else."""
    return (
        type(layer) is nn.Embedding
        and layer.max_norm is None
        and not layer.scale_grad_by_freq
        and not layer.sparse
    )


class ChunkedLoss:
    """NLL of counted tokens, summed over a batch and multiplied by a scale.

    Where the model's head is not a plain linear layer, what it gives is not what the model returns
    as logits (a cap or a scale behind it), or the model has a loss of its own, that loss is taken.
    ``model`` is the model before it is spread over processes.  ``in_place``: add the gradients of
    head and embedding to their parameters' own; for one process only.
    """

    def __init__(self, model: Model, in_place: bool = True) -> None:
        untyped: Any = model
        self.layer: Any = untyped.get_output_embeddings()
        self.embedding: Any = untyped.get_input_embeddings()
        self.in_place = in_place
        self.buffers: _Buffers | None = None
        usual = getattr(model, "loss_function", None) is ForCausalLMLoss
        #: Whether the model's own loss is taken.
        self.plain = not (usual and type(self.layer) is nn.Linear and self._is_last(model))

    def __call__(self, model: Any, inputs: dict[str, Tensor], scale: float) -> Tensor:
        """A number whose backward pass, begun with 1, adds all gradients to their parameters.

        ``model``: the model, or what spreads it over processes.  ``inputs``: ids, mask and labels
        (rows, length), right-padded.  Where autocast is on, the head's products are of its type.
        """
        targets = inputs["labels"][:, 1:]  # (rows, length - 1)
        counted = targets != -100
        if self.plain:
            tokens = int(counted.sum())
            if not tokens:  # a mean of nothing is not a number, even 0 times
                inputs = {**inputs, "labels": inputs["input_ids"]}
            mean: Tensor = model(**inputs, use_cache=False).loss
            return mean * (tokens * scale)

        def loss(hidden: Tensor) -> Tensor:
            """In the head's place: the loss in the form of logits (1, 1, 1)."""
            rows = hidden[:, :-1][counted]  # (counted, width)
            device, dtype = rows.device.type, rows.dtype
            if torch.is_autocast_enabled(device):
                dtype = torch.get_autocast_dtype(device)
            weight, bias = self.layer.weight, self.layer.bias
            if self.buffers is None or self.buffers.dtype != dtype:
                self.buffers = _Buffers(weight, dtype)
            apply: Any = _HeadLoss.apply
            value: Tensor = apply(
                rows, weight, bias, self.buffers, targets[counted], scale, self.in_place
            )
            return value.view(1, 1, 1)

        stand_ins: list[tuple[Any, Any]] = [(self.layer, loss)]
        if self.in_place and _is_plain(self.embedding) and self.embedding.weight.requires_grad:
            weight, padding = self.embedding.weight, self.embedding.padding_idx
            stand_ins.append((self.embedding, partial(_Lookup.apply, weight, padding)))
        with forwards(stand_ins):
            out = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                use_cache=False,
            )
        value: Tensor = out.logits.view(())
        return value

    def _is_last(self, model: Any) -> bool:
        """Whether the head gets all positions and gives the logits; tried on a row of three ids."""
        seen: list[Tensor] = []

        def spy(hidden: Tensor) -> Tensor:
            seen.extend((hidden, nn.functional.linear(hidden, self.layer.weight, self.layer.bias)))
            return seen[1]

        ids = torch.arange(1, 4, device=self.layer.weight.device)[None]
        with torch.no_grad(), evaluation(model), forwards([(self.layer, spy)]):
            out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        fits = len(seen) == 2 and seen[0].shape[:2] == ids.shape
        return fits and torch.equal(out.logits.float(), seen[1].float())
