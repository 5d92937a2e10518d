"""Messages through a tokenizer's chat template: the one place that applies templates.

What a template is given beside the messages (:class:`springback.settings.ChatSettings`) goes with
the tokenizer (:func:`with_chat`), so everything that encodes a row with it does so alike.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from springback.errors import DataError, SpringbackError, describe
from springback.models.quiet import one_line
from springback.settings import ChatSettings

#: Role and text of each message.
Turns = Sequence[tuple[str, str]]

_OURS = set(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters)
#: Names that the template's caller needs itself; ``chat_template`` chooses a template by its name.
_RESERVED = (_OURS | {"messages"}) - {"chat_template", "tools", "documents"}


def with_chat(tokenizer: Any, chat: ChatSettings) -> Any:
    """The tokenizer with ``chat`` over what it was given before; itself where that is nothing.

    Raises :class:`SpringbackError` for arguments that no template takes.
    """
    if not chat.chat_inputs():
        return tokenizer
    before = chat_of(tokenizer)
    arguments = {**before.chat_template_args, **chat.chat_template_args}
    if taken := sorted(_RESERVED & set(arguments)):
        raise SpringbackError(
            describe(
                f"{', '.join(taken)} as an argument of the chat template",
                "arguments that the template itself reads",
                "leave it out",
            )
        )
    given = copy.copy(tokenizer)
    folds = before.system_in_user or chat.system_in_user
    given.springback_chat = ChatSettings(chat_template_args=arguments, system_in_user=folds)
    template_arguments(given)  # a name that no template has is refused here
    return given


def chat_of(tokenizer: Any) -> ChatSettings:
    """What :func:`with_chat` gave the tokenizer."""
    chat: ChatSettings = getattr(tokenizer, "springback_chat", None) or ChatSettings()
    return chat


def template_arguments(tokenizer: Any) -> dict[str, Any]:
    """The arguments for ``apply_chat_template``.

    Raises :class:`SpringbackError` where they name a template that the tokenizer does not have, or
    it has several, none of them the default, and they name none.
    """
    arguments = dict(chat_of(tokenizer).chat_template_args)
    templates = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    name = arguments.get("chat_template")
    if name in templates or (name is None and (not templates or "default" in templates)):
        return arguments
    raise SpringbackError(
        describe(
            "no chat template named " + repr("default" if name is None else name),
            f"the model's {', '.join(map(repr, templates))}" if templates else "its only one",
            "choose one with --chat-template-args chat_template=NAME"
            if templates
            else "leave chat_template out",
        )
    )


def render(
    tokenizer: Any, turns: Turns, where: str, *, prompt: bool, continues: bool = False
) -> str:
    """The text of ``turns``; with ``prompt`` it ends where the model's answer begins, with
    ``continues`` where the last message does.

    Contents are texts, or text parts for a template that reads these alone.  A system message that
    the template refuses or drops is put before the first user turn if the tokenizer's
    :class:`ChatSettings` say so.  Raises :class:`DataError`, which names the row by ``where`` and
    has the template's own words, where it refuses the messages or what they say is not in its text.
    """
    chat, arguments = chat_of(tokenizer), template_arguments(tokenizer)
    problem = ""
    for messages in _forms(turns, chat.system_in_user):
        try:
            text = tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=prompt,
                continue_final_message=continues,
                **arguments,
            )
        except Exception as error:  # templates raise what they like
            problem = problem or f"refuses it: {one_line(error)}"
            continue
        lost = _lost(str(text), messages, keep_all=not prompt)
        if lost is None:
            return str(text)
        problem = problem or f"drops the {lost}'s text"
    mend = "change these messages, or the template"
    if any(role == "system" for role, _ in turns) and not chat.system_in_user:
        mend = "put the system message before the user's with --system-in-user, or leave it out"
    raise DataError(
        f"{where}: the chat template {problem}; allowed: messages that it writes out; {mend}"
    )


def _forms(turns: Turns, folds: bool) -> Iterator[list[dict[str, Any]]]:
    """The messages in the ways to try, the usual one first."""
    ways = [turns]
    if folds and (folded := _folded(turns)) is not None:
        ways.append(folded)
    for way in ways:
        yield [{"role": role, "content": text} for role, text in way]
        yield [{"role": role, "content": _parts(text)} for role, text in way]
        if any(role == "system" for role, _ in way):
            yield [
                {"role": role, "content": text if role == "system" else _parts(text)}
                for role, text in way
            ]


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _folded(turns: Turns) -> Turns | None:
    """The system messages as the beginning of the first user turn; None without both."""
    system = [text for role, text in turns if role == "system"]
    rest = [turn for turn in turns if turn[0] != "system"]
    first = next((i for i, (role, _) in enumerate(rest) if role == "user"), None)
    if not system or first is None:
        return None
    rest[first] = ("user", "\n\n".join([*system, rest[first][1]]))
    return rest


def _lost(text: str, messages: Sequence[dict[str, Any]], keep_all: bool) -> str | None:
    """The role of a message that is not in ``text``, or only as the data that it came in.

    Of an assistant's earlier turns templates leave thoughts out, so they count with ``keep_all``
    alone.
    """
    plain: str | None = None
    for message in messages:
        content = message["content"]
        wanted = content if isinstance(content, str) else content[0]["text"]
        if not isinstance(content, str) and (
            str(content) in text or json.dumps(content, ensure_ascii=False) in text
        ):
            return str(message["role"])
        if (message["role"] == "assistant" and not keep_all) or wanted.strip() in text:
            continue
        # Templates may change white space, or write a text as JSON.
        plain = plain if plain is not None else "".join(text.split())
        quoted = json.dumps(wanted, ensure_ascii=False)[1:-1]
        if "".join(wanted.split()) not in plain and quoted not in text:
            return str(message["role"])
    return None
