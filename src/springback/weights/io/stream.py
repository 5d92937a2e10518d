"""One shard as a stream: pieces of the inputs in, a file and its hash out.

Workers read the inputs at the same place, do the arithmetic and write at the output's
place; the calling thread takes the pieces in order and hashes them.  Inputs are read with
``pread``: as fast as mapping them, without their pages counting as this process's memory,
and a file cut short is an error instead of a bus fault.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from springback.errors import ModelError
from springback.weights.arithmetic import Bytes, Tally
from springback.weights.io.safetensors import FLOAT_BYTES, TensorFile, TensorInfo

#: Elements of a piece: what one worker holds at a time, twice as read and once as written.
PIECE = 1 << 19

#: Where a tensor is read from.
Source = tuple[TensorFile, TensorInfo]
#: From the pieces read, one for each source, and the first element: the bytes to write.
Make = Callable[[Sequence[Bytes], int], tuple[Bytes, Tally]]


class Reader:
    """Reads stretches of tensors; each file is opened once, and closed at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open: dict[Path, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, source: Source, first: int, count: int) -> Bytes:
        """The bytes of ``count`` elements from ``first`` on."""
        file, info = source
        with self._lock:
            if file.path not in self._open:
                self._open[file.path] = _open(self._stack, file.path, os.O_RDONLY)
        width = info.nbytes // info.size if info.size else 0
        return _read(self._open[file.path], info.start + first * width, count * width, info.name)


@dataclass(frozen=True)
class Part:
    """One tensor to be written.

    ``begin`` is called once, just before its first piece, and gives the function that makes the
    pieces; what it holds is freed after the last one.  Every source has the elements of ``info``
    in the same order.  Pieces are multiples of ``row`` elements.
    """

    info: TensorInfo
    code: str
    place: int
    sources: tuple[Source, ...]
    begin: Callable[[Reader], Make]
    row: int = 1


@dataclass(frozen=True)
class _Piece:
    """``count`` elements of one tensor from ``first`` on."""

    part: Part
    make: Make
    first: int
    count: int

    @property
    def last(self) -> bool:
        return self.first + self.count == self.part.info.size

    def work(self, reader: Reader, out: int) -> tuple[Bytes, Tally]:
        """Read, combine and write."""
        part = self.part
        raws = [reader.read(source, self.first, self.count) for source in part.sources]
        raw, tally = self.make(raws, self.first)
        width = FLOAT_BYTES.get(part.code) or (raw.size // self.count if self.count else 0)
        _write(out, raw.data, part.place + self.first * width)
        return raw, tally


@dataclass(frozen=True)
class Stream:
    """How shards are written: thread pool, pieces that wait at most, callback for each tensor."""

    pool: ThreadPoolExecutor
    window: int
    tick: Callable[[str], None]

    def write(self, target: Path, header: bytes, parts: Iterable[Part]) -> tuple[str, Tally]:
        """Write ``target``; returns its SHA-256 (hex) and its sums.

        Raises :class:`ModelError` naming the tensor when a written value is not finite, when
        one that is not float differs, and when an input ends early.
        """
        with ExitStack() as stack:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # what lies there may be a link to something else
            out = _open(stack, target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            reader = stack.enter_context(Reader())
            _write(out, memoryview(header), 0)
            sha, total = hashlib.sha256(header), Tally()
            done = stack.enter_context(closing(self._in_order(_pieces(parts, reader), reader, out)))
            for piece, raw, tally in done:
                sha.update(raw.data)
                total.add(tally)
                if piece.last:
                    self.tick(piece.part.info.name)
            os.fsync(out)
        return sha.hexdigest(), total

    def _in_order(
        self, pieces: Iterator[_Piece], reader: Reader, out: int
    ) -> Generator[tuple[_Piece, Bytes, Tally], None, None]:
        """Run pieces on the pool, a bounded number ahead, and give them back in order."""
        waiting: deque[tuple[_Piece, Future[tuple[Bytes, Tally]]]] = deque()
        try:
            for piece in pieces:
                waiting.append((piece, self.pool.submit(piece.work, reader, out)))
                if len(waiting) >= self.window:
                    done, future = waiting.popleft()
                    yield done, *future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, *future.result()
        finally:  # nobody may still use the files when they are closed
            for _, future in waiting:
                future.cancel()
            wait([future for _, future in waiting])


def _pieces(parts: Iterable[Part], reader: Reader) -> Iterator[_Piece]:
    for part in parts:
        make = part.begin(reader)
        size = piece_size(part)
        for first in range(0, max(part.info.size, 1), size):
            yield _Piece(part, make, first, min(size, part.info.size - first))


def piece_size(part: Part) -> int:
    """Elements of a piece: fewer the more sources are read at once, and whole rows."""
    fair = 2 * PIECE // max(2, len(part.sources))
    return max(1, fair // part.row) * part.row


def refuse_not_finite(
    name: str, finite: Sequence[tuple[str, bool]], mu: float, code: str
) -> ModelError:
    """The error of a tensor that came out not finite; ``finite`` says which inputs are."""
    for what, fine in finite:
        if not fine:
            return ModelError(
                f"{name} holds NaN or infinity in {what}; allowed: finite weights; "
                "take another checkpoint"
            )
    wider = "" if code in ("F32", "F64") else " or --dtype float32"
    return ModelError(
        f"{name} overflows at mu {mu:g}; allowed: finite weights; take a smaller mu{wider}, "
        "and check that both are checkpoints of one run"
    )


def _open(stack: ExitStack, path: Path, flags: int) -> int:
    descriptor = os.open(path, flags, 0o644)
    stack.callback(os.close, descriptor)
    return descriptor


def _read(descriptor: int, start: int, nbytes: int, name: str) -> Bytes:
    buffer = np.empty(nbytes, np.uint8)  # aligned, wherever in the file the bytes lie
    done = 0
    while done < nbytes:
        count = os.preadv(descriptor, [buffer.data[done:]], start + done)
        if count == 0:
            raise ModelError(f"the file of {name} was cut short while it was read; copy it again")
        done += count
    return buffer


def _write(descriptor: int, data: memoryview, start: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], start + done)
