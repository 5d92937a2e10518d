"""What all algorithms share: a Trainer fed with whole batches, the loop around it, the state."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from springback.core import Recipe
from springback.errors import SpringbackError, TrainingError
from springback.models.encoding import Encoded, pad_batch
from springback.models.loading import Model, Tokenizer, read_weights, release_memory, trainable
from springback.models.sharded import is_sharded, read_sharded
from springback.progress import Progress
from springback.results.store import (
    read_json,
    require_plain,
    tell_damaged,
    whole_folder,
    write_json,
)
from springback.results.timing import Timer, timed
from springback.training.batches import Marks, Resume
from springback.training.examples import Examples
from springback.training.memory import microbatches
from springback.training.memory.malloc import Heap

#: What reading a state that is damaged may raise.
DAMAGED = (
    *(SpringbackError, SafetensorError, OSError, LookupError, TypeError, ValueError),
    ArithmeticError,
)

#: Part of every state's key: raised when its files change.
STATE_VERSION = 2


def arguments(recipe: Recipe, folder: str, steps: int, on_cpu: bool) -> dict[str, Any]:
    """Arguments of every trainer: our batches in our order, no files, no bars, no reports."""
    return {
        "output_dir": folder,
        "max_steps": steps,
        "max_grad_norm": recipe.max_grad_norm,
        "seed": recipe.seed,
        "train_sampling_strategy": "sequential",
        "use_cpu": on_cpu,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
    }


class Batches(Dataset[Any]):
    """A data set whose items are whole batches: ``make`` of the planned steps from ``first`` on."""

    def __init__(self, first: int, total: int, make: Callable[[int], Any]) -> None:
        self.first, self.total, self.make = first, total, make

    def __len__(self) -> int:
        return self.total - self.first

    def __getitem__(self, index: int) -> Any:
        return self.make(self.first + index)


class Watched(Trainer):
    """A Trainer over :class:`Batches`, with autocast around the loss only, that tells the loop.

    Accelerate's own mixed precision copies all logits to fp32 a second time (docs/log.md).
    """

    batches: Batches
    autocast: bool
    loop: Loop
    heap: Heap
    #: Gradients that stay where they are, by parameter.
    held: dict[str, Tensor]
    #: Padded tokens that go through the model at once; None: a batch.
    at_once: int | None = None

    def watch(self, loop: Loop) -> None:
        self.loop, self.heap, self.held = loop, Heap(), {}
        if self.args.device.type == "cpu" and not self.is_distributed:
            self.at_once = microbatches.AT_ONCE
        self.args._n_gpu = min(self.args.n_gpu, 1)  # one process trains on one GPU
        if self.is_distributed:  # one clock would not do: all of them save, or none
            loop.agreed = lambda due: self.total(float(due)) > 0
        self.add_callback(loop)
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)  # an item is a whole batch already

    def parts(self, inputs: Any) -> list[tuple[Any, float]]:
        """A batch in pieces, each with the weight of its loss: its share of a batch's mean."""
        return [(inputs, 1.0)]

    def piece_loss(self, model: Any, piece: Any, weight: float) -> Tensor:
        """What a piece adds to the batch's loss; its backward pass takes the gradients."""
        loss: Any = self.compute_loss(model, piece)
        weighted: Tensor = loss * weight
        return weighted

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The batch's loss and its gradients, piece by piece."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        value, parts = 0.0, self.parts(inputs)
        if len(parts) > 1 or self.held:
            self.hold_gradients(model)
        kind = self.args.device.type
        # One autocast around all pieces: it keeps the weights that it has rounded to bf16, but not
        # those of sharded layers, which are whole for as long as they run.
        keep = not is_sharded(self.model)
        with torch.autocast(kind, torch.bfloat16, enabled=self.autocast, cache_enabled=keep):
            for piece, weight in parts:
                loss = self.piece_loss(model, piece, weight)
                value += float(loss.detach())
                with torch.autocast(kind, enabled=False):
                    self.accelerator.backward(loss)
                del loss
                self.heap.settle()
        value = self.total(value) / self.accelerator.num_processes
        self.loop.record(value, int(self.total(counted(inputs))))
        return torch.tensor(value, device=self.args.device)

    @property
    def is_distributed(self) -> bool:
        """Whether the run's processes share its gradients: DDP or FSDP, of one process or more."""
        return str(self.accelerator.distributed_type.value) != "NO"

    def total(self, number: float) -> float:
        """The sum of a number over the run's processes."""
        if not self.is_distributed:
            return float(number)
        one = torch.tensor(number, dtype=torch.float64, device=self.args.device)
        return float(self.accelerator.reduce(one, "sum"))

    def hold_gradients(self, model: Any) -> None:
        """Allocate the gradients of a batch in pieces before its first one, and keep them.

        Among a piece's activations they would leave holes when the piece is done, and the heap of
        a long run would grow by a third of what it holds.
        """
        for name, parameter in trainable(model).items():
            if parameter.grad is None:
                if name in self.held:
                    self.held[name].zero_()
                else:
                    self.held[name] = torch.zeros_like(parameter)
                parameter.grad = self.held[name]

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the loop keeps what is worth keeping."""


def counted(inputs: Mapping[str, Tensor]) -> int:
    """How many tokens of a batch the loss counts."""
    masks = [v != -100 for k, v in inputs.items() if k.endswith("labels")]
    masks += [v for k, v in inputs.items() if k == "completion_mask"]
    return sum(int(mask.sum()) for mask in masks)


class Loop(TrainerCallback):
    """Watches the steps: records losses, calls the marks, saves the state."""

    def __init__(self, state: State, seen: list[int], marks: Marks, progress: Progress) -> None:
        self.state, self.seen, self.marks, self.progress = state, seen, marks, progress
        self.saved = self.began = time.monotonic()
        #: Whether any of the run's processes finds that a state is due.
        self.agreed: Callable[[bool], bool] = bool
        if state.step:
            progress.advance(state.step, note="resumed")

    def record(self, loss: float, tokens: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {self.state.step + 1}; "
                "lower the learning rate, or look for empty or broken rows"
            )
        self.state.losses.append(loss)
        self.state.tokens += tokens

    def mark_if_due(self, model: Model) -> None:
        """Call the mark, if there is one, with ``model``: the run's, or FSDP's around it."""
        examples = self.seen[self.state.step]
        if self.marks.call and examples in self.marks.examples and examples not in self.state.marks:
            release_memory(circles=False)  # what steps keep in small pieces, a mark needs in large
            # What a callback draws does not change the run; what TRL patched it does not see.
            with (
                torch.random.fork_rng(),
                forwards([(self.state.model, self.state.forward)]),
                evaluation(self.state.model),
            ):
                self.state.marks[examples] = self.marks.call(examples, model)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Not earlier: the Trainer seeds and draws while it sets itself up.
        self.state.restore_random_numbers()
        self.began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.state.step += 1
        note = f"loss {self.state.losses[-1]:.3f}"
        if self.state.rewards:
            note = f"reward {self.state.rewards[-1]:.3f}"
        self.progress.advance(note=note)
        step = time.monotonic() - self.began
        self.mark_if_due(kwargs["model"])
        # A third more may be lost, 60 s of 45: where steps are long, not one step later than that.
        every, waited = self.state.resume.save_every, time.monotonic() - self.saved
        due = waited >= every or waited + step > 4 / 3 * every
        if self.agreed(due) and self.state.step + 1 < len(self.seen):
            self.state.save()
            self.saved = time.monotonic()


@contextmanager
def untouched(model: Model) -> Iterator[None]:
    """Afterwards the model has its own forward, padding and dropout again: TRL changes them."""
    forward, text = vars(model).get("forward"), model.config.get_text_config()
    pads = [(c, c.pad_token_id) for c in (text, model.generation_config) if c is not None]
    rates = [(m, m.p) for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    try:
        yield
    finally:
        set_forward(model, forward)
        vars(model).pop("model_tags", None)
        for config, pad in pads:
            config.pad_token_id = pad
        for dropout, rate in rates:
            dropout.p = rate


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _rank() -> int:
    """Which of a run's processes this is."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _suffix(rank: int) -> str:
    return f"-{rank}" if rank else ""


def _of_every_process(value: Any) -> list[Any]:
    """This value of each of the run's processes; each has to call this."""
    if not torch.distributed.is_initialized():
        return [value]
    every = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, value)
    return every


def _gathered(tensor: Tensor) -> Tensor:
    """The whole tensor, on the CPU; where it is sharded every process has to call this, and only
    the first one keeps it."""
    whole = tensor.detach()
    if isinstance(whole, DTensor):
        whole = whole.full_tensor()
    return torch.empty(0) if _rank() else whole.contiguous().cpu()


def _part_of(whole: Tensor, parameter: Tensor) -> Tensor:
    """Of a tensor that goes with ``parameter`` what goes with the shard that is here."""
    if isinstance(whole, DTensor) or not isinstance(parameter, DTensor):
        return whole.to(parameter.device)
    if whole.shape == parameter.shape:
        local = whole.to(parameter.to_local().device)
        return distribute_tensor(local, parameter.device_mesh, parameter.placements)
    return whole.to(parameter.device)


class State:
    """What a run resumes from: weights, AdamW moments, random numbers, losses, marks.

    ``kept``: tensors that an algorithm computed once, before the first step (reference
    log-probabilities).  Safetensors and JSON.
    """

    def __init__(
        self, model: Model, optimizer: torch.optim.Optimizer, resume: Resume, key: str
    ) -> None:
        self.model, self.optimizer, self.resume, self.key = model, optimizer, resume, key
        self.step = 0
        self.tokens = 0
        self.losses: list[float] = []
        self.rewards: list[float] = []
        self.marks: dict[int, Any] = {}
        self.kept: dict[str, Tensor] = {}
        self.forward = vars(model).get("forward")
        self._random: dict[str, Tensor] = {}

    @property
    def timer(self) -> Timer:
        return self.resume.timer

    @timed("saving")
    def moments(self) -> dict[str, dict[str, Tensor]]:
        """AdamW's state of each parameter that learns, by name."""
        return {n: dict(self.optimizer.state[p]) for n, p in trainable(self.model).items()}

    def set_moments(self, whole: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Give each parameter its state; one that is a shard gets its part."""
        for name, parameter in trainable(self.model).items():
            self.optimizer.state[parameter] = {
                part: _part_of(value, parameter) for part, value in whole[name].items()
            }

    def save(self) -> None:
        """Write it; of a run's processes, each of which has to call this, the first one does."""
        if self.resume.folder is None:
            return
        weights = {n: _gathered(p) for n, p in trainable(self.model).items()}
        beside = {f"kept/{name}": value for name, value in self.kept.items()}
        for name, moments in self.moments().items() if self.step else ():
            beside |= {f"{part}/{name}": _gathered(value) for part, value in moments.items()}
        for rank, states in enumerate(_of_every_process(self._random_states())):
            beside |= {f"random/{name}{_suffix(rank)}": state for name, state in states.items()}
        if _rank():
            return
        facts = {
            "key": self.key,
            "step": self.step,
            "tokens": self.tokens,
            "losses": self.losses,
            "rewards": self.rewards,
            "marks": sorted(self.marks.items()),
        }
        target = self.resume.folder / f"step-{self.step:08d}"
        with whole_folder(target) as tmp:
            save_file(weights, tmp / "weights.safetensors")
            save_file(beside, tmp / "optimizer.safetensors")
            write_json(tmp / "state.json", facts)
        for old in self.resume.folder.glob("step-*"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)

    def _random_states(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self.model.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.model.device)
        return states

    def load(self) -> None:
        """Go on from the last state that fits; one that is damaged is passed over, with a
        warning."""
        if self.resume.folder is None or not self.resume.folder.is_dir():
            return
        for folder in sorted(self.resume.folder.glob("step-*"), reverse=True):
            require_plain(folder)
            try:
                if self._read(folder):
                    return
            except DAMAGED as error:
                tell_damaged(folder, error)

    def _read(self, folder: Path) -> bool:
        """Take the state in ``folder`` if it is this run's; nothing is changed where it raises."""
        facts = read_json(folder / "state.json")
        if facts["key"] != self.key:
            return False
        step, tokens = int(facts["step"]), int(facts["tokens"])
        if folder.name != f"step-{step:08d}":
            raise ValueError(f"state.json speaks of step {step}")
        losses, rewards = ([float(x) for x in facts[n]] for n in ("losses", "rewards"))
        marks = {int(examples): value for examples, value in facts["marks"]}
        beside = load_file(folder / "optimizer.safetensors")
        moments: dict[Tensor, dict[str, Tensor]] = {}
        if step:  # else there are no moments yet, and the Trainer seeds anew
            for name, parameter in trainable(self.model).items():
                known = self.optimizer.state[parameter]
                read = {part: beside[f"{part}/{name}"] for part in known}
                if any(read[part].shape != known[part].shape for part in known):
                    raise ValueError(f"moments of {name} have another shape")
                moments[parameter] = {p: _part_of(t, parameter) for p, t in read.items()}
            if beside["random/cpu"].shape != torch.get_rng_state().shape:
                raise ValueError("random/cpu is no state of random numbers")
        if is_sharded(self.model):
            read_sharded(self.model, [folder / "weights.safetensors"])
        else:
            read_weights(self.model, folder / "weights.safetensors")
        self.optimizer.state.update(moments)
        self._random = _below("random/", beside) if step else {}
        self.kept = _below("kept/", beside)
        self.step, self.tokens, self.losses, self.rewards = step, tokens, losses, rewards
        self.marks = marks
        return True

    def restore_random_numbers(self) -> None:
        """Once, before the first step after a resume."""
        cpu, cuda = f"cpu{_suffix(_rank())}", f"cuda{_suffix(_rank())}"
        if cpu in self._random:
            torch.set_rng_state(self._random[cpu])
        if cuda in self._random:
            torch.cuda.set_rng_state(self._random[cuda], self.model.device)
        self._random = {}


@dataclass(frozen=True)
class Task:
    """Everything a trainer needs.

    ``start``: the trainable weights before the first step, where the algorithm needs them later.
    """

    model: Model
    tokenizer: Tokenizer
    examples: Examples
    recipe: Recipe
    batches: list[list[int]]
    seen: list[int]
    state: State
    optimizers: tuple[torch.optim.Optimizer, Any]
    progress: Progress
    start: dict[str, Tensor] | None = None

    @property
    def beta(self) -> float:
        return self.recipe.beta or 0.0

    def padded(self, rows: Sequence[Encoded], index: Sequence[int]) -> dict[str, Tensor]:
        """These rows as a right-padded batch: ids, mask and labels, all (rows, length)."""
        batch = pad_batch(rows, index, self.tokenizer.pad_token_id)
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "labels": batch.labels,
        }

    def feed(self, make: Callable[[int], Any]) -> Batches:
        """The batches that the run still has to see; ``make`` gives a step's."""
        return Batches(self.state.step, len(self.batches), make)

    def autocast(self) -> torch.autocast:
        """What the recipe's precision means for a forward pass."""
        enabled = self.recipe.precision == "bf16-mixed"
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=enabled)


def set_forward(module: Any, forward: Any) -> None:
    """Put back what :func:`vars` had as the instance's forward (None: the class's own)."""
    if forward is None:
        vars(module).pop("forward", None)
    else:
        module.forward = forward


@contextmanager
def forwards(stand_ins: Iterable[tuple[Any, Any]]) -> Iterator[None]:
    """Within, the modules have these forwards (None: their class's own)."""
    with ExitStack() as stack:
        for module, forward in stand_ins:
            stack.callback(set_forward, module, vars(module).get("forward"))
            set_forward(module, forward)
        yield


@contextmanager
def evaluation(model: Model) -> Iterator[None]:
    """Within, the model is in evaluation mode."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)
