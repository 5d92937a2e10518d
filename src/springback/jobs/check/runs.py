"""A check's runs: one item on one model, KL between two, weights of two.

Each is kept in the store, so the same command goes on after a kill, and further content or
checkpoints measure the base no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from springback.core import Run, content_hash
from springback.errors import ModelError
from springback.jobs.check.content import Item
from springback.jobs.check.settings import CheckSettings
from springback.jobs.check.subject import Scores, Subject, kl_between
from springback.models.loading import check_same_tokenizer, same_tokenizer_files
from springback.progress import Progress
from springback.results.check_schema import Moved
from springback.results.store import Store
from springback.weights.moved import moved, moved_by_adapter


@dataclass(frozen=True)
class Work:
    """Items, settings, store: what every run needs."""

    settings: CheckSettings
    items: Sequence[Item]
    store: Store
    progress: Progress
    encoded: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    def rows(self, subject: Subject, item: Item) -> Any:
        """The item as the model reads it; encoded once."""
        key = (subject.identity, item.kind, item.source)
        if key not in self.encoded:
            self.encoded[key] = subject.encode(item)
        return self.encoded[key]

    def item_run(self, subject: Subject, item: Item) -> Run:
        """The run of one item on one model."""
        s, rows = self.settings, self.rows(subject, item)
        inputs: dict[str, Any] = {"model": subject.identity, "how": item.kind}
        inputs |= {"read": content_hash(rows), "rows": item.part.content_hash}
        inputs |= subject.place.inputs()
        if item.harness is not None:
            inputs |= {"task": item.harness.identity, "tokens": s.task_tokens}
        if item.kind in ("prompt", "harmful"):
            inputs |= {"tokens": s.answer_tokens}
        return Run.of("check", **inputs)

    def scores(self, subject: Subject, item: Item) -> Scores:
        """Every measure of the item on the model, measured unless it was."""
        run, rows = self.item_run(subject, item), self.rows(subject, item)
        title = f"{subject.name}: {item.source}"
        kept = self._once(run, lambda: {"scores": subject.measure(item, rows)}, title)
        scores: Scores = kept["scores"]
        return scores

    def kl_run(self, base: Subject, tuned: Subject, item: Item) -> Run:
        s = self.settings
        return Run.of(
            "check-kl",
            base=base.identity,
            tuned=tuned.identity,
            read=content_hash(self.rows(tuned, item)),
            tokens=s.sample_tokens,
            seed=s.seed,
            batch=s.batch_size,
            **tuned.place.inputs(),
        )

    def divergence(self, base: Subject, tuned: Subject, item: Item) -> dict[str, list[float]]:
        """KL(base || tuned) where the base goes on, KL(tuned || base) where the tuned one does.

        Both read the prompts as the tuned model does: KL is of two distributions after the same
        tokens.
        """

        def measure() -> dict[str, Any]:
            prompts, width = self.rows(tuned, item), min(base.width, tuned.width)
            return {
                "forgotten": kl_between(base, tuned, base.continuations(prompts, width)),
                "new": kl_between(tuned, base, tuned.continuations(prompts, width)),
            }

        return self._once(
            self.kl_run(base, tuned, item), measure, f"{tuned.name}: KL on {item.source}"
        )

    def weights_run(self, base: Subject, tuned: Subject) -> Run:
        return Run.of("check-weights", base=base.identity, tuned=tuned.identity)

    def moved(self, base: Subject, tuned: Subject) -> tuple[Moved, ...]:
        """Raises :class:`ModelError` where weights are not of one shape."""

        def measure() -> dict[str, Any]:
            if tuned.adapter is not None:
                groups = moved_by_adapter(base.folder, tuned.adapter)
            else:
                groups = moved(base.folder, tuned.folder)
            return {"groups": [asdict(group) for group in groups]}

        run = self.weights_run(base, tuned)
        kept = self._once(run, measure, f"{tuned.name}: weights")
        return tuple(Moved(**group) for group in kept["groups"])

    def _once(self, run: Run, measure: Callable[[], dict[str, Any]], title: str) -> dict[str, Any]:
        kept = self.store.results(run)
        if kept is None:
            with self.store.timer.part("probing"):
                measured = measure()
            kept = self.store.commit(run, measured)
        self.progress.advance(1, title)
        return kept


def why_no_kl(base: Subject, tuned: Subject) -> str | None:
    """Why KL means nothing between two models; None where it does."""
    if same_tokenizer_files(base.home, tuned.home):
        return None
    try:
        check_same_tokenizer(base.tokenizer, tuned.tokenizer, (base.name, tuned.name))
    except ModelError:
        have = [f"{len(s.tokenizer.get_vocab()):,}" for s in (base, tuned)]
        return (
            f"KL: the two models have different tokenizers ({have[0]} and {have[1]} tokens), so "
            "their distributions are over different things; bits per byte compares them"
        )
    return None


def why_no_weights(base: Subject, tuned: Subject) -> str | None:
    """Why their weights are not compared, as far as names of files say; None where they are."""
    if base.adapter is not None:
        return f"how far weights moved: {base.name} is an adapter; name its base to see it"
    return None
