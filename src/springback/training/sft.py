"""SFT: cross-entropy of the counted tokens, on Transformers' own Trainer (docs/log.md)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from transformers import TrainingArguments

from springback.models.encoding import Encoded, pad_batch
from springback.training.memory.chunked_loss import ChunkedLoss
from springback.training.memory.microbatches import pieces
from springback.training.trainer import Batches, Task, Watched


class SFT(Watched):
    """Mean NLL a token of a batch, in nats.

    A large batch goes through the model in pieces whose gradients add up to those of the whole:
    every piece's NLLs are divided by the tokens that the whole batch counts.
    """

    chunked: ChunkedLoss

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        total = int((inputs["labels"][:, 1:] != -100).sum())
        value = 0.0
        found = list(pieces(inputs, self.at_once))
        self.hold_gradients(model, pieces=len(found) > 1)
        kind = self.args.device.type
        # One autocast around all pieces: it keeps the weights that it has rounded to bf16.
        with torch.autocast(kind, torch.bfloat16, enabled=self.autocast):
            for piece in found:
                loss = self.chunked(piece, total)
                value += float(loss.value)
                with torch.autocast(kind, enabled=False):
                    self.accelerator.backward(loss.root, gradient=loss.gradient)
                self.heap.settle()
        self.loop.record(value, total)
        return torch.tensor(value, device=self.args.device)


def build(task: Task, args: dict[str, Any]) -> Watched:
    """The trainer of an SFT run."""
    rows = cast("list[Encoded]", task.examples.rows)
    pad = task.tokenizer.pad_token_id

    def make(step: int) -> dict[str, Tensor]:
        batch = pad_batch(rows, task.batches[step], pad)
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "labels": batch.labels,
        }

    trainer = SFT(model=task.model, args=TrainingArguments(**args), optimizers=task.optimizers)
    trainer.batches = Batches(task.state.step, len(task.batches), make)
    trainer.chunked = ChunkedLoss(task.model)
    return trainer
