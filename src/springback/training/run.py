"""Fine-tune a model: check, plan, train.  What differs between algorithms is in their trainers."""

from __future__ import annotations

import gc
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import torch
from transformers import get_scheduler, set_seed

from springback.core import ALGORITHMS, Recipe, content_hash
from springback.errors import MissingExtraError, SpringbackError, TrainingError
from springback.models.encoding import Encoded
from springback.models.loading import Model, Tokenizer, release_memory, total_of, trainable
from springback.models.quantized import adapters_attached
from springback.models.quiet import old_names_allowed, quiet
from springback.progress import Progress, Silent
from springback.training.batches import (
    Marks,
    Resume,
    Trained,
    examples_seen,
    plan_batches,
)
from springback.training.examples import Example, Examples, check_examples
from springback.training.lora import has_lora
from springback.training.memory.malloc import large_blocks_apart
from springback.training.recipes import check_recipe
from springback.training.trainer import (
    STATE_VERSION,
    Loop,
    State,
    Task,
    Watched,
    arguments,
    untouched,
)


def finetune(
    model: Model,
    tokenizer: Tokenizer,
    rows: Sequence[Example] | Examples,
    recipe: Recipe,
    marks: Marks | None = None,
    resume: Resume | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train ``model`` in place on ``rows`` by the recipe's algorithm (AdamW).

    Rows have the algorithm's form (:data:`springback.training.examples.FORMS`); RLOO's come in an
    :class:`Examples` with their reward.  Full weights, or with ``lora_rank`` the adapter that
    :func:`add_lora` put in.  Master weights stay fp32; ``bf16-mixed`` runs the forward pass under
    autocast.  On a resume hand over the same start weights.  Raises :class:`TrainingError` if a
    loss or, at the end, a weight is not a number.
    """
    check_recipe(recipe)
    examples = rows if isinstance(rows, Examples) else Examples(rows)
    check_examples(examples, recipe.algorithm)
    marks, resume, progress = marks or Marks(), resume or Resume(), progress or Silent()
    _check_model(model, recipe)
    batches = plan_batches(len(examples.rows), recipe)
    seen = examples_seen(batches, marks, recipe)
    set_seed(recipe.seed)
    optimizer = torch.optim.AdamW(
        trainable(model).values(),
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    _allocate(optimizer)
    start = None
    # Answers that are sampled on the way are scored by the reference on the way.
    online = ALGORITHMS[recipe.algorithm].learns == "prompts"
    if online and recipe.beta and examples.reference is None:
        start = {name: p.detach().clone() for name, p in trainable(model).items()}
    state = State(model, optimizer, resume, _key(examples, recipe, marks))
    state.load()
    release_memory()
    loop = Loop(state, seen, marks, progress)
    loop.mark_if_due(model)  # the state before the first batch, or one saved just before a mark
    if state.step < len(batches):
        schedule = _schedule(recipe, optimizer, state.step, len(batches))
        both = (optimizer, schedule)
        task = Task(model, tokenizer, examples, recipe, batches, seen, state, both, progress, start)
        _train(task, loop)
    model.train(False)
    progress.close()
    if not all(total_of(p.detach()).isfinite() for p in trainable(model).values()):
        raise TrainingError(
            "the last step left weights that are not numbers; lower the learning rate"
        )
    return Trained(tuple(state.losses), state.tokens, dict(state.marks), tuple(state.rewards))


def _allocate(optimizer: torch.optim.AdamW) -> None:
    """AdamW's state before its first step, as it would make it then.

    Allocated now it lies below all that comes and goes; made after a step it would lie among that.
    """
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }


def _check_model(model: Model, recipe: Recipe) -> None:
    if hasattr(model, "get_base_model"):
        raise SpringbackError("this is the adapter's handle; train the model it was put into")
    if any(p.dtype != torch.float32 for p in trainable(model).values()):
        raise TrainingError("the model to train is not in fp32; load it with dtype float32")
    if has_lora(model) != (recipe.lora_rank is not None):
        raise SpringbackError(
            f"lora_rank is {recipe.lora_rank} and the model has "
            f"{'an' if has_lora(model) else 'no'} adapter; call add_lora(model, recipe) before, "
            "or train full weights with lora_rank None on a model without"
        )


def _key(examples: Examples, recipe: Recipe, marks: Marks) -> str:
    """What a saved state must agree on to be taken."""
    rows = [(r.ids, r.start) if isinstance(r, Encoded) else r for r in examples.rows]
    return content_hash([STATE_VERSION, rows, examples.name, recipe, marks.examples])


def _schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, step: int, total: int) -> Any:
    """The learning rate's schedule, stepped to where the run is."""
    scheduler = get_scheduler(recipe.schedule, optimizer, 0, total)
    with warnings.catch_warnings():
        # The optimizer's own steps were taken before the interruption; torch cannot know.
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(step):
            scheduler.step()
    return scheduler


#: Whether the caller has set objects aside: remembered, since to count them takes as long as what
#: is saved here.
_callers_own = False


@contextmanager
def _collected() -> Iterator[None]:
    """Within, what is there already is not searched for circles.

    :func:`release_memory` has just done that, and the Trainer does it again when it starts: 0.3 s
    over all that the libraries hold.  What the caller has set aside stays so.
    """
    global _callers_own
    _callers_own = _callers_own or gc.get_freeze_count() > 0
    if _callers_own:
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _train(task: Task, loop: Loop) -> None:
    """Hand the remaining batches to the algorithm's trainer."""
    steps = len(task.batches) - task.state.step
    with ExitStack() as stack:
        stack.enter_context(_collected())
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="springback-"))
        for model in (task.model, task.examples.reference):
            if model is not None:
                stack.enter_context(untouched(model))
                stack.enter_context(adapters_attached(model))
        if task.recipe.algorithm == "sft":
            stack.enter_context(large_blocks_apart())
        build = _builder(task.recipe.algorithm)
        with quiet(), old_names_allowed():
            on_cpu = task.model.device.type == "cpu"
            trainer = build(task, arguments(task.recipe, scratch, steps, on_cpu))
        trainer.autocast = task.recipe.precision == "bf16-mixed"
        trainer.watch(loop)
        trainer.train()


def _builder(algorithm: str) -> Callable[[Task, dict[str, Any]], Watched]:
    """What builds the algorithm's trainer; its file is loaded when it is needed."""
    trainer = ALGORITHMS[algorithm].trainer
    if not isinstance(trainer, str):
        return trainer
    module, _, name = trainer.partition(":")
    try:
        build: Callable[[Task, dict[str, Any]], Watched] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in ("trl", "datasets"):
            raise
        raise MissingExtraError(package, "train", f"training with {algorithm}") from error
    return build
