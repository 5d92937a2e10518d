"""A probe outside the package: how sure the model is of the first token behind each prompt."""

from __future__ import annotations

import torch

from springback.probes.context import ProbeContext
from springback.probes.registry import Part, Probe, ProbeValue, mean_of
from springback.results.probe_info import ProbeInfo


@Probe(
    "first_token",
    ProbeInfo(
        "Probability of the likeliest first token",
        "probability",
        "1 = sure of it",
        "Behind every prompt the likeliest token is looked up, whichever it is.",
    ),
    cost=lambda s, length: {"prompts": s.prompts * s.prompt_tokens},
    identity=lambda inputs: {"first_token": "softmax of the last position"},
    parts=lambda value: [Part("first_token_least", "prompts", value["least"], "probability")],
)
@torch.inference_mode()
def first_token(context: ProbeContext) -> ProbeValue:
    each = []
    for prompt in context.inputs.prompts:
        logits = context.model(torch.tensor([prompt], device=context.model.device)).logits[0, -1]
        each.append(float(logits.softmax(-1).max()))
    return {**mean_of(each), "least": min(each)}
