"""``analysis`` of a check: what fine-tuning changed.  Fields with a default may be missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from springback.core import ABSENT
from springback.stats import Interval

#: What a difference is called: beyond noise one way or the other, within 0.01, or none of these.
Finding = Literal["better", "worse", "same", "undecided"]


@dataclass(frozen=True)
class CheckedMeasure:
    """One measure on one set of texts, questions or prompts, both models on the same ones.

    Attributes:
        source: the texts, questions or prompts
        measure: what was measured of each
        unit: of the values
        better: `higher` or `lower`
        purpose: `kept`, what fine-tuning should leave alone; `task`, what it was for
        n: how many
        base: mean of the base
        tuned: mean of the tuned model
        difference: tuned minus base, with a paired interval
        p: two-sided, of the paired test; null where nothing can be tested
        p_holm: adjusted for every test of the file
        method: the test
        label: `better`, `worse`, `same` (within 0.01) or `undecided`
        notes: what to know
    """

    source: str
    measure: str
    unit: str
    better: str
    purpose: str
    n: int
    base: Interval
    tuned: Interval
    difference: Interval
    p: float | None
    p_holm: float | None
    method: str
    label: Finding
    notes: tuple[str, ...] = field(default=(), metadata=ABSENT)

    @property
    def words(self) -> str:
        """What and where, for sentences."""
        return f"{self.measure} ({self.source})"

    @property
    def gain(self) -> float:
        """How much better the tuned model is, in the unit."""
        return self.difference.mean if self.better == "higher" else -self.difference.mean


@dataclass(frozen=True)
class Drift:
    """How far the tuned model's next-token distributions lie from the base's, on prompts.

    Attributes:
        source: the prompts
        n: how many
        tokens: of each sampled continuation
        forgotten: KL(base || tuned) on continuations that the base samples, nats a token
        new: KL(tuned || base) on continuations that the tuned model samples, nats a token
    """

    source: str
    n: int
    tokens: int
    forgotten: Interval
    new: Interval


@dataclass(frozen=True)
class Moved:
    """How far one group of tensors moved.

    Attributes:
        group: `attention`, `mlp`, `embeddings`, `norms`, `other`, or `all`
        parameters: numbers in it
        norm: length of the change
        relative: as a share of the length of the base's weights; null where that is 0
    """

    group: str
    parameters: int
    norm: float
    relative: float | None


@dataclass(frozen=True)
class CheckedModel:
    """One tuned model, or one checkpoint of a run, against the base.

    Attributes:
        name: as given; of a run the checkpoint's folder
        measures: the table of what got better and worse
        drift: by set of prompts; null where it was left out
        weights: by group of tensors, all together first; null where it was left out
        left_out: what was not measured, and why
    """

    name: str
    measures: tuple[CheckedMeasure, ...] = ()
    drift: tuple[Drift, ...] | None = None
    weights: tuple[Moved, ...] | None = None
    left_out: tuple[str, ...] = ()

    def labelled(self, label: str, purpose: str = "kept") -> list[CheckedMeasure]:
        """The measures of a purpose that a finding says this of."""
        return [m for m in self.measures if m.label == label and m.purpose == purpose]


@dataclass(frozen=True)
class RunPoint:
    """One checkpoint of a run: what it learned, and what it lost.

    Attributes:
        name: the checkpoint's folder
        learned: how much better the task is than the base's, in the task's unit
        behind: how much less than the best checkpoint's, paired; 0 for that one itself
        lost: rise in bits per byte over all texts that should be kept
        lost_more: how much more than the chosen checkpoint's, paired; 0 for that one itself
        front: whether no other checkpoint has learned as much and lost less, or more and no more
        worse: how many kept measures got worse beyond noise
    """

    name: str
    learned: Interval
    behind: Interval
    lost: Interval
    lost_more: Interval
    front: bool
    worse: int


@dataclass(frozen=True)
class AlongRun:
    """The checkpoints of a run, and which one to take.

    Attributes:
        task: what the fine-tuning was for
        measure: its measure
        unit: of what was learned
        points: in the order of training
        best: the checkpoint that learned most
        chosen: of the checkpoints within one standard error of that, the one that lost least
        text: the choice in a sentence, with its noise
    """

    task: str
    measure: str
    unit: str
    points: tuple[RunPoint, ...]
    best: str
    chosen: str
    text: str


@dataclass(frozen=True)
class Check:
    """``analysis`` of a check.

    Attributes:
        base: as given
        models: the tuned model; of a run every checkpoint, in order
        along: of a run with a task: what was learned against what was lost
    """

    base: str
    models: tuple[CheckedModel, ...] = ()
    along: AlongRun | None = None
