"""Questions with choices: what is offered, and which of it is right."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from springback.data.view import View, listed, missing
from springback.errors import DataError, shown

#: Metrics that a row may name for its answer.  Never a function: data runs no code.
ROW_METRICS = ("number", "choice", "choices", "exact", "math")
#: Names of choices, in order.
LETTERS = string.ascii_uppercase

#: Two letters or more of right choices as one text: ACD; A, C; A、C; in lower case too.
_SEVERAL = re.compile(r"\s*[A-Z](?:[\s,;/、，；]*[A-Z])+\s*|\s*[a-z](?:[\s,;/、，；]*[a-z])+\s*")
#: What columns that hold one choice each begin with: A, B, ...; option_a, ...; option1, ...
_OPTION_COLUMNS = [("", LETTERS)] + [
    (f"{word}{gap}", labels)
    for word in ("option", "choice", "opt", "op", "ending", "sol")
    for gap in ("", "_", " ")
    for labels in (LETTERS, "123456789", "0123456789")
]
#: A choice that begins with its own letter: A. Paris; (A) Paris.
_OWN_LETTER = re.compile(r"\s*\(?([A-Z])[).:、．]\s*(\S.*)", re.DOTALL)


@dataclass(frozen=True)
class Choices:
    """The choices of a question in order, and where the data names them itself, their names."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    from_one: bool = False  #: columns numbered from 1, as answers that are numbers mostly are too


def metric_of(view: View) -> str | None:
    """How the row wants its answer read, or None."""
    metric = view.scalar("metric") or None
    if metric is not None and metric not in ROW_METRICS:
        raise view.fail(
            f"metric {shown(metric)} is none of {', '.join(ROW_METRICS)}",
            "name one of these (functions of your own go into --metric), or rename the column",
        )
    return metric


def list_choices(choices: Sequence[str]) -> str:
    """The lines ``A. ...`` that stand below a question."""
    lines = zip(LETTERS[: len(choices)], choices, strict=True)
    return "\n".join(f"{letter}. {choice}" for letter, choice in lines)


def choices_of(view: View) -> Choices | None:
    """The choices of a record, None if it has none.

    They are a list of texts; of dictionaries or a dictionary of columns with ``text`` and
    ``label``; a dictionary by label in any order, where null is no choice; or columns of their
    own (``A``, ``B``, ...).
    """
    if view.value("choices") in (None, ""):
        given = _option_columns(view)
        if not given:
            return None
        from_one = [label for label, _ in given] == [str(k + 1) for k in range(len(given))]
        named = [("", text) for _, text in given] if from_one else given
        return replace(_checked(view, named, "A"), from_one=from_one)
    column, value = str(view.column("choices")), listed(view.value("choices"))
    if isinstance(value, dict):
        there = {str(label): text for label, text in value.items() if not missing(text)}
        return _checked(view, sorted(there.items(), key=lambda item: _rank(view, item[0])), column)
    options = view.sequence("choices")
    if not all(isinstance(one, dict) and "text" in one for one in options):
        return _checked(view, [("", one) for one in options], column)
    pairs = [(str(one.get("label") or ""), one["text"]) for one in options if isinstance(one, dict)]
    return _checked(view, [pair for pair in pairs if not missing(pair[1])], column)


def _rank(view: View, label: str) -> int:
    """Where the choice of that label stands."""
    bare = label.strip("().: ").upper()
    if len(bare) == 1 and bare in LETTERS:
        return LETTERS.index(bare)
    if not (bare.isascii() and bare.isdecimal() and len(bare) < 3):
        raise view.fail(
            f"field {view.column('choices')!r} is not a list with something in it, nor by letters "
            "or numbers",
            "give a list, or a dictionary such as {'A': ..., 'B': ...}",
        )
    return int(bare)


def _option_columns(view: View) -> list[tuple[str, object]]:
    """Labels and texts of columns that hold one choice each, as far as they are filled."""
    values = view.record.values
    columns = {name.casefold(): name for name in values}
    answer = view.value("answer")
    lettered = isinstance(answer, str) and len(answer.strip("(). ")) == 1 and not answer.isdecimal()
    for begin, labels in _OPTION_COLUMNS:
        names = {label: columns.get((begin + label).casefold()) for label in labels}
        # Columns a and b may be anything, unless the answer is a letter.
        if names[labels[0]] and names[labels[1]] and (begin or "A" in values or lettered):
            given = [(label, values[name]) for label, name in names.items() if name]
            return [(label, text) for label, text in given if text != "" and not missing(text)]
    return []


def _checked(view: View, given: Sequence[tuple[str, object]], column: str) -> Choices:
    texts = tuple(
        str(c) if isinstance(c, (int, float)) and not isinstance(c, bool) else c for _, c in given
    )
    if not 2 <= len(texts) <= 26 or not all(isinstance(c, str) and c.strip() for c in texts):
        raise view.fail(f"field {column!r} does not hold 2 to 26 texts", "mend or drop the row")
    labels = tuple(label.strip("().: ").casefold() for label, _ in given)
    named = len(set(labels)) == len(labels) and all(labels)
    if not named and any(labels):
        raise view.fail(f"two choices of field {column!r} have one label", "mend or drop the row")
    own = [_OWN_LETTER.fullmatch(str(text)) for text in texts]
    if [m[1] for m in own if m] == [*LETTERS[: len(texts)]]:
        texts = tuple(m[2] for m in own if m)  # letters are put before them again
    return Choices(tuple(view.encodable(str(c), column) for c in texts), labels if named else ())


def _index(value: object) -> int | None:
    """The number that an answer is, also as text (``2``, ``(2)``, ``2.``); None if it is none."""
    if isinstance(value, str):
        bare = value.strip("().: ")
        return int(bare) if bare.isascii() and bare.isdecimal() and len(bare) < 3 else None
    if isinstance(value, float) and value.is_integer():  # a column of numbers that had gaps
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def index_base(views: Iterable[View]) -> tuple[int | None, str | None]:
    """What the index of a first choice is in a source, 0 or 1, and a note where it was concluded.

    An index 0 says 0, and one as high as there are choices says 1, unless it is the only answer;
    both occur in no right source, and raise :class:`springback.errors.DataError`.  With neither,
    indexes written as text beside letters are labels and count from 1; others count from 0.
    Answers that are a choice's own text or label are none; None where these are all there are and
    some could be nothing else: numbers are then choices themselves.  Columns numbered from 1
    count as their numbers do, unless some answer is 0.
    """
    lowest: View | None = None
    highest: View | None = None
    counted, lettered, as_text, worded, from_one = 0, False, False, False, False
    for view in views:
        answer = view.value("answer")
        given = answer if isinstance(answer, list) else [answer]
        if isinstance(answer, str) and answer.strip("().: ").upper() in {*LETTERS}:
            lettered = True
            continue
        try:
            choices = choices_of(view)
        except DataError:  # said where the row is read
            continue
        if choices is None:
            continue
        texts, size = {text.strip() for text in choices.texts}, len(choices.texts)
        from_one |= choices.from_one
        for one in given:
            number = _index(one)
            if str(one).strip() in texts:
                worded |= number is None or number > size
            elif number is not None and str(number) not in choices.labels:
                counted, as_text = counted + 1, as_text or isinstance(one, str)
                lowest = lowest or (view if number == 0 else None)
                highest = highest or (view if number == size else None)
    if lowest and highest:
        raise highest.fail(
            f"answer {shown(highest.value('answer'))} counts choices from 1, and that of "
            f"{lowest.record.where} from 0",
            "a source has to count in one way: take them apart, or give letters",
        )
    if from_one and not lowest:
        return 1, None
    if (highest and (counted > 1 or lettered)) or (as_text and lettered and not lowest):
        return 1, "answers that are numbers count the choices from 1"
    if counted and not lowest:
        return 0, "answers that are numbers count the choices from 0: neither 0 nor the last occurs"
    return (0 if counted or not worded else None), None


def right_letters(view: View, choices: Choices, base: int | None) -> tuple[str, str | None]:
    """The letters of the right choices, sorted, and how the row wants its answer read.

    One right choice is an index from ``base``, a letter, or the choice's label or text; several
    are a list of these, or their letters as one text (``ACD``, ``A, C``), and graded as a set.
    """
    given, metric = view.value("answer"), metric_of(view)
    several: list[object] = given if isinstance(given, list) else [given]
    if isinstance(given, str) and given.strip() not in {text.strip() for text in choices.texts}:
        named = re.findall("[A-Z]", given.upper()) if _SEVERAL.fullmatch(given) else []
        # Small letters in a row might be a word; in order they are none of the choices' own.
        listing = given.strip().isupper() or not given.strip().isalpha() or named == sorted(named)
        if named and listing and set(named) <= set(LETTERS[: len(choices.texts)]):
            several = [*named]
    letters = [_letter(view, choices, one, base) for one in several]
    if not letters:
        raise view.fail(f"answer {shown(given)} names no choice", "drop the row")
    if len(set(letters)) < len(letters):
        raise view.fail(
            f"answer {shown(given)} names a choice twice", "name each right choice once"
        )
    if len(letters) > 1 and metric not in (None, "choices"):
        raise view.fail(
            f"answer {shown(given)} names {len(letters)} choices, and the metric is {metric!r}",
            "several right choices are graded by 'choices'; name that or leave the metric out",
        )
    return "".join(sorted(letters)), "choices" if len(letters) > 1 else metric


def _letter(view: View, choices: Choices, given: object, base: int | None) -> str:
    """The letter of one choice, given as index from ``base``, letter, or its label or text."""
    letters, size = LETTERS[: len(choices.texts)], len(choices.texts)
    number, index = _index(given), not isinstance(given, str) and _index(given) is not None
    if index or (isinstance(given, float) and math.isfinite(given)):
        text = str(number if index else given)
    else:
        text = view.checked(given, str(view.column("answer")), True).strip()
    bare = text.strip("().: ")
    positions = {i for i, label in enumerate(choices.labels) if label == bare.casefold()}
    if not index or base is None:
        positions |= {i for i, choice in enumerate(choices.texts) if choice.strip() == text}
    if not choices.labels and len(bare.upper()) == 1 and bare.upper() in letters:
        positions.add(letters.index(bare.upper()))
    numbered = any(label.isdecimal() for label in choices.labels)
    first = base or 0
    counts = base is not None and not numbered
    if counts and number is not None and 0 <= number - first < size:
        positions.add(number - first)
    if not positions and (both := _OWN_LETTER.fullmatch(text)) and both[1] in letters:
        place = letters.index(both[1])
        positions = {place} if choices.texts[place].strip() == both[2].strip() else set()
    if len(positions) != 1:
        meaning = "could mean several choices" if positions else "is none of the choices"
        raise view.fail(
            f"answer {shown(given)} {meaning}",
            f"give an index from {first} to {size - 1 + first}, a letter A to {letters[-1]}, "
            "or the text of one choice; a list of these where several are right",
        )
    return letters[positions.pop()]
