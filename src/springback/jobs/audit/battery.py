"""The probes of a study on one model: which they are, what they are called, what they need."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from springback import probes
from springback.core import Slice
from springback.jobs.audit.settings import AuditSettings
from springback.models.loading import Model
from springback.probes import rates

if TYPE_CHECKING:
    from springback.jobs.audit.study import Study


@dataclass(frozen=True)
class Words:
    """How a probe is shown: title, unit, and what a higher value means."""

    title: str
    unit: str
    direction: str


WORDS = {
    "margin": Words("Margin", "nats/token", "higher = more aligned"),
    "kl": Words("KL to the start model", "nats/token", "0 = the start model's distribution"),
    "bits_per_byte": Words(
        "Bits per byte of the held-out texts", "bits/byte", "lower = fits better"
    ),
    "sentiment": Words("Sentiment of sampled continuations", "VADER compound", "1 = positive"),
    "reverse_kl": Words(
        "KL from the model to the start model, on the model's own texts",
        "nats/token",
        "0 = the start model's distribution",
    ),
    "neutral_nll": Words("NLL of neutral texts", "nats/token", "lower = knows them better"),
    "choice": Words("Multiple-choice questions answered right", "share", "higher = more right"),
    "rates": Words(
        "Rate of texts like those of pre-training", "bits/token", "lower = compressed better"
    ),
    "weight_change": Words(
        "Length of the change of weights since the start", "share of the start's", "0 = unchanged"
    ),
    "way_back": Words(
        "Share of the way back to the start, in weights", "share", "1 = all the way back"
    ),
}


def words(settings: AuditSettings, scorer: probes.Scorer | None) -> dict[str, Words]:
    """Of every probe of the study; ``behaviour`` speaks as its scorer does."""
    known = dict(WORDS)
    if scorer is not None:
        title = f"Sampled continuations by {scorer.name}"
        known["behaviour"] = Words(title, scorer.unit, scorer.direction)
    return {name: known[name] for name in settings.probes}


def _mean(values: list[float], **more: Any) -> dict[str, Any]:
    return {"value": sum(values) / len(values), "per_example": values, **more}


class Asked:
    """One model under the study's probes; what several of them need is asked of it once."""

    def __init__(self, study: Study, model: Model, aligned: Path | None = None) -> None:
        self.study, self.model, self.aligned = study, model, aligned
        self.meter = study.meter
        self.meter.hold(model)
        self._scores: dict[str, list[probes.TextNLL]] = {}

    @cached_property
    def sides(self) -> dict[str, list[probes.TextNLL]]:
        """The held-out texts, ``wanted`` and ``unwanted``."""
        return {part: self.meter.nll(rows) for part, rows in self.study.encoded.items()}

    def scores(self, part: Slice) -> list[probes.TextNLL]:
        """Any other texts, one pass however many probes read them."""
        if part.content_hash not in self._scores:
            self._scores[part.content_hash] = self.meter.nll(self.study.encode(part))
        return self._scores[part.content_hash]

    @cached_property
    def texts(self) -> list[str]:
        """A sampled continuation of every prompt; the same noise for every model."""
        return self.study.sampled()


def _margin(asked: Asked) -> dict[str, Any]:
    return {
        "value": probes.margin(asked.sides["wanted"], asked.sides["unwanted"]),
        **{part: [s.per_token for s in scores] for part, scores in asked.sides.items()},
    }


def _bits(asked: Asked) -> dict[str, Any]:
    return {
        "value": probes.bits_per_byte([*asked.sides["wanted"], *asked.sides["unwanted"]]),
        **{part: probes.bits_per_byte(scores) for part, scores in asked.sides.items()},
    }


def _kl(asked: Asked) -> dict[str, Any]:
    return _mean(asked.meter.kl(asked.study.start_texts))


def _reverse_kl(asked: Asked) -> dict[str, Any]:
    """:func:`springback.probes.reverse_kl`, its two passes one after the other."""
    study = asked.study
    texts = asked.meter.sample(study.prompts, study.sampling(2, exact_length=True))
    return _mean(asked.meter.reverse_kl(probes.continued(study.prompts, texts)))


def _sentiment(asked: Asked) -> dict[str, Any]:
    return _mean(probes.sentiment(asked.texts))


def _behaviour(asked: Asked) -> dict[str, Any]:
    study = asked.study
    assert study.scorer is not None  # check_settings: the probe needs --behaviour
    given = [study.tokenizer.decode(p, skip_special_tokens=True) for p in study.prompts]
    return _mean(study.scorer.score(given, asked.texts))


def _neutral(asked: Asked) -> dict[str, Any]:
    return _mean([s.per_token for s in asked.scores(asked.study.neutral)])


def _choice(asked: Asked) -> dict[str, Any]:
    """:func:`springback.probes.choice_scores`."""
    rows = asked.study.choices.rows
    scored = asked.meter.nll(probes.choice_rows(rows, asked.study.tokenizer))
    scores = probes.choices_scored(rows, scored)
    return {
        "value": probes.choice_accuracy(scores),
        "by_bytes": probes.choice_accuracy(scores, by_bytes=True),
        "per_example": [float(s.correct) for s in scores],
    }


def _weight_change(asked: Asked) -> dict[str, Any]:
    change = probes.weight_change(asked.model, asked.study.start)
    return {"value": change.relative, "norm": change.norm}


def _rates(asked: Asked) -> dict[str, Any]:
    sets = asked.study.rate_sets
    scores = {
        "pretraining": asked.scores(asked.study.pretraining),
        "aligning": asked.sides["wanted"],
        "perturbing": asked.sides["unwanted"],
    }
    found = {name: rates.measured(scores[name], sets[name].leaves) for name in sets}
    return {"value": found["pretraining"]["rate"], "sets": found}


def _way_back(asked: Asked) -> dict[str, Any]:
    """The start itself counts as 0: it has no way back to go."""
    if asked.aligned is None:
        return {"value": 0.0, "cosine": None}
    with probes.stored_weights(asked.aligned) as branch:
        found = probes.way_back(asked.model, branch, asked.study.start)
    return {
        "value": found.share,
        "cosine": None if math.isnan(found.cosine) else found.cosine,
    }


_PROBES: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "margin": _margin,
    "kl": _kl,
    "bits_per_byte": _bits,
    "sentiment": _sentiment,
    "reverse_kl": _reverse_kl,
    "behaviour": _behaviour,
    "neutral_nll": _neutral,
    "choice": _choice,
    "weight_change": _weight_change,
    "way_back": _way_back,
    "rates": _rates,
}


def measure(study: Study, model: Model, aligned: Path | None = None) -> dict[str, dict[str, Any]]:
    """Every probe of the study on one model: its value and what it is made of.

    ``aligned``: weights of the branch point that the model comes from, for the way back; without
    them the model is that point itself.
    """
    asked = Asked(study, model, aligned)
    return {name: _PROBES[name](asked) for name in study.settings.probes}
