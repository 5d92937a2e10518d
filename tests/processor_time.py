"""How long a call takes, for tests of how that grows with what it reads."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds_of(call: Callable[[], object]) -> float:
    """Processor time of ``call``, the least of three, so that other work on the machine counts
    for little."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return min(times)
