"""What the tests of the codec share: round trips in memory, texts and bytes to try."""

from __future__ import annotations

import io
import random

from springback.compression.coder import plan
from springback.compression.container import HASH, Block, Digest, Reader, check_whole
from springback.compression.files import Compressed, decode_file, encode_file
from springback.compression.model import CodecModel
from springback.compression.settings import CodecSettings

#: Small chunks, many rows: few steps, so that hundreds of containers take seconds.
SMALL = CodecSettings(chunk=8, batch=64, threads=1)
TEXT = "The king said: there is the thing, Grüße, 世界 🎉, <|im_end|> and the end.\n"


def pack(codec: CodecModel, data: bytes, settings: CodecSettings = SMALL) -> bytes:
    return packed(codec, data, settings)[0]


def packed(
    codec: CodecModel, data: bytes, settings: CodecSettings = SMALL
) -> tuple[bytes, Compressed]:
    sink = io.BytesIO()
    found = encode_file(codec, io.BytesIO(data), sink, settings)
    return sink.getvalue(), found


def unpack(codec: CodecModel, container: bytes) -> bytes:
    sink = io.BytesIO()
    length = decode_file(codec, io.BytesIO(container), sink)
    assert length == len(sink.getvalue())
    return sink.getvalue()


def blocks_of(whole: bytes) -> list[Block]:
    """The blocks of a container; reading them needs no model."""
    file = io.BytesIO(whole)
    reader = Reader(file, check_whole(file, "it")[0], "it")
    header = reader.header()
    found = []
    while block := reader.block(lambda n: len(plan(n, header.chunk, header.batch))):
        found.append(block)
    return found


def sealed(container: bytes) -> bytes:
    """With the last digest made anew: damage that only the inner checks can find."""
    digest = Digest()
    digest.add(container[:-HASH])
    return container[:-HASH] + digest.value()


def random_bytes(rng: random.Random, longest: int) -> bytes:
    """A text of some alphabet, bytes, or one within the other."""
    length = rng.randrange(longest)
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(length)
    if kind == 1:
        return bytes(rng.choice(b"etaoin shrdlu\n") for _ in range(length))
    ranges = ((0x20, 0x7F), (0x00, 0x17F), (0x4E00, 0x4FFF), (0x1F300, 0x1F5FF))
    low, high = ranges[rng.randrange(4)]
    text = "".join(chr(rng.randrange(low, high)) for _ in range(length // 2)).encode()
    if kind == 2:
        return text
    at = rng.randrange(len(text) + 1)  # in the middle of a character, often
    return text[:at] + rng.randbytes(rng.randrange(4)) + text[at:]
