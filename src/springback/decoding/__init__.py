"""Decode with one model, or contrastively with two (paper B, section B2).

``decode`` is the plain loop, the reference; ``decode_fast`` gives the same tokens sooner,
``decode_variants`` those of several lambdas at once; ``ContrastModel`` is the pair as one
Transformers model.
"""

from typing import TYPE_CHECKING

from springback.core import on_first_use

if TYPE_CHECKING:
    from springback.decoding.contrast_model import ContrastConfig, ContrastModel
    from springback.decoding.drafts import Speculation
    from springback.decoding.fast import decode_fast
    from springback.decoding.lambda_grid import Forks, decode_variants
    from springback.decoding.plain import decode, sampling_groups
    from springback.decoding.settings import Decoded, DecodeSettings, Hooks, Work
else:
    __getattr__ = on_first_use(
        __name__,
        {
            "contrast_model": "ContrastConfig ContrastModel",
            "drafts": "Speculation",
            "fast": "decode_fast",
            "lambda_grid": "Forks decode_variants",
            "plain": "decode sampling_groups",
            "settings": "Decoded DecodeSettings Hooks Work",
        },
    )

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
