"""Fine-tune and keep a checkpoint at every epoch: the trajectory that boost starts from."""

from __future__ import annotations

from springback.core import Checkpoint, Point, Recipe, Run, Slice, Trajectory, content_hash
from springback.models.encoding import encode_rows
from springback.models.loading import load_model, load_tokenizer, release_memory
from springback.models.quiet import quiet
from springback.progress import Progress
from springback.results.store import Store, require_space, whole_folder
from springback.settings import ChatSettings
from springback.training import Marks, Resume, add_lora, finetune, plan_batches
from springback.training.lora import save_lora
from springback.training.memory.activations import checkpointed_activations
from springback.weights import hash_weights


def training_run(
    start: Checkpoint,
    rows: Slice,
    recipe: Recipe,
    system: str | None = None,
    chat: ChatSettings | None = None,
) -> Run:
    """The run of :func:`train_epochs`."""
    return Run.of(
        "train",
        start=start.content_hash,
        rows=rows.content_hash,
        recipe=recipe,
        system=system,
        **(chat or ChatSettings()).chat_inputs(),
    )


def epoch_name(epoch: int) -> str:
    """What the checkpoint after so many epochs is called below its run."""
    return f"epoch-{epoch}"


def train_epochs(
    start: Checkpoint,
    rows: Slice,
    recipe: Recipe,
    store: Store,
    progress: Progress,
    system: str | None = None,
    chat: ChatSettings | None = None,
    checkpoint_activations: bool = False,
) -> Trajectory:
    """One checkpoint folder for every epoch, each a plain Transformers model with its tokenizer;
    where the recipe trains an adapter, each an adapter on ``start``.

    ``system`` and ``chat``: the system message, and what the chat template is given beside it.
    ``checkpoint_activations``: in less memory (:mod:`springback.training.memory.activations`).
    """
    chat = chat or ChatSettings()
    run = training_run(start, rows, recipe, system, chat)
    marks = tuple(len(rows) * (epoch + 1) for epoch in range(recipe.epochs))
    folders = {m: store.checkpoint(run, epoch_name(m // len(rows))) for m in marks}
    results = store.results(run)
    if results is None or any(not f.exists() for f in folders.values()):
        with store.timer.part("loading"):
            tokenizer, model = load_tokenizer(start, chat), load_model(start)
            lora = add_lora(model, recipe) if recipe.lora_rank else None
        size = 4 * int(model.num_parameters(only_trainable=True))
        require_space(store.root, (recipe.epochs + 4) * size, "fine-tuning")
        encoded = encode_rows(tokenizer, rows.rows, recipe.max_tokens, system)
        progress.stage(
            f"fine-tuning on {len(rows)} rows, {recipe.epochs} epochs",
            len(plan_batches(len(rows), recipe)),
        )

        def keep(examples: int, trained: object) -> dict[str, str]:
            with store.timer.part("saving"), whole_folder(folders[examples]) as tmp, quiet():
                if lora is None:
                    model.save_pretrained(tmp)
                else:
                    save_lora(lora, tmp)
                tokenizer.save_pretrained(tmp)
            return {"content_hash": hash_weights(folders[examples])}

        resume, keeping = Resume(store.partial(run), timer=store.timer), Marks(marks, keep)
        lean = checkpointed_activations(model, checkpoint_activations)
        with store.timer.part("training"), lean:
            done = finetune(model, tokenizer, encoded, recipe, keeping, resume, progress)
        results = store.commit(run, {"losses": done.losses, "marks": done.marks})
        del model, lora, done  # whatever comes next loads models of its own
        release_memory()
    points = []
    for mark in marks:
        folder, weights = str(folders[mark]), results["marks"][str(mark)]["content_hash"]
        whole = Checkpoint(folder, content_hash=weights)
        points.append(Point(mark, on_base(start, folder, weights) if recipe.lora_rank else whole))
    return Trajectory(run.id, tuple(points))


def on_base(base: Checkpoint, adapter: str, weights: str) -> Checkpoint:
    """An adapter's folder, whose weights have the hash ``weights``, on its base."""
    return Checkpoint(base.path, base.revision, adapter, content_hash([base.content_hash, weights]))
