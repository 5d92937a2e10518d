"""The nouns: hashes that committed results are found by."""

from __future__ import annotations

import pytest

from springback.core import ALGORITHMS, Recipe, Run, byte_size, canonical_json, content_hash

#: Computed before the fields of preference and online algorithms were added.
HASHES = {
    Recipe(): "12f3a8ae04fedc97299d3de04eabb87c6136c2e19358f22cfe139fa00a341dbc",
    Recipe(
        learning_rate=3e-5, batch_size=8, epochs=2, seed=3, max_tokens=64, precision="float32"
    ): "aeb4a0b05aeb45271063bd39376a932aa6e5d397669534daf4b2be8516f405de",
}


def test_fields_added_later_leave_the_hash_of_older_recipes() -> None:
    assert {recipe: content_hash(recipe) for recipe in HASHES} == HASHES
    assert Run.of("align", recipe=Recipe(), seed=0).id == "ac2f10fe4aeacbacea07"


def test_fields_added_later_change_the_hash_when_they_are_used() -> None:
    assert '"gamma":0.5' in canonical_json(Recipe(algorithm="simpo", gamma=0.5))
    recipes = [Recipe(algorithm="simpo", gamma=g) for g in (0.5, 1.0, 2.0)]
    assert len({content_hash(recipe) for recipe in recipes}) == 3


def test_a_recipe_has_one_spelling() -> None:
    assert Recipe(algorithm="dpo") == Recipe(algorithm="dpo", beta=ALGORITHMS["dpo"].beta)
    assert Recipe(lora_rank=0) == Recipe(lora_rank=None)
    assert Recipe(lora_alpha=8) == Recipe(lora_rank=0)
    assert Recipe(lora_rank=4, lora_alpha=8) != Recipe(lora_rank=4)
    assert Recipe().beta is None


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 kB"),
        (1000, "1 kB"),
        (2.6e6, "3 MB"),
        (320e6, "320 MB"),
        (1e9, "1.0 GB"),
        (70.55e9, "70.5 GB"),
    ],
)
def test_bytes_in_words_are_told_in_the_unit_that_shows_them(count: float, words: str) -> None:
    assert byte_size(count) == words
