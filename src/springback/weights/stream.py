"""One shard as a stream: pieces of two inputs in, a file and its hash out.

Workers read the two inputs at the same place, do the arithmetic and write at the output's
place; the calling thread takes the pieces in order and hashes them.  Inputs are read with
``pread``: as fast as mapping them, without their pages counting as this process's memory,
and a file cut short is an error instead of a bus fault.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from springback.errors import ModelError
from springback.weights.arithmetic import Bytes, Tally, decode, step
from springback.weights.format import FLOAT_BYTES, Layout, TensorFile, TensorInfo

#: Elements of a piece: what one worker holds at a time, twice as read and once as written.
PIECE = 1 << 19

Tensors = Mapping[str, tuple[TensorFile, TensorInfo]]


@dataclass(frozen=True)
class _Piece:
    """``count`` elements of one tensor from ``first`` on, and the file descriptors they pass."""

    info: TensorInfo
    early_start: int
    place: int
    codes: tuple[str, str]
    first: int
    count: int
    files: tuple[int, int, int]

    @property
    def last(self) -> bool:
        return self.first + self.count == self.info.size


@dataclass(frozen=True)
class Stream:
    """How shards are written: who works, how many pieces wait at most, whom to tell of a tensor."""

    pool: ThreadPoolExecutor
    window: int
    mu: float
    tick: Callable[[str], None]

    def write(
        self, target: Path, layout: Layout, ft: TensorFile, early: Tensors
    ) -> tuple[str, Tally]:
        """Write ``target``; returns its SHA-256 (hex) and its sums.

        Raises :class:`ModelError` naming the tensor when a written value is not finite, when
        one that is not float differs, and when an input ends early.
        """
        with ExitStack() as stack:
            target.parent.mkdir(parents=True, exist_ok=True)
            out = _open(stack, target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            files = {f.path: f for f, _ in (early[t.name] for t, _, _ in layout.entries)}
            handles = {path: _open(stack, path, os.O_RDONLY) for path in {*files, ft.path}}
            _write(out, memoryview(layout.header), 0)
            pieces = _pieces(layout, early, handles, handles[ft.path], out)
            sha, total = hashlib.sha256(layout.header), Tally()
            for piece, raw, tally in stack.enter_context(closing(self._in_order(pieces))):
                sha.update(raw.data)
                total.add(tally)
                if piece.last:
                    self.tick(piece.info.name)
            os.fsync(out)
        return sha.hexdigest(), total

    def _in_order(
        self, pieces: Iterator[_Piece]
    ) -> Generator[tuple[_Piece, Bytes, Tally], None, None]:
        """Run pieces on the pool, a bounded number ahead, and give them back in order."""
        waiting: deque[tuple[_Piece, Future[tuple[Bytes, Tally]]]] = deque()
        try:
            for piece in pieces:
                waiting.append((piece, self.pool.submit(_work, piece, self.mu)))
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


def _pieces(
    layout: Layout, early: Tensors, handles: Mapping[Path, int], ft: int, out: int
) -> Iterator[_Piece]:
    for info, code_out, place in layout.entries:
        file, before = early[info.name]
        for first in range(0, max(info.size, 1), PIECE):
            yield _Piece(
                info,
                before.start,
                place,
                (info.code, code_out),
                first,
                min(PIECE, info.size - first),
                (handles[file.path], ft, out),
            )


def _work(piece: _Piece, mu: float) -> tuple[Bytes, Tally]:
    """Read, combine and write one piece."""
    code_in, code_out = piece.codes
    early_file, ft_file, out_file = piece.files
    width = piece.info.nbytes // piece.info.size if piece.info.size else 0
    begin, nbytes = piece.first * width, piece.count * width
    early = _read(early_file, piece.early_start + begin, nbytes, piece.info.name)
    ft = _read(ft_file, piece.info.start + begin, nbytes, piece.info.name)
    if code_in not in FLOAT_BYTES:
        if not np.array_equal(early, ft):
            raise ModelError(
                f"{piece.info.name} holds no floats and differs between the two models; allowed: "
                "equal in both; dequantise the models, or take checkpoints of one run"
            )
        raw, tally, place = ft, Tally(), piece.place + begin
    else:
        raw, tally = step(early, ft, mu, piece.codes)
        if not tally.finite:
            raise ModelError(_not_finite(piece.info.name, early, ft, piece.codes, mu))
        place = piece.place + piece.first * FLOAT_BYTES[code_out]
    _write(out_file, raw.data, place)
    return raw, tally


def _not_finite(name: str, early: Bytes, ft: Bytes, codes: tuple[str, str], mu: float) -> str:
    for what, raw in (("the early model", early), ("the fine-tuned model", ft)):
        if not np.isfinite(decode(raw, codes[0])).all():
            return (
                f"{name} holds NaN or infinity in {what}; allowed: finite weights; "
                "take another checkpoint"
            )
    wider = "" if codes[1] in ("F32", "F64") else " or --dtype float32"
    return (
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
