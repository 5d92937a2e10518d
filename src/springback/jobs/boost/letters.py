"""Multiple choice without decoding: how likely each option's letter is right after the prompt.

As lm-eval has it for choices: the log-likelihood of every letter on offer, of which the largest is
the answer.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

from springback.core import Row, Slice
from springback.data.grading import check_reference
from springback.jobs.boost.questions import QuestionFormat, letters_of
from springback.jobs.boost.search import Letters
from springback.models.encoding import Encoded, encode_answer
from springback.models.loading import Tokenizer


def all_choices(questions: Slice, how: QuestionFormat) -> bool:
    """Whether every question offers choices of which one letter is right."""
    return all(len(r.choices) > 1 and how.metric_of(r) == "choice" for r in questions.rows)


def encoded_letters(
    rows: Sequence[Row], tokenizer: Tokenizer, system: str | None
) -> list[list[Encoded]]:
    """By question the prompt with each letter on offer, which alone counts."""
    return [
        [encode_answer(tokenizer, row, letter, system) for letter in _offered(row)] for row in rows
    ]


def one_token_each(options: Sequence[Sequence[Encoded]]) -> bool:
    """Whether every letter is one token, so that one position after the prompt has them all."""
    return all(letter.counted == 1 for letters in options for letter in letters)


def letters_from(logliks: Sequence[Sequence[float]], rows: Sequence[Row]) -> Letters:
    """``logliks``: nats, by question and letter.  Of equal ones the first is the answer."""
    probability, correct = [], []
    for scores, row in zip(logliks, rows, strict=True):
        right, top = _right(row), max(scores)
        weights = [math.exp(score - top) for score in scores]
        probability.append(weights[right] / math.fsum(weights))
        correct.append(scores.index(top) == right)
    return Letters(tuple(probability), tuple(correct))


def _right(row: Row) -> int:
    letter = check_reference("choice", row.answer or "", letters=letters_of(row))
    return string.ascii_uppercase.index(letter)


def _offered(row: Row) -> str:
    """The letters of the choices; the right one too where it names none of them."""
    return string.ascii_uppercase[: max(len(row.choices), _right(row) + 1)]
