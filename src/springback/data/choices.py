"""What the built-in word problems also give: multiple-choice questions, and plain neutral texts."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from springback.core import Row, Slice
from springback.data.builtin.grammar import Split
from springback.data.builtin.problems import LEVELS, problems
from springback.data.choice_rows import LETTERS, list_choices

_NUMBER = re.compile(r"\d+")
#: How far a near miss lies from the right number.
_NEAR = (1, 2, 3, 4, 5, 10, 20)


def bare_question(row: Row) -> str:
    """The prompt of a multiple-choice row without the lines that list its choices."""
    return row.prompt.removesuffix("\n" + list_choices(row.choices))


def choice_problems(
    n: int, *, seed: int = 0, split: Split = "train", levels: Sequence[int] = LEVELS
) -> Slice:
    """:func:`problems` as questions with four choices, the right number beside three wrong ones.

    Rows are as :func:`springback.data.load_rows` makes them of a file with ``choices``: the
    prompt lists them as ``A. ...``, ``answer`` is the letter, and ``response`` is the worked
    solution, ending in a line ``#### B``.

    Wrong numbers are what a mistake gives (a number of the question, a result on the way, another
    operation) or near misses; each has as many digits as the right one, since a shorter text is
    likelier.  Numbers and their order are drawn by seed and question, so the first 100 of 200 are
    the same as 100, and splits are as disjoint as those of the problems.  Chance is 1/4.

    Raises :class:`springback.errors.DataError` as :func:`problems` does.
    """
    made = problems(n, seed=seed, split=split, levels=levels)
    name = made.name.replace("problems", "problems-choice")
    return Slice.of(name, f"built-in {name}, {split}", [_ask(r, seed) for r in made.rows], seed)


def _solution(row: Row) -> str:
    """The worked solution of a problem without its closing line."""
    return row.response.rpartition("\n#### ")[0]


def _ask(row: Row, seed: int) -> Row:
    """A word problem as a multiple-choice row."""
    rng = random.Random(f"springback choices {seed} {row.prompt}")
    right = str(row.answer)
    numbers = [*_wrong_numbers(row, rng), right]
    rng.shuffle(numbers)
    choices, letter = tuple(numbers), LETTERS[numbers.index(right)]
    return replace(
        row,
        prompt=f"{row.prompt}\n{list_choices(choices)}",
        response=f"{_solution(row)}\n#### {letter}",
        answer=letter,
        choices=choices,
    )


def _wrong_numbers(row: Row, rng: random.Random) -> list[str]:
    """Three different wrong numbers, as long as the right one: mistakes, then near misses."""
    right = int(str(row.answer))
    given = [int(x) for x in _NUMBER.findall(row.prompt)]
    mistakes = {*given, *(int(x) for x in _NUMBER.findall(row.response))}
    mistakes |= {op for a in given for b in given for op in (a + b, a - b, a * b)}
    near = {right + sign * step for step in _NEAR for sign in (-1, 1)}

    def fits(number: int) -> bool:
        return number > 0 and number != right and len(str(number)) == len(str(right))

    likely = sorted(filter(fits, mistakes))
    drawn = rng.sample(likely, min(2, len(likely)))
    # Some five near misses have the right number of digits at the least: always enough.
    drawn += rng.sample(sorted(filter(fits, near - set(drawn))), 3 - len(drawn))
    return [str(number) for number in drawn]


def problem_texts(
    n: int, *, seed: int = 0, split: Split = "train", levels: Sequence[int] = LEVELS
) -> Slice:
    """:func:`problems` as rows of kind ``text``, question and worked solution in plain words.

    Neutral where an audit aligns on something else: what a model forgot shows in their NLL.

    Raises :class:`springback.errors.DataError` as :func:`problems` does.
    """
    made = problems(n, seed=seed, split=split, levels=levels)
    name = made.name.replace("problems", "problems-text")
    rows = (
        Row("text", "", f"{row.prompt}\n{_solution(row)}", label=row.label) for row in made.rows
    )
    return Slice.of(name, f"built-in {name}, {split}", rows, seed)
