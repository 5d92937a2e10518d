"""Rows to tokens, the same way for training, scoring and decoding."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from springback.core import Row
from springback.errors import DataError
from springback.models.loading import Tokenizer, listed_end_ids
from springback.models.templates import render

T = TypeVar("T")


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row; ``ids[start:]`` are the ones that loss and scores count."""

    ids: tuple[int, ...]
    start: int
    text_bytes: int

    @property
    def counted(self) -> int:
        return len(self.ids) - self.start


def prompt_text(tokenizer: Tokenizer, row: Row, system: str | None = None) -> str:
    """What the model reads before it answers: the chat template where there is one.

    Without a template: ``Question: …\\nAnswer:`` for questions, a ``prompt`` as it stands, else the
    prompt and a line break.
    """
    if tokenizer.chat_template:
        turns = [*row.turns, ("user", row.prompt)]
        if system is not None and not any(role == "system" for role, _ in row.turns):
            turns.insert(0, ("system", system))
        return render(tokenizer, turns, row.named, prompt=True)
    head = "".join(f"{role}: {content}\n" for role, content in row.turns)
    head = f"{system}\n{head}" if system is not None else head
    if row.kind == "prompt":
        return f"{head}{row.prompt}"
    return f"{head}Question: {row.prompt}\nAnswer:" if row.kind == "qa" else f"{head}{row.prompt}\n"


def end_text(tokenizer: Tokenizer, row: Row) -> str:
    """What closes an answer: the template's end of turn, else the end token.

    What a template writes behind the end token, as the beginning of a next turn, is no part of it.
    """
    if row.kind == "text" or not tokenizer.chat_template:
        return str(tokenizer.eos_token or "")
    mark = "\u241f"  # a character that templates pass through unchanged
    turns = [("user", "x"), ("assistant", mark)]
    where = "a user's turn with an answer"
    try:
        text = render(tokenizer, turns, where, prompt=False)
    except DataError as refusal:
        try:  # some templates want a system message
            text = render(tokenizer, [("system", "x"), *turns], where, prompt=False)
        except DataError:
            raise refusal from None
    end, eos = text.rpartition(mark)[2].rstrip(), str(tokenizer.eos_token or "")
    return end.partition(eos)[0] + eos if eos and eos in end else end or eos


def stop_ids(tokenizer: Tokenizer, row: Row, model: Any = None) -> tuple[int, ...]:
    """Token ids at which a decoded answer ends, sorted: for everything that decodes, one set.

    That is the tokenizer's end token, the token that closes an answer in its chat template (see
    :func:`end_text`), and those that ``model`` lists
    (:func:`springback.models.loading.listed_end_ids`): many models name the end of a turn in their
    generation config alone.
    """
    ids = {tokenizer.eos_token_id}
    end = tokenizer(end_text(tokenizer, row), add_special_tokens=False)["input_ids"]
    if len(end) == 1:
        ids.add(end[0])
    if model is not None:
        ids |= listed_end_ids(model)
    return tuple(sorted(i for i in ids if i is not None))


def listed_stops(tokenizer: Tokenizer, row: Row, model: Any) -> dict[str, list[int]]:
    """``stop_ids`` for the inputs of a run; empty where the tokenizer alone names all of them.

    A content hash covers weights, not the generation config, so what that adds is an input of its
    own; runs of models where it adds nothing keep their ids.
    """
    ids = stop_ids(tokenizer, row, model)
    return {} if ids == stop_ids(tokenizer, row) else {"stop_ids": list(ids)}


def encode_prompt(tokenizer: Tokenizer, row: Row, system: str | None = None) -> list[int]:
    """Token ids of :func:`prompt_text`; a template brings its own special tokens."""
    special = not tokenizer.chat_template
    ids: list[int] = tokenizer(prompt_text(tokenizer, row, system), add_special_tokens=special)[
        "input_ids"
    ]
    return ids


_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def answer_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of an answer, whole or as far as it has come: what follows changes none of it.

    So spaces stay as they are, which some tokenizers would tidy up before a sign that comes later.
    """
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def may_change(tokenizer: Tokenizer, token: int) -> bool:
    """Whether the text up to ``token`` may change with the next one.

    So after a byte that fell back to a token of its own, since a later one that is part of no
    character takes it along; and after special tokens, which may stand between the two.
    """
    byte = _BYTE_TOKEN.fullmatch(str(tokenizer.convert_ids_to_tokens(token)))
    return byte is not None or token in tokenizer.all_special_ids


def text_bytes(tokenizer: Tokenizer, ids: Sequence[int]) -> int:
    """UTF-8 bytes of text that ``ids`` stand for, whatever the tokenizer; special tokens are none.

    What bits per byte divides by, everywhere.  A token may hold a part of a character: it counts
    with the bytes it has, so parts of a text add up to the whole.
    """
    text = tokenizer.decode(list(ids), skip_special_tokens=True)
    if "\ufffd" not in text:
        return len(text.encode("utf-8"))
    special = set(tokenizer.all_special_ids)
    tokens: list[str] = tokenizer.convert_ids_to_tokens([i for i in ids if i not in special])
    # Byte-level tokenizers write every byte as one character, those with byte fallback as <0x..>.
    core = getattr(tokenizer, "backend_tokenizer", None)
    if type(getattr(core, "decoder", None)).__name__ == "ByteLevel":
        return sum(map(len, tokens))
    return sum(1 if _BYTE_TOKEN.fullmatch(t) else len(t.replace("▁", " ").encode()) for t in tokens)


def encode_row(
    tokenizer: Tokenizer, row: Row, max_tokens: int, system: str | None = None
) -> Encoded:
    """Tokens of a whole row, cut at ``max_tokens``.

    ``text``: all tokens but the first count.  Else: only the response's, and a row whose prompt
    alone fills ``max_tokens`` raises :class:`DataError`.  The end token is there unless cut.
    """
    if row.kind == "text":
        ids = tokenizer(row.response)["input_ids"]
        ids = [*ids, tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else ids
        start = 1
    else:
        head = encode_prompt(tokenizer, row, system)
        space = "" if tokenizer.chat_template or row.kind not in ("qa", "prompt") else " "
        body = space + row.response + end_text(tokenizer, row)
        ids = [*head, *tokenizer(body, add_special_tokens=False)["input_ids"]]
        start = len(head)
    if min(len(ids), max_tokens) <= start:
        raise DataError(
            f"{row.named} has {start} prompt tokens, which leaves nothing to learn within "
            f"{max_tokens} tokens; raise --max-tokens or drop such rows"
        )
    cut = ids[:max_tokens]
    return Encoded(tuple(cut), start, text_bytes(tokenizer, cut[start:]))


def encode_answer(
    tokenizer: Tokenizer, row: Row, answer: str, system: str | None = None
) -> Encoded:
    """The prompt of a row and ``answer``, which alone counts; without an end token, never cut.

    ``text_bytes`` are those of ``answer`` as given, without a space that joins it to the prompt.
    """
    head = encode_prompt(tokenizer, row, system)
    space = "" if tokenizer.chat_template or row.kind not in ("qa", "prompt") else " "
    body = tokenizer(space + answer, add_special_tokens=False)["input_ids"]
    if not head or not body:
        raise DataError(
            f"{row.named} has no tokens in its {'answer' if head else 'prompt'}; allowed: at least "
            "one; fill it or drop such rows"
        )
    return Encoded((*head, *body), len(head), len(answer.encode("utf-8")))


def encode_rows(
    tokenizer: Tokenizer, rows: Iterable[Row], max_tokens: int, system: str | None = None
) -> list[Encoded]:
    """:func:`encode_row` of every row, in order."""
    return numbered(rows, lambda row: encode_row(tokenizer, row, max_tokens, system))


def numbered(rows: Iterable[Row], encode: Callable[[Row], T]) -> list[T]:
    """``encode`` of every row, in order; rows without a place are named by their number."""
    return [
        encode(row if row.place else replace(row, place=f"row {number}"))
        for number, row in enumerate(rows, start=1)
    ]


@dataclass(frozen=True)
class Batch:
    """Right-padded rows; tensors are (rows, length), ``labels`` -100 where nothing counts."""

    index: tuple[int, ...]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def pad_batch(rows: Sequence[Encoded], index: Sequence[int], pad: int) -> Batch:
    """Rows ``index`` of ``rows`` as one right-padded batch."""
    length = max(len(rows[i].ids) for i in index)
    ids = torch.full((len(index), length), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for place, i in enumerate(index):
        row = torch.tensor(rows[i].ids)
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
        labels[place, rows[i].start : len(row)] = row[rows[i].start :]
    return Batch(tuple(index), ids, mask, labels)


def scoring_groups(rows: Sequence[Encoded], batch_tokens: int) -> list[list[int]]:
    """Rows of similar length, at most ``batch_tokens`` padded tokens a group (one row at least).

    The rows of some of the groups alone make these same groups again: none is so short that it
    joins one before it.
    """
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    groups: list[list[int]] = []
    for i in order:
        if not groups or (len(groups[-1]) + 1) * len(rows[i].ids) > batch_tokens:
            groups.append([])
        groups[-1].append(i)
    return groups


def scoring_batches(rows: Sequence[Encoded], pad: int, batch_tokens: int) -> Iterator[Batch]:
    """The :func:`scoring_groups` as batches."""
    for group in scoring_groups(rows, batch_tokens):
        yield pad_batch(rows, group, pad)
