"""Settings of the jobs.  Light to import: the command line shows their defaults without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from springback.core import Recipe

PROBES = ("margin", "kl", "bits_per_byte", "sentiment")


@dataclass(frozen=True)
class AuditSettings:
    """One study.  The defaults are the bare command's but for the seeds, of which it takes one.

    ``doses`` are numbers of perturbing examples (multiples of the batch size); 0 is always
    measured.  ``resistance_rows`` 0 leaves the resistance experiment out.
    """

    model: str = "smollm2-135m"
    revision: str | None = None
    align: str = "reviews:positive"
    perturb: str = "reviews:negative"
    fields: Mapping[str, str] = field(default_factory=dict)
    n_pos: tuple[int, ...] = (64, 128, 256)
    doses: tuple[int, ...] = (8, 16, 32, 64)
    seeds: tuple[int, ...] = (0, 1, 2)
    learning_rate: float = 1e-5
    batch_size: int = 8
    max_tokens: int = 64
    holdout: int = 32
    prompts: int = 24
    prompt_tokens: int = 12
    sample_tokens: int = 24
    probes: tuple[str, ...] = PROBES
    resistance_rows: int = 48
    precision: str = "auto"
    probe_precision: str = "float32"
    save_every: float = 45.0

    def recipe(self, seed: int) -> Recipe:
        return Recipe(
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            max_tokens=self.max_tokens,
            seed=seed,
            precision=self.precision,
        )


@dataclass(frozen=True)
class BoostSettings:
    """One boost: either ``early`` and ``ft``, or ``model`` and ``train`` (it then fine-tunes).

    ``lam_cd`` are the candidates of CD only (strong: fine-tuned, weak: early), which has a search
    of its own.  ``tolerance`` is what "no gain" means, as a share of questions.
    """

    validation: str = "problems"
    test: str = "problems"
    early: str | None = None
    ft: str | None = None
    model: str | None = None
    train: str | None = None
    train_rows: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    metric: str = "number"
    mu: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    lam: tuple[float, ...] = (0.5, 1.0, 2.0)
    lam_cd: tuple[float, ...] = (0.1, 0.2, 0.5)
    alpha: float = 0.1
    validation_rows: int | None = None
    test_rows: int | None = None
    max_new_tokens: int = 160
    max_tokens: int = 512
    batch_size: int = 32
    system: str | None = None
    learning_rate: float = 1e-5
    train_batch_size: int = 16
    epochs: int = 2
    precision: str = "auto"
    tolerance: float = 0.01
    seed: int = 0
    write_model: bool = True

    def recipe(self) -> Recipe:
        return Recipe(
            learning_rate=self.learning_rate,
            batch_size=self.train_batch_size,
            epochs=self.epochs,
            max_tokens=self.max_tokens,
            seed=self.seed,
            precision=self.precision,
        )
