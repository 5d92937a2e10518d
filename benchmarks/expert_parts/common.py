"""What both scripts share: padding, and one run of a library's trainer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


def load(folder: str) -> Any:
    """A model in fp32: master weights, and what is measured."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def padded(rows: Sequence[Sequence[int]], pad: int, side: str) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (rows, length), padded on the left or the right."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(rows):
        place = slice(longest - len(text), longest) if side == "left" else slice(len(text))
        ids[row, place] = torch.tensor(text)
        mask[row, place] = 1
    return ids, mask


def positions(mask: Tensor) -> Tensor:
    """Position ids of left-padded rows."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


class AtSteps(TrainerCallback):
    """Calls ``act`` with the number of the step and the model after each of ``steps``."""

    def __init__(self, steps: Collection[int], act: Callable[[int, Any], None]) -> None:
        self.steps, self.act = set(steps), act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            model = kwargs["model"].eval()
            self.act(state.global_step, model)
            model.train()


def finetune(
    job: dict[str, Any],
    model: Any,
    tokenizer: Any,
    rows: Sequence[tuple[list[int], int]],
    steps: Collection[int],
    act: Callable[[int, Any], None],
) -> None:
    """One pass over ``rows`` in order: token ids, and how many of them are prompt."""
    data = Dataset.from_list(
        [{"input_ids": ids, "labels": [-100] * head + ids[head:]} for ids, head in rows]
    )
    options: dict[str, Any] = {
        "output_dir": job["folder"],
        "per_device_train_batch_size": job["train_batch_size"],
        "num_train_epochs": 1,
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": job["precision"] == "bf16-mixed",
        "use_cpu": True,
        "seed": job["seed"],
        "train_sampling_strategy": "sequential",
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    trainer: Any
    if job["trainer"] == "trl":
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        # Checkpointed activations are TRL's default; this model has no need of them.
        config = SFTConfig(**options, max_length=job["max_tokens"], gradient_checkpointing=False)
        trainer = SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer)
    else:
        collate = DataCollatorForSeq2Seq(tokenizer)
        given = TrainingArguments(**options)
        trainer = Trainer(model, given, train_dataset=data, data_collator=collate)
    trainer.add_callback(AtSteps(steps, act))
    trainer.train()
