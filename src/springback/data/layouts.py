"""From a record to a row: which fields mean what."""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from springback.core import Row, RowKind
from springback.data.records import Record, brief, names_of
from springback.errors import DataError

#: Our names, each with the column names it is recognised by.
COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "prompt": ("prompt", "instruction"),
    "response": ("response", "output", "completion"),
    "question": ("question",),
    "context": ("context",),
    "choices": ("choices",),
    "answer": ("answer",),
    "final": ("final",),
    "solution": ("solution", "rationale"),
    "messages": ("messages",),
    "label": ("label",),
    "metric": ("metric",),
}
#: Metrics that a row may name for its answer.  Never a function: data runs no code.
ROW_METRICS = ("number", "choice", "choices", "exact", "math")
#: What a record must have to be of a kind; earlier kinds win, as many sets also carry a `text`.
_NEEDED: dict[RowKind, tuple[str, ...]] = {
    "chat": ("messages",),
    "qa": ("question", "answer"),
    "pair": ("prompt", "response"),
    "text": ("text",),
}
ALLOWED = "text; prompt and response; question and answer (and choices); or messages"
#: Names of choices, in order.
LETTERS = string.ascii_uppercase

_ROLES = ("system", "user", "assistant")
_CALCULATOR_NOTE = re.compile(r"<<[^<>\n]*>>")
#: Two letters or more of right choices as one text: ACD; A, C; A、C.
_SEVERAL = re.compile(r"\s*[A-Z](?:[\s,;/、，；]*[A-Z])+\s*")
_FINAL_LINE = re.compile(r"(?:^|\n)####[ \t]*([^\n]*?)\s*$")


@dataclass(frozen=True)
class View:
    """A record seen through our names; ``mapping`` (ours to the file's) outranks recognition."""

    source: str
    record: Record
    mapping: Mapping[str, str]

    def fail(self, problem: str, todo: str) -> DataError:
        """The error to raise: where, what, which fields there are, what to do."""
        have = names_of(self.record.values)
        return DataError(
            f"{self.source!r}: {self.record.where}: {problem}; its fields: {have}; {todo}"
        )

    def column(self, name: str) -> str | None:
        """The file's column for one of our names, or None."""
        wanted = (self.mapping[name],) if name in self.mapping else COLUMNS[name]
        return next((column for column in wanted if column in self.record.values), None)

    def value(self, name: str) -> object:
        """The value under one of our names; None if there is no such column."""
        column = self.column(name)
        return None if column is None else self.record.values[column]

    def text(self, name: str, *, empty: bool = False) -> str:
        """A text that must be there, and unless ``empty`` is allowed, must hold something."""
        column = self.column(name)
        if column is None:
            wanted = self.mapping.get(name) or " or ".join(COLUMNS[name])
            raise self.fail(f"no field {wanted!r}", f"add it, or map your column to {name!r}")
        return self.checked(self.record.values[column], column, empty)

    def optional(self, column: str | None) -> str:
        """The text of a column, empty if the column is not there or holds nothing."""
        value = None if column is None else self.record.values.get(column)
        return "" if column is None or value is None else self.checked(value, column, True)

    def checked(self, value: object, column: str, empty: bool) -> str:
        """``value`` if it is a text, and unless ``empty`` is allowed, holds something."""
        if not isinstance(value, str):
            kind = "empty (null)" if value is None else f"of type {type(value).__name__}"
            raise self.fail(f"field {column!r} is {kind}", "give text or drop the row")
        if not empty and not value.strip():
            raise self.fail(f"field {column!r} is empty", "fill it or drop the row")
        return self.encodable(value, column)

    def encodable(self, value: str, column: str) -> str:
        """``value``, unless half a surrogate pair in it would fail at the first write."""
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise self.fail(
                f"field {column!r} holds half of a surrogate pair, which is no character",
                "remove the \\ud... escape",
            ) from None
        return value

    def scalar(self, name: str) -> str | None:
        """A text, number or truth value as text; None if missing or null."""
        value = self.value(name)
        column = str(self.column(name))
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and not math.isfinite(value):
            raise self.fail(f"field {column!r} is not a finite number", "fill it or drop the row")
        if isinstance(value, (int, float)):
            return str(int(value)) if value == int(value) else repr(value)
        return None if value is None else self.checked(value, column, True)

    def sequence(self, name: str) -> list[object]:
        """A list, or the JSON text of one (as CSV cells have it)."""
        value = self.value(name)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        if isinstance(value, dict) and list(value) == list(LETTERS[: len(value)]):
            value = list(value.values())  # choices by letter: {"A": ..., "B": ...}
        if not isinstance(value, list) or not value:
            raise self.fail(
                f"field {self.column(name)!r} is not a list with something in it",
                "give a list, or the JSON of one",
            )
        return value


def layout_of(view: View) -> RowKind | None:
    """The kind of row a record is, by the names mapped or else by its columns; None if unknown."""
    for kind, needed in _NEEDED.items():
        if any(name in view.mapping for name in needed):
            return kind
    for kind, needed in _NEEDED.items():
        if all(view.column(name) is not None for name in needed):
            return kind
    return None


def row_of(view: View, kind: RowKind) -> Row:
    """The record as a row of ``kind``.

    Raises :class:`springback.errors.DataError` for a missing, empty or ill-typed field.
    """
    label = view.scalar("label") or None
    if kind == "text":
        return Row(kind, "", view.text("text"), label=label)
    if kind == "pair":
        # Prompts without responses are a kind of data set; formats.load_rows sees to mixtures.
        return Row(kind, _prompt(view), view.text("response", empty=True), label=label)
    if kind == "chat":
        return _chat(view, label)
    return _question(view, label)


def _prompt(view: View) -> str:
    prompt = view.text("prompt")
    if view.column("prompt") != "instruction":
        return prompt
    more = [view.optional(column) for column in ("input", "context")]
    return "\n\n".join([prompt, *(text for text in more if text.strip())])


def _chat(view: View, label: str | None) -> Row:
    turns: list[tuple[str, str]] = []
    for k, message in enumerate(view.sequence("messages"), start=1):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in _ROLES or not isinstance(content, str) or not content.strip():
            raise view.fail(
                f"message {k} is {brief(repr(message), 60)}",
                f"each needs a role ({', '.join(_ROLES)}) and a content that is text",
            )
        turns.append((role, view.encodable(content, "messages")))
    if [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise view.fail(
            "the conversation does not end with a user's message and the assistant's reply",
            "cut it there or drop the row",
        )
    return Row("chat", turns[-2][1], turns[-1][1], turns=tuple(turns[:-2]), label=label)


def _question(view: View, label: str | None) -> Row:
    question = view.text("question")
    context = view.optional(view.column("context"))
    prompt = f"{context}\n\n{question}" if context.strip() else question
    solution = _CALCULATOR_NOTE.sub("", view.optional(view.column("solution")))
    response = view.value("response")  # beside question and answer: a worked solution, too
    given = isinstance(response, str) and response.strip()
    written = view.encodable(str(response), str(view.column("response"))) if given else ""
    if view.value("choices") not in (None, ""):
        choices = _choices(view)
        listed, letters, metric = f"{prompt}\n{list_choices(choices)}", *_right(view, choices)
        return Row(
            "qa", listed, solution or written, letters, choices=choices, label=label, metric=metric
        )
    answer, worked = _answer(view)
    text = solution or worked or written
    return Row("qa", prompt, text, answer, label=label, metric=_metric(view))


def _metric(view: View) -> str | None:
    """How the row wants its answer read, or None."""
    metric = view.scalar("metric") or None
    if metric is not None and metric not in ROW_METRICS:
        raise view.fail(
            f"metric {brief(repr(metric), 40)} is none of {', '.join(ROW_METRICS)}",
            "name one of these (functions of your own go into --metric), or rename the column",
        )
    return metric


def _answer(view: View) -> tuple[str, str]:
    """What is graded, and the worked solution if the answer is one (ends in ``#### N``)."""
    given = None if isinstance(view.value("answer"), bool) else view.scalar("answer")
    if not given or not given.strip():
        raise view.fail(
            "field 'answer' is empty, or true or false", "give a text or a number, or drop the row"
        )
    final = _number(view.scalar("final") or "")
    match = _FINAL_LINE.search(given)
    if match is None:
        # With a field `final` beside it, the answer is a worked solution without the last line.
        return (final, _CALCULATOR_NOTE.sub("", given)) if final else (given.strip(), "")
    closing = _number(match.group(1))
    if not closing or (final and not _same(final, closing)):
        raise view.fail(
            f"the answer ends in '#### {brief(closing, 40)}', the field final is "
            f"{brief(final, 40)!r}",
            "they must name the same number",
        )
    return final or closing, _CALCULATOR_NOTE.sub("", given)


def _number(text: str) -> str:
    """A final answer as it is graded: no thousands commas, no dollar sign, no outer space."""
    return text.replace(",", "").replace("$", "").strip()


def _same(x: str, y: str) -> bool:
    try:
        return float(x) == float(y)
    except ValueError:
        return x == y


def list_choices(choices: Sequence[str]) -> str:
    """The lines ``A. ...`` that stand below a question."""
    lines = zip(LETTERS[: len(choices)], choices, strict=True)
    return "\n".join(f"{letter}. {choice}" for letter, choice in lines)


def _choices(view: View) -> tuple[str, ...]:
    given = view.sequence("choices")
    texts = tuple(
        str(c) if isinstance(c, (int, float)) and not isinstance(c, bool) else c for c in given
    )
    if not 2 <= len(texts) <= 26 or not all(isinstance(c, str) and c.strip() for c in texts):
        raise view.fail(
            f"field {view.column('choices')!r} does not hold 2 to 26 texts", "mend or drop the row"
        )
    return tuple(view.encodable(str(c), "choices") for c in texts)


def _right(view: View, choices: tuple[str, ...]) -> tuple[str, str | None]:
    """The letters of the right choices, sorted, and how the row wants its answer read.

    One right choice is an index from 0, a letter or the choice's text; several are a list of
    these, or their letters as one text (``ACD``, ``A, C``), and are graded as a set.
    """
    given, metric = view.value("answer"), _metric(view)
    several: list[object] = given if isinstance(given, list) else [given]
    if isinstance(given, str) and given.strip() not in {choice.strip() for choice in choices}:
        named = re.findall("[A-Z]", given) if _SEVERAL.fullmatch(given) else []
        if named and set(named) <= set(LETTERS[: len(choices)]):
            several = [*named]
    letters = [_letter(view, choices, one) for one in several]
    if not letters:
        raise view.fail(f"answer {brief(repr(given), 60)} names no choice", "drop the row")
    if len(set(letters)) < len(letters):
        raise view.fail(
            f"answer {brief(repr(given), 60)} names a choice twice", "name each right choice once"
        )
    if len(letters) > 1 and metric not in (None, "choices"):
        raise view.fail(
            f"answer {brief(repr(given), 60)} names {len(letters)} choices, and the metric "
            f"is {metric!r}",
            "several right choices are graded by 'choices'; name that or leave the metric out",
        )
    return "".join(sorted(letters)), "choices" if len(letters) > 1 else metric


def _letter(view: View, choices: tuple[str, ...], given: object) -> str:
    """The letter of one choice, given as index from 0, letter, or the choice's text."""
    letters = LETTERS[: len(choices)]
    if isinstance(given, int) and not isinstance(given, bool):
        positions = {given} if 0 <= given < len(choices) else set()
    else:
        text = view.checked(given, str(view.column("answer")), True).strip()
        positions = {i for i, choice in enumerate(choices) if choice.strip() == text}
        if len(bare := text.strip("().: ").upper()) == 1 and bare in letters:
            positions.add(letters.index(bare))
        if text.isascii() and text.isdecimal() and len(text) < 3 and int(text) < len(choices):
            positions.add(int(text))
    if len(positions) != 1:
        meaning = "could mean several choices" if positions else "is none of the choices"
        raise view.fail(
            f"answer {brief(repr(given), 60)} {meaning}",
            f"give an index from 0 to {len(choices) - 1}, a letter A to {letters[-1]}, "
            "or the text of one choice; a list of these where several are right",
        )
    return letters[positions.pop()]
