"""Probes: functions from a model to numbers, each with unit, direction and what is left out."""

from springback.probes.behaviour import (
    REFUSAL_PHRASES,
    SampleSettings,
    refused,
    sample,
    sentiment,
)
from springback.probes.divergence import StartDistribution, reverse_kl
from springback.probes.likelihood import (
    CHUNK,
    Precision,
    TextNLL,
    bits_per_byte,
    margin,
    nll,
    pair_nll,
)
from springback.probes.scorers import SCORERS, Scorer, load_scorer

__all__ = [
    "CHUNK",
    "REFUSAL_PHRASES",
    "SCORERS",
    "Precision",
    "SampleSettings",
    "Scorer",
    "StartDistribution",
    "TextNLL",
    "bits_per_byte",
    "load_scorer",
    "margin",
    "nll",
    "pair_nll",
    "refused",
    "reverse_kl",
    "sample",
    "sentiment",
]
