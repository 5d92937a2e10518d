"""From a record to a row: which fields mean what."""

from __future__ import annotations

import re
from typing import Literal

from springback.core import Row
from springback.data.choice_rows import choices_of, list_choices, metric_of, right_letters
from springback.data.conversations import conversation, messages_of, pair, preference
from springback.data.view import View
from springback.errors import shown

Layout = Literal["preference", "chat", "qa", "pair", "text"]
#: What a record must have to be of a layout; earlier ones win, as many sets also carry a `text`.
_NEEDED: dict[Layout, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "chat": ("messages",),
    "qa": ("question", "answer"),
    "pair": ("prompt", "response"),
    "text": ("text",),
}
ALLOWED = (
    "text; prompt and response; question and answer (and choices); messages; or chosen and "
    "rejected (and prompt)"
)

_CALCULATOR_NOTE = re.compile(r"<<[^<>\n]*>>")
_FINAL_LINE = re.compile(r"(?:^|\n)####[ \t]*([^\n]*?)\s*$")


def layout_of(view: View) -> Layout | None:
    """How a record is laid out, by the names mapped or else by its columns; None if unknown."""
    there = [kind for kind, names in _NEEDED.items() if all(map(view.column, names))]
    if "qa" in there and "preference" in there:
        there.remove("preference")  # a question to grade, whatever else is beside it
    mapped = {kind: sum(name in view.mapping for name in names) for kind, names in _NEEDED.items()}
    if any(mapped.values()):
        # The prompt of a pair may be that of a preference, too.
        mapped["preference"] += "prompt" in view.mapping
        usable = [kind for kind in there if mapped[kind]] or [k for k in _NEEDED if mapped[k]]
        return max(usable, key=lambda kind: mapped[kind])
    # Files put together of several have all columns in every row, and null in those of others.
    filled = [k for k in there if all(view.value(name) is not None for name in _NEEDED[k])]
    return next(iter(filled or there), None)


def row_of(view: View, layout: Layout, base: int | None = 0) -> Row:
    """The record as a row.  ``base``: what the index of a first choice is (:func:`index_base`).

    Raises :class:`springback.errors.DataError` for a missing, empty or ill-typed field.
    """
    label = view.scalar("label") or None
    if layout == "text":
        return Row("text", "", view.text("text"), label=label)
    if layout == "qa":
        return _question(view, label, base)
    if layout == "chat":
        return conversation(view, messages_of(view, "messages"), label)
    return preference(view, label) if layout == "preference" else pair(view, label)


def _question(view: View, label: str | None, base: int | None) -> Row:
    question = view.text("question")
    context = view.optional(view.column("context"))
    prompt = f"{context}\n\n{question}" if context.strip() else question
    solution = _CALCULATOR_NOTE.sub("", view.optional(view.column("solution")))
    response = view.value("response")  # beside question and answer: a worked solution, too
    given = isinstance(response, str) and response.strip()
    written = view.encodable(str(response), str(view.column("response"))) if given else ""
    if (choices := choices_of(view)) is not None:
        asked = f"{prompt}\n{list_choices(choices.texts)}"
        letters, metric = right_letters(view, choices, base)
        text = solution or written
        return Row("qa", asked, text, letters, choices=choices.texts, label=label, metric=metric)
    answer, worked = _answer(view)
    text = solution or worked or written
    return Row("qa", prompt, text, answer, label=label, metric=metric_of(view))


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
            f"the answer ends in '#### ' and {shown(closing)}, the field final is {shown(final)}",
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
