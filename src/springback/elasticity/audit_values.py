"""The single values of an audit that its card is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from springback.core import content_hash
from springback.elasticity.attackers import Sweep
from springback.elasticity.card import Quantity
from springback.elasticity.outcome import is_finished, outcome_curves, outcome_of
from springback.elasticity.rebound import ReboundCurves
from springback.settings import (
    ComputeSettings,
    ExecutionSettings,
    SubjectSettings,
    names_changing,
)

#: Settings that two studies may differ in and still be the same study of two models.
FREE = (
    *names_changing(SubjectSettings, "model", "seed"),
    *names_changing(ExecutionSettings, "nothing"),
    *names_changing(ComputeSettings, "nothing"),
    "controls",  # of the job: they add runs and change no other
    "keep_samples",  # likewise: what was sampled is kept, or not
)


@dataclass(frozen=True)
class AuditValues:
    """What an audit measured; what is not known is empty.

    ``values``: probe -> seed -> [branch][dose], of seeds that were measured everywhere; ``start``:
    probe -> value of the start model; ``base``: likewise of the model that a finished one was made
    from; ``units``: probe -> its unit; ``losses``: pair -> seed -> way (``forward``, ...) -> nats a
    token; ``attackers``: share of the gain lost over a sweep of attackers; ``study``: hash of data
    and settings but for model and seeds (:func:`study_hash`).  ``means``: where single values are
    missing, the quantities that are known as means over the seeds, by their name on a card.
    ``controls``: control -> seed -> [branch][dose], margins; ``gain_noise``: by branch, None where
    it is not known (:func:`springback.elasticity.rebound.took`).
    ``agreement``: of each two judges of sampled texts.
    """

    model: str = ""
    model_hash: str = ""
    study: str = ""
    seeds: Sequence[int] = ()
    n_pos: Sequence[int] = ()
    doses: Sequence[float] = ()
    values: Mapping[str, Mapping[int, Sequence[Sequence[float]]]] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)
    base: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    losses: Mapping[str, Mapping[int, Mapping[str, float]]] = field(default_factory=dict)
    noise_floor: Mapping[str, float] = field(default_factory=dict)
    attackers: Sweep | None = None
    resistance_data: str = "responses"
    means: Mapping[str, Quantity] = field(default_factory=dict)
    controls: Mapping[str, Mapping[int, Sequence[Sequence[float]]]] = field(default_factory=dict)
    gain_noise: Sequence[float] | None = None
    agreement: Mapping[str, Quantity] = field(default_factory=dict)

    def rebound(self) -> ReboundCurves | None:
        """The margins, or what counts in their stead; None if no seed has them all."""
        probe = outcome_of(self.values) if is_finished(self.n_pos) else "margin"
        values = self.values.get(probe)
        if not values or probe not in self.start:
            return None
        return outcome_curves(
            self.n_pos,
            self.doses,
            values,
            start=self.start[probe],
            base=self.base.get(probe),
            probe=probe,
            unit=self.units.get(probe, "score"),
            noise=self.gain_noise,
        )


def study_hash(rows: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Of the content hashes of the four slices of data, and of the settings, as JSON, but for
    model and seeds; empty if one of them is not known."""
    if not settings or not all(rows):
        return ""
    kept = {key: value for key, value in settings.items() if key not in FREE}
    return content_hash({"rows": list(rows), "settings": kept})
