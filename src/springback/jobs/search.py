"""The staged search of paper B (section B4): first mu, then lambda with mu frozen.  Not jointly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from springback.errors import SpringbackError
from springback.stats import Interval


@dataclass(frozen=True)
class Tried:
    """One candidate on the validation set: accuracy per question (0/1), NLL per question."""

    value: float
    correct: tuple[bool, ...]
    nll: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        return sum(self.correct) / len(self.correct)


def candidates(values: Sequence[float], flag: str) -> tuple[float, ...]:
    """Sorted candidates with 0 among them; raises on negative or non-finite values."""
    if bad := [v for v in values if not math.isfinite(v) or v < 0]:
        raise SpringbackError(f"--{flag} has {bad}; give finite numbers from 0 up, such as 0.1")
    return tuple(sorted({0.0, *values}))


def choose(tried: Sequence[Tried]) -> Tried:
    """Best mean validation accuracy; ties go to the smaller value."""
    return max(tried, key=lambda t: (t.accuracy, -t.value))


def search(
    values: Sequence[float], score: Callable[[float], Tried]
) -> tuple[Tried, tuple[Tried, ...]]:
    """Score every candidate; the chosen one, and all of them."""
    tried = tuple(score(value) for value in values)
    return choose(tried), tried


def curve(
    tried: Sequence[Tried], chosen: Tried, interval: Callable[[Sequence[float]], Interval]
) -> list[dict[str, object]]:
    """The search as the result file records it."""
    return [
        {
            "value": t.value,
            "accuracy": interval([float(c) for c in t.correct]).to_dict(),
            "nll": interval(t.nll).to_dict(),
            "chosen": t.value == chosen.value,
        }
        for t in tried
    ]
