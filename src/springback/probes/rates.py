"""Rates of held-out sets of texts, the terms of the elasticity theorem (paper A, section A1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from springback.models.encoding import Encoded
from springback.probes.context import ProbeContext, ProbeInputs
from springback.probes.likelihood import TextNLL, bits_per_byte
from springback.probes.registry import Part, Probe, ProbeValue
from springback.theory import TokenTree

#: What is measured of each set, and its unit.
UNITS = {"bits_per_byte": "bits/byte", "rate": "bits/token", "normalised": "bits/token"}


@dataclass(frozen=True)
class RateSet:
    """Held-out texts of one set, and ``leaves``: M of their tree at the study's depth."""

    rows: list[Encoded]
    leaves: int


def rate_set(rows: list[Encoded], depth: int) -> RateSet:
    """The set with M counted: its texts' different beginnings of ``depth`` counted tokens."""
    tree = TokenTree.from_responses([row.ids[row.start :] for row in rows])
    return RateSet(rows, len(tree.prune(depth).leaves))


def measured(scores: Sequence[TextNLL], leaves: int) -> dict[str, float]:
    """Bits per byte, rate and normalised rate of one set under one model."""
    bits = sum(s.nats for s in scores) / math.log(2)
    rate = bits / sum(s.tokens for s in scores)
    return {
        "bits_per_byte": bits_per_byte(scores),
        "rate": rate,
        "normalised": rate - math.log2(leaves),
    }


def rate_sets(inputs: ProbeInputs) -> dict[str, RateSet]:
    """The three sets whose rates a study follows, with the leaves of their pruned trees."""
    s = inputs.settings

    def make() -> dict[str, RateSet]:
        rows = {
            "pretraining": inputs.encode(inputs.rows_of(s.pretraining)),
            "aligning": inputs.encoded["wanted"],
            "perturbing": inputs.encoded["unwanted"],
        }
        return {name: rate_set(part, s.rate_depth) for name, part in rows.items()}

    return inputs.once("rate sets", make)


def _identity(inputs: ProbeInputs) -> dict[str, Any]:
    s = inputs.settings
    texts = inputs.rows_of(s.pretraining).content_hash
    return {"pretraining": texts, "rate_depth": s.rate_depth}


def _each_set(value: ProbeValue) -> list[Part]:
    return [
        Part(f"rates_{name}", texts, float(rates[name]), unit)
        for texts, rates in value["sets"].items()
        for name, unit in UNITS.items()
    ]


@Probe(
    "rates",
    cost=lambda s, length: {f"texts of {s.pretraining}": s.utility_rows * length},
    identity=_identity,
    parts=_each_set,
)
def _rates(context: ProbeContext) -> ProbeValue:
    """:func:`measured` of each set; the value is the rate of the texts like pre-training's."""
    inputs, sets = context.inputs, rate_sets(context.inputs)
    scores = {
        "pretraining": context.scores(inputs.rows_of(inputs.settings.pretraining)),
        "aligning": context.held_out["wanted"],
        "perturbing": context.held_out["unwanted"],
    }
    rates = {name: measured(scores[name], sets[name].leaves) for name in sets}
    return {"value": rates["pretraining"]["rate"], "sets": rates}
