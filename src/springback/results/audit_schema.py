"""``analysis`` of an audit: what of it no module of the maths defines, and how it is put together.

Fields with a default may be missing in a file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator

from springback.core import ABSENT
from springback.elasticity import (
    BeyondControls,
    Bounded,
    Criterion,
    Crossing,
    DoseTrend,
    Phases,
    Realignment,
    Sweep,
)
from springback.elasticity.seed_tests import Change
from springback.results.card_schema import Card
from springback.results.reading import require_length, require_some
from springback.stats import Interval

#: A number in a list; null reads as NaN.
Number = Annotated[float, BeforeValidator(lambda v: math.nan if v is None else v)]


def _size(key: Any) -> int:
    if not (str(key).isascii() and str(key).isdigit()):
        raise ValueError((), "a number of examples as its key")
    return int(key)


#: A key that counts examples.
Size = Annotated[int, BeforeValidator(_size)]


def not_in_file() -> Any:
    """Names of sections that the file has as null: not measured, where a missing one is not known.

    Filled by the reader.
    """
    return field(default=frozenset(), metadata={"internal": True})


@dataclass(frozen=True)
class AtSize:
    """A mean over the seeds, for the model aligned on so many examples.

    Attributes:
        n_pos: examples of alignment
        mean: the estimate; null if there is none
        low: lower end of its 95 % interval
        high: upper end
        n: seeds
        method: how the interval was made
    """

    n_pos: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 1
    method: str = field(default="", metadata=ABSENT)

    @property
    def value(self) -> Interval | None:
        """None where there is no estimate."""
        if self.mean is None:
            return None
        return Interval(self.mean, self.low, self.high, self.n, self.method)


@dataclass(frozen=True)
class HalfDose:
    """The dose that undoes half of the gain, as in ``doses_to_undo`` (in files of before there were
    controls: of the mean curve over the seeds).

    Attributes:
        n_pos: examples of alignment
        value: examples; null and ``censored`` true: more than the largest dose; null and false:
            there was no gain
        censored: whether half was not lost by the largest dose in some seed: ``value`` is the least
            that the mean can be
        at_most: whether it was lost by the first dose measured in some seed: ``value`` is the most
            that the mean can be
    """

    n_pos: int
    value: float | None = None
    censored: bool = False
    at_most: bool = field(default=False, metadata=ABSENT)


@dataclass(frozen=True)
class DoseCurve:
    """A quantity by dose; the lists are equally long.

    Attributes:
        dose: examples of the opposite, 0 first
        mean: value at each dose; null where it is not a number
        low: lower ends of the 95 % intervals; null with one seed
        high: upper ends
    """

    dose: tuple[Number, ...]
    mean: tuple[Number, ...]
    low: tuple[Number, ...] | None = None
    high: tuple[Number, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "low", "high"):
            values = getattr(self, name)
            if values is not None:
                require_length(values, len(self.dose), "there are doses", name)

    @property
    def band(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Both ends at every dose, or None unless both are there."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def at(self, dose: float) -> Interval | None:
        """The value at ``dose``; None where it was not measured or is not a number."""
        if dose not in self.dose:
            return None
        i = self.dose.index(dose)
        ends = [None if math.isnan(side[i]) else side[i] for side in self.band or ()]
        low, high = ends or (None, None)
        return None if math.isnan(self.mean[i]) else Interval(self.mean[i], low, high, 1)


@dataclass(frozen=True)
class Curve(DoseCurve):
    """One probe along the doses, for the model aligned on ``n_pos`` examples.

    Attributes:
        n_pos: examples of alignment
    """

    n_pos: int = field(kw_only=True)


@dataclass(frozen=True)
class Probe:
    """One probe of a rebound.

    Attributes:
        title: for reading
        unit: of all its values
        direction: what higher or lower means
        start: value of the start model
        aligned: value at dose 0
        curves: value along the doses, one for each ``n_pos``
        base: value of the model that a finished one was made from, where it was named
    """

    title: str
    unit: str = ""
    direction: str = ""
    start: Interval | None = None
    aligned: tuple[AtSize, ...] = ()
    curves: tuple[Curve, ...] = ()
    base: Interval | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Slope:
    """What each doubling of ``n_pos`` changes.

    Attributes:
        fall_per_log2: change of ``fall``, nats/token
        share_per_log2: change of ``share_lost``, share of 1
    """

    fall_per_log2: Interval | None = None
    share_per_log2: Interval | None = None


@dataclass(frozen=True)
class Rebound:
    """The fall of aligned models that are trained on the opposite.

    Attributes:
        n_pos: sizes of alignment, examples
        doses: examples of the opposite, from 0
        seeds: the seeds
        fall_dose: the dose at which ``fall`` and ``share_lost`` are taken, examples
        probes: by name, see [probes](#probes)
        gain: margin of the aligned model minus the start model's, nats/token; of n_pos 0 null, or
            over the base model's (see `finished`)
        fall: margin at dose 0 minus margin at ``fall_dose``, nats/token; above 0 = fell
        share_lost: ``fall`` over ``gain``, share of 1; 1 = all of it
        half_dose: the dose that undoes half of the gain
        slope: null with a single ``n_pos``
        gain_noise: by ``n_pos``, the noise of ``gain``, nats/token: its standard error from the
            choice of held-out texts, paired by text, and at least what scoring alone moves; null:
            not known
    """

    n_pos: tuple[int, ...] = ()
    doses: tuple[Number, ...] = ()
    seeds: tuple[int, ...] = ()
    fall_dose: int | None = None
    probes: Mapping[str, Probe] = field(default_factory=dict)
    gain: tuple[AtSize, ...] = ()
    fall: tuple[AtSize, ...] = ()
    share_lost: tuple[AtSize, ...] = ()
    half_dose: tuple[HalfDose, ...] = ()
    slope: Slope | None = None
    gain_noise: tuple[float, ...] | None = field(default=None, metadata=ABSENT)

    @property
    def finished(self) -> bool:
        """Whether nothing was aligned."""
        return self.n_pos == (0,)


@dataclass(frozen=True)
class Controls:
    """What the fall is set against.

    Attributes:
        margins: by control, the margin along the doses (the score, where a finished model has no
            margin); of `unaligned` for ``n_pos`` 0 alone
        beyond: the fall beyond them; null where no deciding one was measured
        left_out: by control, why it could not be measured
    """

    margins: Mapping[str, tuple[Curve, ...]] = field(default_factory=dict)
    beyond: BeyondControls | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Resistance of one pair of slices.

    Attributes:
        pair: such as `"1-2"`
        forward: training loss of the earlier model on texts of the later one, nats/token
        inverse: training loss of the later model on texts of the earlier one, nats/token
        excess_forward: ``forward`` minus the NLL of the texts under the model that wrote them
        excess_inverse: likewise of ``inverse``
        ratio: inverse over forward; below 1 = going back is easier
        label: what the ratio and the excess say together
        mean_forward: where ``forward`` is a final loss, the mean over the steps, nats/token
        mean_inverse: likewise of ``inverse``
        mean_excess_forward: ``mean_forward`` minus the NLL of the texts under their model
        mean_excess_inverse: likewise of ``mean_inverse``
        kl_forward: KL(later || earlier) on other prompts before less after the earlier one's
            training, nats/token; above 0 = it came nearer
        kl_inverse: likewise, of the later model's way back
        kl_share_forward: ``kl_forward`` over the KL before, share of 1
        kl_share_inverse: likewise of ``kl_inverse``
        kl_label: `resists` where going back closes the larger share of the KL
    """

    pair: str
    forward: Interval | None = None
    inverse: Interval | None = None
    excess_forward: Interval | None = None
    excess_inverse: Interval | None = None
    ratio: Interval | None = None
    label: str = ""
    mean_forward: Interval | None = None
    mean_inverse: Interval | None = None
    mean_excess_forward: Interval | None = None
    mean_excess_inverse: Interval | None = None
    kl_forward: Interval | None = None
    kl_inverse: Interval | None = None
    kl_share_forward: Interval | None = None
    kl_share_inverse: Interval | None = None
    kl_label: str = ""


@dataclass(frozen=True)
class Resistance:
    """Is it easier to lead a model back than to lead it on?

    Attributes:
        data: what was trained on: whole `answers` of the target model, `responses` of a fixed
            length, or rows of the `slices`
        pairs: one for each pair of slices; with `answers`, on greedy ones
        loss: of ``forward`` and ``inverse``, `mean` over the steps or `final`, that of all trained
            rows once the run is over
        sampled: with `answers`, the pairs on sampled ones
    """

    data: str = ""
    pairs: tuple[Pair, ...] = ()
    loss: str = "mean"
    sampled: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class DoseAtSize:
    """A dose to undo over the seeds, for the model aligned on so many examples.

    Attributes:
        n_pos: examples of alignment
        median: examples, a dose reached by the first one measured counted as that; null: beyond
            the largest dose, or not defined
        mean: examples; null where the dose is defined in no seed
        seeds: how many
        censored: seeds in which it was not reached
        undefined: seeds in which alignment gained nothing
        extreme: the nearest that a curve came, nats/token
        extreme_dose: at which dose, examples
        words: all of that as a phrase
        before_first: seeds in which it was reached by the first dose measured
        testable: whether alignment took, so that there is something to lose
    """

    n_pos: int
    median: float | None = None
    mean: Bounded | None = None
    seeds: int = 1
    censored: int = 0
    undefined: int = 0
    extreme: float | None = None
    extreme_dose: float | None = None
    words: str = ""
    before_first: int = field(default=0, metadata=ABSENT)
    testable: bool = field(default=True, metadata=ABSENT)


@dataclass(frozen=True)
class DosesToUndo:
    """One of the doses to undo, summed up by ``n_pos``.

    Attributes:
        what: what is counted, in words
        largest: the largest dose measured, examples; what was not reached by then is censored
        at: one for each ``n_pos``
        by_seed: by seed, the dose of each ``n_pos``
        trend: of the dose with alignment; null with a single ``n_pos``
        first: the smallest dose above 0: one that was reached by then is known to lie at or below
            it only, whatever ``by_seed`` reads off the line from 0 to there
    """

    what: str
    largest: float | None = None
    at: tuple[DoseAtSize, ...] = ()
    by_seed: Mapping[int, tuple[Crossing, ...]] = field(default_factory=dict)
    trend: DoseTrend | None = None
    first: float = field(default=0.0, metadata=ABSENT)

    def __post_init__(self) -> None:
        for seed, crossings in self.by_seed.items():
            require_length(crossings, len(self.at), "'at' has", "by_seed", str(seed))


@dataclass(frozen=True)
class UndoDoses:
    """Doses to undo by what is undone.

    Attributes:
        half: half of the gain in margin is lost
        all: all of it is lost
        kl: KL to the start model is at most `settings.epsilon`; only where the probe was asked for;
            of a finished model KL to its base model
        reverse_kl: likewise the reverse KL
        behaviour: of a finished model half of what its sampled answers show is lost, where the
            margin was measured too
    """

    half: DosesToUndo | None = None
    all: DosesToUndo | None = None
    kl: DosesToUndo | None = field(default=None, metadata=ABSENT)
    reverse_kl: DosesToUndo | None = field(default=None, metadata=ABSENT)
    behaviour: DosesToUndo | None = field(default=None, metadata=ABSENT)

    def known(self) -> dict[str, DosesToUndo]:
        """By key, those that were measured, in order."""
        doses = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {key: dose for key, dose in doses.items() if dose is not None}


@dataclass(frozen=True)
class FallPhases:
    """One phase or two on the way down.

    Attributes:
        branches: by ``n_pos``
        decay: fall beyond proportional decay fitted at one rate, share of the gain for each
            doubling; null with a single ``n_pos``
    """

    branches: Mapping[Size, Phases] = field(default_factory=dict)
    decay: Criterion | None = None


@dataclass(frozen=True)
class SampledScore:
    """A score of sampled texts at the largest dose, under both rebound criteria.

    Attributes:
        title: for reading
        unit: of the score
        aligned_is: `higher` or `lower`: where aligning moved the score
        gain: with its own sign, at the largest ``n_pos``
        moved: whether the interval of ``gain`` leaves zero out
        fall: at the largest ``n_pos``; above 0 = back toward the start
        fall_per_log2: change of ``fall`` for each doubling of ``n_pos``
        label: of ``fall_per_log2``
        sentence: the same in words
        share_per_log2: change of the share lost for each doubling of ``n_pos``
        share_label: of ``share_per_log2``
    """

    title: str
    unit: str
    aligned_is: str
    gain: Interval
    moved: bool
    fall: Interval
    fall_per_log2: Interval | None = None
    label: str = ""
    sentence: str = ""
    share_per_log2: Interval | None = None
    share_label: str = ""


@dataclass(frozen=True)
class JudgePair:
    """How far two judges of the same texts agree.

    Attributes:
        a: name of the one
        b: name of the other
        texts: that both gave a score
        agreement: share of texts on which both say yes, or both no; null where one gives graded
            scores. Intervals here are by a bootstrap over prompts
        kappa: Cohen's, likewise; null also where both say the same of every text
        rank_correlation: Spearman's, where one gives graded scores
    """

    a: str
    b: str
    texts: int
    agreement: Interval | None = None
    kappa: Interval | None = None
    rank_correlation: Interval | None = None


@dataclass(frozen=True)
class Judges:
    """Several judges of the same sampled texts.

    Attributes:
        names: of each judge, by its probe: `behaviour` is the first one named, by which the
            verdict goes, `behaviour:NAME` are the others
        models: whose texts were scored
        pairs: of judges
    """

    names: Mapping[str, str]
    models: int
    pairs: tuple[JudgePair, ...]


@dataclass(frozen=True)
class Mixed:
    """A perturbation with benign rows among the unwanted ones.

    Attributes:
        name: in words
        mix: share of benign rows
        fall: at the largest dose, nats/token
        share_lost: at the largest dose, share of 1
    """

    name: str
    mix: float | None = None
    fall: Interval | None = None
    share_lost: Interval | None = None


@dataclass(frozen=True)
class AttackPoint:
    """An attack at one dose, over the seeds.

    Attributes:
        dose: examples; of ablation, rows of either kind
        cost: tokens of all forward passes until then, mean over the seeds; a training step is three
            passes over its tokens, of an adapter two
        share_lost: share of the gain in margin, of a finished model of what there is to lose; null
            where that is nothing
        fall: of the margin (nats/token), or what else the outcome is
        utility_lost: share of the utility that it cost, the most of what was measured; null where
            none was
    """

    dose: int
    cost: float
    share_lost: Interval | None = None
    fall: Interval | None = None
    utility_lost: float | None = None


@dataclass(frozen=True)
class AttackCurve:
    """One attack along its doses.

    Attributes:
        attacker: its title
        name: the attack in words
        points: by dose, the unattacked model left out
    """

    attacker: str
    name: str
    points: tuple[AttackPoint, ...] = ()


@dataclass(frozen=True)
class WithinBound:
    """The worst point of all attacks among those that leave the model its utility.

    It is the largest of many means, so it is read with their number.

    Attributes:
        bound: the most that may be lost, share of the utility
        utility: probes that it is taken by
        name: the attack that did the worst; empty where none is within the bound
        point: its dose, cost and effect
        within: points within the bound
        points: points tried
    """

    bound: float
    utility: tuple[str, ...]
    name: str
    point: AttackPoint | None
    within: int
    points: int


@dataclass(frozen=True)
class Attackers:
    """Other ways, learning rates, draws, mixed perturbations; all attack one aligned model.

    Attributes:
        share: share of the gain lost at the largest dose, over all attackers (a way, a learning
            rate, a seed and a draw of rows each); null if none has a value
        dose: likewise the dose that undoes all, examples
        mixed: perturbations mixed with benign rows
        n_pos: examples that the model was aligned on
        curves: every attack, the study's own first, along one axis of cost
        bounded: the worst within the bound on lost utility; null where no utility was measured
    """

    share: Sweep | None = None
    dose: Sweep | None = None
    mixed: tuple[Mixed, ...] = ()
    n_pos: int | None = None
    curves: tuple[AttackCurve, ...] = ()
    bounded: WithinBound | None = None


@dataclass(frozen=True)
class SetRates:
    """Code lengths of one set under one model.

    Attributes:
        bits_per_byte: bits/byte
        rate: NLL of the texts in bits over their counted tokens, bits/token
        normalised: ``rate`` less log2 M, bits/token
    """

    bits_per_byte: float
    rate: float
    normalised: float


@dataclass(frozen=True)
class RateSet:
    """A set of held-out texts.

    Attributes:
        name: `pretraining`, `aligning` or `perturbing`
        source: as named
        texts: how many
        leaves: M, different beginnings of ``depth`` tokens of these texts
        start: its rates under the start model
    """

    name: str
    source: str
    texts: int
    leaves: int
    start: SetRates


@dataclass(frozen=True)
class RateMoves:
    """Changes of one set's rate along a trajectory, bits/token.

    Attributes:
        change: since the trajectory's begin, at each mark
        first_per_example: for each example up to the first mark
        per_example: for each example up to the last mark
    """

    change: tuple[Interval, ...]
    first_per_example: Interval
    per_example: Interval


@dataclass(frozen=True)
class RatePath:
    """One trajectory.

    Attributes:
        phase: `align` (one, first) or `perturb` (one for each ``n_pos``)
        n_pos: examples of the alignment
        examples: the marks, from 0
        sets: by the set's name
    """

    phase: str
    n_pos: int
    examples: tuple[Number, ...]
    sets: Mapping[str, RateMoves]

    def __post_init__(self) -> None:
        for name, moves in self.sets.items():
            length, like = len(self.examples), "there are marks"
            require_length(moves.change, length, like, "sets", name, "change")


@dataclass(frozen=True)
class RateRatio:
    """Minus the aligning set's change over the pre-training set's, up to one mark.

    Attributes:
        examples: up to this mark
        by_seed: the ratio in each seed; null where it is no number
        k: geometric mean over the seeds; null unless above 0 in all
        opposite: share of the seeds in which it is above 0
    """

    examples: Number
    by_seed: tuple[float | None, ...] = ()
    k: Interval | None = None
    opposite: float = 0.0


@dataclass(frozen=True)
class RateFit:
    """The k that the rates of one trajectory make.

    Attributes:
        phase: as of the trajectory
        n_pos: examples of the alignment
        first: up to the first mark
        all: up to the last
        volumes: ``volume`` over ``n_pos``; null if not known
    """

    phase: str
    n_pos: int
    first: RateRatio
    all: RateRatio | None = None
    volumes: float | None = None


@dataclass(frozen=True)
class Rates:
    """Compression rates of three sets along an audit's trajectories.

    Changes of the rate and of the normalised rate are the same.

    Attributes:
        depth: of the pruned trees, tokens
        sets: the three sets
        trajectories: changes along the examples
        volume: of the pre-training, texts, as given
        k: one for each trajectory
    """

    depth: int
    sets: tuple[RateSet, ...] = ()
    trajectories: tuple[RatePath, ...] = ()
    volume: float | None = None
    k: tuple[RateFit, ...] = ()

    def path(self, phase: str) -> RatePath | None:
        """The trajectory of the most aligned model in a phase."""
        of_phase = [path for path in self.trajectories if path.phase == phase]
        return max(of_phase, key=lambda path: path.n_pos) if of_phase else None


@dataclass(frozen=True)
class MeanDose:
    """A mean dose over seeds of which censored ones are known as a range only.

    Attributes:
        at_least: the mean of these seeds is at least that; null: no end on this side
        at_most: and at most that
        low: lower 95 % limit of the mean over all seeds
        high: upper limit
        n: seeds
        censored: seeds whose dose lies beyond the largest
        method: how the limits were made
        mean: null where a censored seed leaves it open
    """

    at_least: float | None
    at_most: float | None
    low: float | None
    high: float | None
    n: int
    censored: int
    method: str
    mean: float | None


@dataclass(frozen=True)
class ProtectedDose:
    """Dose of a protected model until half of the *unprotected* gain is lost.

    Attributes:
        found: over the seeds; null where alignment gained nothing
        difference: to the unprotected model, paired by seed, examples
        label: `higher`, `lower`, `undecided`, `one seed, no interval` or `no gain to undo`
        p_holm: of the difference, adjusted over the protections
    """

    found: MeanDose | None
    difference: Change | None
    label: str
    p_holm: float | None = None


@dataclass(frozen=True)
class MarginLeft:
    """Margin at the largest dose minus the unprotected model's.

    Attributes:
        difference: nats/token
        p: paired t
        label: as of the dose
        p_holm: adjusted over the protections
    """

    difference: Interval
    p: float | None
    label: str
    p_holm: float | None = None


@dataclass(frozen=True)
class Cost:
    """What a protection does to other probes: protected minus unprotected, by probe.

    Attributes:
        aligned: at dose 0
        perturbed: at the largest dose
    """

    aligned: Mapping[str, Interval]
    perturbed: Mapping[str, Interval]


@dataclass(frozen=True)
class Protection:
    """One way to protect an alignment.

    Attributes:
        name: in words
        kind: `overbend`, `mix` or `project`
        strength: mu, or the true share of aligning rows
        rank: of the direction; null is dense
        curve: margin by dose
        gain: margin at dose 0 over the start model's, nats/token
        dose: dose to undo
        left: margin left
        cost: its price
    """

    name: str
    kind: str
    strength: float
    rank: int | None
    curve: DoseCurve
    gain: Interval
    dose: ProtectedDose
    left: MarginLeft
    cost: Cost


@dataclass(frozen=True)
class Unprotected:
    """The unprotected model beside them.

    Attributes:
        curve: margin by dose
        dose: until half of its gain is lost
    """

    curve: DoseCurve
    dose: MeanDose | None


@dataclass(frozen=True)
class Protections:
    """What makes the alignment harder to undo, and at what price.

    Attributes:
        n_pos: examples of alignment
        doses: unwanted rows, 0 first
        seeds: the seeds
        start: margin of the start model, nats/token
        plain: the unprotected model
        costs: title of every probe that has a price
        rows: one for each protection
    """

    n_pos: int
    doses: tuple[Number, ...]
    seeds: tuple[int, ...]
    start: float
    plain: Unprotected
    costs: Mapping[str, str]
    rows: tuple[Protection, ...]

    def __post_init__(self) -> None:
        require_some(self.doses, "doses")


@dataclass(frozen=True)
class Skill:
    """What benign training teaches.

    Attributes:
        title: of the NLL that scores it
        source: of the texts
    """

    title: str
    source: str


@dataclass(frozen=True)
class MarginAndSkill:
    """The aligned model before benign training.

    Attributes:
        margin: nats/token
        skill: NLL of the skill's texts, nats/token
    """

    margin: Interval
    skill: Interval


@dataclass(frozen=True)
class RepairPoint:
    """One strength of the repair; mu 0 is the model after benign training.

    Attributes:
        mu: how much of the alignment's direction is added
        margin: nats/token
        skill: NLL of the skill's texts, nats/token
        restored: margin minus that at mu 0, paired by seed
        restored_label: `higher`, `lower`, ...; empty at mu 0
        paid: skill NLL minus that at mu 0, paired by seed
        paid_label: likewise
        restored_share: of what benign training took; null where it took nothing
        paid_share: of what benign training taught; null where it taught nothing
        more: other probes
        dominated: whether another strength is better in both
    """

    mu: float
    margin: Interval
    skill: Interval
    restored: Interval
    restored_label: str
    paid: Interval
    paid_label: str
    restored_share: float | None
    paid_share: float | None
    more: Mapping[str, Interval]
    dominated: bool = False


@dataclass(frozen=True)
class Repair:
    """Whether adding the alignment back repairs a model after benign training.

    Attributes:
        n_pos: examples of alignment
        rows: of benign training
        benign: their source
        skill: what they teach
        start: margin of the start model, nats/token
        aligned: before benign training
        points: one for each strength, mu 0 first
    """

    n_pos: int
    rows: int
    benign: str
    skill: Skill
    start: float
    aligned: MarginAndSkill
    points: tuple[RepairPoint, ...]


@dataclass(frozen=True)
class Finished:
    """A finished model, audited as it is: what it has to lose.

    Where this is not null, `fall`, shares and doses are those of ``outcome``, counted from
    ``base`` or, without one, from 0.

    Attributes:
        outcome: the probe that says how far it is undone, `margin` or `behaviour`
        lost: what there is to lose, in words
        unit: of ``outcome``
        level: ``outcome`` of the model as it is
        base: that of the model that it was made from; null where none was named
    """

    outcome: str
    lost: str
    unit: str
    level: float
    base: float | None = None


@dataclass(frozen=True)
class Audit:
    """``analysis`` of an audit; a section is null where it was not asked for or not measured.

    Attributes:
        rebound: the fall under the opposite
        resistance: going back against going on
        noise_floor: by name, in the probe's unit: how far `margin` and `kl` move when the start
            model is scored once more, in batches of another size; `margin_se` is the standard
            error of the margin from the choice of texts
        doses_to_undo: by seed, summed up by ``n_pos``
        phases: one phase or two
        sampled: by probe that scores sampled texts (`sentiment`, `behaviour`, and
            `behaviour:NAME` of further judges)
        judges: how far several judges agree; null with one
        attackers: where other learning rates, other draws or mixed perturbations were asked for
        realign: the second alignment against the first
        rates: with the probe `rates`
        controls: what the fall is set against, where ``--controls`` asked for some
        protections: where ``--mitigate`` asked for some
        repair: where among the experiments
        symmetry: as ``rebound``, in the opposite order: first trained on the unwanted side, then
            on the wanted one; its `margin` is turned round, so that it rises in the first training
        card: the elasticity card of this result
        finished: where nothing was aligned (``--n-pos 0`` alone)
    """

    rebound: Rebound | None = None
    resistance: Resistance | None = None
    noise_floor: Mapping[str, float | None] | None = None
    doses_to_undo: UndoDoses | None = None
    phases: FallPhases | None = None
    sampled: Mapping[str, SampledScore] | None = None
    judges: Judges | None = field(default=None, metadata=ABSENT)
    attackers: Attackers | None = None
    realign: Realignment | None = None
    rates: Rates | None = None
    controls: Controls | None = None
    protections: Protections | None = None
    repair: Repair | None = None
    symmetry: Rebound | None = None
    card: Card | None = None
    finished: Finished | None = field(default=None, metadata=ABSENT)
    silent: frozenset[str] = not_in_file()

    @property
    def lost(self) -> str:
        """What an attack takes back, in words."""
        return self.finished.lost if self.finished else "the gain"

    @property
    def known_floor(self) -> dict[str, float]:
        """The noise floor of what has one."""
        return {k: v for k, v in (self.noise_floor or {}).items() if v is not None}
