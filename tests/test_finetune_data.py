"""Rows to what preference and online algorithms learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from springback.core import Row
from springback.errors import DataError
from springback.models.encoding import encode_prompt, encode_row
from springback.models.loading import Tokenizer, load_tokenizer, resolve
from springback.training import (
    encode_labelled,
    encode_preferences,
    encode_prompts,
    labelled_rows,
    preference_rows,
    with_prompt,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


def texts(*found: str) -> list[Row]:
    return [Row("text", "", t) for t in found]


def answers(*found: tuple[str, str]) -> list[Row]:
    return [Row("pair", prompt, response) for prompt, response in found]


def test_the_ith_wanted_row_meets_the_ith_unwanted_one() -> None:
    pairs = preference_rows(
        answers(("who?", "she"), ("when?", "now")), answers(("who?", "it"), ("when?", "never"))
    )
    assert [(a.prompt, a.response, b.response) for a, b in pairs] == [
        ("who?", "she", "it"),
        ("when?", "now", "never"),
    ]


def test_bare_texts_answer_one_neutral_prompt(tokenizer: Tokenizer) -> None:
    ((good, bad),) = preference_rows(texts("a gem"), texts("a bore"), prompt="Film:")
    assert (good.kind, good.prompt, good.response) == ("pair", "Film:", "a gem")
    (one,) = encode_preferences(tokenizer, [(good, bad)], 64)
    assert list(one.prompt) == encode_prompt(tokenizer, Row("pair", "Film:", ""))
    assert "a gem" in tokenizer.decode(one.chosen)
    assert one.chosen[-1] == one.rejected[-1] == tokenizer.eos_token_id
    whole = encode_row(tokenizer, with_prompt(Row("text", "", "a bore"), "Film:"), 64)
    assert (*one.prompt, *one.rejected) == whole.ids


def test_pairs_with_two_prompts_are_refused_and_kto_named() -> None:
    with pytest.raises(DataError, match=r"pair 2 has two prompts.*use KTO"):
        preference_rows(answers(("a", "x"), ("b", "x")), answers(("a", "y"), ("c", "y")))
    with pytest.raises(DataError, match=r"2 wanted and 1 unwanted rows make no pairs.*KTO"):
        preference_rows(texts("a", "b"), texts("c"))
    with pytest.raises(DataError, match="prompt for bare texts is empty"):
        preference_rows(texts("a"), texts("b"), prompt=" ")


def test_labelled_rows_take_turns_and_need_no_pairs(tokenizer: Tokenizer) -> None:
    rows = labelled_rows(texts("a", "b", "c"), answers(("why?", "so")))
    assert [(r.response, label) for r, label in rows] == [
        ("a", True),
        ("so", False),
        ("b", True),
        ("c", True),
    ]
    encoded = encode_labelled(tokenizer, rows, 64)
    assert [row.desirable for row in encoded] == [True, False, True, True]
    assert encoded[0].prompt == encoded[2].prompt != encoded[1].prompt
    assert "so" in tokenizer.decode(encoded[1].completion)


def test_a_longer_list_extends_a_shorter_one() -> None:
    wanted, unwanted = texts("a", "b", "c"), texts("x", "y", "z")
    assert preference_rows(wanted, unwanted)[:2] == preference_rows(wanted[:2], unwanted[:2])
    assert labelled_rows(wanted, unwanted)[:4] == labelled_rows(wanted[:2], unwanted[:2])


def test_answers_are_cut_with_their_prompt(tokenizer: Tokenizer) -> None:
    pairs = preference_rows(texts("long " * 20), texts("dull " * 20))
    (one,) = encode_preferences(tokenizer, pairs, 48)
    assert len(one.prompt) + len(one.chosen) == len(one.prompt) + len(one.rejected) == 48


def test_prompts_are_the_beginnings_of_bare_texts(tokenizer: Tokenizer) -> None:
    bare, asked = encode_prompts(
        tokenizer, [*texts("the heron sings at dawn"), *answers(("why?", "so"))], prompt_tokens=4
    )
    assert len(bare.ids) == 4
    assert bare.text == tokenizer.decode(bare.ids)
    assert "the heron".startswith(bare.text)
    assert list(asked.ids) == encode_prompt(tokenizer, Row("pair", "why?", "so"))
    assert asked.text == "why?"
