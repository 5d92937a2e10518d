"""SFT: cross-entropy of the counted tokens, on Transformers' own Trainer (docs/log.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from transformers import TrainingArguments

from springback.encode import Encoded, pad_batch
from springback.finetune.head_loss import ChunkedLoss
from springback.finetune.loop import Batches, Watched
from springback.finetune.task import Task

#: Padded tokens that go through the model at once on a CPU: the activations of SmolLM2-135M take
#: 1 MB a token under autocast, and a batch of long rows would take gigabytes.
AT_ONCE = 512


class SFT(Watched):
    """Mean NLL a token of a batch, in nats.

    A large batch goes through the model in pieces whose gradients add up to those of the whole:
    every piece's NLLs are divided by the tokens that the whole batch counts.
    """

    chunked: ChunkedLoss
    at_once: int | None = None

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        total = int((inputs["labels"][:, 1:] != -100).sum())
        value = 0.0
        for piece in pieces(inputs, self.at_once):
            with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.autocast):
                loss = self.chunked(piece, total)
            value += float(loss.detach())
            self.accelerator.backward(loss)
        self.loop.record(value, total)
        return torch.tensor(value, device=self.args.device)


def pieces(inputs: Mapping[str, Tensor], most: int | None) -> Iterator[dict[str, Tensor]]:
    """A right-padded batch in pieces of at most ``most`` padded tokens (one row at least).

    Rows of similar length go together and lose the padding that they no longer need.  A batch
    that is small enough stays as it is.
    """
    mask = inputs["attention_mask"]
    if most is None or mask.numel() <= most:
        yield dict(inputs)
        return
    lengths = mask.sum(1)
    waiting: list[int] = []
    for row in torch.argsort(lengths, stable=True).tolist():
        if waiting and (len(waiting) + 1) * int(lengths[row]) > most:
            yield _piece(inputs, waiting, lengths)
            waiting = []
        waiting.append(row)
    yield _piece(inputs, waiting, lengths)


def _piece(inputs: Mapping[str, Tensor], rows: list[int], lengths: Tensor) -> dict[str, Tensor]:
    width = int(lengths[rows].max())
    return {name: value[rows, :width] for name, value in inputs.items()}


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
    if task.model.device.type == "cpu":
        trainer.at_once = AT_ONCE
    return trainer
