"""Compress and decompress files, block by block, in bounded memory."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from springback.compression import coder, container
from springback.compression.container import BLOCK, Block, Digest, Group, Header, Reader, Sink
from springback.compression.model import DEFAULT_MODEL, CodecModel, load_codec_model
from springback.compression.settings import CodecSettings
from springback.compression.text_spans import hold_back, split, to_text
from springback.errors import CodecError, SpringbackError, describe
from springback.models.builtin import BUILTIN
from springback.models.encoding import Encoded, text_bytes
from springback.models.loading import fixed_threads
from springback.progress import Progress, Silent, default_progress
from springback.results.store import require_named, whole_file


@dataclass(frozen=True)
class Compressed:
    """What compressing did.  ``coded_bytes`` are the range coder's, ``raw_bytes`` the original's
    bytes that are in no text; ``seconds`` are without loading the model and without verifying."""

    original_bytes: int
    container_bytes: int
    coded_bytes: int
    raw_bytes: int
    tokens: int
    chunks: int
    groups: int
    seconds: float
    verified: bool = False

    @property
    def bits_per_byte(self) -> float:
        """Bits of the whole container for a byte of the original (nan for nothing)."""
        if not self.original_bytes:
            return math.nan
        return 8 * self.container_bytes / self.original_bytes

    @property
    def coded_bits_per_byte(self) -> float:
        """Bits that the model spent on a byte of text: without header, tables and raw bytes.

        The quantity that :func:`springback.probes.bits_per_byte` predicts (nan without text).
        """
        text = self.original_bytes - self.raw_bytes
        return 8 * self.coded_bytes / text if text else math.nan


class _Advance:
    """Reports tokens that are done as bytes of the original."""

    def __init__(self, progress: Progress, data_bytes: int, tokens: int) -> None:
        self.progress, self.bytes, self.tokens = progress, data_bytes, tokens
        self.done = self.reported = 0

    def __call__(self, rows: int) -> None:
        self.done += rows
        now = self.bytes * self.done // self.tokens
        self.progress.advance(now - self.reported)
        self.reported = now

    def end(self, data_bytes: int) -> None:
        """All are done, and it was this many bytes."""
        self.progress.advance(data_bytes - self.reported)


def encode_file(
    codec: CodecModel,
    source: BinaryIO,
    sink: Sink,
    settings: CodecSettings,
    progress: Progress | None = None,
) -> Compressed:
    """Write the container of what ``source`` still holds to ``sink``."""
    progress, begin = progress or Silent(), time.perf_counter()
    header = codec.header(settings, codec.fit(settings.chunk))
    whole, original = Digest(), Digest()

    def write(data: bytes) -> None:
        whole.add(data)
        sink.write(data)

    write(container.pack_header(header))
    coded = raw = tokens = chunks = groups = 0
    held = b""
    with fixed_threads(header.threads):
        while data := source.read(BLOCK - len(held)):
            original.add(data)
            data = held + data
            cut = len(data) - hold_back(data)
            data, held = data[:cut], data[cut:]  # a character goes into the block where it ends
            if not data:
                continue
            block, lengths = _encode_block(codec, data, header, progress)
            write(container.pack_block(block))
            coded += sum(len(g.coded) for g in block.groups)
            raw, tokens = raw + block.raw_bytes, tokens + block.tokens
            chunks, groups = chunks + sum(map(len, lengths)), groups + len(lengths)
    if held:
        write(container.pack_block(Block(((False, len(held)),), container.deflate(held), ())))
        raw += len(held)
    write(container.pack_trailer(original))
    sink.write(whole.value())
    return Compressed(
        original_bytes=original.count,
        container_bytes=whole.count + container.HASH,
        coded_bytes=coded,
        raw_bytes=raw,
        tokens=tokens,
        chunks=chunks,
        groups=groups,
        seconds=time.perf_counter() - begin,
    )


def _encode_block(
    codec: CodecModel, data: bytes, header: Header, progress: Progress
) -> tuple[Block, list[tuple[int, ...]]]:
    pieces = split(data, codec.tokenizer, codec.vocabulary)
    ids = np.array([i for p in pieces if p.ids is not None for i in p.ids], dtype=np.int32)
    lengths = coder.plan(len(ids), header.chunk, header.batch)
    codec.check_memory(lengths)
    advance = _Advance(progress, len(data), max(1, len(ids)))
    groups: list[Group] = []
    first = 0
    for group in lengths:
        part = ids[first : first + sum(group)]
        groups.append(coder.encode_group(codec.model, part, group, header.start, advance))
        first += sum(group)
    advance.end(len(data))
    raw = b"".join(p.data for p in pieces if p.ids is None)
    counts = tuple(
        (p.ids is not None, len(p.data) if p.ids is None else len(p.ids)) for p in pieces
    )
    return Block(counts, container.deflate(raw) if raw else b"", tuple(groups)), lengths


def decode_file(
    codec: CodecModel,
    source: BinaryIO,
    sink: Sink,
    name: str = "the container",
    progress: Progress | None = None,
) -> int:
    """Write the original of the container ``source`` to ``sink``; returns its length in bytes.

    Raises :class:`CodecError` when the container is damaged or cut short, when the model or its
    dtype is another one, and when this machine's arithmetic is not that of the one that coded it.
    Each group of chunks is checked when it is decoded, the whole at the end: what is in ``sink``
    counts only if nothing was raised.
    """
    progress = progress or Silent()
    size, length, content = container.check_whole(source, name)
    reader = Reader(source, size, name)
    header = reader.header()
    codec.check_header(header, name)
    if header.torch != str(torch.__version__) or header.machine != codec.machine:
        progress.note(
            f"{name} was coded with torch {header.torch} on {header.machine}; this is torch "
            f"{torch.__version__} on {codec.machine}. Each part is checked."
        )
    original = Digest()
    with fixed_threads(header.threads):
        while block := reader.block(lambda n: len(coder.plan(n, header.chunk, header.batch))):
            data = _decode_block(codec, block, header, name, progress)
            original.add(data)
            sink.write(data)
    if original.count != length or original.value() != content:
        raise _differs(header, codec, name)
    return length


def _decode_block(
    codec: CodecModel, block: Block, header: Header, name: str, progress: Progress
) -> bytes:
    raw = container.inflate(block.raw, block.raw_bytes) if block.raw_bytes else b""
    lengths = coder.plan(block.tokens, header.chunk, header.batch)
    codec.check_memory(lengths)
    # How many bytes it will be is not known yet: a token of English is about four.
    advance = _Advance(progress, len(raw) + 4 * block.tokens, max(1, block.tokens))
    parts = []
    for group, shape in zip(block.groups, lengths, strict=True):
        try:
            parts.append(coder.decode_group(codec.model, group, shape, header.start, advance))
        except CodecError as error:
            raise _differs(header, codec, name) from error
    ids = np.concatenate(parts).tolist() if parts else []
    out, token, byte = [], 0, 0
    for is_text, count in block.pieces:
        if is_text:
            text = to_text(codec.tokenizer, ids[token : token + count])
            out.append(text.encode("utf-8", "surrogatepass"))
            token += count
        else:
            out.append(raw[byte : byte + count])
            byte += count
    data = b"".join(out)
    advance.end(len(data))
    return data


def _differs(header: Header, codec: CodecModel, name: str) -> CodecError:
    """The file is whole and the model is right, yet the probabilities are others."""
    return CodecError(
        f"{name} cannot be decoded here: the model's probabilities differ in low bits from those "
        f"it was coded with (then: torch {header.torch}, {header.machine}, {header.threads} "
        f"threads; here: torch {torch.__version__}, {codec.machine}); decode it where it was "
        "coded, or with the same torch, kind of processor and model folder"
    )


def compress(
    source: str | Path,
    out: str | Path,
    model: str | Path = DEFAULT_MODEL,
    settings: CodecSettings | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Compressed:
    """Compress the file ``source`` into the container ``out``; any bytes will do.

    ``out`` appears when it is whole, and with ``settings.verify`` when it has been decoded again.
    One that is there is only replaced with ``force``.  Raises
    :class:`springback.errors.SpringbackError`.

    >>> springback.compress("notes.txt", "notes.sbc").bits_per_byte  # doctest: +SKIP
    """
    settings, progress = settings or CodecSettings(), progress or default_progress()
    given, target = _paths(source, out, force)
    coder.coder_library()
    codec = load_codec_model(model, settings.dtype)
    with closing(progress), given.open("rb") as file, whole_file(target) as sink:
        size = given.stat().st_size
        progress.stage("compress, bytes", size)
        report = encode_file(codec, file, sink, settings, progress)
        if settings.verify:
            progress.stage("verify, bytes", size)
            sink.seek(0)
            decode_file(codec, sink, _Nowhere(), str(target), progress)
            report = replace(report, verified=True)
    return report


def decompress(
    source: str | Path,
    out: str | Path,
    model: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the original of the container ``source`` to the file ``out``; returns its bytes.

    Without ``model`` the built-in one that the container names, else the default.  Threads, dtype
    and batch shape are those of the container.  ``out`` appears only if every checksum is right.
    Raises :class:`springback.errors.CodecError` otherwise.
    """
    progress = progress or default_progress()
    given, target = _paths(source, out, force)
    coder.coder_library()
    with closing(progress), given.open("rb") as file:
        size, length, _ = container.check_whole(file, str(given))
        header = Reader(file, size, str(given)).header()
        file.seek(0)
        if model is None:
            model = header.name if header.name in BUILTIN else DEFAULT_MODEL
        codec = load_codec_model(model, header.dtype, header, str(given))
        with whole_file(target) as sink:
            progress.stage("decompress, bytes", length)
            decode_file(codec, file, sink, str(given), progress)
    return length


def _paths(source: str | Path, out: str | Path, force: bool) -> tuple[Path, Path]:
    """Both paths, checked before a model is loaded."""
    given, target = Path(source), Path(out)
    try:
        if not given.is_file():
            what = "is a folder" if given.is_dir() else "no such file"
            raise SpringbackError(f"{given}: {what}; name a file")
        given.open("rb").close()
        require_named(target.parent)
        if target.is_dir():
            raise SpringbackError(f"--out {target} is a folder; name a file")
        if target.exists() and target.samefile(given):
            raise SpringbackError(f"--out {target} is the file to read; name another one")
        if (target.exists() or target.is_symlink()) and not force:
            raise SpringbackError(f"--out {target} exists; name another file, or add --force")
    except OSError as error:
        raise SpringbackError(f"cannot read {given}: {error}; check its permissions") from error
    return given, target


class _Nowhere:
    """Takes bytes and forgets them; what checks them is the digest."""

    def write(self, data: bytes) -> int:
        return len(data)


def scored_rows(
    codec: CodecModel, data: bytes, settings: CodecSettings | None = None
) -> list[Encoded]:
    """The chunks of ``data``'s text as rows for :func:`springback.probes.nll`.

    What :func:`springback.probes.bits_per_byte` says of them is what the coder comes to, up to
    the rounding of probabilities and the last word of a stream.  One block of data at most.
    """
    settings = settings or CodecSettings()
    if len(data) > BLOCK:
        raise SpringbackError(describe(f"{len(data)} bytes", f"at most {BLOCK}", "give a part"))
    pieces = split(data, codec.tokenizer, codec.vocabulary)
    ids = [i for p in pieces if p.ids is not None for i in p.ids]
    rows: list[Encoded] = []
    first = 0
    for group in coder.plan(len(ids), codec.fit(settings.chunk), settings.batch):
        for length in group:
            part = ids[first : first + length]
            rows.append(Encoded((codec.start, *part), 1, text_bytes(codec.tokenizer, part)))
            first += length
    return rows
