"""The probes of a study on one model: which they are, what they are called, what they need."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from springback import probes
from springback.jobs import audit_rates
from springback.jobs.settings import AuditSettings
from springback.models import Model

if TYPE_CHECKING:
    from springback.jobs.study import Study


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


def _margin(study: Study, model: Model, scored: dict[str, Any]) -> dict[str, Any]:
    return {
        "value": probes.margin(scored["wanted"], scored["unwanted"]),
        **{part: [s.per_token for s in scores] for part, scores in scored.items()},
    }


def _bits(study: Study, model: Model, scored: dict[str, Any]) -> dict[str, Any]:
    return {
        "value": probes.bits_per_byte([*scored["wanted"], *scored["unwanted"]]),
        **{part: probes.bits_per_byte(scores) for part, scores in scored.items()},
    }


def _reverse_kl(study: Study, model: Model) -> dict[str, Any]:
    """:func:`springback.probes.reverse_kl`, its two passes one after the other."""
    texts = study.meter.sample(study.prompts, study.sampling(2, exact_length=True))
    return _mean(study.meter.reverse_kl(probes.continued(study.prompts, texts)))


def _sentiment(study: Study, model: Model) -> dict[str, Any]:
    return _mean(probes.sentiment(study.sampled()))


def _behaviour(study: Study, model: Model) -> dict[str, Any]:
    assert study.scorer is not None  # check_settings: the probe needs --behaviour
    asked = [study.tokenizer.decode(p, skip_special_tokens=True) for p in study.prompts]
    return _mean(study.scorer.score(asked, study.sampled()))


def _neutral(study: Study, model: Model) -> dict[str, Any]:
    """:func:`springback.probes.neutral_nll`."""
    return _mean([score.per_token for score in study.meter.nll(study.encode(study.neutral))])


def _choice(study: Study, model: Model) -> dict[str, Any]:
    """:func:`springback.probes.choice_scores`."""
    rows = study.choices.rows
    scored = study.meter.nll(probes.choice_rows(rows, study.tokenizer))
    scores = probes.choices_scored(rows, scored)
    return {
        "value": probes.choice_accuracy(scores),
        "by_bytes": probes.choice_accuracy(scores, by_bytes=True),
        "per_example": [float(s.correct) for s in scores],
    }


def _weight_change(study: Study, model: Model) -> dict[str, Any]:
    change = probes.weight_change(model, study.start)
    return {"value": change.relative, "norm": change.norm}


def _rates(study: Study, model: Model, scored: dict[str, Any]) -> dict[str, Any]:
    sets = study.rate_sets
    own = study.meter.nll(sets["pretraining"].rows)
    scores = {
        "pretraining": own,
        "aligning": scored["wanted"],
        "perturbing": scored["unwanted"],
    }
    found = {name: audit_rates.measured(scores[name], sets[name].leaves) for name in sets}
    return {"value": found["pretraining"]["rate"], "sets": found}


_ONE_PASS: dict[str, Callable[[Study, Model, dict[str, Any]], dict[str, Any]]] = {
    "margin": _margin,
    "bits_per_byte": _bits,
    "rates": _rates,
}
_OWN_PASS: dict[str, Callable[[Study, Model], dict[str, Any]]] = {
    "kl": lambda study, model: _mean(study.meter.kl(study.start_texts)),
    "reverse_kl": _reverse_kl,
    "sentiment": _sentiment,
    "behaviour": _behaviour,
    "neutral_nll": _neutral,
    "choice": _choice,
    "weight_change": _weight_change,
}


def measure(study: Study, model: Model, aligned: Path | None = None) -> dict[str, dict[str, Any]]:
    """Every probe of the study on one model: its value and what it is made of.

    ``aligned``: weights of the branch point that the model comes from, for the way back; without
    them the model is that point itself.
    """
    study.meter.hold(model)
    scored = {part: study.meter.nll(rows) for part, rows in study.encoded.items()}
    found = {}
    for name in study.settings.probes:
        if name in _ONE_PASS:
            found[name] = _ONE_PASS[name](study, model, scored)
        elif name == "way_back":
            found[name] = _way_back(study, model, aligned)
        else:
            found[name] = _OWN_PASS[name](study, model)
    return found


def _way_back(study: Study, model: Model, aligned: Path | None) -> dict[str, Any]:
    """The start itself counts as 0: it has no way back to go."""
    if aligned is None:
        return {"value": 0.0, "cosine": None}
    with probes.stored_weights(aligned) as branch:
        found = probes.way_back(model, branch, study.start)
    return {
        "value": found.share,
        "cosine": None if math.isnan(found.cosine) else found.cosine,
    }
