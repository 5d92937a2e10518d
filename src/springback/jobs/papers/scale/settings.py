"""Settings of the life-cycle study.  Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from springback.jobs.audit.settings import AuditSettings
from springback.settings import Settings, setting

NAME = "elasticity-scale"


@dataclass(frozen=True)
class ScaleSettings(Settings, group="elasticity-scale"):
    """Llama-style models from scratch: every size at every volume of pre-training, for each seed.

    A size is ``WIDTHxLAYERS``; volumes are rows seen.
    """

    sizes: tuple[str, ...] = setting(
        ("32x2", "64x3", "112x4", "192x5"), "Models of elasticity-scale, WIDTHxLAYERS."
    )
    volumes: tuple[int, ...] = setting(
        (512, 1024, 2048, 4096, 8192), "Rows of pre-training to measure it at."
    )
    corpus: str | None = setting(
        None, "Text to pre-train on: file, hub id; without it built-in problems and reviews."
    )
    vocabulary: int = setting(1024, "Tokens of the tokenizer that is trained on that text.")
    pretraining_rate: float = setting(2e-3, "Learning rate of pre-training.")


#: What the study of each cell begins from: a dose that undoes much of what little models learn.
CELL = AuditSettings(
    n_pos=(128,),
    doses=(8, 16, 32, 64, 128),
    learning_rate=1e-3,
    batch_size=8,
    max_tokens=128,
    holdout=32,
    prompts=16,
    experiments=("rebound",),
    resistance_rows=0,
    probes=("margin", "kl", "neutral_nll"),
    controls=(),  # no quantity of the study reads them
    precision="float32",
)
#: ``paper`` is the larger scale, for a GPU; it was not run for this version.
BEGIN = {
    "small": (ScaleSettings(), CELL),
    "paper": (
        ScaleSettings(
            sizes=("128x4", "256x8", "512x12", "1024x16"),
            volumes=(4096, 16384, 65536, 262144, 1048576),
            vocabulary=8192,
            pretraining_rate=1e-3,
        ),
        AuditSettings(
            n_pos=(512,),
            doses=(16, 32, 64, 128, 256, 512),
            learning_rate=3e-4,
            batch_size=16,
            max_tokens=128,
            holdout=128,
            prompts=64,
            seeds=(0, 1, 2, 3, 4),
            experiments=("rebound",),
            resistance_rows=0,
            probes=("margin", "kl", "neutral_nll"),
            controls=(),
        ),
    ),
}
