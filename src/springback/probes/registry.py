"""The registry of probes: what each measures, costs, and puts into a run's id.

A new probe is one file, with a function below :class:`Probe`, and one entry in
:data:`springback.results.probe_info.PROBES`::

    @Probe("capitals", cost=lambda s, length: {"samples": sampling_cost(s)})
    def capitals(context: ProbeContext) -> ProbeValue:
        return mean_of([sum(map(str.isupper, text)) for text in context.samples])

Outside the package ``Probe("capitals", ProbeInfo(...))`` makes the entry too; settings may name the
probe once its file has been imported.  The probes of held-out texts and of samples stand here.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from springback.models.stored_model import AnyModel
from springback.probes.behaviour import sentiment
from springback.probes.context import ProbeContext, ProbeInputs, ProbeSettings
from springback.probes.divergence import continued
from springback.probes.judges import Scorer
from springback.probes.likelihood import bits_per_byte, margin
from springback.results.probe_info import PROBES, SAMPLED, ProbeInfo
from springback.results.timing import timed

#: JSON: the number under ``value``, and what it is made of.
ProbeValue = dict[str, Any]
Measure = Callable[[ProbeContext], ProbeValue]


@dataclass(frozen=True)
class Part:
    """A further number of a probe as a measurement of its own: its name, texts, value, unit."""

    name: str
    texts: str
    value: float
    unit: str


@dataclass
class Probe:
    """Registers the function below it as the probe ``name``.

    ``info``: how a probe from outside the package is shown.  ``cost``: for plans, the tokens scored
    on one model whose texts have so many tokens on average, by what is scored; what several probes
    call the same is done once.  ``identity``: what the value depends on beside the model, the
    held-out texts and the prompts; it becomes part of every run's id.  ``parts``: further
    measurements out of a value.  ``shown``: how the probe is shown where that depends on the study:
    under an empty key the probe, under others what its values have under ``further``, which are
    probes of their own, called ``name:key``.
    """

    name: str
    info: ProbeInfo | None = None
    cost: Callable[[ProbeSettings, float], Mapping[str, float]] = lambda settings, length: {}
    identity: Callable[[ProbeInputs], Mapping[str, Any]] = lambda inputs: {}
    parts: Callable[[ProbeValue], Iterable[Part]] = lambda value: ()
    shown: Callable[[ProbeInputs], Mapping[str, ProbeInfo]] | None = None
    measure: Measure = field(init=False)

    def __call__(self, measure: Measure) -> Measure:
        if self.info is not None:
            PROBES[self.name] = self.info
        self.measure = measure
        _REGISTERED[self.name] = self
        return measure


_REGISTERED: dict[str, Probe] = {}


def get_probe(name: str) -> Probe:
    """The probe of that name; its module is imported when it is first asked for."""
    name = name.partition(":")[0]
    if name not in _REGISTERED:
        importlib.import_module(PROBES[name].module)
    return _REGISTERED[name]


@timed("probing")
def measure(
    inputs: ProbeInputs, model: AnyModel, aligned: Path | None = None
) -> dict[str, ProbeValue]:
    """Every probe of the study on one model; ``aligned`` as in :class:`ProbeContext`."""
    context = ProbeContext(inputs, model, aligned)
    values: dict[str, ProbeValue] = {}
    for name in inputs.settings.probes:
        value = dict(get_probe(name).measure(context))
        further = value.pop("further", {})
        values |= {name: value, **{f"{name}:{key}": more for key, more in further.items()}}
    if inputs.settings.keep_samples:
        values[next(name for name in SAMPLED if name in values)]["texts"] = context.samples
    return values


def infos(inputs: ProbeInputs) -> dict[str, ProbeInfo]:
    """How every probe of the study is shown."""
    probes = [get_probe(name) for name in inputs.settings.probes]
    return {
        f"{p.name}:{key}" if key else p.name: info
        for p in probes
        for key, info in (p.shown(inputs) if p.shown else {"": PROBES[p.name]}).items()
    }


def identity(inputs: ProbeInputs) -> dict[str, Any]:
    """What the values of the study's probes depend on, beside its held-out texts and prompts."""
    every: dict[str, Any] = {}
    for name in inputs.settings.probes:
        every |= get_probe(name).identity(inputs)
    return every | ({"keep_samples": True} if inputs.settings.keep_samples else {})


def probe_tokens(settings: ProbeSettings, length: float) -> float:
    """Tokens that the probes score on one model, texts being ``length`` tokens long."""
    every: dict[str, float] = {}
    for name in settings.probes:
        every |= get_probe(name).cost(settings, length)
    return sum(every.values())


def sampling_cost(settings: ProbeSettings) -> float:
    """Of a continuation of every prompt: sampling takes about three times the time of scoring."""
    return float(3 * settings.prompts * settings.sample_tokens)


def mean_of(values: Sequence[float]) -> ProbeValue:
    """The value of a probe that is the mean of a number for each text."""
    return {"value": sum(values) / len(values), "per_example": list(values)}


def _held_out_cost(settings: ProbeSettings, length: float) -> dict[str, float]:
    return {"held-out texts": 2 * settings.holdout * length}


def _continuations(settings: ProbeSettings) -> float:
    """Tokens of every prompt with its continuation."""
    return float(settings.prompts * (settings.prompt_tokens + settings.sample_tokens))


@Probe("margin", cost=_held_out_cost)
def _margin(context: ProbeContext) -> ProbeValue:
    sides = context.held_out
    return {
        "value": margin(sides["wanted"], sides["unwanted"]),
        **{side: [s.per_token for s in scores] for side, scores in sides.items()},
    }


@Probe("unwanted_nll", cost=_held_out_cost)
def _unwanted_nll(context: ProbeContext) -> ProbeValue:
    return mean_of([s.per_token for s in context.held_out["unwanted"]])


@Probe("bits_per_byte", cost=_held_out_cost)
def _bits_per_byte(context: ProbeContext) -> ProbeValue:
    sides = context.held_out
    return {
        "value": bits_per_byte([score for scores in sides.values() for score in scores]),
        **{side: bits_per_byte(scores) for side, scores in sides.items()},
    }


@Probe("kl", cost=lambda s, _: {"the start model's texts": _continuations(s)})
def _kl(context: ProbeContext) -> ProbeValue:
    return mean_of(context.meter.kl(context.inputs.start_texts))


@Probe(
    "base_kl",
    cost=lambda s, _: {"the base model's texts": _continuations(s)},
    identity=lambda inputs: {"base": inputs.base_checkpoint.content_hash},
)
def _base_kl(context: ProbeContext) -> ProbeValue:
    """In one process, whatever ``--probe-processes`` says: the others do not hold the base."""
    return mean_of(context.inputs.kl_to_base())


@Probe(
    "reverse_kl",
    cost=lambda s, _: {"the model's own texts": 2 * _continuations(s) + sampling_cost(s)},
)
def _reverse_kl(context: ProbeContext) -> ProbeValue:
    """:func:`springback.probes.reverse_kl`, its two passes one after the other."""
    inputs = context.inputs
    texts = context.meter.sample(inputs.prompts, inputs.sampling(2, exact_length=True))
    return mean_of(context.meter.reverse_kl(continued(inputs.prompts, texts)))


@Probe("sentiment", cost=lambda s, _: {"samples": sampling_cost(s)})
def _sentiment(context: ProbeContext) -> ProbeValue:
    return mean_of(sentiment(context.samples))


def _as_the_scorers_say(inputs: ProbeInputs) -> dict[str, ProbeInfo]:
    """The first judge is the probe itself, further ones stand beside it by name."""
    return {
        key: replace(
            PROBES["behaviour"],
            title=f"Sampled continuations by {scorer.name}",
            unit=scorer.unit,
            direction=scorer.direction,
        )
        for key, scorer in _keyed(inputs.scorers).items()
    }


def _keyed(scorers: Sequence[Scorer]) -> dict[str, Scorer]:
    """Judges by the end of their probe's key: empty for the first, else made of the name."""
    keyed = {"": scorers[0]}
    for scorer in scorers[1:]:
        key = slug = re.sub(r"[^\w.-]+", "-", scorer.name)
        while key in keyed:  # names that differ in signs alone
            key = f"{slug}-{len(keyed)}"
        keyed[key] = scorer
    return keyed


def _judge_identity(inputs: ProbeInputs) -> dict[str, Any]:
    each = [scorer.identity for scorer in inputs.scorers]
    return {"behaviour": each[0] if len(each) == 1 else each}


@Probe(
    "behaviour",
    cost=lambda s, _: {"samples": sampling_cost(s)},
    identity=_judge_identity,
    shown=_as_the_scorers_say,
)
def _behaviour(context: ProbeContext) -> ProbeValue:
    inputs, values = context.inputs, {}
    for key, scorer in _keyed(inputs.scorers).items():
        prompts = inputs.questions if scorer.asked else inputs.prompt_texts
        values[key] = _mean_of_known(scorer.score(prompts, context.samples))
    return {**values.pop(""), **({"further": values} if values else {})}


def _mean_of_known(values: Sequence[float]) -> ProbeValue:
    """:func:`mean_of`; a text without a score is None and left out of the mean."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) == len(values):
        return mean_of(values)
    each = [value if math.isfinite(value) else None for value in values]
    return {"value": sum(known) / len(known), "per_example": each}
