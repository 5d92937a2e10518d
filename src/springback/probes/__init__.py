"""Probes: functions from a model to numbers, each with unit, direction and what is left out."""

from typing import TYPE_CHECKING

from springback.core import on_first_use
from springback.results.judge_info import FORMS as SCORERS

if TYPE_CHECKING:
    from springback.probes.behaviour import (
        REFUSAL_PHRASES,
        SampleSettings,
        refused,
        sample,
        sentiment,
    )
    from springback.probes.divergence import StartDistribution, continued, mixed_kl, reverse_kl
    from springback.probes.errors_of_logits import logit_errors
    from springback.probes.geometry import (
        WayBack,
        WeightChange,
        stored_weights,
        way_back,
        weight_change,
    )
    from springback.probes.hidden_states import LastStates, MemoryBudget
    from springback.probes.judges import Scorer, load_scorer, load_scorers
    from springback.probes.likelihood import (
        CHUNK,
        MaskedNLL,
        Precision,
        TextNLL,
        bits_per_byte,
        first_tokens,
        margin,
        mixed_nll,
        nll,
        pair_nll,
        pair_nll_masked,
    )
    from springback.probes.measuring import Meter, SharedMeter, Workers
    from springback.probes.utility import (
        ChoiceScore,
        choice_accuracy,
        choice_rows,
        choice_scores,
        choices_scored,
        neutral_nll,
    )
else:
    __getattr__ = on_first_use(
        __name__,
        {
            "behaviour": "REFUSAL_PHRASES SampleSettings refused sample sentiment",
            "divergence": "StartDistribution continued mixed_kl reverse_kl",
            "errors_of_logits": "logit_errors",
            "geometry": "WayBack WeightChange stored_weights way_back weight_change",
            "hidden_states": "LastStates MemoryBudget",
            "judges": "Scorer load_scorer load_scorers",
            "likelihood": "CHUNK MaskedNLL Precision TextNLL bits_per_byte first_tokens margin "
            "mixed_nll nll pair_nll pair_nll_masked",
            "measuring": "Meter SharedMeter Workers",
            "utility": "ChoiceScore choice_accuracy choice_rows choice_scores choices_scored "
            "neutral_nll",
        },
    )

__all__ = [
    "CHUNK",
    "REFUSAL_PHRASES",
    "SCORERS",
    "ChoiceScore",
    "LastStates",
    "MaskedNLL",
    "MemoryBudget",
    "Meter",
    "Precision",
    "SampleSettings",
    "Scorer",
    "SharedMeter",
    "StartDistribution",
    "TextNLL",
    "WayBack",
    "WeightChange",
    "Workers",
    "bits_per_byte",
    "choice_accuracy",
    "choice_rows",
    "choice_scores",
    "choices_scored",
    "continued",
    "first_tokens",
    "load_scorer",
    "load_scorers",
    "logit_errors",
    "margin",
    "mixed_kl",
    "mixed_nll",
    "neutral_nll",
    "nll",
    "pair_nll",
    "pair_nll_masked",
    "refused",
    "reverse_kl",
    "sample",
    "sentiment",
    "stored_weights",
    "way_back",
    "weight_change",
]
