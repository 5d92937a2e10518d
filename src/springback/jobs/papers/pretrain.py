"""Checkpoints of one pre-training at several volumes: what a series over volume is measured on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from springback.core import Checkpoint, Recipe, Row, Run, Slice
from springback.data import load_slice
from springback.models.encoding import encode_rows
from springback.models.from_scratch import Shape, fresh_model, save_model
from springback.models.loading import load_tokenizer, resolve
from springback.models.placement import Placement
from springback.progress import Progress
from springback.results.store import Store
from springback.training import Marks, Resume, finetune

#: Whose tokenizer the small models use.
TOKENIZER = "smollm2-135m"
#: Pre-training text: neutral problems and film reviews of both kinds, alike in number.
SOURCES = ("problems-text", "reviews:positive", "reviews:negative")
#: A seed of its own, so that no audit's rows come in the same order.
SEED = 7919


def corpus(rows: int, seed: int = SEED) -> Slice:
    """``rows`` texts in one fixed order; a smaller corpus begins a larger one."""
    each = -(-rows // len(SOURCES))
    parts = [load_slice(source, limit=each, seed=seed).rows for source in SOURCES]
    mixed: list[Row] = [row for three in zip(*parts, strict=True) for row in three]
    return Slice.of("pre-training", "+".join(SOURCES), mixed[:rows], seed)


@dataclass(frozen=True)
class Pretraining:
    """One run from scratch, kept at every volume (rows seen).

    ``tokenizer``: a folder, with ``identity`` what it is; None is the built-in model's, named in
    no run's id.
    """

    volumes: tuple[int, ...]
    part: Slice
    shape: Shape = field(default_factory=Shape)
    seed: int = SEED
    learning_rate: float = 1e-3
    tokenizer: str | None = None
    identity: str = ""

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            learning_rate=self.learning_rate,
            batch_size=16,
            max_tokens=128,
            seed=self.seed,
            precision="float32",
        )

    @property
    def run(self) -> Run:
        tokenizer = {"tokenizer": self.identity} if self.identity else {}
        return Run.of(
            "pretrain",
            rows=self.part.content_hash,
            recipe=self.recipe,
            shape=self.shape,
            marks=self.volumes,
            **tokenizer,
        )

    def folders(self, store: Store) -> dict[int, Path]:
        """Rows seen -> where the model after that many rows lies."""
        return {n: store.checkpoint(self.run, f"rows-{n}") for n in self.volumes}

    def done(self, store: Store) -> bool:
        folders = self.folders(store).values()
        return store.results(self.run) is not None and all(f.exists() for f in folders)


def pretrain(
    volumes: tuple[int, ...],
    store: Store,
    progress: Progress,
    shape: Shape | None = None,
    place: Placement | None = None,
) -> dict[int, Path]:
    """Rows seen -> folder of the model after that many rows, of one run from scratch."""
    what = Pretraining(volumes, corpus(max(volumes)), shape or Shape())
    pretrain_once(what, store, progress, place)
    return what.folders(store)


def pretrain_once(
    what: Pretraining, store: Store, progress: Progress, place: Placement | None = None
) -> None:
    """The run, unless it is done, on the device of ``place``: without it the accelerator."""
    if what.done(store):
        return
    source = Checkpoint(what.tokenizer) if what.tokenizer else resolve(TOKENIZER)
    tokenizer = load_tokenizer(source)
    model = fresh_model(tokenizer, what.shape, what.seed, place.device if place else None)
    recipe, part, folders = what.recipe, what.part, what.folders(store)
    steps = -(-len(part) // recipe.batch_size)
    progress.stage(f"pre-training {what.shape.name} on {len(part)} rows", steps)
    marks = Marks(what.volumes, lambda n, trained: save_model(trained, tokenizer, folders[n]))
    rows = encode_rows(tokenizer, part.rows, recipe.max_tokens)
    resume = Resume(store.partial(what.run))
    done = finetune(model, tokenizer, rows, recipe, marks, resume, progress)
    store.commit(what.run, {"losses": done.losses})
