"""Slices: taken, cut, split and compared."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from springback.core import Row, Slice
from springback.data import (
    check_disjoint,
    content_key,
    is_built_in,
    load_slice,
    problems,
    reviews,
    split_rows,
)
from springback.errors import DataError


def texts_file(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return str(path)


def of_texts(name: str, *texts: str) -> Slice:
    return Slice.of(name, f"{name}.jsonl", [Row("text", "", t) for t in texts])


def said(part: Slice) -> list[str]:
    return [row.response for row in part.rows]


@pytest.fixture
def letters(tmp_path: Path) -> str:
    return texts_file(tmp_path / "letters.jsonl", list("abcdefghijklmnopqrst"))


def test_a_slice_is_named_after_its_file_and_keeps_where_it_came_from(letters: str) -> None:
    part = load_slice(letters, seed=3)
    assert (part.name, part.source, part.seed, len(part)) == ("letters.jsonl", letters, 3, 20)
    assert load_slice(letters, name="mine").name == "mine"
    assert load_slice(f"{letters}?text=a").name == "letters.jsonl?text=a"


def test_a_shorter_slice_begins_a_longer_one(letters: str) -> None:
    whole = said(load_slice(letters, seed=1))
    assert sorted(whole) == list("abcdefghijklmnopqrst")
    assert whole != sorted(whole)
    for n in (1, 7, 20):
        assert said(load_slice(letters, seed=1, limit=n)) == whole[:n]
    assert said(load_slice(letters, seed=2)) != whole
    assert said(load_slice(letters, shuffle=False, limit=3)) == ["a", "b", "c"]


def test_fields_reach_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"body": "b"}\n')
    assert said(load_slice(str(path), fields={"text": "body"})) == ["b"]


def test_built_in_names_give_the_built_in_data() -> None:
    assert load_slice("reviews:negative", limit=5, seed=2) == reviews("negative", 5, seed=2)
    assert load_slice("problems", limit=5, split="test") == problems(5, split="test")
    assert load_slice("problems:3", limit=5) == problems(5, levels=(3,))
    assert len(load_slice("reviews:positive")) == 1000
    # A job's fields are for the user's own data, which may stand beside built-in data.
    assert load_slice("problems:3", limit=5, fields={"answer": "x"}) == problems(5, levels=(3,))
    named = load_slice("reviews:positive", limit=5, name="align")
    assert named.name == "align"
    assert named.content_hash == reviews("positive", 5).content_hash


def test_built_in_sources_are_told_from_files() -> None:
    for source in ("reviews:positive", "problems", "problems:2", "reviews"):
        assert is_built_in(source)
    for source in ("reviews.jsonl", "./problems", "my/problems", "owner/reviews:main"):
        assert not is_built_in(source)


@pytest.mark.parametrize(
    ("source", "how", "message"),
    [
        ("reviews", {}, "no built-in data set 'reviews'; allowed: reviews:positive"),
        ("reviews:neutral", {}, "no built-in data set 'reviews:neutral'"),
        ("problems:4", {}, "no built-in data set 'problems:4'"),
        ("problems:", {}, "no built-in data set 'problems:'"),
        ("problems", {"split": "dev"}, "is 'dev'; allowed: train, validation, test"),
        ("problems", {"limit": 0}, "asked for 0 rows of 'problems'"),
        ("problems", {"limit": 10**12}, "different ones; ask for fewer"),
    ],
)
def test_built_in_data_that_there_is_not_is_refused(
    source: str, how: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_slice(source, **how)  # type: ignore[arg-type]


def test_fewer_rows_than_asked_for_say_how_many_there_are(letters: str) -> None:
    with pytest.raises(DataError, match=r"asked for 21 rows of .*; there are 20; ask for fewer"):
        load_slice(letters, limit=21)


def test_the_parts_of_a_split_are_disjoint_and_of_the_asked_sizes(letters: str) -> None:
    whole = load_slice(letters)
    parts = split_rows(whole, {"test": 5, "train": 15}, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"test": 5, "train": 15}
    assert sorted(said(parts["test"]) + said(parts["train"])) == sorted(said(whole))
    check_disjoint(parts["train"], parts["test"])
    assert parts["test"].name == "letters.jsonl/test"
    assert split_rows(whole, {"test": 5, "train": 15}, seed=0) == parts
    assert split_rows(whole, {"test": 5, "train": 15}, seed=1) != parts


def test_a_part_named_first_stays_when_a_later_one_grows(letters: str) -> None:
    whole = load_slice(letters)
    small = split_rows(whole, {"test": 5, "train": 3}, seed=0)
    large = split_rows(whole, {"test": 5, "train": 15}, seed=0)
    assert small["test"] == large["test"]


def test_repeated_rows_never_stand_in_two_parts() -> None:
    # Five texts, each in four spellings that come to the same: 20 rows, of which 5 differ.
    spellings = ("{} one", "  {}, ONE!", "({})_one", "{}\none")
    repeated = of_texts("r", *(how.format(t) for t in "abcde" for how in spellings))
    for seed in range(5):
        parts = split_rows(repeated, {"test": 6, "train": 12}, seed=seed)
        # Six rows take two texts (four and two rows), twelve the other three.
        assert {name: len(part) for name, part in parts.items()} == {"test": 6, "train": 12}
        keys = [{content_key(row) for row in part.rows} for part in parts.values()]
        assert [len(k) for k in keys] == [2, 3]
        check_disjoint(parts["train"], parts["test"])
    # Nine rows take three texts, so two of them, eight rows, are left for train.
    with pytest.raises(DataError, match=r"18 rows \(test 9, train 9\).* there are 20, .* 5 differ"):
        split_rows(repeated, {"test": 9, "train": 9}, seed=0)


def test_equal_rows_do_not_follow_each_other_in_a_part() -> None:
    repeated = of_texts("r", *(t for t in "abcdefgh" for _ in range(8)))
    order = said(split_rows(repeated, {"all": 64}, seed=0)["all"])
    # Grouped, 56 of the 63 neighbours would be equal; at random 7 of 63 are, give or take 3.
    assert sum(a == b for a, b in itertools.pairwise(order)) < 20


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"test": 5, "train": 16}, r"asked for 21 rows \(test 5, train 16\) .* there are 20"),
        ({"test": 0}, "asked for 0 rows for 'test'"),
        ({}, "no sizes given"),
    ],
)
def test_a_split_that_cannot_be_had_is_refused(
    letters: str, sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        split_rows(load_slice(letters), sizes, seed=0)


def test_empty_slices_are_refused() -> None:
    empty, full = of_texts("none"), of_texts("some", "a")
    for a, b in ((empty, full), (full, empty)):
        with pytest.raises(DataError, match=r"the slice 'none' \(none.jsonl\) is empty"):
            check_disjoint(a, b)
    with pytest.raises(DataError, match="the slice 'none'"):
        split_rows(empty, {"test": 1}, seed=0)


def test_an_overlap_names_both_slices_and_counts_the_rows() -> None:
    train = of_texts("train", "A film, twice.", "Another film", "third")
    test = of_texts("test", "a FILM -- twice", "unseen", "another_film!")
    with pytest.raises(DataError) as caught:
        check_disjoint(train, test)
    assert str(caught.value).startswith(
        "2 of the 3 rows of 'test' (test.jsonl) are also in 'train' (train.jsonl); allowed: none"
    )
    check_disjoint(train, of_texts("test", "unseen"))


def test_overlap_is_judged_by_the_prompt_with_its_turns_or_else_by_the_response() -> None:
    def key(kind: str, prompt: str, response: str, *turns: tuple[str, str]) -> str:
        return content_key(Row(kind, prompt, response, turns=turns))  # type: ignore[arg-type]

    assert key("qa", "Who?", "Ann") == key("qa", "who", "Ben") == "who"
    assert key("text", "", "Üben, 3 Mal") == "üben 3 mal"
    assert key("chat", "And?", "x", ("user", "Hi!"), ("assistant", "Ho")) == "hi ho and"
    # Texts of signs alone are not all the same text.
    assert key("text", "", ":-)") != key("text", "", ":-(")
