"""Cross-entropy of a batch without the logits of a whole batch.

Logits are the largest thing in a step of a small model: 16 rows of 512 tokens of a vocabulary of
49,152 are 1.6 GB in fp32, and a plain loss holds three or four such tensors.  Here the head runs
over :data:`CHUNK` counted positions at a time, and each chunk's gradients are taken at once, so
that its logits can go before the next chunk's come.  The arithmetic is the plain one; nothing is
computed twice, and positions that do not count are not computed at all.  What a chunk needs is
allocated once a run, and the gradients of head and embedding are added where they belong: blocks
of 50 and 110 MB that come and go beside a batch's activations would leave holes in the heap, and
the embedding's are zero but for the rows that a batch has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from springback.models.loading import Model
from springback.training.trainer import forwards

#: Positions whose logits exist at one time.
CHUNK = 224
#: Rows of the head's gradient that are added at once.
BLOCK = 8192


@dataclass(frozen=True)
class Loss:
    """A loss and where its backward pass begins: ``root.backward(gradient)``."""

    value: Tensor
    root: Tensor
    gradient: Tensor | None = None


class _Head:
    """NLLs under a linear head, a chunk at a time, in buffers of its own."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        self.layer, self.dtype = layer, dtype
        weight = layer.weight
        low = dtype in (torch.bfloat16, torch.float16)
        make: Any = {"device": weight.device}
        shape = (CHUNK, len(weight))
        self.wide = torch.empty(shape, dtype=torch.float32 if low else dtype, **make)
        self.logits = torch.empty(shape, dtype=dtype, **make) if low else self.wide
        self.weight = torch.empty_like(weight, dtype=dtype) if low else weight.detach()

    def __call__(self, hidden: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """``scale`` times the summed NLL of ``targets`` (n,); its gradient by ``hidden`` (n, d).

        The gradients by the head's own parameters are added to theirs.  With p the softmax, that
        by the logits is ``scale * (p - onehot(target))``.  Products are of ``dtype``, sums and the
        softmax fp32, as in the plain loss under autocast.
        """
        weight, bias = self.layer.weight, self.layer.bias
        if self.weight.dtype != weight.dtype:
            self.weight.copy_(weight)
        x, of_hidden = hidden.to(self.dtype), torch.empty_like(hidden)
        total = torch.zeros((), dtype=self.wide.dtype, device=hidden.device)
        for at in range(0, len(targets), CHUNK):
            part = slice(at, at + CHUNK)
            gold = targets[part, None]
            logits, p = self.logits[: len(gold)], self.wide[: len(gold)]  # (chunk, vocabulary)
            torch.mm(x[part], self.weight.T, out=logits)
            if bias is not None:
                logits += bias.to(self.dtype)
            if p is not logits:
                p.copy_(logits)
            p -= p.amax(-1, keepdim=True)
            of_gold = p.gather(-1, gold)
            norm = p.exp_().sum(-1, keepdim=True)
            total += scale * (norm.log() - of_gold).sum()
            p *= scale / norm
            p.scatter_add_(-1, gold, torch.full_like(of_gold, -scale))
            g = p if p is logits else logits.copy_(p)
            of_hidden[part] = (g @ self.weight).to(hidden.dtype)
            if bias is not None and bias.requires_grad:
                _gradient(bias).add_(p.sum(0))
            if weight.requires_grad:
                of_weight = _gradient(weight)
                for rows in range(0, len(weight), BLOCK):
                    block = slice(rows, rows + BLOCK)
                    of_weight[block] += g[:, block].T @ x[part]
        return total, of_hidden


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
    """NLL of counted tokens, summed over a batch and divided by ``total`` (nats a token).

    Where the model's head is not a plain linear layer, what it gives is not what the model returns
    as logits (a cap or a scale behind it), or the model has a loss of its own, that loss is taken.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        untyped: Any = model
        self.layer: Any = untyped.get_output_embeddings()
        self.embedding: Any = untyped.get_input_embeddings()
        self.head: _Head | None = None
        usual = getattr(model, "loss_function", None) is ForCausalLMLoss
        #: Whether the model's own loss has to be taken; None: not known before the first batch.
        self.plain: bool | None = None if usual and type(self.layer) is nn.Linear else True

    def __call__(self, inputs: dict[str, Tensor], total: int) -> Loss:
        """``inputs``: ids, mask and labels (rows, length), right-padded.

        The head's gradients are added to its parameters here, the others' by going back from the
        root.  Where autocast is on, the head's products are of its type.
        """
        targets = inputs["labels"][:, 1:]  # (rows, length - 1)
        counted = targets != -100
        if not self.plain and (hidden := self._hidden(inputs)) is not None:
            root = hidden[:, :-1][counted]  # (counted, width)
            device = root.device.type
            low = torch.is_autocast_enabled(device)
            dtype = torch.get_autocast_dtype(device) if low else root.dtype
            if self.head is None or self.head.dtype != dtype:
                self.head = _Head(self.layer, dtype)
            with torch.no_grad(), torch.autocast(device, enabled=False):
                value, gradient = self.head(root.detach(), targets[counted], 1.0 / total)
            return Loss(value, root, gradient)
        loss = self.model(**inputs, use_cache=False).loss * (int(counted.sum()) / total)
        return Loss(loss.detach(), loss)

    def _hidden(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """What the head is given (rows, length, width); None if that does not decide the logits."""
        seen: list[Tensor] = []
        known = self.plain is not None

        def instead(hidden: Tensor) -> Tensor:
            """The head's place while the model runs: it keeps what it gets."""
            last = hidden[:, -1:]
            out = last if known else nn.functional.linear(last, self.layer.weight, self.layer.bias)
            seen.extend((hidden, out.detach()))
            return out

        stand_ins = [(self.layer, instead)]
        if _is_plain(self.embedding) and self.embedding.weight.requires_grad:
            weight, padding = self.embedding.weight, self.embedding.padding_idx
            stand_ins.append((self.embedding, partial(_Lookup.apply, weight, padding)))
        with forwards(stand_ins):
            out = self.model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                use_cache=False,
            )
        if self.plain is None:
            fits = len(seen) == 2 and seen[0].shape[:2] == inputs["input_ids"].shape
            self.plain = not (fits and torch.equal(out.logits.float(), seen[1].float()))
        return None if self.plain else seen[0]
