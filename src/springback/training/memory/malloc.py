"""Free memory that glibc keeps is given back where it is more than the work at hand needs.

Blocks of many sizes leave holes, and with :func:`springback.models.loading.tune_allocator` no hole
is ever given back: the heap of a run whose batches differ grows to twice of what is in use.  To
give back after every piece of work would cost a tenth of the time in page faults.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from springback.models.loading import tune_allocator

#: Free memory that is kept, as a multiple of what one piece of work takes.
KEPT = 1.15
#: Size from which :func:`large_blocks_apart` sets blocks apart.
LARGE = 32 << 20
_STATM = Path("/proc/self/statm")


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Within, blocks of :data:`LARGE` bytes come straight from the kernel and go back to it.

    Where they are few, as in SFT (the gradient of the embedding once a piece), that costs nothing
    and the heap needs no hole of their size.
    """
    tune_allocator(LARGE)
    try:
        yield
    finally:
        tune_allocator()


class _Facts(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks")),
        ("keepcost", ctypes.c_size_t),
    ]


class Heap:
    """Watches the heap of one run.  Does nothing but on Linux with glibc 2.33 or newer."""

    def __init__(self) -> None:
        self._libc: Any = None
        try:
            libc = ctypes.CDLL(None)
            libc.mallinfo2.restype, libc.malloc_trim.argtypes = _Facts, [ctypes.c_size_t]
            if _STATM.exists():
                self._libc = libc
        except (OSError, AttributeError):
            pass
        self.trims = 0
        self._usual, self._base, self._fresh = 0, 0, True
        if self._libc is not None:
            self._base = self._idle()

    def settle(self) -> None:
        """Call after every piece of work, when what it needed has been freed."""
        if self._libc is None:
            return
        free = self._idle() - self._base
        if self._fresh:  # all of it was touched by the piece that came after the last trim
            self._usual, self._fresh = max(self._usual, free), False
        elif free > KEPT * self._usual:
            self._libc.malloc_trim(0)
            self.trims += 1
            self._base, self._fresh = self._idle(), True

    def _idle(self) -> int:
        """Anonymous memory (bytes) in pages but not in blocks that are in use."""
        facts = self._libc.mallinfo2()
        _, resident, shared, *_ = map(int, _STATM.read_text().split())
        return (
            (resident - shared) * os.sysconf("SC_PAGE_SIZE")
            - int(facts.uordblks)
            - int(facts.hblkhd)
        )
