"""``analysis`` of a reproduction of the papers.  Fields with a default may be missing in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from springback.core import ABSENT, Checkpoint
from springback.results.audit_schema import Protections, Repair
from springback.results.boost_schema import Difficulty, LambdaPoint, LogitErrors, SeedsComparison
from springback.results.card_schema import Comparison, StudyCard
from springback.results.reading import require_length
from springback.stats import Interval

#: What stands in a table of a reproduction.
Entry = str | float | Interval | None


@dataclass(frozen=True)
class Figures:
    """A table.  Numbers of up to six digits are shown as they are, so a measured one is rounded to
    what it is worth where it is written.

    Attributes:
        columns: heads
        rows: each as long as ``columns``, of strings, numbers, *I* or null
        source: where published numbers stand
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    source: str = field(default="", metadata=ABSENT)

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            require_length(row, len(self.columns), "there are columns", "rows", index)


@dataclass(frozen=True)
class ReproducedStudy(StudyCard):
    """One study of a reproduction.

    Attributes:
        protections: as of an audit
        repair: as of an audit
    """

    protections: Protections | None = None
    repair: Repair | None = None


@dataclass(frozen=True, kw_only=True)
class SeedTheory(LogitErrors):
    """Paper B's theory in one seed; logit errors where there is a reference.

    Attributes:
        seed: the seed
        mu: strength of extrapolation
        predicted: `helps`, `does not help`, `undecided` or `no reference`
        measured: `helps` or `does not help`: the sign of the change of NLL at the smallest lambda
        nll_lambda: lambda of the lowest NLL
        chosen: lambda that validation chose
    """

    seed: int
    mu: float
    predicted: str
    measured: str
    nll_lambda: float
    chosen: float | None = None
    eps: Interval | None = field(default=None, metadata=ABSENT)
    k: Interval | None = field(default=None, metadata=ABSENT)
    rho: Interval | None = field(default=None, metadata=ABSENT)
    rho_k: Interval | None = field(default=None, metadata=ABSENT)
    best_lambda: Interval | None = field(default=None, metadata=ABSENT)
    contested: Interval | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Agreement:
    """Predicted and measured signs.

    Attributes:
        right: seeds in which they are the same
        judged: seeds whose prediction is decided
        seeds: all
    """

    right: int
    judged: int
    seeds: int


@dataclass(frozen=True)
class Cell:
    """One model on one task of a reproduction of the second paper, over the seeds.

    Attributes:
        name: for reading
        model: as named
        task: as named
        seeds: the seeds; of `epicode-theory` what each predicts and shows
        questions: test questions of each seed
        same_questions: whether every seed was tested on the same ones
        methods: each against the fine-tuned model of its seed
        rivals: EpiCoDe against `ME only` and `CD only`
        difficulty: as of a boost, over the seeds
        search: by seed: what each search tried and chose
        curve: of `epicode-theory`: by lambda
        agreement: of `epicode-theory`: predicted signs against measured ones
        reference: of `epicode-theory`: the better model, where there is one
    """

    name: str = ""
    model: str | None = None
    task: str | None = None
    seeds: tuple[int | SeedTheory, ...] = ()
    questions: tuple[int, ...] | None = field(default=None, metadata=ABSENT)
    same_questions: bool | None = field(default=None, metadata=ABSENT)
    methods: tuple[SeedsComparison, ...] | None = field(default=None, metadata=ABSENT)
    rivals: tuple[SeedsComparison, ...] | None = field(default=None, metadata=ABSENT)
    difficulty: Difficulty | None = field(default=None, metadata=ABSENT)
    search: tuple[Mapping[str, Any], ...] | None = field(default=None, metadata=ABSENT)
    curve: tuple[LambdaPoint, ...] | None = field(default=None, metadata=ABSENT)
    agreement: Agreement | None = field(default=None, metadata=ABSENT)
    reference: Checkpoint | None = field(default=None, metadata=ABSENT)

    @property
    def theory(self) -> tuple[SeedTheory, ...]:
        """Of `epicode-theory`: the seeds."""
        return tuple(seed for seed in self.seeds if isinstance(seed, SeedTheory))


@dataclass(frozen=True)
class Titled:
    """A quantity's words.

    Attributes:
        title: for reading
        unit: of its values
    """

    title: str
    unit: str


@dataclass(frozen=True)
class LifeCell:
    """One size and one volume of pre-training, over the seeds.

    Attributes:
        size: its name
        parameters: outside the embeddings
        volume: rows of pre-training
        n: seeds
        censored: seeds in which half was not undone
        half_doses: by seed, examples; null: not reached, or no gain; where it was undone by the
            first dose measured, that one
        gain: nats/token
        fall: nats/token
        share_lost: share of 1
        neutral_nll: nats/token
        before_first: seeds in which half was undone by the first dose
    """

    size: str
    parameters: int
    volume: int
    n: int
    censored: int
    half_doses: tuple[float | None, ...]
    gain: Interval | None
    fall: Interval | None
    share_lost: Interval | None
    neutral_nll: Interval | None
    before_first: int = field(default=0, metadata=ABSENT)


@dataclass(frozen=True)
class LifeTrend:
    """Change of a quantity for each doubling of size or volume.

    Attributes:
        quantity: its name
        axis: `size` or `volume`
        slope: for each doubling
        p: of the slope
        p_holm: adjusted over all trends
        label: `grows`, `shrinks`, `undecided` or `one seed, no interval`
    """

    quantity: str
    axis: str
    slope: Interval
    p: float | None
    p_holm: float | None
    label: str


@dataclass(frozen=True)
class LifeStep:
    """Difference to the smallest size or volume, paired by seed.

    Attributes:
        quantity: its name
        axis: `size` or `volume`
        at: which size or volume
        against: the smallest
        difference: the mean over the other axis
        p: of the difference
        p_holm: adjusted over all steps
        label: as of a trend
    """

    quantity: str
    axis: str
    at: float
    against: float
    difference: Interval
    p: float | None
    p_holm: float | None
    label: str


@dataclass(frozen=True)
class Threshold:
    """From where on all steps are above the first.

    Attributes:
        axis: `size` or `volume`
        quantity: its name
        at: null where there is none
    """

    axis: str
    quantity: str
    at: float | None


@dataclass(frozen=True)
class LifeCycle:
    """Does elasticity grow with size and with the volume of pre-training?

    Attributes:
        seeds: a seed draws text, weights and order of the pre-training too
        sizes: names of the sizes
        volumes: rows of pre-training
        n_pos: examples of alignment
        dose: examples of the opposite
        quantities: `gain`, `fall`, `share_lost`
        cells: one for each size and volume
        trends: over all cells
        steps: against the smallest
        thresholds: where a step begins
    """

    seeds: tuple[int, ...]
    sizes: tuple[str, ...]
    volumes: tuple[int, ...]
    n_pos: int
    dose: int
    quantities: Mapping[str, Titled]
    cells: tuple[LifeCell, ...]
    trends: tuple[LifeTrend, ...]
    steps: tuple[LifeStep, ...] = ()
    thresholds: tuple[Threshold, ...] = ()


@dataclass(frozen=True)
class Reproduction:
    """``analysis`` of a reproduction: a table or figure of the papers, measured again.

    Attributes:
        name: which
        question: what it asks
        scale: how large the models and the data are
        note: what to know; of the second paper
        paper: what the paper found, in words
        published: the paper's numbers; null where the paper gives none
        measured: ours
        further: what else is known of the paper's numbers, a table each
        notes: what of the paper's numbers could not be had, and which settings are ours
        studies: of the first paper: one for each audit
        comparison: of their cards
        cells: of the second paper: one for each model and task
        life_cycle: of `elasticity-scale`
    """

    name: str = ""
    question: str = ""
    scale: str = ""
    note: str | None = field(default="", metadata=ABSENT)
    paper: str = ""
    published: Figures | None = None
    measured: Figures | None = None
    studies: tuple[ReproducedStudy, ...] = ()
    comparison: Comparison | None = None
    cells: tuple[Cell, ...] = field(default=(), metadata=ABSENT)
    life_cycle: LifeCycle | None = field(default=None, metadata=ABSENT)
    further: tuple[Figures, ...] = field(default=(), metadata=ABSENT)
    notes: tuple[str, ...] = field(default=(), metadata=ABSENT)
