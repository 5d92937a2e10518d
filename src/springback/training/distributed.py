"""Training in processes of its own, started by accelerate: DDP, or FSDP, as its config says.

The caller writes what to do into a folder; ``accelerate launch --config_file`` starts this module
in every process; each takes its rows of every batch, and gradients add up to those of the whole.
Weights go to the folder at each mark; the caller loads and measures them.  The model and its
optimizer then lie spread as the config says.

On CPUs (gloo) two things of accelerate's (1.15) are done here: it starts one process for DDP
whatever ``num_processes`` says, so torch's own launcher starts them; and it knows FSDP on devices
only, so :func:`_shard_on_cpu` says that FSDP is meant.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import get_scheduler

from springback.core import Checkpoint, Recipe, to_jsonable
from springback.errors import SpringbackError, TrainingError
from springback.models.encoding import Encoded, pad_batch
from springback.models.loading import (
    WEIGHTS_FILE,
    Model,
    load_model,
    load_weights,
    read_weights,
    trainable,
    write_weights,
)
from springback.progress import Progress, Silent
from springback.results.store import clear_folder, read_json, whole_folder, write_json
from springback.training.batches import Marks, Trained, check_recipe, examples_seen, plan_batches

JOB, START, DONE = "job.json", "start.safetensors", "done.json"


@dataclass(frozen=True)
class Launch:
    """``config``: accelerate's file.  ``processes``, ``cpu``, ``sharded`` (FSDP) and ``port``
    (None: any that is free): what it says."""

    config: Path
    processes: int
    cpu: bool
    sharded: bool = False
    port: int | None = None

    def command(self, folder: Path) -> list[str]:
        module = ["-m", "springback.training.distributed", str(folder)]
        if self.cpu and not self.sharded:
            some = ["--standalone", "--nproc_per_node", str(self.processes)]
            return [sys.executable, "-m", "torch.distributed.run", *some, *module]
        launch = ["-m", "accelerate.commands.launch", "--config_file", str(self.config)]
        if self.port is None:  # accelerate's default is one port for all of a machine's trainings
            launch += ["--main_process_port", "0"]
        return [sys.executable, *launch, *module]

    def environment(self) -> dict[str, str]:
        """Of the processes: those on CPUs see no GPU."""
        return {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if self.cpu else {})}


def finetune_apart(
    model: Model,
    start: Checkpoint,
    pad: int,
    rows: Sequence[Encoded],
    recipe: Recipe,
    launch: Launch,
    folder: Path,
    marks: Marks | None = None,
    progress: Progress | None = None,
) -> Trained:
    """As :func:`springback.training.finetune` of full weights by SFT, in processes of its own.

    ``start``: where the model's config lies; its weights are those of ``model`` as it comes.
    ``folder`` is scratch and is gone afterwards.  Sums are taken in another order than in one
    process, so values agree to rounding.  A run that is cut off begins anew.  Raises
    :class:`TrainingError` where the processes fail, with their last line.
    """
    check_recipe(recipe)
    if recipe.algorithm != "sft" or recipe.lora_rank is not None:
        raise SpringbackError(
            f"training by accelerate is of all weights by sft; the recipe is {recipe.algorithm} "
            f"with LoRA rank {recipe.lora_rank}: leave --accelerate out"
        )
    marks, progress = marks or Marks(), progress or Silent()
    seen = examples_seen(plan_batches(len(rows), recipe), marks, recipe)
    clear_folder(folder)
    with whole_folder(folder) as tmp:
        write_weights(model, tmp / START)
        facts = {
            "model": start,
            "recipe": recipe,
            "pad": pad,
            "cpu": launch.cpu,
            "rows": [[list(row.ids), row.start, row.text_bytes] for row in rows],
            "steps": [seen.index(n) for n in marks.at],
        }
        write_json(tmp / JOB, to_jsonable(facts))
    try:
        done = _launched(launch, folder, progress)
        found = {}
        for n in marks.at:
            load_weights(model, folder / f"step-{seen.index(n)}")
            if marks.call is not None:
                found[n] = marks.call(n, model)
        load_weights(model, folder / "end")
        model.train(False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        progress.close()
    return Trained(tuple(done["losses"]), int(done["tokens"]), found)


def _launched(launch: Launch, folder: Path, progress: Progress) -> dict[str, Any]:
    """Run the processes; returns what the first of them wrote at the end."""
    command = launch.command(folder)
    with (folder / "errors.log").open("w+", encoding="utf-8") as errors:
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=launch.environment(),
        ) as child:
            try:
                for line in child.stdout or ():
                    if line.startswith('{"loss"'):
                        progress.advance(note=f"loss {json.loads(line)['loss']:.3f}")
                status = child.wait()
            except BaseException:
                child.terminate()
                raise
        errors.seek(0)
        said = [line.strip() for line in errors if "Error" in line]
    if status or not (folder / DONE).exists():
        raise TrainingError(
            f"training by accelerate with {launch.config} ended with status {status} "
            f"({said[0] if said else 'no message'}); look at that config, or leave --accelerate out"
        )
    found: dict[str, Any] = read_json(folder / DONE)
    if launch.sharded and not found["sharded"]:
        raise TrainingError(
            f"accelerate did not shard the model, though {launch.config} says FSDP; look at that "
            "config, or leave --accelerate out"
        )
    return found


def share(batch: Sequence[int], rank: int, world: int) -> list[int]:
    """This process's rows of a batch; the first one again where there are fewer than processes."""
    return list(batch[rank::world]) or [batch[0]]


def _work(folder: Path) -> None:
    """In every process: train, and have the first one write."""
    job = read_json(folder / JOB)
    recipe = Recipe(**job["recipe"])
    rows = [Encoded(tuple(ids), start, size) for ids, start, size in job["rows"]]
    model = load_model(Checkpoint(**job["model"]))
    read_weights(model, folder / START)
    names = list(trainable(model))
    accelerator = _accelerator(job["cpu"])
    wrapped, optimizer = _prepared(accelerator, model, recipe)
    batches = plan_batches(len(rows), recipe)
    schedule = get_scheduler(recipe.schedule, optimizer, 0, len(batches))
    rank, world = accelerator.process_index, accelerator.num_processes
    losses, counted = [], 0
    _keep(accelerator, wrapped, names, folder, 0, job["steps"])
    for step, batch in enumerate(batches, start=1):
        total = sum(rows[i].counted for i in batch)
        mine = share(batch, rank, world)
        wrapped.train()
        loss = _loss(wrapped, pad_batch(rows, mine, job["pad"]), recipe, accelerator.device) / total
        if rank >= len(batch):  # a row that another process counts already
            loss = loss * 0.0
        accelerator.backward(loss * world)  # gradients are averaged over the processes
        accelerator.clip_grad_norm_(wrapped.parameters(), recipe.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        value = float(accelerator.reduce(loss.detach(), "sum"))
        if not value < float("inf"):
            raise TrainingError(f"TrainingError: the loss is {value} at step {step}")
        losses.append(value)
        counted += total
        if accelerator.is_main_process:
            print(json.dumps({"loss": value}), flush=True)
        _keep(accelerator, wrapped, names, folder, step, job["steps"])
    _keep(accelerator, wrapped, names, folder, -1, [-1])
    if accelerator.is_main_process:
        found = {"losses": losses, "tokens": counted, "sharded": _is_sharded(wrapped)}
        write_json(folder / DONE, found)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _accelerator(cpu: bool) -> Any:
    """accelerate as the environment has it from its config; precision is the recipe's."""
    from accelerate import Accelerator

    found = Accelerator(cpu=cpu, mixed_precision="no")
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if found.num_processes != started:
        raise TrainingError(
            f"{started} processes were started, but accelerate has no device for them; write "
            "use_cpu: true into its config"
        )
    if cpu and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        _shard_on_cpu(found)
    return found


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


def _prepared(accelerator: Any, model: Model, recipe: Recipe) -> tuple[Any, Any]:
    """Model and optimizer as the processes share them."""
    from torch.distributed.fsdp import FSDPModule

    def adamw(parameters: Any) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            parameters,
            lr=recipe.learning_rate,
            betas=(recipe.beta1, recipe.beta2),
            weight_decay=recipe.weight_decay,
        )

    if not accelerator.is_fsdp2:  # FSDP1 puts parameters of its own in place of the model's
        wrapped = accelerator.prepare(model)
        return wrapped, accelerator.prepare(adamw(wrapped.parameters()))
    wrapped, optimizer = accelerator.prepare(model, adamw(model.parameters()))
    if accelerator.device.type == "cpu":
        for module in wrapped.modules():
            if isinstance(module, FSDPModule):  # gloo has sums only, no averages
                module.set_force_sum_reduction_for_comms(True)
    return wrapped, optimizer


def _is_sharded(wrapped: Any) -> bool:
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    kinds = (FSDPModule, FullyShardedDataParallel)
    return any(isinstance(module, kinds) for module in wrapped.modules())


def _loss(model: Any, batch: Any, recipe: Recipe, device: torch.device) -> Tensor:
    """Summed NLL of the counted tokens, through the wrapped model, so that it can communicate."""
    bf16 = recipe.precision == "bf16-mixed"
    labels = batch.labels.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = model(
            input_ids=batch.input_ids.to(device),
            attention_mask=batch.attention_mask.to(device),
            use_cache=False,
        ).logits
    found: Tensor = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="sum"
    )
    return found


def _keep(
    accelerator: Any, wrapped: Any, names: list[str], folder: Path, step: int, steps: list[int]
) -> None:
    """The whole weights, gathered by all processes and written by the first; step -1 is the end."""
    if step not in steps:
        return
    state = accelerator.get_state_dict(wrapped)
    if accelerator.is_main_process:
        with whole_folder(folder / ("end" if step < 0 else f"step-{step}")) as tmp:
            tensors = {name: state[name].detach().float().contiguous().cpu() for name in names}
            save_file(tensors, tmp / WEIGHTS_FILE)
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
