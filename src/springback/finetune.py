"""Fine-tuning: Transformers' Trainer does it; here are branch points, measuring on the way, resume.

A run is a fixed list of batches.  At given numbers of examples a callback sees the model: to
keep a checkpoint, or to measure.  State goes to safetensors and JSON every ``save_every``
seconds, so that a killed run loses at most that much and ends in exactly the same weights.
"""

from __future__ import annotations

import math
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_scheduler,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from springback.core import ALGORITHMS, PRECISIONS, SCHEDULES, Recipe, content_hash
from springback.encode import Encoded, pad_batch
from springback.errors import SpringbackError, TrainingError, describe
from springback.models import Tokenizer
from springback.progress import Progress, Silent
from springback.store import read_json, whole_folder, write_json

#: Called with the number of examples seen and the model; returns what to record (JSON).
OnMark = Callable[[int, PreTrainedModel], Any]


@dataclass(frozen=True)
class Marks:
    """At which numbers of examples (multiples of the batch, 0 allowed) ``call`` sees the model."""

    at: tuple[int, ...] = ()
    call: OnMark | None = None


@dataclass(frozen=True)
class Resume:
    """Where a run keeps its state (None: nowhere) and how often, in seconds of work."""

    folder: Path | None = None
    save_every: float = 45.0


@dataclass(frozen=True)
class Trained:
    """Loss of every step (nats a token, before that step's update) and what the marks recorded."""

    losses: tuple[float, ...]
    tokens: int
    marks: Mapping[int, Any]


def check_recipe(recipe: Recipe) -> None:
    """Raise unless every field has an allowed value."""
    for value, allowed, flag in (
        (recipe.algorithm, ALGORITHMS, "algorithm"),
        (recipe.schedule, SCHEDULES, "schedule"),
        (recipe.precision, PRECISIONS, "precision"),
    ):
        if value not in allowed:
            raise SpringbackError(
                describe(f"{flag} {value!r}", ", ".join(allowed), f"change the {flag}")
            )
    for name in ("learning_rate", "batch_size", "epochs", "max_tokens"):
        value = getattr(recipe, name)
        if not (math.isfinite(value) and value > 0):
            raise SpringbackError(describe(f"{name} {value}", "a number above 0", f"change {name}"))


def plan_batches(rows: int, recipe: Recipe) -> list[list[int]]:
    """Row indices of every batch.

    The first epoch keeps the rows' order, so that a longer run extends a shorter one; later
    epochs are shuffled by the recipe's seed.  Batches do not cross epochs.
    """
    batches: list[list[int]] = []
    for epoch in range(recipe.epochs):
        order = list(range(rows))
        if epoch:
            random.Random(f"{recipe.seed}/{epoch}").shuffle(order)
        size = recipe.batch_size
        batches += [order[i : i + size] for i in range(0, rows, size)]
    return batches


def finetune(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    rows: Sequence[Encoded],
    recipe: Recipe,
    marks: Marks | None = None,
    resume: Resume | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train ``model`` in place on ``rows`` (cross-entropy of the counted tokens, AdamW).

    Master weights stay fp32; ``bf16-mixed`` runs the forward pass under autocast.  Raises
    :class:`TrainingError` if a loss or the gradient is not a number.
    """
    check_recipe(recipe)
    marks, resume, progress = marks or Marks(), resume or Resume(), progress or Silent()
    if any(p.dtype != torch.float32 for p in model.parameters()):
        raise TrainingError("the model to train is not in fp32; load it with dtype float32")
    batches = plan_batches(len(rows), recipe)
    seen = [0]
    for batch in batches:
        seen.append(seen[-1] + len(batch))
    if missing := [m for m in marks.at if m not in seen]:
        raise SpringbackError(
            f"asked to stop at {missing} examples, but with batches of {recipe.batch_size} over "
            f"{len(rows)} rows that is not between two batches; use multiples of the batch size"
        )
    set_seed(recipe.seed)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    key = content_hash([[r.ids for r in rows], [r.start for r in rows], recipe, marks.at])
    state = _State(model, optimizer, resume, key)
    state.load()
    loop = _Loop(state, seen, marks, progress)
    loop.mark_if_due()  # the state before the first batch, or one saved just before a mark
    if state.step < len(batches):
        _train(model, tokenizer, rows, batches[state.step :], recipe, loop, len(batches))
    model.train(False)
    progress.close()
    tokens = sum(rows[i].counted for batch in batches for i in batch)
    return Trained(tuple(state.losses), tokens, dict(state.marks))


def _train(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    rows: Sequence[Encoded],
    batches: list[list[int]],
    recipe: Recipe,
    loop: _Loop,
    total: int,
) -> None:
    """Hand the remaining batches to the Trainer."""
    pad = tokenizer.pad_token_id
    optimizer = loop.state.optimizer
    scheduler = get_scheduler(recipe.schedule, optimizer, 0, total)
    with warnings.catch_warnings():
        # The optimizer's own steps were taken before the interruption; torch cannot know.
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(loop.state.step):
            scheduler.step()
    with tempfile.TemporaryDirectory(prefix="springback-") as scratch:
        args = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=1,  # an item is a whole batch already
            max_steps=len(batches),
            max_grad_norm=recipe.max_grad_norm,
            seed=recipe.seed,
            train_sampling_strategy="sequential",
            use_cpu=not torch.cuda.is_available(),
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = _BatchTrainer(
            model=model,
            args=args,
            train_dataset=_Batches(rows, batches, pad),
            data_collator=lambda items: items[0],
            optimizers=(optimizer, scheduler),
            callbacks=[loop],
        )
        trainer.autocast = recipe.precision == "bf16-mixed"
        trainer.loop = loop
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.train()


class _Batches(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A data set whose items are whole padded batches."""

    def __init__(self, rows: Sequence[Encoded], batches: list[list[int]], pad: int) -> None:
        self.rows, self.batches, self.pad = rows, batches, pad

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        batch = pad_batch(self.rows, self.batches[at], self.pad)
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "labels": batch.labels,
        }


class _BatchTrainer(Trainer):
    """Trainer with autocast around the forward pass only.

    Accelerate's own mixed precision copies all logits to fp32 a second time (docs/log.md).
    """

    autocast: bool
    loop: _Loop

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        kind = self.args.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.autocast):
            loss: Tensor = model(**inputs, use_cache=False).loss
        self.loop.record(float(loss.detach()))
        return loss


class _Loop(TrainerCallback):
    """Watches the steps: records losses, calls the marks, saves the state."""

    def __init__(self, state: _State, seen: list[int], marks: Marks, progress: Progress) -> None:
        self.state, self.seen, self.marks, self.progress = state, seen, marks, progress
        self.saved = time.monotonic()
        if state.step:
            progress.advance(state.step, note="resumed")

    def record(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {self.state.step + 1}; "
                "lower the learning rate, or look for empty or broken rows"
            )
        self.state.losses.append(loss)

    def mark_if_due(self) -> None:
        examples = self.seen[self.state.step]
        if self.marks.call and examples in self.marks.at and examples not in self.state.marks:
            model = self.state.model
            training = model.training
            model.train(False)
            self.state.marks[examples] = self.marks.call(examples, model)
            model.train(training)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.state.step += 1
        self.progress.advance(note=f"loss {self.state.losses[-1]:.3f}")
        self.mark_if_due()
        due = time.monotonic() - self.saved >= self.state.resume.save_every
        if due and self.state.step + 1 < len(self.seen):
            self.state.save()
            self.saved = time.monotonic()


class _State:
    """What a run resumes from: weights, AdamW moments, losses, marks.  Safetensors and JSON."""

    def __init__(
        self,
        model: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        resume: Resume,
        key: str,
    ) -> None:
        self.model, self.optimizer, self.resume, self.key = model, optimizer, resume, key
        self.step = 0
        self.losses: list[float] = []
        self.marks: dict[int, Any] = {}

    def _params(self) -> dict[str, torch.nn.Parameter]:
        # named_parameters() lists a tied weight once, under its first name.
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def save(self) -> None:
        if self.resume.folder is None:
            return
        moments: dict[str, Tensor] = {}
        for name, parameter in self._params().items():
            for part, value in self.optimizer.state[parameter].items():
                moments[f"{part}/{name}"] = value.detach().contiguous().cpu()
        target = self.resume.folder / f"step-{self.step:08d}"
        with whole_folder(target) as tmp:
            weights = {n: p.detach().contiguous().cpu() for n, p in self._params().items()}
            save_file(weights, tmp / "weights.safetensors")
            save_file(moments, tmp / "optimizer.safetensors")
            losses, marks = self.losses, sorted(self.marks.items())
            write_json(
                tmp / "state.json",
                {"key": self.key, "step": self.step, "losses": losses, "marks": marks},
            )
        for old in self.resume.folder.glob("step-*"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)

    def load(self) -> None:
        if self.resume.folder is None or not self.resume.folder.is_dir():
            return
        for folder in sorted(self.resume.folder.glob("step-*"), reverse=True):
            facts = read_json(folder / "state.json")
            if facts["key"] != self.key:
                continue
            weights = load_file(folder / "weights.safetensors")
            moments = load_file(folder / "optimizer.safetensors")
            with torch.no_grad():
                for name, parameter in self._params().items():
                    parameter.copy_(weights[name])
                    self.optimizer.state[parameter] = {
                        part: moments[f"{part}/{name}"].clone()
                        for part in ("step", "exp_avg", "exp_avg_sq")
                    }
            self.step, self.losses = facts["step"], list(facts["losses"])
            self.marks = {int(examples): value for examples, value in facts["marks"]}
            return
