"""The bytes of a data file, packed or not, up to what fits: what grows without end is refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from springback.core import byte_size
from springback.errors import DataError, MissingExtraError

#: How much larger than the packed file its content may be, and what is allowed whatever the ratio.
#: Text packs 3 to 10 times, rows that share a long system prompt up to 50 times.
RATIO = 100
FLOOR = 64_000_000
_CHUNK = 1 << 20
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"\xfd7zXZ\0": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    **{f"BZh{level}1AY&SY".encode(): ".bz2" for level in range(1, 10)},
}


def _zstandard(path: Path) -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data", f"reading {str(path)!r}") from error
    return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")


_OPEN: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstandard,
}
#: Endings of packed files.
PACKED = tuple(_OPEN)


def memory_limit() -> int:
    """The most bytes of data that are read at once: half of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def content_limit(path: Path) -> int:
    """The most bytes that may come out of a packed file."""
    return min(max(FLOOR, RATIO * path.stat().st_size), memory_limit())


def too_large(source: str, limit: int) -> DataError:
    """The refusal of what comes out of a file."""
    return DataError(
        f"{source!r} unpacks to more than {byte_size(limit)}, over {RATIO} times its size or half "
        "of the memory; allowed: less; if it is meant to, unpack it or give a part of it"
    )


def read_whole(path: Path, source: str) -> bytes | bytearray:
    """The content of ``path``, unpacked if its ending or its first bytes say that it is packed.

    Raises :class:`springback.errors.DataError` where that is damaged, or too much (``RATIO``).
    """
    size = path.stat().st_size
    if size > memory_limit():
        raise DataError(
            f"{source!r} has {byte_size(size)}; allowed: half of the memory, "
            f"{byte_size(memory_limit())}; give a part of it"
        )
    with path.open("rb") as file:
        start = file.read(16)
    ending = path.suffix.lower()
    if ending not in _OPEN:
        ending = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")
    if not ending:
        return path.read_bytes()
    limit, content = content_limit(path), bytearray()
    # What zlib, lzma and Arrow raise on damaged files has many classes.
    try:
        with _OPEN[ending](path) as stream:
            while chunk := stream.read(_CHUNK):
                content += chunk
                if len(content) > limit:
                    raise too_large(source, limit)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        kind = "gzip" if ending == ".gz" else ending[1:]
        raise DataError(
            f"{source!r} is no whole {kind} file ({' '.join(str(error).split())[:160]}); it is cut "
            "short or damaged: fetch it again"
        ) from error
    return content
