"""What an audit found beside curves and losses: doses to undo, phases, attackers, re-alignment.

See ``docs/result_schema.md`` for every key.
"""

from __future__ import annotations

from dataclasses import dataclass

from springback.report.values import Estimate, Interval


@dataclass(frozen=True)
class DoseAt:
    """``found``: mean over the seeds; None where alignment gained nothing in any of them.

    ``words``: the median over the seeds, with what is censored or not defined.
    """

    n_pos: int
    found: Estimate | None
    words: str


@dataclass(frozen=True)
class Trend:
    """``slope``: examples for each doubling of alignment; None where it is not estimable."""

    label: str
    slope: Estimate | None
    sentence: str


@dataclass(frozen=True)
class Doses:
    """``largest``: the largest dose measured, beyond which doses are censored."""

    key: str
    what: str
    largest: float | None
    at: tuple[DoseAt, ...]
    trend: Trend | None


@dataclass(frozen=True)
class Branch:
    """The shape of the fall from the model aligned on ``n_pos`` examples.

    ``single``: the best shape of one phase; ``lead``: by how much two lines are better in AICc.
    ``slopes``: before and after the breakpoint, nats/token for each example.
    """

    n_pos: int
    label: str
    single: str
    lead: float | None
    breakpoint: Interval | None
    slopes: tuple[float, float] | None


@dataclass(frozen=True)
class Phases:
    """``decay``: beyond proportional decay at one rate, share of the gain for each doubling."""

    branches: tuple[Branch, ...]
    decay: Interval | None
    decay_label: str


@dataclass(frozen=True)
class Sweep:
    """One measure over all attackers; a worst or median of None lies beyond the largest dose."""

    worst: float | None
    worst_by: str
    median: float | None
    median_by: str
    typical: Estimate
    attackers: int
    left_out: int


@dataclass(frozen=True)
class Mixed:
    name: str
    fall: Interval | None
    share_lost: Interval | None


@dataclass(frozen=True)
class Attackers:
    """All of them perturb the model aligned on ``n_pos`` examples."""

    share: Sweep | None
    dose: Sweep | None
    mixed: tuple[Mixed, ...]
    n_pos: int | None


@dataclass(frozen=True)
class AtCount:
    """Margin gained for each example after ``count`` of them, nats/token."""

    count: float
    first: Interval | None
    second: Interval | None
    difference: Interval | None


@dataclass(frozen=True)
class Realign:
    """``examples``: between two heights that both alignments pass, second minus first."""

    counts: tuple[AtCount, ...]
    examples: Interval | None


@dataclass(frozen=True)
class RateSet:
    """A set and its rates under the start model; ``leaves`` is M of its pruned tree."""

    name: str
    source: str
    texts: int
    leaves: int
    bits_per_byte: float
    rate: float
    normalised: float


@dataclass(frozen=True)
class RateMoves:
    """Changes of one set's rate along a trajectory's examples; ``first`` and ``whole``: for each
    example up to the first mark, and to the last."""

    name: str
    changes: tuple[Interval, ...]
    first: Interval
    whole: Interval


@dataclass(frozen=True)
class RatePath:
    """``phase``: align or perturb; ``n_pos``: examples of the alignment."""

    phase: str
    n_pos: int
    examples: tuple[float, ...]
    sets: tuple[RateMoves, ...]


@dataclass(frozen=True)
class RateFit:
    """k by the first mark; None unless it is above 0 in all seeds.  ``volumes``: k by volumes."""

    phase: str
    n_pos: int
    examples: float
    k: Interval | None
    opposite: float
    volumes: float | None


@dataclass(frozen=True)
class Rates:
    """Compression rates of three sets along an audit's trajectories."""

    depth: int
    sets: tuple[RateSet, ...]
    paths: tuple[RatePath, ...]
    fits: tuple[RateFit, ...]

    def path(self, phase: str) -> RatePath | None:
        """The trajectory of the most aligned model in a phase."""
        own = [path for path in self.paths if path.phase == phase]
        return max(own, key=lambda path: path.n_pos) if own else None
