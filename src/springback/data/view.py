"""A record seen through our names for its fields."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from springback.data.records import Record, names_of
from springback.errors import DataError

#: Our names, each with the column names it is recognised by.
COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "prompt": ("prompt", "instruction"),
    "response": ("response", "output", "completion"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "question": ("question",),
    "context": ("context",),
    "choices": ("choices", "options"),
    "answer": ("answer", "answerKey"),
    "final": ("final",),
    "solution": ("solution", "rationale"),
    "messages": ("messages", "conversations", "conversation"),
    "label": ("label",),
    "metric": ("metric",),
}


def missing(value: object) -> bool:
    """Whether nothing is there: null, or NaN, which is how pandas writes that."""
    return value is None or value != value


def listed(value: object) -> object:
    """JSON text as what it says, and a dictionary of columns as the list of its rows.

    ``{"text": [...], "label": [...]}`` is how a list of dictionaries comes out of ``datasets``.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, dict) and value:
        columns = list(value.values())
        if all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
            return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    return value


@dataclass(frozen=True)
class View:
    """A record seen through our names; ``mapping`` (ours to the file's) outranks recognition."""

    source: str
    record: Record
    mapping: Mapping[str, str]

    @property
    def place(self) -> str:
        """Where the record stands, for messages."""
        return f"{self.source!r}: {self.record.where}"

    def fail(self, problem: str, todo: str) -> DataError:
        """The error to raise: where, what, which fields there are, what to do."""
        have = names_of(self.record.values)
        return DataError(f"{self.place}: {problem}; its fields: {have}; {todo}")

    def column(self, name: str) -> str | None:
        """The file's column for one of our names, or None."""
        wanted = (self.mapping[name],) if name in self.mapping else COLUMNS[name]
        return next((column for column in wanted if column in self.record.values), None)

    def value(self, name: str) -> object:
        """The value under one of our names; None if there is no such column, or nothing in it."""
        column = self.column(name)
        value = None if column is None else self.record.values[column]
        return None if missing(value) else value

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
        return "" if column is None or missing(value) else self.checked(value, column, True)

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
        column = self.column(name) or name
        value = self.record.values.get(column)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and not math.isfinite(value):
            raise self.fail(f"field {column!r} is not a finite number", "fill it or drop the row")
        if isinstance(value, (int, float)):
            return str(int(value)) if value == int(value) else repr(value)
        return None if value is None else self.checked(value, column, True)

    def sequence(self, name: str) -> list[object]:
        """A list, the JSON text of one (as CSV cells have it), or a dictionary of columns."""
        value = listed(self.value(name))
        if not isinstance(value, list) or not value:
            raise self.fail(
                f"field {self.column(name)!r} is not a list with something in it",
                "give a list, or the JSON of one",
            )
        return value
