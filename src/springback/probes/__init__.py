"""Probes: functions from a model to numbers, each with unit, direction and what is left out."""

from springback.probes.behaviour import SampleSettings, sample, sentiment
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

__all__ = [
    "CHUNK",
    "Precision",
    "SampleSettings",
    "StartDistribution",
    "TextNLL",
    "bits_per_byte",
    "margin",
    "nll",
    "pair_nll",
    "reverse_kl",
    "sample",
    "sentiment",
]
