"""An arm of a boost: one way to decode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from springback.decoding.contrast import Gate, parse_gate
from springback.jobs.boost.settings import BoostSettings
from springback.models.checkpoint_pair import At


@dataclass(frozen=True)
class Sampled:
    """So many sampled answers to each question."""

    samples: int
    temperature: float
    seed: int

    @staticmethod
    def of(settings: BoostSettings) -> Sampled | None:
        """As the settings have it; None is one greedy answer."""
        if settings.samples == 1 and not settings.temperature:
            return None
        return Sampled(settings.samples, settings.temperature or 1.0, settings.seed)


@dataclass(frozen=True)
class Arm:
    """One way to decode: the strong model theta_ft + mu * (theta_ft - theta_early), and the weak
    model with its lambda: ``ft``, ``early``, ``init`` (before fine-tuning), ``other``, or none.

    ``gate``: contrast only there (:class:`springback.decoding.contrast.Gate`), written as
    ``top:0.9``.
    """

    method: str
    mu: float
    lam: float
    weak: str | None
    gate: str | None = None
    #: A point that the run's checkpoints span, in place of mu (:mod:`springback.weights.span`).
    point: tuple[float, ...] | None = None
    #: The mean of both models' probabilities, in place of contrast.
    average: bool = False
    #: The answer that most of so many samples give.
    votes: Sampled | None = None

    @property
    def step(self) -> float:
        """How far past the fine-tuned model it goes, to first order in the weights: mu (1 +
        lambda), of contrast with the early model lambda (docs/theory.md)."""
        ahead = self.lam if self.weak == "early" else self.mu * self.lam
        return round(self.mu + (ahead if self.weak in ("ft", "early") else 0.0), 12)

    @property
    def calls(self) -> int:
        """Calls of a model that a token of the answer takes."""
        return self.votes.samples if self.votes else 2 if self.key()["weak"] else 1

    def key(self) -> dict[str, Any]:
        """What decides the tokens; at lambda 0, or as the expert, the weak model does not."""
        if self.point is not None:
            if any(self.point[:-1]):
                return {"mu": 0.0, "lam": 0.0, "weak": None, "point": list(self.point)}
            return {"mu": float(self.point[-1]), "lam": 0.0, "weak": None}
        if self.average:
            return {"mu": float(self.mu), "lam": 0.0, "weak": self.weak, "average": True}
        idle = self.lam == 0 or (self.weak == "ft" and self.mu == 0)
        if idle:
            votes = {"votes": self.votes} if self.votes else {}
            return {"mu": float(self.mu), "lam": 0.0, "weak": None, **votes}
        key = {"mu": float(self.mu), "lam": float(self.lam), "weak": self.weak}
        return {**key, "gate": self.gate} if self.gate else key


def at_of(key: Mapping[str, Any]) -> At:
    """Where the strong model lies, for :meth:`CheckpointPair.at`."""
    return tuple(key["point"]) if "point" in key else float(key["mu"])


def gate_of(key: Mapping[str, Any]) -> Gate | None:
    """The gate of an arm by its key; None: none."""
    return parse_gate(key["gate"]) if key.get("gate") else None
