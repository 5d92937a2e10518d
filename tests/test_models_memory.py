"""What a job leaves behind goes back to the system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from springback.models.loading import KEPT_PRODUCTS, tune_allocator

#: Four hundred blocks of 1 MB, all but the last freed: free heap below a held block,
#: which glibc keeps.  Prints RssAnon in MB before, with it and after.
SCRIPT = """
import ctypes
from springback.models.loading import release_memory, tune_allocator

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) // 1024

tune_allocator()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
before = resident()
blocks = [libc.malloc(1 << 20) for _ in range(400)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 20)
last = blocks.pop()
for block in blocks:
    libc.free(block)
held = resident()
release_memory()
print(before, held, resident())
libc.free(last)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_freed_memory_is_given_back_when_a_job_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=300
    )
    before, held, after = map(int, done.stdout.split())
    assert held > before + 300, "the allocator gave it back by itself: nothing to test"
    assert after < before + 100


def test_compiled_products_are_kept_for_few_shapes_unless_the_environment_says_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "2048")
    tune_allocator()
    assert os.environ["LRU_CACHE_CAPACITY"] == str(KEPT_PRODUCTS)
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "2048"
