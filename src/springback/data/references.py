"""Whether the NLL of reference solutions measures how good a model is.

A model that was trained to write solutions gives a bare answer little probability, and gives it
less the further it was trained: the better model has the higher NLL on ``16``.  So the
NLL of bare answers is withheld, unless bare answers are what the model was trained to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from springback.core import Row, Slice
from springback.errors import shown

#: An answer without a solution is bare up to this many characters and words; a longer one is
#: taken for the text that a model writes.
CHARACTERS, WORDS = 60, 10

_BOXED = re.compile(r"\\boxed\{(.*)\}", re.DOTALL)
_LETTER = re.compile("[A-Z]")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(/\d+|%|e[-+]?\d+)?")


def bare_kind(row: Row) -> str | None:
    """``letters``, ``number`` or ``words`` where NLL would be taken on a bare answer, else None.

    It is taken on the response, or without one on the answer; a response that only repeats the
    answer is no solution.
    """
    if row.kind not in ("qa", "prompt") or not row.answer:
        return None
    core = _core(row.answer)
    if row.response.strip() and _core(row.response) != core:
        return None
    text = row.response.strip() or row.answer
    if len(text) > CHARACTERS or len(text.split()) > WORDS:
        return None
    if row.choices or _LETTER.fullmatch(row.answer.strip()):
        return "letters"
    return "number" if _NUMBER.fullmatch(core) else "words"


def _core(text: str) -> str:
    """A text without what stands around an answer: marks, a currency sign, thousands commas."""
    text = _BOXED.sub(r"\1", text)
    return re.sub(r"[,$\s]", "", text).strip("#*.:;()[]\"'").casefold()


def nll_withheld(part: Slice, name: str, train: Slice | None = None) -> str | None:
    """Why NLL is not taken on the references of ``part`` (``validation``, ``test``); None if it is.

    It is withheld where any row has a bare answer, since few of them decide the mean.  ``train``
    shows what the model writes: where all of its responses are bare answers, of every kind that
    ``part`` has, nothing is withheld.
    """
    kinds = [bare_kind(row) for row in part.rows]
    bare = [row for row, kind in zip(part.rows, kinds, strict=True) if kind]
    if not bare or (train is not None and _taught(train.rows, {*kinds} - {None})):
        return None
    return (
        f"{len(bare)} of {len(kinds)} {name} rows have a bare answer (such as "
        f"{shown(bare[0].answer)}) and no solution, and the NLL of that says nothing about a "
        "model that writes solutions; give the worked text as `solution`, or with --train rows "
        "that show that it was trained on bare answers"
    )


def _taught(rows: Iterable[Row], kinds: set[str | None]) -> bool:
    """Whether all of the responses are bare answers, and of all these kinds."""
    learnt = {bare_kind(row) for row in rows}
    return None not in learnt and kinds <= learnt
