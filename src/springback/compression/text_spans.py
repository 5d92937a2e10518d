"""Bytes to pieces: text that survives tokenising and back, and raw bytes for the rest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from springback.compression.container import HASH
from springback.models.loading import Tokenizer
from springback.models.quiet import quiet

#: Shorter runs of text between other bytes are not worth a piece of their own.
SHORTEST_TEXT = 32
#: A text that does not survive is halved down to this many characters.
SMALLEST_HALF = 64

# UTF-8 as RFC 3629 has it, without control characters but tab and line ends: they come from binary
# files, which deflate packs better and much faster.  Possessive, so nothing is kept to go back to.
_TEXT = re.compile(
    rb"(?:[\t\n\r\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}"
    rb"|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})++"
)


@dataclass(frozen=True)
class Piece:
    """A run of the original: tokens that decode to exactly these bytes, or None where raw."""

    data: bytes
    ids: list[int] | None


def tokenizer_hash(tokenizer: Tokenizer) -> bytes:
    """128 bits over all tokens and their ids.

    Rules of splitting are left out: they decide how well a text packs, not how it is unpacked.
    """
    tokens = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=True)
    return hashlib.sha256(tokens.encode("ascii")).digest()[:HASH]


def to_text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of ``ids``, nothing skipped and nothing tidied."""
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def to_ids(tokenizer: Tokenizer, text: str, vocabulary: int) -> list[int] | None:
    """Token ids of ``text`` below ``vocabulary``, or None if they do not give it back.

    None too if there are more of them than bytes.  Names of special tokens in the text are text.
    """
    with quiet():
        ids: list[int] = tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
    fit = len(ids) <= len(text.encode("utf-8")) and all(0 <= i < vocabulary for i in ids)
    return ids if fit and to_text(tokenizer, ids) == text else None


def _surviving(tokenizer: Tokenizer, text: str, vocabulary: int) -> Iterator[Piece]:
    ids = to_ids(tokenizer, text, vocabulary)
    if ids is not None or len(text) <= SMALLEST_HALF:
        yield Piece(text.encode("utf-8"), ids)
        return
    half = len(text) // 2
    yield from _surviving(tokenizer, text[:half], vocabulary)
    yield from _surviving(tokenizer, text[half:], vocabulary)


def _runs(data: bytes) -> Iterator[tuple[bool, bytes]]:
    """Runs of ``data`` in order, and whether each is text worth tokenising."""
    end_of_last = 0
    for match in _TEXT.finditer(data):
        begin, end = match.span()
        whole = begin == 0 and end == len(data)
        if end - begin < SHORTEST_TEXT and not whole:
            continue
        if begin > end_of_last:
            yield False, data[end_of_last:begin]
        yield True, data[begin:end]
        end_of_last = end
    if end_of_last < len(data):
        yield False, data[end_of_last:]


def split(data: bytes, tokenizer: Tokenizer, vocabulary: int) -> list[Piece]:
    """Pieces of ``data`` in order; raw neighbours are one piece."""
    pieces: list[Piece] = []
    for is_text, run in _runs(data):
        parts = [Piece(run, None)]
        if is_text:
            parts = list(_surviving(tokenizer, run.decode("utf-8"), vocabulary))
        for part in parts:
            if pieces and part.ids is None and pieces[-1].ids is None:
                pieces[-1] = Piece(pieces[-1].data + part.data, None)
            else:
                pieces.append(part)
    return pieces


def hold_back(data: bytes) -> int:
    """How many bytes at the end of ``data`` begin a character that ends later: 0 to 3."""
    for count in range(1, min(3, len(data)) + 1):
        byte = data[-count]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return count if count < length else 0
        if byte < 0x80:
            return 0
    return 0
