"""SFT in processes of its own, started by accelerate: DDP, or FSDP, as its config says.

The caller writes what to do into a folder; ``accelerate launch --config_file`` starts this module
in every process, which trains by :func:`springback.training.finetune` as one process does: its
Trainer takes what accelerate says from the environment.  What is trained, all weights or an
adapter, goes to the folder at each mark; the caller loads it, or hands on its path, and measures
it.  The model and its optimizer lie spread as the config says.  The folder also has the state of a
run that was cut off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh

from springback.core import Checkpoint, Recipe, to_jsonable
from springback.errors import SpringbackError, TrainingError
from springback.models.encoding import Encoded
from springback.models.loading import (
    WEIGHTS_FILE,
    Model,
    load_model,
    load_weights,
    read_weights,
    trainable,
    write_weights,
)
from springback.models.placement import DTYPES, Placement, dtype_name
from springback.models.sharded import (
    can_be_sharded,
    is_sharded,
    load_sharded,
    read_sharded,
    write_sharded,
)
from springback.models.stored_model import AnyModel, StoredModel
from springback.progress import Progress, Silent
from springback.results.store import (
    clear_folder,
    link_or_copy,
    read_json,
    whole_folder,
    write_json,
)
from springback.training.batches import Marks, Resume, Trained, examples_seen, plan_batches
from springback.training.launch import Launch, end_process
from springback.training.lora import add_lora
from springback.training.memory.activations import checkpointed_activations
from springback.training.recipes import check_recipe
from springback.training.run import finetune

JOB, START, DONE = "job.json", "start.safetensors", "done.json"
#: Below the folder, where the processes keep the state that they resume from.
STATE = "state"


def finetune_apart(
    model: AnyModel,
    start: Checkpoint,
    pad: int,
    rows: Sequence[Encoded],
    recipe: Recipe,
    launch: Launch,
    resume: Resume,
    marks: Marks | None = None,
    progress: Progress | None = None,
) -> Trained:
    """As :func:`springback.training.finetune` by SFT, in processes of its own.

    ``start``: where the model lies; its weights, or those of its adapter, are those of ``model`` as
    it comes.  A :class:`StoredModel` has those of a mark's file at each mark, and nothing of it is
    loaded here.  ``resume``: a folder that is its own, gone afterwards; a run that was cut off goes
    on from what it holds.  Sums are taken in another order than in one process, so values agree to
    rounding.  Raises :class:`TrainingError` where the processes fail, with their last line.
    """
    check_recipe(recipe)
    if recipe.algorithm != "sft" or resume.folder is None:
        raise SpringbackError(
            f"training by accelerate is by sft and in a folder; the recipe is {recipe.algorithm}, "
            f"the folder {resume.folder}: leave --accelerate out"
        )
    folder, marks, progress = resume.folder, marks or Marks(), progress or Silent()
    seen = examples_seen(plan_batches(len(rows), recipe), marks, recipe)
    wanted = sorted({*marks.examples, seen[-1]} - {0})
    whole = recipe.lora_rank is None and not isinstance(model, StoredModel)
    facts = {
        "model": start,
        "dtype": dtype_name(torch.float32 if whole else model.dtype),
        "recipe": recipe,
        "pad": pad,
        "cpu": launch.cpu,
        "checkpoint_activations": launch.checkpoint_activations,
        "save_every": resume.save_every,
        "weights": content_hash_of(model),
        "rows": [[list(row.ids), row.start, row.text_bytes] for row in rows],
        "marks": wanted,
    }
    _prepare(folder, model, to_jsonable(facts))
    recorded = {}
    if 0 in marks.examples and marks.call is not None:
        recorded[0] = marks.call(0, model)
    try:
        done = _launched(launch, folder, progress)
    except TrainingError:
        if not any((folder / STATE).glob("step-*")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        progress.close()
    for n in wanted:
        if isinstance(model, StoredModel):
            model.file = _marked(folder, n) / WEIGHTS_FILE
        else:
            load_weights(model, _marked(folder, n))
        if n in marks.examples and marks.call is not None:
            recorded[n] = marks.call(n, model)
    if isinstance(model, StoredModel):
        model.take(_marked(folder, wanted[-1]) / WEIGHTS_FILE)
    else:
        model.train(False)
    shutil.rmtree(folder, ignore_errors=True)
    return Trained(tuple(done["losses"]), int(done["tokens"]), recorded)


def _prepare(folder: Path, model: AnyModel, facts: dict[str, Any]) -> None:
    """Have the folder say what to do; what another job left there goes."""
    with contextlib.suppress(SpringbackError, OSError, ValueError):
        if read_json(folder / JOB) == facts:
            return
    clear_folder(folder)
    with whole_folder(folder) as tmp:
        if not isinstance(model, StoredModel):
            write_weights(model, tmp / START)
        elif model.file is not None:  # else the processes read the checkpoint
            link_or_copy(model.file, tmp / START)
        write_json(tmp / JOB, facts)


def content_hash_of(model: AnyModel) -> str:
    """Of what is trained, as it is now."""
    if isinstance(model, StoredModel):
        return model.content_hash()
    digest = hashlib.sha256()
    for name, parameter in trainable(model).items():
        digest.update(name.encode())
        values = parameter.detach().cpu().contiguous().view(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _marked(folder: Path, examples: int) -> Path:
    """Where the processes put the weights after so many examples."""
    return folder / f"examples-{examples}"


def _launched(launch: Launch, folder: Path, progress: Progress) -> dict[str, Any]:
    """Run the processes; returns what the first of them wrote at the end, then or before."""
    if (folder / DONE).exists():
        known: dict[str, Any] = read_json(folder / DONE)
        return known
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
                    if line.startswith('{"note"'):
                        progress.advance(note=json.loads(line)["note"])
                status = child.wait()
            except BaseException:
                child.terminate()
                raise
        errors.seek(0)
        lines = [line.strip() for line in errors]
        messages = [line for line in lines if "Error: " in line and "ChildFailed" not in line]
        # The launcher names the one that failed first last.
        messages += [line for line in lines if line.startswith("exitcode")][-1:]
    if status or not (folder / DONE).exists():
        raise TrainingError(
            f"training by accelerate with {launch.config} ended with status {status} "
            f"({messages[0] if messages else 'no message'}); look at that config, or leave "
            "--accelerate out"
        )
    done: dict[str, Any] = read_json(folder / DONE)
    if launch.sharded and not done["sharded"]:
        raise TrainingError(
            f"accelerate did not shard the model, though {launch.config} says FSDP; look at that "
            "config, or leave --accelerate out"
        )
    return done


class _Notes(Silent):
    """Progress as lines of the first process, for :func:`_launched` to read."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        if _is_first():
            print(json.dumps({"note": note}), flush=True)


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _work(folder: Path) -> None:
    """In every process: train, and have the first one write."""
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # precision is the recipe's
    job = read_json(folder / JOB)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    elif not job["cpu"]:
        raise TrainingError("there is no GPU to train on; write use_cpu: true into the config")
    recipe = Recipe(**job["recipe"])
    model = _loaded(job, recipe, folder / START)
    names = list(trainable(model))

    def write(examples: int, spread: Model) -> bool:
        """Have the first process write the whole weights; returns whether FSDP shards them."""
        if is_sharded(model):
            with whole_folder(_marked(folder, examples)) if _is_first() else nullcontext() as tmp:
                write_sharded(model, (tmp or folder) / WEIGHTS_FILE)
            return True
        tensors = _whole(spread)
        if _is_first():
            with whole_folder(_marked(folder, examples)) as tmp:
                weights = {name: tensors[name].float().contiguous() for name in names}
                save_file(weights, tmp / WEIGHTS_FILE)
        return _is_sharded(spread)

    with checkpointed_activations(model, job["checkpoint_activations"]):
        trained = finetune(
            model,
            SimpleNamespace(pad_token_id=job["pad"]),
            [Encoded(tuple(ids), start, size) for ids, start, size in job["rows"]],
            recipe,
            Marks(tuple(job["marks"]), write),
            Resume(None if _fsdp_version() == "1" else folder / STATE, job["save_every"]),
            progress=_Notes(),
        )
    if _is_first():
        facts = {"losses": trained.losses, "tokens": trained.tokens}
        write_json(folder / DONE, {**facts, "sharded": all(trained.marks.values())})
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # no process goes while another still writes


def _loaded(job: dict[str, Any], recipe: Recipe, weights: Path) -> Model:
    """What is trained: under FSDP2 all weights, of which each process reads its part alone where
    the files allow it, else the model, or an adapter on it.

    ``weights``: those that it begins with, where they are not the checkpoint's.
    """
    checkpoint = Checkpoint(**job["model"])
    offloads = os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true"
    whole = recipe.lora_rank is not None or offloads or not can_be_sharded(checkpoint)
    if _fsdp_version() == "2" and not whole:
        kind = "cpu" if job["cpu"] else "cuda"
        torch.distributed.init_process_group("gloo" if job["cpu"] else "nccl")
        mesh = init_device_mesh(kind, (torch.distributed.get_world_size(),))
        sharded = load_sharded(checkpoint, torch.float32, mesh, DTYPES[job["dtype"]])
        if weights.exists():
            read_sharded(sharded, [weights])
        return sharded
    model = load_model(checkpoint, Placement(DTYPES[job["dtype"]]))
    if recipe.lora_rank is None:
        unrounded: Any = model
        unrounded.float()
    else:
        add_lora(model, recipe)
    if weights.exists():
        read_weights(model, weights)
    return model


def _fsdp_version() -> str | None:
    """Of the config's FSDP; None where it has none."""
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return os.environ.get("FSDP_VERSION", "1") if wanted else None


def _whole(model: Model) -> dict[str, torch.Tensor]:
    """All weights by name, on the CPU; of many processes only the first one gets them."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    if not torch.distributed.is_initialized():
        return {name: value.cpu() for name, value in model.state_dict().items()}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: Any = get_model_state_dict(model, options=options)
    return dict(weights)


def _is_sharded(model: Model) -> bool:
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    kinds = (FSDPModule, FullyShardedDataParallel)
    return any(isinstance(module, kinds) for module in model.modules())


if __name__ == "__main__":
    try:
        _work(Path(sys.argv[1]))
    except SpringbackError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    end_process()
