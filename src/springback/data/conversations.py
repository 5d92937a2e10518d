"""Rows of conversations: messages, pairs and preferences, as OpenAI, ShareGPT and TRL have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import takewhile
from typing import TypeGuard

from springback.core import Row, RowKind
from springback.data.view import View, listed
from springback.errors import shown

#: Role and content of one message.
Turn = tuple[str, str]
#: What roles are called, and what they are to a chat template.
_ROLES = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "developer": "system",
    "human": "user",
    **dict.fromkeys(("gpt", "model", "chatgpt", "ai", "bot"), "assistant"),
}
#: What stands before an answer in conversations written as one text.
_ANSWER = re.compile(
    r"\n(?:#+ ?(?:Assistant|Response)|Assistant|ASSISTANT):|\[/INST\]"
    r"|<\|assistant\|>|<\|im_start\|>assistant\n"
)


def _first(message: Mapping[str, object], *names: str) -> object:
    return next((message[name] for name in names if message.get(name) is not None), None)


def _is_message(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict) and _first(value, "role", "from") is not None


def _content(message: Mapping[str, object]) -> str | None:
    """The text of a message, which may come in parts; None where it holds anything else."""
    content = _first(message, "content", "value")
    if _first(message, "tool_calls", "function_call"):
        return None
    texts = [
        part.get("text")
        if isinstance(part, dict) and str(part.get("type") or "text").endswith("text")
        else part
        for part in (content if isinstance(content, list) else [content])
    ]
    whole = "".join(text for text in texts if isinstance(text, str))
    return whole if whole.strip() and all(isinstance(text, str) for text in texts) else None


def _said_nothing(message: Mapping[str, object]) -> bool:
    """Whether a message is blank, as tools write a system prompt that nobody gave."""
    content = _first(message, "content", "value")
    return content is None or (isinstance(content, str) and not content.strip())


def _turns(view: View, messages: list[object], column: str) -> list[Turn]:
    """Role and text of every message; raises :class:`springback.errors.DataError`."""
    turns = []
    for k, message in enumerate(messages, start=1):
        by = str(_first(message, "role", "from")) if _is_message(message) else ""
        role = _ROLES.get(by.strip().lower())
        content = _content(message) if _is_message(message) else None
        if role == "system" and _is_message(message) and _said_nothing(message):
            continue
        if role is None or content is None:
            raise view.fail(
                f"message {k} is {_described(message)}",
                "each needs a role (system, user, assistant) and a content that is text",
            )
        turns.append((role, view.encodable(content, column)))
    return turns


def _described(message: object) -> str:
    """A message without its text."""
    if not isinstance(message, dict):
        return shown(message)
    content = _first(message, "content", "value")
    kind = type(content).__name__ if content is not None else "missing"
    if isinstance(content, str):
        kind = "text" if content.strip() else "blank"
    calls = " and calls" if _first(message, "tool_calls", "function_call") else ""
    return f"by {shown(_first(message, 'role', 'from'))}, its content {kind}{calls}"


def messages_of(view: View, name: str) -> list[Turn]:
    """The messages under one of our names, which must be there."""
    return _turns(view, view.sequence(name), str(view.column(name)))


def _messages_or_none(view: View, name: str) -> list[Turn] | None:
    """The messages under one of our names if it holds any: a list, one message, JSON of them."""
    value = listed(view.value(name))
    messages = [value] if _is_message(value) else value
    if not isinstance(messages, list) or not any(map(_is_message, messages)):
        return None
    return _turns(view, messages, str(view.column(name)))


def conversation(view: View, turns: list[Turn], label: str | None) -> Row:
    """A row of kind ``chat``.  A column ``system`` beside the messages comes before them."""
    if turns and turns[0][0] != "system":
        turns = [*_system(view), *turns]
    if [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise view.fail(
            "the conversation does not end with a user's message and the assistant's reply",
            "cut it there or drop the row",
        )
    return Row("chat", turns[-2][1], turns[-1][1], turns=tuple(turns[:-2]), label=label)


def _system(view: View) -> list[Turn]:
    """The turn that a column ``system`` or ``system_prompt`` is, if one holds a text."""
    for column in ("system", "system_prompt"):
        system = view.record.values.get(column)
        if isinstance(system, str) and system.strip():
            return [("system", view.encodable(system, column))]
    return []


def _history(view: View) -> list[Turn]:
    """The turns of a column ``history``, a list of pairs of what was asked and answered."""
    rounds = listed(view.record.values.get("history"))
    if not isinstance(rounds, list):
        return []
    for one in rounds:
        if not (isinstance(one, list) and len(one) == 2 and all(isinstance(t, str) for t in one)):
            raise view.fail(
                "field 'history' is a list of something else than pairs of texts",
                "give [[question, answer], ...], or rename the column",
            )
    roles = ("user", "assistant")
    return [
        (role, view.encodable(text, "history"))
        for one in rounds
        for role, text in zip(roles, one, strict=True)
    ]


def _prompt(view: View) -> str:
    prompt = view.text("prompt")
    if view.column("prompt") != "instruction":
        return prompt
    more = [view.optional(column) for column in ("input", "context")]
    return "\n\n".join([prompt, *(text for text in more if text.strip())])


def pair(view: View, label: str | None) -> Row:
    """A prompt and its response, each a text or messages."""
    asked, answer = _messages_or_none(view, "prompt"), _messages_or_none(view, "response")
    before = _history(view)
    if asked is None and answer is None and not before and not _system(view):
        # Prompts without responses are a kind of data set; formats.load_rows sees to mixtures.
        return Row("pair", _prompt(view), view.text("response", empty=True), label=label)
    if asked is None:
        asked = [*before, ("user", _prompt(view))]
    answer = answer or [("assistant", view.text("response"))]
    return conversation(view, _joined(asked, answer), label)


def _joined(asked: list[Turn], answer: list[Turn]) -> list[Turn]:
    """An answer after what was asked; one that is the whole conversation stands for both."""
    return asked + answer if answer[0][0] == "assistant" else answer


def preference(view: View, label: str | None) -> Row:
    """A row whose ``response`` is the chosen answer, with the rejected one beside it.

    Both answers are texts or messages, with the prompt (a text, messages, or the messages before
    the answers) or without: then it is what both begin with, as TRL has it.
    """
    answers = [_messages_or_none(view, name) for name in ("chosen", "rejected")]
    before = _messages_or_none(view, "prompt") or _messages_or_none(view, "messages")
    if before is None:
        given = view.value("prompt") not in (None, "")
        other = view.column("question") or next(
            (column for column in ("input", "query") if column in view.record.values), None
        )
        prompt = _prompt(view) if given else view.optional(other)
        earlier = _history(view)
        if answers == [None, None] and not earlier and not _system(view):
            return _of_texts(view, prompt, label)
        before = [*earlier, ("user", prompt)] if prompt else []
    rows = []
    for name, answer in zip(("chosen", "rejected"), answers, strict=True):
        turns = _joined(before, answer or [("assistant", view.text(name))])
        rows.append(conversation(view, turns, label))
    good, bad = rows
    if (good.turns, good.prompt) != (bad.turns, bad.prompt):
        raise view.fail(
            "chosen and rejected differ before their last answer",
            "both have to answer the same prompt: cut them there or drop the row",
        )
    return Row(
        "chat", good.prompt, good.response, turns=good.turns, label=label, rejected=bad.response
    )


def _of_texts(view: View, prompt: str, label: str | None) -> Row:
    chosen, rejected = view.text("chosen"), view.text("rejected")
    if not prompt:
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
        prompt = "".join(sign for sign, _ in alike)
        if ends := [mark.end() for mark in _ANSWER.finditer(prompt)]:
            prompt = prompt[: ends[-1]]  # the answers may begin with the same word
        prompt = prompt.removesuffix(" ")
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        if not chosen.strip() or not rejected.strip():
            raise view.fail(
                "chosen and rejected begin alike, and one has nothing behind that",
                "give the prompt as a field of its own, or drop the row",
            )
    kind: RowKind = "pair" if prompt.strip() else "text"
    return Row(kind, prompt, chosen, label=label, rejected=rejected)
