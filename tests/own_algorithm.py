"""An algorithm outside the package: a hinge on how much likelier the wanted answer is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from springback.core import ALGORITHMS, Algorithm
from springback.models.encoding import Encoded, pad_batch
from springback.training.trainer import Batches, Watched


class Hinge(Watched):
    """max(0, 1 - mean log p(chosen) + mean log p(rejected)), mean over the pairs."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        logits, labels = model(inputs["input_ids"]).logits[:, :-1], inputs["labels"][:, 1:]
        losses = torch.nn.functional.cross_entropy(logits.mT, labels, reduction="none")
        chosen, rejected = (losses.sum(1) / (labels != -100).sum(1)).chunk(2)
        return (1 + chosen - rejected).clamp(min=0).mean()


def build(task: Any, args: dict[str, Any]) -> Watched:
    def make(step: int) -> dict[str, Tensor]:
        pairs = [task.examples.rows[i] for i in task.batches[step]]
        answers = [(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs]
        rows = [Encoded((*prompt, *answer), len(prompt), 0) for prompt, answer in answers]
        batch = pad_batch(rows, range(len(rows)), task.tokenizer.pad_token_id)
        return {"input_ids": batch.input_ids, "labels": batch.labels}

    trainer = Hinge(model=task.model, args=TrainingArguments(**args), optimizers=task.optimizers)
    trainer.batches = Batches(task.state.step, len(task.batches), make)
    return trainer


ALGORITHMS["hinge"] = Algorithm("pairs", build)
