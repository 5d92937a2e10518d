"""The registry of probes: what each measures, costs, and puts into a run's id.

A new probe is one file, with a function below :func:`probe`, and one entry in
:data:`springback.results.probe_info.PROBES`::

    @probe("capitals", cost=lambda s, length: {"samples": sampling_cost(s)})
    def capitals(context: ProbeContext) -> ProbeValue:
        return mean_of([sum(map(str.isupper, text)) for text in context.samples])

Outside the package ``probe("capitals", ProbeInfo(...))`` makes the entry too; settings may name the
probe once the file has been imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from springback.models.loading import Model
from springback.probes.context import ProbeContext, ProbeInputs, ProbeSettings
from springback.results.probe_info import PROBES, ProbeInfo

#: JSON: the number under ``value``, and what it is made of.
ProbeValue = dict[str, Any]
#: Tokens scored on one model by what is scored, texts being so many tokens long on average.
Cost = Callable[[ProbeSettings, float], Mapping[str, float]]


@dataclass(frozen=True)
class Part:
    """A further number of a probe as a measurement of its own: its name, texts, value, unit."""

    name: str
    texts: str
    value: float
    unit: str


@dataclass(frozen=True)
class Probe:
    """A registered probe; the arguments of :func:`probe` say what is what."""

    measure: Callable[[ProbeContext], ProbeValue]
    cost: Cost
    identity: Callable[[ProbeInputs], Mapping[str, Any]]
    parts: Callable[[ProbeValue], Iterable[Part]]
    shown: Callable[[ProbeInputs], ProbeInfo] | None
    whole_weights: bool


_REGISTERED: dict[str, Probe] = {}


def probe(
    name: str,
    info: ProbeInfo | None = None,
    *,
    cost: Cost = lambda settings, length: {},
    identity: Callable[[ProbeInputs], Mapping[str, Any]] = lambda inputs: {},
    parts: Callable[[ProbeValue], Iterable[Part]] = lambda value: (),
    shown: Callable[[ProbeInputs], ProbeInfo] | None = None,
    whole_weights: bool = False,
) -> Callable[[Callable[[ProbeContext], ProbeValue]], Callable[[ProbeContext], ProbeValue]]:
    """Register the function below as the probe ``name``.

    ``info``: the entry of a probe outside the package.  ``cost``: for plans; sampling goes token by
    token and costs three times as much, and what several probes name alike is done once.
    ``identity``: what of the study, beside its held-out texts and prompts, the value depends on; it
    becomes part of every run's id.  ``parts``: further measurements out of a value.  ``shown``:
    title, unit and direction where they depend on the study.  ``whole_weights``: the probe reads
    weights, and so cannot measure an adapter.
    """

    def register(
        measure: Callable[[ProbeContext], ProbeValue],
    ) -> Callable[[ProbeContext], ProbeValue]:
        if info is not None:
            PROBES[name] = info
        _REGISTERED[name] = Probe(measure, cost, identity, parts, shown, whole_weights)
        return measure

    return register


def get_probe(name: str) -> Probe:
    """The probe of that name; its module is imported when it is first asked for."""
    if name not in _REGISTERED:
        importlib.import_module(PROBES[name].module)
    return _REGISTERED[name]


def measure(
    inputs: ProbeInputs, model: Model, aligned: Path | None = None
) -> dict[str, ProbeValue]:
    """Every probe of the study on one model; ``aligned`` as in :class:`ProbeContext`."""
    context = ProbeContext(inputs, model, aligned)
    return {name: get_probe(name).measure(context) for name in inputs.settings.probes}


def infos(inputs: ProbeInputs) -> dict[str, ProbeInfo]:
    """How every probe of the study is shown."""
    probes = {name: get_probe(name) for name in inputs.settings.probes}
    return {name: p.shown(inputs) if p.shown else PROBES[name] for name, p in probes.items()}


def identity(inputs: ProbeInputs) -> dict[str, Any]:
    """What the values of the study's probes depend on, beside its held-out texts and prompts."""
    return {
        key: value
        for name in inputs.settings.probes
        for key, value in get_probe(name).identity(inputs).items()
    }


def probe_tokens(settings: ProbeSettings, length: float) -> float:
    """Tokens that the probes score on one model, texts being ``length`` tokens long."""
    costs: dict[str, float] = {}
    for name in settings.probes:
        costs |= get_probe(name).cost(settings, length)
    return sum(costs.values())


def sampling_cost(settings: ProbeSettings) -> float:
    """Of a continuation of every prompt: sampling takes about three times the time of scoring."""
    return 3 * settings.prompts * settings.sample_tokens


def mean_of(values: Sequence[float]) -> ProbeValue:
    """The value of a probe that is the mean of a number for each text."""
    return {"value": sum(values) / len(values), "per_example": list(values)}
