"""The fall beyond what the controls fall: what of a fall is rebound.

A model falls for three reasons.  Opposite rows teach any model the opposite: that is the fall of
the start model under the same rows (``unaligned``).  Training on anything undoes some of what was
learned: that is the fall of the same aligned model under neutral rows (``neutral``).  And a higher
start falls further, in proportion to its height.  Rebound is the fall beyond both controls, each
paired by seed; whether it grows with alignment by more than its height does is asked of the same
differences.  ``shuffled`` (the opposite rows with their answers dealt out among their prompts) says
how much of a fall needs answers that belong to their prompts; it decides nothing, since shuffled
answers of the opposite kind teach much of the opposite all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from springback.elasticity.outcome import Values
from springback.elasticity.rebound import (
    Criterion,
    ReboundCurves,
    ReboundLabel,
    bounds_in_words,
    count_seeds,
    not_testable,
    rebound_judgement,
    rebound_label,
    several_sizes,
    testable,
    where,
)
from springback.errors import DataError, describe
from springback.stats import Interval, mean_interval

#: Every control: what its fall is, in words.
CONTROLS = {
    "unaligned": "what the same rows take from the start model",
    "neutral": "what neutral rows take from the same model",
    "shuffled": "what the same rows take with their answers shuffled",
}
#: Those that a fall must be beyond to be a rebound.
DECIDING = ("unaligned", "neutral")


@dataclass(frozen=True)
class BeyondControl:
    """The fall beyond one control's.

    Attributes:
        label: whether the fall of the most aligned model is beyond it: `shown`, `opposite`,
            `undecided`, `not testable` or `one seed, no interval`
        fall: of the most aligned model, less the control's, at the largest dose, nats/token
        by_seed: likewise by seed
        sentence: the same in words
        slope: whether that grows with ``n_pos``, nats/token; null with a single ``n_pos``
        decay: whether its share of the gain does, which is more than proportional decay explains;
            likewise
    """

    label: ReboundLabel
    fall: Interval
    by_seed: Mapping[int, float]
    sentence: str
    slope: Criterion | None = None
    decay: Criterion | None = None


@dataclass(frozen=True)
class BeyondControls:
    """The fall beyond every control that was measured.

    Attributes:
        label: `shown` where it is shown of each of ``against``
        decay: likewise of proportional decay; empty with a single ``n_pos``
        against: the controls that decide
        by_control: the fall beyond each, by name
        sentence: the same in words
    """

    label: str
    decay: str
    against: tuple[str, ...]
    by_control: Mapping[str, BeyondControl]
    sentence: str

    @property
    def deciding(self) -> list[BeyondControl]:
        """Those that the labels follow from."""
        return [self.by_control[name] for name in self.against]


def less_control(curves: ReboundCurves, control: Values) -> ReboundCurves:
    """The curves without what the control changed since its own dose 0, paired by seed and branch.

    Its falls are the falls beyond the control's, and so are its shares and slopes.  Raises
    :class:`~springback.errors.DataError` unless the control has every seed, branch and dose.
    """
    shape = {s: [len(row) for row in rows] for s, rows in curves.margins.items()}
    if shape != {s: [len(row) for row in rows] for s, rows in control.items()}:
        raise DataError(
            describe(
                f"a control of seeds {sorted(control)} for curves of seeds {sorted(shape)}",
                "the same seeds, branches and doses",
                "leave out seeds that were not measured in both",
            )
        )
    margins = {
        seed: [
            [value - (other - beside[0]) for value, other in zip(row, beside, strict=True)]
            for row, beside in zip(rows, control[seed], strict=True)
        ]
        for seed, rows in curves.margins.items()
    }
    return replace(curves, margins=margins)


def beyond_control(
    curves: ReboundCurves, control: Values, name: str, *, dose: float, level: float = 0.95
) -> BeyondControl:
    """Does the most aligned model fall further than under one control (t over the seeds)?

    ``not testable`` where its alignment hardly took (:func:`~springback.elasticity.rebound.took`).
    Raises :class:`~springback.errors.DataError` as :func:`less_control`.
    """
    less = less_control(curves, control)
    if any(less.n_pos):
        less = less.aligned()
    largest = max(range(len(less.n_pos)), key=lambda branch: less.n_pos[branch])
    by_seed = {seed: row[largest] for seed, row in less.falls(dose).items()}
    fall = mean_interval([*by_seed.values()], level=level)
    why = "" if largest in less.took() else testable(less).why
    label: ReboundLabel = "not testable" if why else rebound_label(fall)
    ends = {
        "shown": "it falls further",
        "opposite": "it falls less",
        "undecided": "the interval does not settle it",
        "one seed, no interval": "one seed shows a direction and proves nothing",
    }
    n_pos = less.n_pos[largest]
    which = f"model aligned on {n_pos}" if n_pos else "model as it is"
    sentence = (
        f"Over {count_seeds(fall.n)}, {where(curves, dose)}, {curves.what} of the {which} fell by "
        f"{fall.mean:+.3g} {curves.unit} more than "
        f"{CONTROLS.get(name, name)} ({bounds_in_words(fall, level)}): "
        f"{not_testable(why) or ends[label]}."
    )
    made = BeyondControl(label, fall, by_seed, sentence)
    if not several_sizes(less.n_pos):
        return made
    judged = rebound_judgement(less, dose=dose, level=level)
    return replace(made, slope=judged.paper, decay=judged.strict)


def beyond_controls(
    curves: ReboundCurves,
    controls: Mapping[str, Values],
    *,
    dose: float,
    level: float = 0.95,
) -> BeyondControls | None:
    """Is the fall beyond every control?  None without one.

    ``controls``: margins by name of the control.  It is shown only if it is shown of each of
    :data:`DECIDING` that was measured: an intersection-union test, which needs no correction.
    """
    by_control = {
        name: beyond_control(curves, margins, name, dose=dose, level=level)
        for name, margins in controls.items()
    }
    against = tuple(name for name in DECIDING if name in by_control)
    if not against:
        return None
    deciding = [by_control[name] for name in against]
    label = _agreed([one.label for one in deciding])
    slopes = [one.decay.label for one in deciding if one.decay is not None]
    decay = _agreed(slopes) if slopes else ""
    sentence = _sentence(label, decay, deciding)
    return BeyondControls(label, decay, against, by_control, sentence)


def _agreed(labels: Sequence[str]) -> str:
    """The one label of all, else what keeps them from being shown."""
    for first in ("not testable", "did not align", "one seed, no interval", "opposite"):
        if first in labels:
            return first
    return "shown" if {*labels} == {"shown"} else "undecided"


def _sentence(label: str, decay: str, deciding: Sequence[BeyondControl]) -> str:
    texts = [one.sentence for one in deciding]
    ends = {
        "shown": "a rebound beyond proportional decay",
        "opposite": "the more alignment, the smaller the share of it that is lost beyond them",
    }
    if label == "shown" and decay:
        more = ends.get(decay, f"beyond proportional decay: {decay}")
        texts.append(f"With more alignment: {more}.")
    return " ".join(texts)
