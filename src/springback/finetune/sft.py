"""SFT: cross-entropy of the counted tokens, on Transformers' own Trainer (docs/log.md)."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from transformers import TrainingArguments

from springback.encode import Encoded, pad_batch
from springback.finetune.loop import Batches, Watched
from springback.finetune.task import Task


class SFT(Watched):
    """Mean NLL a token of a batch, in nats."""

    def loss(self, model: Any, inputs: Any) -> Tensor:
        found: Tensor = model(**inputs, use_cache=False).loss
        return found


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
    return trainer
