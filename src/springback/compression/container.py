"""The container file: header, blocks, trailer.  Pure bytes; no model here.

::

    magic  version                            5 bytes
    model hash  tokenizer hash                16 bytes each
    dtype  device                             1 byte each
    chunk  batch  threads  start token        numbers
    torch version  machine  model name        strings
    blocks, each with a 1 before it           pieces, raw bytes, groups of coded chunks
    0                                         end of the blocks
    length of the original                    8 bytes
    digest of the original                    16 bytes
    digest of everything before               16 bytes

A number is a varint (seven bits a byte, lowest first); a string has its length before it.  The last
digest covers every other byte, so any change of the file is found before a model is loaded.  The
digests (BLAKE2b, 128 bits) guard against accidents; they are no signature.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from springback.errors import CodecError

MAGIC = b"\x89SBC"
VERSION = 1
HASH = 16
TRAILER = 8 + 2 * HASH
DTYPES = ("float32", "bfloat16", "float16", "float64")
DEVICES = ("cpu", "cuda")
#: Bytes of the original in one block, at most; what is held in memory at a time.
BLOCK = 1 << 20
#: A string of the header, in bytes.
LONGEST_NAME = 64

_READ = 1 << 20
_LARGEST_NUMBER = 1 << 40


class Sink(Protocol):
    """Something that bytes are written to."""

    def write(self, data: bytes, /) -> int: ...


@dataclass(frozen=True)
class Header:
    """Everything that decoding has to repeat.

    ``chunk`` tokens are coded from an empty context; ``batch`` chunks go through the model
    together, at most.  ``machine`` is the processor's instruction set, or the accelerator's name.
    """

    model: bytes
    tokenizer: bytes
    dtype: str
    device: str
    chunk: int
    batch: int
    threads: int
    start: int
    torch: str
    machine: str
    name: str


@dataclass(frozen=True)
class Group:
    """Chunks coded together: one range-coded stream and the checksum of their tokens."""

    coded: bytes
    check: int


@dataclass(frozen=True)
class Block:
    """Up to :data:`BLOCK` bytes of the original, as pieces in order.

    A piece is ``(True, tokens)`` or ``(False, bytes)``; ``raw`` holds the latter, deflated.
    """

    pieces: tuple[tuple[bool, int], ...]
    raw: bytes
    groups: tuple[Group, ...]

    @property
    def tokens(self) -> int:
        return sum(count for is_text, count in self.pieces if is_text)

    @property
    def raw_bytes(self) -> int:
        return sum(count for is_text, count in self.pieces if not is_text)


class Digest:
    """128 bits of BLAKE2b, and how many bytes went in."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=HASH)
        self.count = 0

    def add(self, data: bytes) -> None:
        self._hash.update(data)
        self.count += len(data)

    def value(self) -> bytes:
        return self._hash.digest()


def number(value: int) -> bytes:
    """A varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _string(text: str) -> bytes:
    data = text.encode("utf-8")[:LONGEST_NAME].decode("utf-8", "ignore").encode("utf-8")
    return number(len(data)) + data


def pack_header(header: Header) -> bytes:
    """Magic to model name."""
    return b"".join(
        (
            MAGIC,
            bytes([VERSION]),
            header.model,
            header.tokenizer,
            bytes([DTYPES.index(header.dtype), DEVICES.index(header.device)]),
            *map(number, (header.chunk, header.batch, header.threads, header.start)),
            *map(_string, (header.torch, header.machine, header.name)),
        )
    )


def pack_block(block: Block) -> bytes:
    """One block with its mark."""
    parts = [b"\x01", number(len(block.pieces))]
    parts += [number(count << 1 | is_text) for is_text, count in block.pieces]
    if block.raw_bytes:
        parts += [number(len(block.raw)), block.raw]
    for group in block.groups:
        parts += [number(len(group.coded)), struct.pack("<I", group.check), group.coded]
    return b"".join(parts)


def pack_trailer(original: Digest) -> bytes:
    """End of the blocks, length and digest of the original; the last digest comes after it."""
    return b"\x00" + struct.pack("<Q", original.count) + original.value()


def deflate(data: bytes) -> bytes:
    """A raw deflate stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def inflate(data: bytes, length: int) -> bytes:
    """What :func:`deflate` packed, ``length`` bytes; never more than that is unpacked."""
    unpacker = zlib.decompressobj(-15)
    try:
        unpacked = unpacker.decompress(data, length + 1)
    except zlib.error as error:
        raise CodecError(f"raw bytes do not unpack ({error}); the file is damaged") from error
    if len(unpacked) != length or not unpacker.eof or unpacker.unused_data:
        raise CodecError("raw bytes have another length than noted; the file is damaged")
    return unpacked


class Reader:
    """Reads a container of ``size`` bytes and never past its trailer."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self.file, self.name = file, name
        self.left = size - TRAILER

    def _bad(self, what: str) -> CodecError:
        return CodecError(f"{self.name} is damaged: {what}; get a whole copy of it")

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise self._bad("it ends too early")
        data = self.file.read(count)
        if len(data) != count:
            raise self._bad("it ends too early")
        self.left -= count
        return data

    def number(self, most: int = _LARGEST_NUMBER) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if value > most or shift > 63:
                raise self._bad("a number in it is too large")
            if byte < 0x80:
                return value

    def string(self) -> str:
        return self.take(self.number(LONGEST_NAME)).decode("utf-8", "replace")

    def header(self) -> Header:
        """The fields after the version, which :func:`check_whole` has seen."""
        self.take(len(MAGIC) + 1)
        model, tokenizer = self.take(HASH), self.take(HASH)
        dtype, device = self.take(2)
        if dtype >= len(DTYPES) or device >= len(DEVICES):
            raise self._bad("it names an unknown dtype or device")
        chunk, batch, threads = (self.number(1 << 24) for _ in range(3))
        if not (chunk and batch and threads):
            raise self._bad("chunk, batch or threads is 0")
        start = self.number(1 << 32)
        names = [self.string() for _ in range(3)]
        return Header(
            model, tokenizer, DTYPES[dtype], DEVICES[device], chunk, batch, threads, start, *names
        )

    def block(self, groups_of: Callable[[int], int]) -> Block | None:
        """The next block, or None at the end.  ``groups_of(tokens)`` is how many groups it has."""
        mark = self.take(1)
        if mark == b"\x00":
            if self.left:
                raise self._bad("there is something after its end")
            return None
        if mark != b"\x01":
            raise self._bad("a block begins with an unknown mark")
        pieces = []
        for _ in range(self.number(BLOCK)):
            value = self.number(BLOCK << 1 | 1)
            pieces.append((bool(value & 1), value >> 1))
        block = Block(tuple(pieces), b"", ())
        if max(block.tokens, block.raw_bytes) > BLOCK:
            raise self._bad("a block is too large")
        raw = self.take(self.number(2 * BLOCK)) if block.raw_bytes else b""
        groups = []
        for _ in range(groups_of(block.tokens)):
            length = self.number()
            (check,) = struct.unpack("<I", self.take(4))
            groups.append(Group(self.take(length), check))
        return Block(block.pieces, raw, tuple(groups))


def check_whole(file: BinaryIO, name: str) -> tuple[int, int, bytes]:
    """Size of a container, length and digest of its original, after checking every byte.

    Leaves the file at its beginning.  Raises :class:`CodecError` when it is no container, of
    another version, damaged, or cut short.
    """
    start = file.read(len(MAGIC) + 1)
    if start[: len(MAGIC)] != MAGIC:
        raise CodecError(
            f"{name} is not a compressed file of springback, or its beginning is damaged; "
            "name a file that 'springback compress' wrote"
        )
    if len(start) > len(MAGIC) and start[len(MAGIC)] != VERSION:
        raise CodecError(
            f"{name} has container version {start[len(MAGIC)]}, or is damaged; this springback "
            f"reads version {VERSION}; use the version that wrote it"
        )
    size = file.seek(0, 2)
    file.seek(0)
    damaged = CodecError(
        f"{name} is damaged or cut short: its checksum does not match; get a whole copy of it"
    )
    if size <= TRAILER + len(MAGIC) + 1:
        raise damaged
    digest, left = Digest(), size - HASH
    while left:
        data = file.read(min(_READ, left))
        if not data:
            raise damaged
        digest.add(data)
        left -= len(data)
    if file.read(HASH) != digest.value():
        raise damaged
    file.seek(size - TRAILER)
    (length,) = struct.unpack("<Q", file.read(8))
    content = file.read(HASH)
    file.seek(0)
    return size, length, content
