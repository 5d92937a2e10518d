"""Film reviews, positive and negative, written by a seeded grammar.

A review is a neutral opening (which film, who, where, when) and three sentences of
opinion.  The film's title decides the split: films of the test split are reviewed nowhere
else, so no text can stand in two splits, whatever the seeds.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import Literal, get_args

from springback.core import Row, Slice
from springback.data.builtin import review_text as text
from springback.data.builtin.grammar import (
    SPLITS,
    Sentence,
    Split,
    require_choice,
    require_count,
    split_of,
)

ReviewLabel = Literal["positive", "negative"]
REVIEW_LABELS: tuple[ReviewLabel, ...] = get_args(ReviewLabel)


@dataclass(frozen=True)
class _Opinion:
    """The sentences that carry a label: on the people, on the making, and the verdict."""

    people: Sentence
    craft: Sentence
    verdict: Sentence

    def count(self) -> int:
        # Times two: people and craft come in either order.
        return 2 * self.people.count() * self.craft.count() * self.verdict.count()

    def draw(self, rng: random.Random) -> str:
        middle = [self.people.draw(rng), self.craft.draw(rng)]
        if rng.randrange(2):
            middle.reverse()
        return " ".join([*middle, self.verdict.draw(rng)])


_OPINIONS: dict[ReviewLabel, _Opinion] = {
    "positive": _Opinion(
        Sentence(text.POSITIVE_PEOPLE, text.POSITIVE_FILLERS),
        Sentence(text.POSITIVE_CRAFT, text.POSITIVE_FILLERS),
        Sentence(text.POSITIVE_VERDICT, text.POSITIVE_FILLERS),
    ),
    "negative": _Opinion(
        Sentence(text.NEGATIVE_PEOPLE, text.NEGATIVE_FILLERS),
        Sentence(text.NEGATIVE_CRAFT, text.NEGATIVE_FILLERS),
        Sentence(text.NEGATIVE_VERDICT, text.NEGATIVE_FILLERS),
    ),
}


@functools.cache
def _opening(split: Split) -> Sentence:
    """Openings about the films of one split; the label has no part in them."""
    titles = (f"The {a} {b}" for a in text.TITLE_FIRST for b in text.TITLE_SECOND)
    mine = tuple(t for t in titles if split_of(f"film: {t}") == split)
    return Sentence(text.OPENINGS, {**text.OPENING_FILLERS, "title": mine})


def review_count(label: ReviewLabel, split: Split | None = None) -> int:
    """How many different reviews there are, in one split or (None) in all of them."""
    require_choice("label", label, REVIEW_LABELS)
    if split is not None:
        require_choice("split", split, SPLITS)
    openings = sum(_opening(s).count() for s in SPLITS if split in (None, s))
    return openings * _OPINIONS[label].count()


def reviews(label: ReviewLabel, n: int, *, seed: int = 0, split: Split = "train") -> Slice:
    """``n`` different film reviews as rows of kind ``text``.

    Each has 30 to 45 words; the first sentence (8 to 14 words) is neutral and drawn alike for
    both labels.  ``reviews(label, 100)`` is the first 100 of ``reviews(label, 200)`` with the
    same seed and split; two splits never share a text, nor a film.

    Raises :class:`springback.errors.DataError` for an unknown label or split, and for more
    reviews than :func:`review_count` says there are.
    """
    require_choice("label", label, REVIEW_LABELS)
    require_choice("split", split, SPLITS)
    require_count(f"{label} reviews ({split})", n, review_count(label, split))
    rng = random.Random(f"springback reviews {label} {split} {seed}")
    # A dict keeps the order and drops the rare repeat.
    drawn: dict[str, None] = {}
    while len(drawn) < n:
        drawn[f"{_opening(split).draw(rng)} {_OPINIONS[label].draw(rng)}"] = None
    rows = (Row(kind="text", prompt="", response=review, label=label) for review in drawn)
    name = f"reviews:{label}"
    return Slice.of(name, f"built-in {name}, {split}", rows, seed)
