"""Decode with one model, or contrastively with two (paper B, section B2).

``decode`` is the plain loop, the truth; ``decode_fast`` gives the same tokens sooner,
``decode_variants`` those of several lambdas at once; ``ContrastModel`` is the pair as one
Transformers model.
"""

from springback.decode.drafts import Speculation
from springback.decode.fast import decode_fast
from springback.decode.pair_model import ContrastConfig, ContrastModel
from springback.decode.reference import decode, sampling_groups
from springback.decode.settings import DecodeSettings, Hooks
from springback.decode.variants import Forks, decode_variants
from springback.decode.work import Decoded, Work

__all__ = [
    "ContrastConfig",
    "ContrastModel",
    "DecodeSettings",
    "Decoded",
    "Forks",
    "Hooks",
    "Speculation",
    "Work",
    "decode",
    "decode_fast",
    "decode_variants",
    "sampling_groups",
]
