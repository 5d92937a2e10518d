"""``analysis`` of a theory result: the theorem in numbers, tails of real data, and the springs.

Volumes are in alignment sets: k = |D1|, l = |D3|.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from springback.core import ABSENT
from springback.results.reading import require_length, require_some
from springback.stats import Interval


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles over draws, all null where no draw has a value.

    Attributes:
        median: of the draws
        low: lower quartile
        high: upper quartile
        n: draws that have a value
    """

    median: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class ReadAt:
    """Where the tables without these keys are read.

    Attributes:
        k: volume of D1
        l: volume of D3
    """

    k: float
    l: float  # noqa: E741


@dataclass(frozen=True)
class Identity:
    """How exactly the theorem holds at l = 0.

    Attributes:
        residue_at_zero: largest departure from the balance at l = 0, bits
        residue: largest departure anywhere, bits
        difference: closed form against finite differences, relative
        cells: that were compared
    """

    residue_at_zero: float
    residue: float
    difference: float
    cells: int


@dataclass(frozen=True)
class PremisesCell:
    """One law, k and l under the theorem's premises: three parts that share no leaf.

    Attributes:
        law: of the leaf masses inside a part
        k: volume of D1
        l: volume of D3
        inside: whether l is below 1/2, as the premises have it
        closed: share of the ratio -k by the closed form; null where D1's rate stands still
        trees: the same of pruned token trees
        differences: the same by finite differences of their rates
        rate1: slope of D1's rate in l, bits a symbol
        rate2: of D2's
        as_stated: whether D1's rate falls and D2's rises, as the theorem states
    """

    law: str
    k: float
    l: float  # noqa: E741
    inside: bool
    closed: float | None
    trees: float | None
    differences: float | None
    rate1: float
    rate2: float
    as_stated: bool


@dataclass(frozen=True)
class TheoremCell:
    """One cell of a table; keys that do not vary in its table are absent.

    Attributes:
        kept: share of the ratio -k that is left
        scale: b
        chi2: of D3 against the joint masses
        worse: share of draws in which D2's rate rises
        opposite: share of draws in which the two rates move apart
        overlap: mean shared mass of D2 and D3
        arrangement: how the sets lie on the leaves
        law: of the leaf masses
        k: volume of D1
        l: volume of D3
        mass: of D3 on leaves that D1 and D2 do not have
        exponent: of the tail
        overlap_set: the overlap asked for
        depth: of the pruned tree
        premises: whether the row lies within the theorem's premises
        as_stated: share of draws in which D1's rate falls and D2's rises
    """

    kept: Quartiles
    scale: Quartiles
    chi2: Quartiles
    worse: float
    opposite: float
    overlap: float
    arrangement: str | None = field(default=None, metadata=ABSENT)
    law: str | None = field(default=None, metadata=ABSENT)
    k: float | None = field(default=None, metadata=ABSENT)
    l: float | None = field(default=None, metadata=ABSENT)  # noqa: E741
    mass: float | None = field(default=None, metadata=ABSENT)
    exponent: float | None = field(default=None, metadata=ABSENT)
    overlap_set: float | None = field(default=None, metadata=ABSENT)
    depth: int | None = field(default=None, metadata=ABSENT)
    premises: bool | None = field(default=None, metadata=ABSENT)
    as_stated: float | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Departure:
    """A single draw.

    Attributes:
        arrangement: how the sets lie on the leaves
        l: volume of D3
        l_chi2: l times chi2
        l_over_scale: l / b
        kept: share of the ratio -k that is left
    """

    arrangement: str
    l: float  # noqa: E741
    l_chi2: float | None
    l_over_scale: float | None
    kept: float | None


@dataclass(frozen=True)
class Secant:
    """Change of rate 2 over change of rate 1 along the whole range of l, over -k.

    Attributes:
        ideal: of ideal lengths
        huffman: of Huffman's
    """

    ideal: float | None
    huffman: float | None


@dataclass(frozen=True)
class Huffman:
    """Rates along l with a Huffman code, beside ideal lengths.

    Attributes:
        k: volume of D1
        depth: of the tree
        exponent: of the tail
        largest: l
        points: along l
        l: volumes of D3
        ideal: rates of D1 and D2 along it, bits a symbol
        huffman: likewise
        codes: different codes that were met
        redundancy: smallest and largest, bits a leaf
        secant: over the whole range
    """

    k: float
    depth: int
    exponent: float
    largest: float
    points: int
    l: tuple[float, ...]  # noqa: E741
    ideal: tuple[tuple[float, ...], tuple[float, ...]]
    huffman: tuple[tuple[float, ...], tuple[float, ...]]
    codes: int
    redundancy: tuple[float, float]
    secant: Secant

    def __post_init__(self) -> None:
        for name in ("ideal", "huffman"):
            for which, rates in enumerate(getattr(self, name)):
                require_length(rates, len(self.l), "'l' has", name, which)


@dataclass(frozen=True)
class Theorem:
    """The theorem in numbers.

    Attributes:
        at: where tables are read
        identity: how exactly it holds at l = 0
        by_k: over k
        by_l: over l
        laws: over laws of the leaf masses
        departures: single draws
        escaped: over the mass on new leaves
        map: over exponent, overlap and depth
        huffman: whole bits
        premises: the closed form of the theorem's premises beside trees of every law
    """

    at: ReadAt
    identity: Identity
    by_k: tuple[TheoremCell, ...]
    by_l: tuple[TheoremCell, ...]
    laws: tuple[TheoremCell, ...]
    departures: tuple[Departure, ...]
    escaped: tuple[TheoremCell, ...]
    map: tuple[TheoremCell, ...]
    huffman: Huffman
    premises: tuple[PremisesCell, ...] = field(default=(), metadata=ABSENT)


@dataclass(frozen=True)
class Survival:
    """How many leaves occur at least so often.

    Attributes:
        count: occurrences
        share: share of leaves with at least so many
    """

    count: tuple[int, ...]
    share: tuple[float, ...]

    def __post_init__(self) -> None:
        require_some(self.count, "count")
        require_length(self.share, len(self.count), "there are counts", "share")


@dataclass(frozen=True)
class Rival:
    """Another law of the same tail.

    Attributes:
        law: its name
        parameters: as fitted
        ratio: log likelihood ratio, above 0 = the power law fits better
        p: of the ratio
    """

    law: str
    parameters: Mapping[str, float | None]
    ratio: float | None
    p: float | None


@dataclass(frozen=True)
class TailFit:
    """A power law fitted above its threshold.

    Attributes:
        alpha: exponent
        alpha_se: its standard error
        xmin: threshold
        distance: Kolmogorov-Smirnov
        p: bootstrap's goodness of fit; null without
        n: leaves
        n_tail: leaves in the tail
        mass_tail: mass in the tail, share of 1
        rivals: other laws
        zipf: 1 / (alpha - 1)
        label: the finding
    """

    alpha: float
    alpha_se: float | None
    xmin: float
    distance: float | None
    p: float | None
    n: int
    n_tail: int
    mass_tail: float
    rivals: tuple[Rival, ...]
    zipf: float | None
    label: str


@dataclass(frozen=True)
class Tail:
    """Frequencies of one kind of leaf.

    Attributes:
        family: `n-grams` or `tree`
        leaves: which, in words
        size: n or depth; null: whole responses
        different: leaves
        total: occurrences
        once: share of leaves that occur once
        top_mass: mass of the heaviest
        survival: the tail itself
        fit: null where there is none
        reason: why there is no fit, or empty
    """

    family: str
    leaves: str
    size: int | None
    different: int
    total: int
    once: float | None = field(default=None, metadata=ABSENT)
    top_mass: float | None = field(default=None, metadata=ABSENT)
    survival: Survival | None = field(default=None, metadata=ABSENT)
    fit: TailFit | None = None
    reason: str = ""


@dataclass(frozen=True)
class DataTails:
    """Tails of one data set.

    Attributes:
        data: as named
        rows: of it
        tails: by kind of leaf
    """

    data: str
    rows: int
    tails: tuple[Tail, ...]


@dataclass(frozen=True)
class SpringsAt:
    """What the springs were measured at.

    Attributes:
        l: the smallest dose, at which verdict and charts stand
        k: volumes of D1
        doses: volumes of D3
        seeds: the seeds
    """

    l: float  # noqa: E741
    k: tuple[float, ...]
    doses: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Elongations:
    """Changes of the mean NLL of D1, D2, D3, in nats a response, above 0 = fits worse, over seeds.

    Attributes:
        changes: of the three sets
        products: volume times change
        fitted_k: -d2 / d1, geometric; null unless above 0 in all seeds
        by_seed: the same by seed
        opposite: share of runs with opposite signs of d1 and d2
        balance: (n1 d1 + n2 d2) over the sum of sizes
        total: the same with n3 d3
        third: size of n3 d3 over that of n2 d2, geometric
    """

    changes: tuple[Interval, Interval, Interval]
    products: tuple[Interval, Interval, Interval]
    fitted_k: Interval | None
    by_seed: tuple[float | None, ...]
    opposite: float
    balance: Interval | None
    total: Interval | None
    third: Interval | None


@dataclass(frozen=True)
class SpringsCell(Elongations):
    """One arm, arrangement, k and l.

    Attributes:
        arm: `joint` or `sequence`
        arrangement: how the sets lie
        k: volume of D1
        l: volume of D3
        seeds: the seeds
        predicted: the joint optimum, known exactly
        resolved: whether each mean change is above twice the noise; null where that is not known
        premises: whether that is the theorem's arrangement, with l below 1/2
    """

    arm: str
    arrangement: str
    k: float
    l: float  # noqa: E741
    seeds: tuple[int, ...]
    predicted: Elongations
    resolved: tuple[bool, bool, bool] | None
    premises: bool | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Control(Elongations):
    """The best n-gram model in closed form.

    Attributes:
        order: symbols that it sees back
        arrangement: how the sets lie
        k: volume of D1
        l: volume of D3
    """

    order: int
    arrangement: str
    k: float
    l: float  # noqa: E741


@dataclass(frozen=True)
class Scaling:
    """How the fitted k grows with k.

    Attributes:
        arm: `joint` or `sequence`
        arrangement: how the sets lie
        l: volume of D3
        k: those above the noise
        exponent: of -d2 / d1 in k
        opposite: share of runs with opposite signs of d1 and d2
    """

    arm: str
    arrangement: str
    l: float  # noqa: E741
    k: tuple[float, ...]
    exponent: Interval | None
    opposite: float

    def __post_init__(self) -> None:
        if self.exponent is not None:
            require_some(self.k, "k")


@dataclass(frozen=True)
class Noise:
    """Noise of one change, from other weights and order with the first seed's sets.

    Attributes:
        arm: `joint` or `sequence`
        arrangement: how the sets lie
        k: volume of D1
        changes: of the three sets, nats a response
    """

    arm: str
    arrangement: str
    k: float
    changes: tuple[float, float, float]


@dataclass(frozen=True)
class Gap:
    """Nats a response that joint trainings end above the exact optimum.

    Attributes:
        median: of the trainings
        largest: of the trainings
        trainings: how many
    """

    median: float
    largest: float
    trainings: int


@dataclass(frozen=True)
class Bounds:
    """How often an optimum's inequalities are broken by more than twice the noise.

    Attributes:
        cells: joint changes
        two_below_zero: those in which n1 d1 + n2 d2 is below 0
        three_above_zero: those in which the sum with n3 d3 is above 0
    """

    cells: int
    two_below_zero: int
    three_above_zero: int


@dataclass(frozen=True)
class ModelFirst:
    """Changes of KL(model || D_i), as the paper writes its springs, at the exact joint optimum.

    Attributes:
        arrangement: how the sets lie
        k: volume of D1
        l: volume of D3
        premises: whether that is the theorem's arrangement, with l below 1/2
        changes: of D1, D2, D3, nats a response, over seeds; null where the KL is infinite, for the
            model gives mass to what the set lacks
        fitted_k: -d2 / d1, geometric; null unless above 0 in all seeds
    """

    arrangement: str
    k: float
    l: float  # noqa: E741
    premises: bool
    changes: tuple[Interval | None, Interval | None, Interval | None]
    fitted_k: Interval | None


@dataclass(frozen=True)
class Springs:
    """Whether three sets stretch as springs in series do.

    Attributes:
        at: what was measured
        arrangements: how the sets lie
        cells: trained, beside the exact optimum
        scaling: exponents over the ``k`` above the noise
        controls: n-gram models
        noise: of one change
        gap: to the exact optimum
        bounds: of an optimum
        model_first: the paper's elongations, in closed form
    """

    at: SpringsAt
    arrangements: tuple[str, ...]
    cells: tuple[SpringsCell, ...]
    scaling: tuple[Scaling, ...]
    controls: tuple[Control, ...]
    noise: tuple[Noise, ...]
    gap: Gap
    bounds: Bounds
    model_first: tuple[ModelFirst, ...] = field(default=(), metadata=ABSENT)


@dataclass(frozen=True)
class Theory:
    """``analysis`` of a theory result: one of them, by the study.

    Attributes:
        theorem: the theorem in numbers
        pareto: one for each data set
        springs: three sets as springs
    """

    theorem: Theorem | None = field(default=None, metadata=ABSENT)
    pareto: tuple[DataTails, ...] | None = field(default=None, metadata=ABSENT)
    springs: Springs | None = field(default=None, metadata=ABSENT)
