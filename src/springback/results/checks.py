"""What the jobs check of settings and data.  Light: before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from springback.core import Slice
from springback.data import check_disjoint
from springback.errors import SpringbackError


def require_disjoint(parts: Sequence[Slice]) -> None:
    """Raise if any two of the slices share a row."""
    for index, a in enumerate(parts):
        for b in parts[index + 1 :]:
            check_disjoint(a, b)


def check_positive(settings: Mapping[str, float]) -> None:
    """Raise unless every value is above zero; the key is the flag's name."""
    for name, value in settings.items():
        if not value > 0:  # NaN is refused too
            raise SpringbackError(f"--{name} is {value}; give a number above 0")
