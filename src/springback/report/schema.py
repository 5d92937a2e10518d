"""What a result file holds, as frozen objects: see ``docs/result_schema.md`` for every key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from springback.report.boost_findings import Contrast, Difficulty, LambdaPoint
from springback.report.cards import Card, Models, Reproduction
from springback.report.findings import Attackers, Doses, Phases, Rates, Realign
from springback.report.values import AtSize, Interval

SCHEMA_VERSION = 1
KINDS = ("audit", "boost", "demo", "series", "reproduce", "theory")


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
    """``silent`` holds the sections written as null: not measured in this run.

    ``opposite``: the rebound in the opposite order.  ``resistance_data``: what resistance was
    trained on, ``responses`` or ``slices``; empty where the file does not say.  Files of older
    versions lack all from ``doses`` on.
    """

    rebound: Rebound | None
    resistance: tuple[Pair, ...] | None
    noise_floor: Mapping[str, float]
    silent: frozenset[str] = frozenset()
    doses: tuple[Doses, ...] = ()
    phases: Phases | None = None
    attackers: Attackers | None = None
    realign: Realign | None = None
    opposite: Rebound | None = None
    card: Card | None = None
    rates: Rates | None = None
    protections: Mapping[str, Any] | None = None
    repair: Mapping[str, Any] | None = None
    resistance_data: str = ""


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
    p_holm: float | None = None
    nll_p_holm: float | None = None
    cut: float | None = None


@dataclass(frozen=True)
class Boost:
    """``search`` maps mu, lambda, cd_lambda and further ones to candidates, in the order tried.

    ``power``: what the test could see, in words.  ``curve``: prediction beside the search for
    lambda.  ``withheld``: why there is no NLL, by part (``validation``, ``test``).  Files of older
    versions lack all from ``power`` on.
    """

    search: Mapping[str, tuple[Candidate, ...]]
    methods: tuple[Method, ...] | None
    floor: str | None
    silent: frozenset[str] = frozenset()
    power: str | None = None
    difficulty: Difficulty | None = None
    contrasts: tuple[Contrast, ...] = ()
    curve: tuple[LambdaPoint, ...] = ()
    precheck: tuple[str, ...] = ()
    withheld: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One model on one task of a reproduction of paper B, over the seeds."""

    name: str
    methods: tuple[Method, ...]
    difficulty: Difficulty | None
    curve: tuple[LambdaPoint, ...]


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
    """``models``: of a series and of a reproduction."""

    kind: str
    provenance: Mapping[str, Any]
    inputs: Mapping[str, Any]
    measurements: int
    verdict: Verdict | None
    silent: frozenset[str] = frozenset()
    audit: Audit | None = None
    boost: Boost | None = None
    models: Models | None = None
    reproduction: Reproduction | None = None
    theory: Mapping[str, Any] | None = None
    cells: tuple[Cell, ...] = ()
    life_cycle: Mapping[str, Any] | None = None
    #: Of a reproduction: name of a study, its protections and its repair, as the file has them.
    protected: tuple[tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None], ...] = ()
