"""What every function here takes and gives: an interval, and checks of the numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats as sps

from springback.core import added, to_jsonable
from springback.errors import DataError, describe

Floats = npt.NDArray[np.float64]
Verdict = Literal["gain", "harm", "no gain", "undecided"]
Values = Sequence[float] | npt.NDArray[Any]
#: One value a question, or one row of them a seed (the same questions in the same order).
Arms = Values | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Interval:
    """A mean and its bounds.

    Attributes:
        mean: the estimate; where there is none, null stands in place of the whole object
        low: lower end of its 95 % interval; null where the data carry none (one seed; no spread at
            all)
        high: upper end
        n: what was drawn: seeds in an audit, questions in a boost, clusters
        method: how the interval was made, in words
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    method: str = added("")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for ``result.json``."""
        plain: dict[str, Any] = to_jsonable(self)
        return plain

    def scaled(self, factor: float) -> Interval:
        """In another unit, by a factor above 0: a share times 100 is a percentage."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Interval(self.mean * factor, low, high, self.n, self.method)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """``(low, high)``, or None if there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def with_bounds(self, form: str) -> str:
        """``mean (low to high)``, each number as the format ``form`` says; the mean alone without
        an interval."""
        if self.bounds is None:
            return f"{self.mean:{form}}"
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})"


def vector(values: Values, what: str) -> Floats:
    """A finite, non-empty vector of floats, shape [n]."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim == 1 and array.size and np.isfinite(array).all():
        return array
    raise DataError(
        describe(
            f"{what}: {str(values)[:60]}",
            "a non-empty list of finite numbers",
            "drop or mend missing scores first",
        )
    )


def upper_quantile(level: float) -> float:
    """The quantile that a two-sided interval of ``level`` ends at."""
    if not 0.0 < level < 1.0:
        raise DataError(describe(f"level {level}", "between 0 and 1", "use for example 0.95"))
    return (1.0 + level) / 2.0


def t_half(variance: float, freedom: float, upper: float) -> float:
    """Half the width of a t interval around a mean of this variance."""
    return _t_quantile(upper, freedom) * math.sqrt(variance)


@functools.lru_cache(maxsize=4096)
def _t_quantile(upper: float, freedom: float) -> float:
    return float(sps.t.ppf(upper, freedom))


def no_spread(array: Floats) -> bool:
    """Whether all values are equal but for rounding."""
    return bool(np.ptp(array) <= 1e-12 * np.abs(array).max())


def checked_resamples(resamples: int) -> int:
    if resamples < 1:
        raise DataError(describe(f"{resamples} resamples", "1 or more", "use for example 10000"))
    return resamples


def paired_arms(a: Arms, b: Arms) -> tuple[Floats, Floats]:
    """Both arms as [seeds, questions]; one seed where a vector was given."""
    try:
        left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    except ValueError as error:
        raise DataError(
            "the seeds of an arm have different numbers of questions; allowed: the same questions "
            "in the same order; score every seed on one test set"
        ) from error
    fits = left.shape == right.shape and left.ndim in (1, 2) and left.size > 0
    if not fits or not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise DataError(
            describe(
                f"arms of shape {left.shape} and {right.shape}",
                "equal, non-empty [questions] or [seeds, questions], all finite",
                "pair the arms question by question and drop what was not scored in both",
            )
        )
    return np.atleast_2d(left), np.atleast_2d(right)


def binary(*arms: Floats) -> bool:
    return all(bool(np.isin(arm, (0.0, 1.0)).all()) for arm in arms)
