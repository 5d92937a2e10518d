"""Multiple-choice questions and plain texts made of the built-in word problems."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from springback.core import Row
from springback.data import (
    bare_question,
    check,
    check_disjoint,
    choice_problems,
    content_key,
    is_built_in,
    load_rows,
    load_slice,
    problem_texts,
    problems,
)
from springback.data.builtin.grammar import SPLITS
from springback.data.choices import _ask
from springback.data.grading import grade
from springback.errors import DataError


def test_a_choice_problem_is_a_problem_with_three_wrong_numbers() -> None:
    for row, plain in zip(choice_problems(900).rows, problems(900).rows, strict=True):
        assert row.kind == "qa"
        assert bare_question(row) == plain.prompt
        assert len(set(row.choices)) == len(row.choices) == 4
        assert row.answer in tuple("ABCD")
        assert row.choices["ABCD".index(row.answer)] == plain.answer
        assert row.choices.count(str(plain.answer)) == 1
        assert row.label == plain.label


def test_wrong_numbers_are_as_long_as_the_right_one() -> None:
    for row in choice_problems(900, seed=1).rows:
        assert len({len(choice) for choice in row.choices}) == 1
        assert all(choice.isdecimal() and not choice.startswith("0") for choice in row.choices)


def test_wrong_numbers_are_mistakes_and_near_misses() -> None:
    """4 bags of 5 figs are 20.  Mistakes of two digits: 5 + 5, 4 * 4, 5 * 5.  Two of them, and one
    of 20 -+ 1, 2, 3, 4, 5, 10 and + 20."""
    made = Row("qa", "4 bags hold 5 figs each. How many?", "4 * 5 = 20 figs.\n#### 20", "20")
    mistakes, near = {"10", "16", "25"}, {20 + s * d for d in (1, 2, 3, 4, 5, 10) for s in (-1, 1)}
    seen = set()
    for seed in range(200):
        wrong = set(_ask(made, seed).choices) - {"20"}
        assert len(wrong) == 3
        assert len(wrong & mistakes) >= 2
        assert wrong - mistakes <= {str(n) for n in near | {40}}
        seen |= wrong
    assert {"10", "16", "25", "19", "21", "40"} <= seen


def test_the_right_choice_may_stand_anywhere() -> None:
    """2000 over four places: 500 each, standard deviation 19; five of them either way."""
    seen = Counter(row.answer for row in choice_problems(2000).rows)
    assert set(seen) == set("ABCD")
    assert all(400 < n < 600 for n in seen.values())
    # Nor is the right one the smallest, or the largest, more often than by chance would be odd.
    ranks = Counter(
        sorted(row.choices, key=int).index(row.choices["ABCD".index(str(row.answer))])
        for row in choice_problems(2000).rows
    )
    assert max(ranks.values()) < 1000


def test_the_solution_ends_in_the_letter() -> None:
    for row, plain in zip(choice_problems(60).rows, problems(60).rows, strict=True):
        assert grade("choice", row.response, str(row.answer))
        assert check(
            replace(
                row, response=row.response[: -len("A")] + str(plain.answer), answer=plain.answer
            )
        )


def test_rows_are_those_of_a_file_with_choices(tmp_path: Path) -> None:
    made = choice_problems(5).rows
    path = tmp_path / "choices.jsonl"
    lines = [
        {
            "question": bare_question(r),
            "choices": list(r.choices),
            "answer": r.answer,
            "solution": r.response,
            "label": r.label,
        }
        for r in made
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert load_rows(str(path)) == made


def test_a_longer_draw_begins_with_the_shorter_one_and_seeds_differ() -> None:
    long = choice_problems(200, seed=7, split="test")
    assert choice_problems(50, seed=7, split="test").rows == long.rows[:50]
    assert choice_problems(50, seed=8, split="test").rows != long.rows[:50]


def test_splits_share_no_question_whatever_its_choices() -> None:
    parts = [choice_problems(200, split=split) for split in SPLITS]
    keys = [{bare_question(row) for row in part.rows} for part in parts]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    check_disjoint(parts[0], parts[2])


def test_texts_are_question_and_solution() -> None:
    for row, plain in zip(problem_texts(50).rows, problems(50).rows, strict=True):
        assert (row.kind, row.prompt, row.answer) == ("text", "", None)
        assert f"{row.response}\n#### {plain.answer}" == f"{plain.prompt}\n{plain.response}"
    assert len({content_key(row) for row in problem_texts(500).rows}) == 500


def test_sources_reach_them() -> None:
    choice = load_slice("problems-choice", limit=5, seed=2, split="test")
    assert choice == choice_problems(5, seed=2, split="test")
    assert choice.name == "problems-choice"
    assert load_slice("problems-choice:1", limit=5) == choice_problems(5, levels=(1,))
    assert load_slice("problems-text", limit=5) == problem_texts(5)
    assert load_slice("problems-text:3", limit=5).name == "problems-text:3"
    assert is_built_in("problems-choice:1")
    assert is_built_in("problems-text")
    with pytest.raises(
        DataError,
        match=r"no built-in data set 'problems-choice:4' .did you mean \S+; allowed",
    ):
        load_slice("problems-choice:4", limit=5)


def test_they_are_the_same_on_every_machine() -> None:
    # Published numbers rest on these rows: change them, and these hashes, only knowingly.
    assert choice_problems(100).content_hash[:16] == "c369187549f3190f"
    assert problem_texts(100).content_hash[:16] == "2c691f010ac70b09"
