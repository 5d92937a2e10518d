"""The probes by name: how each is shown, and where its function stands.

Loads nothing, so that help, settings and the report may read it.  A new probe is one entry here and
one file, whose function :class:`springback.probes.registry.Probe` registers under the entry's name.
A probe outside the package brings its :class:`ProbeInfo` along instead.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProbeInfo:
    """How a probe is shown.

    ``title``, ``unit`` and ``direction`` (what a higher value means) stand in every result;
    ``meaning`` is the sentence below its chart.  ``module`` is where its function stands.
    ``whole_weights``: it reads weights, and so cannot measure an adapter.
    """

    title: str
    unit: str
    direction: str
    meaning: str = ""
    module: str = "springback.probes.registry"
    whole_weights: bool = False


PROBES = {
    "margin": ProbeInfo(
        "Margin",
        "nats/token",
        "higher = more aligned",
        "The margin is how much likelier, per token, the model finds held-out texts of the wanted "
        "kind than of the unwanted kind.",
    ),
    "kl": ProbeInfo(
        "KL to the start model",
        "nats/token",
        "0 = the start model's distribution",
        "The KL divergence is how far the model's next-token distribution has moved from the "
        "start model's, per token; 0 is the start model itself.",
    ),
    "bits_per_byte": ProbeInfo(
        "Bits per byte of the held-out texts",
        "bits/byte",
        "lower = fits better",
        "Bits per byte is what the model, used as a compressor, spends on a byte of held-out text.",
    ),
    "sentiment": ProbeInfo(
        "Sentiment of sampled continuations",
        "VADER compound",
        "1 = positive",
        "Sentiment is what a word list (VADER) makes of texts that the model writes; it is the "
        "noisiest of the probes.",
    ),
    "reverse_kl": ProbeInfo(
        "KL from the model to the start model, on the model's own texts",
        "nats/token",
        "0 = the start model's distribution",
        "The reverse KL divergence is taken on texts that the model itself samples: it sees what "
        "the model came to say and the start model would not.",
    ),
    # Shown as its scorer says (springback.probes.scorers.Scorer).
    "behaviour": ProbeInfo(
        "Sampled continuations by a scorer",
        "score",
        "",
        "Every sampled continuation gets a number from the scorer that was named.",
    ),
    "neutral_nll": ProbeInfo(
        "NLL of neutral texts",
        "nats/token",
        "lower = knows them better",
        "Neutral texts are ones that neither side teaches; a rise is damage that has nothing to do "
        "with alignment.",
        "springback.probes.utility",
    ),
    "choice": ProbeInfo(
        "Multiple-choice questions answered right",
        "share",
        "higher = more right",
        "Each choice's text is scored as the answer; a question counts as right if the right one "
        "is the likeliest.",
        "springback.probes.utility",
    ),
    "weight_change": ProbeInfo(
        "Length of the change of weights since the start",
        "share of the start's",
        "0 = unchanged",
        "The length of the change of all weights since the start model, as a share of the start's "
        "own length.",
        "springback.probes.geometry",
        whole_weights=True,
    ),
    "way_back": ProbeInfo(
        "Share of the way back to the start, in weights",
        "share",
        "1 = all the way back",
        "How much of the way from the aligned weights back to the start's the later change has "
        "covered: 0 none, 1 all of it, below 0 further away.",
        "springback.probes.geometry",
        whole_weights=True,
    ),
    # Of a finished model, audited as it is.
    "unwanted_nll": ProbeInfo(
        "NLL of the unwanted texts",
        "nats/token",
        "lower = finds them likelier",
        "How unlikely the model finds held-out texts of the unwanted kind, per token.",
    ),
    "base_kl": ProbeInfo(
        "KL to the base model",
        "nats/token",
        "0 = the base model's distribution",
        "How far the model's next-token distribution is from the base model's, on texts that the "
        "base model writes, per token; 0 is the base model itself.",
    ),
    "rates": ProbeInfo(
        "Rate of texts like those of pre-training",
        "bits/token",
        "lower = compressed better",
        "The rate is what the model, used as a compressor, spends on a token of texts like those "
        "of pre-training.",
        "springback.probes.rates",
    ),
}

#: Probes of what the model can still do, by which an attack's price is taken.
UTILITY = ("neutral_nll", "choice")
#: Probes whose value is a score of sampled texts.
SAMPLED = ("sentiment", "behaviour")
