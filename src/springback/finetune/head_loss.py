"""Cross-entropy of a batch without the logits of a whole batch.

Logits are the largest thing in a step of a small model: 16 rows of 512 tokens of a vocabulary of
49,152 are 1.6 GB in fp32, and a plain loss holds three or four such tensors.  Here the head runs
over :data:`CHUNK` counted positions at a time, and each chunk's gradients are taken at once, so
that its logits can go before the next chunk's come.  The arithmetic is the plain one; nothing is
computed twice, and positions that do not count are not computed at all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from springback.models import Model

#: Positions whose logits exist at one time.
CHUNK = 256


class _HeadLoss(torch.autograd.Function):
    """``scale`` times the summed NLL of ``targets`` (n,) under a linear head of ``hidden`` (n, d).

    With p the softmax, the gradient by the logits is ``scale * (p - onehot(target))``.  Under
    autocast the three products are of its type, sums and the softmax fp32, as in the plain loss.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scale: float,
    ) -> Tensor:
        device = hidden.device.type
        low = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if low else hidden.dtype
        with torch.autocast(device, enabled=False):
            x, w = hidden.detach().to(dtype), weight.detach().to(dtype)
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            of_hidden = torch.empty_like(hidden)
            wanted = ctx.needs_input_grad
            of_weight = torch.zeros_like(weight) if wanted[1] else None
            of_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
            for at in range(0, len(targets), CHUNK):
                part = slice(at, at + CHUNK)
                logits = x[part] @ w.T  # (chunk, vocabulary)
                if bias is not None:
                    logits += bias.to(dtype)
                p = logits.float()  # in fp32 these are the logits themselves, written over below
                del logits
                log_sum = torch.logsumexp(p, -1)
                gold = targets[part, None]
                total += scale * (log_sum - p.gather(-1, gold)[:, 0]).sum()
                p.sub_(log_sum[:, None]).exp_()
                p.scatter_add_(-1, gold, torch.full_like(gold, -1, dtype=p.dtype))
                p *= scale
                g = p.to(dtype)
                of_hidden[part] = (g @ w).to(hidden.dtype)
                if of_bias is not None:
                    of_bias += p.sum(0)
                if of_weight is not None:
                    of_weight += g.T @ x[part]
        # Kept as they are: they belong to nobody else, and a copy of the weight's would be large.
        ctx.found = of_hidden, of_weight, of_bias
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.found
        del ctx.found
        for kept in found:
            if kept is not None:
                kept *= grad
        return (*found, None, None)


class ChunkedLoss:
    """NLL of counted tokens, summed over a batch and divided by ``total`` (nats a token).

    Where the model's head is not a plain linear layer, what it gives is not what the model returns
    as logits (a cap or a scale behind it), or the model has a loss of its own, that loss is taken.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        untyped: Any = model
        self.head: Any = untyped.get_output_embeddings()
        usual = getattr(model, "loss_function", None) is ForCausalLMLoss
        #: Whether the model's own loss has to be taken; None: not known before the first batch.
        self.plain: bool | None = None if usual and type(self.head) is nn.Linear else True

    def __call__(self, inputs: dict[str, Tensor], total: int) -> Tensor:
        """``inputs``: ids, mask and labels (rows, length), right-padded."""
        targets = inputs["labels"][:, 1:]  # (rows, length - 1)
        counted = targets != -100
        if not self.plain and (hidden := self._hidden(inputs)) is not None:
            apply: Any = _HeadLoss.apply
            found: Tensor = apply(
                hidden[:, :-1][counted],  # (counted, width)
                self.head.weight,
                self.head.bias,
                targets[counted],
                1.0 / total,
            )
            return found
        loss: Tensor = self.model(**inputs, use_cache=False).loss
        return loss * (int(counted.sum()) / total)

    def _hidden(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """What the head is given (rows, length, width); None if that does not decide the logits."""
        seen: list[Tensor] = []
        own, known = vars(self.head).get("forward"), self.plain is not None

        def instead(hidden: Tensor) -> Tensor:
            """The head's place while the model runs: it keeps what it gets."""
            last = hidden[:, -1:]
            out = last if known else nn.functional.linear(last, self.head.weight, self.head.bias)
            seen.extend((hidden, out.detach()))
            return out

        self.head.forward = instead
        try:
            out = self.model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                use_cache=False,
            )
        finally:
            vars(self.head).pop("forward")
            if own is not None:
                self.head.forward = own
        if self.plain is None:
            fits = len(seen) == 2 and seen[0].shape[:2] == inputs["input_ids"].shape
            self.plain = not (fits and torch.equal(out.logits.float(), seen[1].float()))
        return None if self.plain else seen[0]
