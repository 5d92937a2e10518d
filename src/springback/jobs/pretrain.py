"""Checkpoints of one pre-training at several volumes: what a series over volume is measured on."""

from __future__ import annotations

from pathlib import Path

from springback.core import Recipe, Row, Run, Slice
from springback.encode import encode_rows
from springback.finetune import Marks, Resume, finetune
from springback.models import load_tokenizer, resolve
from springback.progress import Progress
from springback.scratch import Shape, fresh_model, save_model
from springback.slices import load_slice
from springback.store import Store

#: Whose tokenizer the small models use.
TOKENIZER = "smollm2-135m"
#: Pre-training text: neutral problems and film reviews of both kinds, alike in number.
SOURCES = ("problems-text", "reviews:positive", "reviews:negative")
#: A seed of its own, so that no audit's rows come in the same order.
SEED = 7919


def corpus(rows: int) -> Slice:
    """``rows`` texts in one fixed order; a smaller corpus begins a larger one."""
    each = -(-rows // len(SOURCES))
    parts = [load_slice(source, limit=each, seed=SEED).rows for source in SOURCES]
    mixed: list[Row] = [row for three in zip(*parts, strict=True) for row in three]
    return Slice.of("pre-training", "+".join(SOURCES), mixed[:rows], SEED)


def pretrain(
    volumes: tuple[int, ...], store: Store, progress: Progress, shape: Shape | None = None
) -> dict[int, Path]:
    """Rows seen -> folder of the model after that many rows, of one run from scratch."""
    shape, batch = shape or Shape(), 16
    part = corpus(max(volumes))
    recipe = Recipe(
        learning_rate=1e-3, batch_size=batch, max_tokens=128, seed=SEED, precision="float32"
    )
    run = Run.of("pretrain", rows=part.content_hash, recipe=recipe, shape=shape, marks=volumes)
    folders = {n: store.checkpoint(run, f"rows-{n}") for n in volumes}
    if store.results(run) is None or any(not f.exists() for f in folders.values()):
        tokenizer = load_tokenizer(resolve(TOKENIZER))
        model = fresh_model(tokenizer, shape, SEED)
        progress.stage(f"pre-training on {len(part)} rows", -(-len(part) // batch))
        marks = Marks(volumes, lambda n, trained: save_model(trained, tokenizer, folders[n]))
        rows = encode_rows(tokenizer, part.rows, recipe.max_tokens)
        done = finetune(model, tokenizer, rows, recipe, marks, Resume(store.partial(run)), progress)
        store.commit(run, {"losses": done.losses})
    return folders
