"""What a search tries, and what it chooses by.  Light: checked before torch is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from springback.errors import SpringbackError

#: What candidates are chosen by (``--choose-by``).
RULES = ("auto", "accuracy", "nll", "best")
#: How mu and lambda are searched (``--search``).
SEARCHES = ("staged", "joint")


def candidates(values: Sequence[float], flag: str, positive: bool = False) -> tuple[float, ...]:
    """Sorted candidates with 0 among them, or with ``positive`` only those above 0.

    Raises on negative or non-finite values, and if none is left.
    """
    if bad := [v for v in values if not math.isfinite(v) or v < 0]:
        raise SpringbackError(f"--{flag} has {bad}; give finite numbers from 0 up, such as 0.1")
    if not positive:
        return tuple(sorted({0.0, *values}))
    if not any(values):
        raise SpringbackError(f"--{flag} has no candidate above 0, as --positive asks; give one")
    return tuple(sorted({v for v in values if v > 0}))
