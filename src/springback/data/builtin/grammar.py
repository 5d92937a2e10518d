"""What both built-in data sets stand on: sentences with slots, fixed splits, seeded draws."""

from __future__ import annotations

import functools
import hashlib
import math
import random
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from springback.errors import DataError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_AN = re.compile(r"\b([Aa])(?= (?:[aeio]|un|ug|honest))")


def words(text: str) -> tuple[str, ...]:
    """Fillers of one word each, written in a row."""
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """Fillers of several words, with commas between them."""
    return tuple(text.split(", "))


def split_of(key: str) -> Split:
    """The one split that ``key`` belongs to: 80 % train, 10 % validation, 10 % test.

    A hash of the key decides, so the answer is the same in every process and for every seed.
    """
    bucket = int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8], "big") % 10
    if bucket == 0:
        return "test"
    return "validation" if bucket == 1 else "train"


def articles(text: str) -> str:
    """``a`` becomes ``an`` before a vowel sound, as far as the words used here need it."""
    return _AN.sub(r"\1n", text)


@functools.cache
def slots_of(template: str) -> tuple[str, ...]:
    """The slot names of a template, in order of appearance."""
    return tuple(name for _, name, _, _ in string.Formatter().parse(template) if name)


@dataclass(frozen=True)
class Sentence:
    """One place in a text: templates to choose from, and what may fill their slots.

    A slot written with a capital, ``{Role}``, takes the fillers of ``role`` and capitalises them.
    """

    templates: tuple[str, ...]
    fillers: Mapping[str, tuple[str, ...]]

    def count(self) -> int:
        """Number of different sentences.  No two choices give the same text (tested)."""
        return sum(
            math.prod(len(self.fillers[slot.lower()]) for slot in slots_of(template))
            for template in self.templates
        )

    def draw(self, rng: random.Random) -> str:
        """A template at random, then each slot at random: templates with few slots stay common."""
        template = rng.choice(self.templates)
        chosen = {slot: rng.choice(self.fillers[slot.lower()]) for slot in slots_of(template)}
        return self.fill(template, chosen)

    @staticmethod
    def fill(template: str, chosen: Mapping[str, str]) -> str:
        """``template`` with its slots filled."""
        filled = {
            slot: text[:1].upper() + text[1:] if slot[0].isupper() else text
            for slot, text in chosen.items()
        }
        return articles(template.format(**filled))


def draw_indices(space: int, rng: random.Random) -> Iterator[int]:
    """0 to ``space`` - 1 in random order, each once, in memory proportional to what is taken.

    Fisher-Yates over an array of which only the swapped places are kept; a longer draw
    begins with the shorter one.
    """
    moved: dict[int, int] = {}
    for i in range(space):
        j = rng.randrange(i, space)
        yield moved.get(j, j)
        moved[j] = moved.pop(i, i)


def require_choice(what: str, given: object, allowed: Sequence[object]) -> None:
    """Raise :class:`DataError` unless ``given`` is one of ``allowed``."""
    if given not in allowed:
        names = ", ".join(str(a) for a in allowed)
        raise DataError(f"{what} is {given!r}; allowed: {names}; choose one of them")


def require_count(what: str, n: object, most: int | None = None) -> None:
    """Raise :class:`DataError` unless ``n`` is a whole number from 1 to ``most``."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise DataError(f"asked for {n!r} {what}; allowed: a whole number from 1; ask for more")
    if most is not None and n > most:
        raise DataError(f"asked for {n} {what}; there are {most} different ones; ask for fewer")
