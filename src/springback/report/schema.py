"""What a result file holds, as frozen objects: see ``docs/result_schema.md`` for every key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 1
KINDS = ("audit", "boost", "demo", "theory")


@dataclass(frozen=True)
class Interval:
    """A mean and, where the data carry one, its 95 % interval; ``method`` names it in words."""

    mean: float
    low: float | None
    high: float | None
    n: int
    method: str = ""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Low and high, or None unless both are known."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def scaled(self, factor: float) -> Interval:
        """In another unit: a share times 100 is a percentage."""
        low, high = (None if b is None else b * factor for b in (self.low, self.high))
        return Interval(self.mean * factor, low, high, self.n, self.method)


@dataclass(frozen=True)
class AtSize:
    """A value for the model aligned on ``n_pos`` examples."""

    n_pos: int
    value: Interval | None


@dataclass(frozen=True)
class HalfDose:
    """The dose that undoes half of the gain.

    None and ``censored``: beyond the doses tried.  None and not: there was no gain to undo.
    """

    n_pos: int
    value: float | None
    censored: bool


@dataclass(frozen=True)
class Curve:
    """One probe along the doses, for the model aligned on ``n_pos`` examples.

    The tuples are equally long; a value that was not a number is NaN.
    """

    n_pos: int
    dose: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None

    def at(self, dose: float) -> Interval | None:
        """The value at ``dose``; None where it was not measured or is not a number."""
        if dose not in self.dose:
            return None
        i = self.dose.index(dose)
        low, high = (
            None if side is None or math.isnan(side[i]) else side[i]
            for side in (self.low, self.high)
        )
        return None if math.isnan(self.mean[i]) else Interval(self.mean[i], low, high, 1)


@dataclass(frozen=True)
class Probe:
    key: str
    title: str
    unit: str
    direction: str
    start: Interval | None
    aligned: tuple[AtSize, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Rebound:
    n_pos: tuple[int, ...]
    doses: tuple[float, ...]
    seeds: tuple[int, ...]
    probes: tuple[Probe, ...]
    gain: tuple[AtSize, ...]
    fall: tuple[AtSize, ...]
    share_lost: tuple[AtSize, ...]
    half_dose: tuple[HalfDose, ...]
    fall_per_log2: Interval | None
    share_per_log2: Interval | None
    fall_dose: int | None


@dataclass(frozen=True)
class Pair:
    pair: str
    forward: Interval | None
    inverse: Interval | None
    ratio: Interval | None
    excess_forward: Interval | None
    excess_inverse: Interval | None


@dataclass(frozen=True)
class Audit:
    """``silent`` holds the sections written as null: not measured in this run."""

    rebound: Rebound | None
    resistance: tuple[Pair, ...] | None
    noise_floor: Mapping[str, float]
    silent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Candidate:
    value: float
    accuracy: Interval | None
    nll: Interval | None
    chosen: bool


@dataclass(frozen=True)
class Method:
    method: str
    mu: float | None
    lam: float | None
    accuracy: Interval | None
    nll: Interval | None
    difference: Interval | None
    nll_difference: Interval | None
    verdict: str | None


@dataclass(frozen=True)
class Boost:
    """``search`` maps mu, lambda and cd_lambda to their candidates, in the order tried."""

    search: Mapping[str, tuple[Candidate, ...]]
    methods: tuple[Method, ...] | None
    floor: str | None
    silent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Part:
    question: str
    label: str
    text: str


@dataclass(frozen=True)
class Verdict:
    label: str
    text: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Result:
    kind: str
    provenance: Mapping[str, Any]
    inputs: Mapping[str, Any]
    measurements: int
    audit: Audit | None
    boost: Boost | None
    verdict: Verdict | None
    silent: frozenset[str] = field(default_factory=frozenset)
    theory: Mapping[str, Any] | None = None
