"""The probes on held-out texts and on samples: likelihood, KL divergence, scores of samples."""

from __future__ import annotations

from dataclasses import replace

from springback.probes.behaviour import sentiment
from springback.probes.context import ProbeContext, ProbeInputs, ProbeSettings
from springback.probes.divergence import continued
from springback.probes.likelihood import bits_per_byte, margin
from springback.probes.registry import ProbeValue, mean_of, probe, sampling_cost
from springback.results.probe_info import PROBES, ProbeInfo


def _held_out_cost(settings: ProbeSettings, length: float) -> dict[str, float]:
    return {"held-out texts": 2 * settings.holdout * length}


def _continuations(settings: ProbeSettings) -> int:
    """Tokens of every prompt with its continuation."""
    return settings.prompts * (settings.prompt_tokens + settings.sample_tokens)


@probe("margin", cost=_held_out_cost)
def _margin(context: ProbeContext) -> ProbeValue:
    sides = context.held_out
    return {
        "value": margin(sides["wanted"], sides["unwanted"]),
        **{side: [s.per_token for s in scores] for side, scores in sides.items()},
    }


@probe("bits_per_byte", cost=_held_out_cost)
def _bits_per_byte(context: ProbeContext) -> ProbeValue:
    sides = context.held_out
    return {
        "value": bits_per_byte([*sides["wanted"], *sides["unwanted"]]),
        **{side: bits_per_byte(scores) for side, scores in sides.items()},
    }


@probe("kl", cost=lambda s, _: {"the start model's texts": _continuations(s)})
def _kl(context: ProbeContext) -> ProbeValue:
    return mean_of(context.meter.kl(context.inputs.start_texts))


@probe(
    "reverse_kl",
    cost=lambda s, _: {"the model's own texts": 2 * _continuations(s) + sampling_cost(s)},
)
def _reverse_kl(context: ProbeContext) -> ProbeValue:
    """:func:`springback.probes.reverse_kl`, its two passes one after the other."""
    inputs = context.inputs
    texts = context.meter.sample(inputs.prompts, inputs.sampling(2, exact_length=True))
    return mean_of(context.meter.reverse_kl(continued(inputs.prompts, texts)))


@probe("sentiment", cost=lambda s, _: {"samples": sampling_cost(s)})
def _sentiment(context: ProbeContext) -> ProbeValue:
    return mean_of(sentiment(context.samples))


def _as_the_scorer_says(inputs: ProbeInputs) -> ProbeInfo:
    scorer = inputs.scorer
    title = f"Sampled continuations by {scorer.name}"
    return replace(PROBES["behaviour"], title=title, unit=scorer.unit, direction=scorer.direction)


@probe(
    "behaviour",
    cost=lambda s, _: {"samples": sampling_cost(s)},
    identity=lambda inputs: {"behaviour": inputs.scorer.identity},
    shown=_as_the_scorer_says,
)
def _behaviour(context: ProbeContext) -> ProbeValue:
    inputs = context.inputs
    prompts = [inputs.tokenizer.decode(p, skip_special_tokens=True) for p in inputs.prompts]
    return mean_of(inputs.scorer.score(prompts, context.samples))
