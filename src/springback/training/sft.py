"""SFT: cross-entropy of the counted tokens, on Transformers' own Trainer (docs/log.md).

In one process or, started by accelerate or torch's launcher, in many: each then takes its rows of
every batch, and gradients add up to those of the whole batch.
"""

from __future__ import annotations

import os
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback, TrainingArguments

from springback.models.encoding import Encoded
from springback.models.sharded import is_sharded
from springback.training.batches import share
from springback.training.memory.chunked_loss import ChunkedLoss
from springback.training.memory.microbatches import pieces
from springback.training.trainer import State, Task, Watched, counted


class SFT(Watched):
    """Mean NLL a token of a batch, in nats.

    Every piece's NLLs are divided by the tokens that the whole batch counts.
    """

    chunked: ChunkedLoss

    def parts(self, inputs: Any) -> list[tuple[Any, float]]:
        # DDP and FSDP average gradients over processes, so a process's loss is that much larger.
        scale = self.accelerator.num_processes / self.total(counted(inputs))
        return [(piece, scale) for piece in pieces(inputs, self.at_once)]

    def piece_loss(self, model: Any, piece: Any, weight: float) -> Tensor:
        return self.chunked(model, piece, weight)

    def create_accelerator_and_postprocess(self) -> None:
        """accelerate (1.15) knows FSDP on devices only: on CPUs its state is set here."""
        super().create_accelerator_and_postprocess()
        wanted = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        if wanted and self.args.device.type == "cpu":
            _shard_on_cpu(self.accelerator)
            self.is_fsdp_enabled = True
        if wanted and is_sharded(self.model):  # by us: accelerate would not know the layers again
            self.accelerator.state.fsdp_plugin.auto_wrap_policy = None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """FSDP of version 1 puts parameters of its own in place of the model's: those are meant."""
        optimizer = cast("torch.optim.Optimizer", self.optimizer)
        if model is not None:
            learned = [p for p in model.parameters() if p.requires_grad]
            optimizer.param_groups[0]["params"] = learned
        return optimizer


class _SumGradients(TrainerCallback):
    """gloo, which CPUs communicate by, has sums only, no averages."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for module in kwargs["model"].modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)


class _ShardMoments(TrainerCallback):
    """AdamW's state of whole parameters becomes that of their shards, once these are there."""

    def __init__(self, state: State) -> None:
        self.state, self.whole = state, state.moments()
        state.optimizer.state.clear()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.state.step:  # else there are none yet
            self.state.set_moments(self.whole)
        self.whole = {}


def _shard_on_cpu(accelerator: Any) -> None:
    """Say that FSDP is meant, over all processes, as accelerate's state does it on devices."""
    from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState
    from accelerate.parallelism_config import ParallelismConfig

    state = accelerator.state
    if accelerator.num_processes > 1:  # else torch takes the mesh of a device that is there
        state.parallelism_config = ParallelismConfig(dp_shard_size=accelerator.num_processes)
        state.device_mesh = state.parallelism_config.get_device_mesh("cpu")
    for one in (state, PartialState()):  # the first is filled from the second again and again
        one.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin()


def build(task: Task, args: dict[str, Any]) -> Watched:
    """The trainer of an SFT run."""
    rows = cast("list[Encoded]", task.examples.rows)
    trainer = SFT(model=task.model, args=TrainingArguments(**args))
    # Not through the constructor, which refuses them under FSDP.
    trainer.optimizer, trainer.lr_scheduler = task.optimizers
    if trainer.is_fsdp_enabled:
        trainer.add_callback(_ShardMoments(task.state))
        if trainer.args.device.type == "cpu":
            trainer.add_callback(_SumGradients())
    rank, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes

    def make(step: int) -> dict[str, Tensor]:
        batch = task.batches[step]
        inputs = task.padded(rows, share(batch, rank, processes))
        if rank >= len(batch):  # a row that another process counts already
            inputs["labels"].fill_(-100)
        return inputs

    trainer.batches = task.feed(make)
    trainer.chunked = ChunkedLoss(task.model, in_place=not trainer.is_distributed)
    return trainer
