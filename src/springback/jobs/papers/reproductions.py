"""What can be reproduced: the papers' tables and figures, each with the studies that measure it.

``small`` runs here on built-in data; ``paper`` names the papers' models and sets by hub id and
wants their hardware (it was not run for this version).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from springback.errors import SpringbackError
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.studies import NamedStudy, by_model
from springback.jobs.papers.claims import Claim

SMALL = AuditSettings()
#: The paper's scores of sampled texts: the share that a Sentiment-RoBERTa calls positive (we take
#: the model that goes by this name), and BeaverTails' cost model on single turns.
SENTIMENT = "hf:siebert/sentiment-roberta-large-english=POSITIVE+share"
COST = "score:PKU-Alignment/beaver-7b-v1.0-cost"
#: 7B models: IMDb, and the paper's numbers of examples: n_pos of 1000 to 10000, n_neg of 100, 200,
#: 500, 1000 and 2000, in whole batches, with marks of ours between them.
LARGE = replace(
    SMALL,
    probes=("margin", "kl", "bits_per_byte", "behaviour"),
    behaviour=SENTIMENT,
    align="stanfordnlp/imdb?label=1",
    perturb="stanfordnlp/imdb?label=0",
    n_pos=(1000, 2000, 5000, 10000),
    doses=(104, 200, 304, 400, 504, 600, 704, 800, 904, 1000, 1200, 1504, 2000),
    max_tokens=512,
    holdout=256,
    prompts=128,
)
LLAMA, GEMMA = "meta-llama/Llama-2-7b-hf", "google/gemma-2b"
#: Safe and unsafe answers, many of them to one prompt.
BEAVERTAILS = "PKU-Alignment/BeaverTails#330k_train"
LARGE_SAFETY = replace(
    LARGE,
    align=f"{BEAVERTAILS}?is_safe=true",
    perturb=f"{BEAVERTAILS}?is_safe=false",
    behaviour=COST,
)

#: No source gives how the paper trained, so every reproduction of it says so.
OURS = (
    "Ours, since no source gives them: learning rates, batch sizes, epochs, lengths of texts, "
    "numbers of held-out texts and prompts, and seeds; at the small scale also models, data and "
    "the grids of n_pos and n_neg. At the paper's scale n_pos is the paper's; its n_neg of 100, "
    "200, 500, 1000 and 2000 are taken to whole batches, and the marks between them are ours."
)
FIGURES_ONLY = "The paper has figures for this; none of their numbers could be had."

Quantities = tuple[str, ...]
REBOUND: Quantities = ("gain", "share_lost", "rebound_slope", "share_slope", "half_life_dose")


@dataclass(frozen=True, kw_only=True)
class Reproduction(Claim[AuditSettings]):
    """A claim of paper A and the audits that test it.

    ``small`` and ``paper`` make the studies of a scale from settings whose fields a user may have
    changed; ``columns`` are the card's quantities that answer the question.
    """

    columns: Quantities
    small: Callable[[AuditSettings], list[NamedStudy]]
    paper: Callable[[AuditSettings], list[NamedStudy]]
    source: str = "Ji et al. 2025"
    ours: str = OURS
    begin: Mapping[str, AuditSettings] = field(
        default_factory=lambda: {"small": SMALL, "paper": LARGE}
    )
    #: Volumes (rows) to pre-train a small model on, whose checkpoints are the small scale's series.
    volumes: tuple[int, ...] = ()
    #: Whether the measured table has a column for each number of aligning examples.
    by_amount: bool = False

    def studies(
        self, scale: str, settings: AuditSettings, given: Collection[str]
    ) -> list[NamedStudy]:
        """The studies of a scale; ``given``: which settings are the user's own.

        A series that was given takes the place of the models.  Raises :class:`SpringbackError`
        where a single model was given and there are several.
        """
        if settings.series:
            studies = by_model(settings)
        else:
            studies = (self.small if scale == "small" else self.paper)(settings)
        models = [study.settings.model for study in studies]
        if "model" in given and (not models or {*models} != {settings.model}):
            named = f"measures {', '.join(models)}" if models else "pre-trains models of its own"
            raise SpringbackError(
                f"--model is {settings.model}, but at {scale} scale this reproduction {named}; "
                "allowed: --series A,B with models of yours; leave --model out"
            )
        return studies


def _models(*names: str) -> Callable[[AuditSettings], list[NamedStudy]]:
    """The same study of several models."""

    def make(settings: AuditSettings) -> list[NamedStudy]:
        studies = []
        for name in names:
            model, _, revision = name.partition("@")
            studies.append(
                NamedStudy(name, replace(settings, model=model, revision=revision or None))
            )
        return studies

    return make


def _both_sets(*names: str) -> Callable[[AuditSettings], list[NamedStudy]]:
    """Every model on film reviews and on safety; on the user's own data alone if there is some."""

    def make(settings: AuditSettings) -> list[NamedStudy]:
        if (settings.align, settings.perturb) != (LARGE.align, LARGE.perturb):
            return _models(*names)(settings)
        safety = replace(settings, align=LARGE_SAFETY.align, perturb=LARGE_SAFETY.perturb)
        if settings.behaviour == SENTIMENT:
            safety = replace(safety, behaviour=COST)
        sets = {"IMDb": settings, "BeaverTails": safety}
        return [
            NamedStudy(f"{study.name}, {data}", study.settings)
            for data, on in sets.items()
            for study in _models(*names)(on)
        ]

    return make


def _both_orders(settings: AuditSettings) -> list[NamedStudy]:
    """The study, and the same with the two sides exchanged."""
    turned = replace(settings, align=settings.perturb, perturb=settings.align)
    return [NamedStudy("positive first", settings), NamedStudy("negative first", turned)]


def _one(settings: AuditSettings) -> list[NamedStudy]:
    return [NamedStudy(settings.model, settings)]


def _variants(**by_name: Mapping[str, Any]) -> Callable[[AuditSettings], list[NamedStudy]]:
    """Studies that differ in some settings."""

    def make(settings: AuditSettings) -> list[NamedStudy]:
        return [NamedStudy(name, replace(settings, **change)) for name, change in by_name.items()]

    return make


def _by_algorithm(*names: str) -> Callable[[AuditSettings], list[NamedStudy]]:
    """Every model aligned by SFT, then every model aligned by DPO."""

    def make(settings: AuditSettings) -> list[NamedStudy]:
        by_dpo = _models(*names)(replace(settings, algorithm="dpo"))
        return [
            *_models(*names)(settings),
            *(replace(study, name=f"{study.name}, DPO") for study in by_dpo),
        ]

    return make


#: Settings by algorithm beside SFT's.  RLOO's gradient is the noisiest: twice its usual answers.
_MORE: dict[str, dict[str, Any]] = {"dpo": {}, "kto": {}, "simpo": {}, "rloo": {"generations": 8}}
#: One learning rate for all steps.  Sources differ on whether the other algorithms take SFT's place
#: when aligning or on the way back, so both readings are measured, each beside SFT both ways.
_ALGORITHMS = _variants(
    **{
        "sft": {},
        **{name: {"algorithm": name, **more} for name, more in _MORE.items()},
        **{
            f"sft, reversed by {name}": {"perturb_algorithm": name, **more}
            for name, more in _MORE.items()
        },
    }
)
_RESISTANCE = replace(
    SMALL, n_pos=(8,), doses=(8,), resistance_rows=64, probes=("margin",), controls=()
)


def _bridge(base: AuditSettings) -> AuditSettings:
    """Protections before the perturbation, and repair after benign training.

    The doses are large, since a dose that is not reached says little.
    """
    large = base is LARGE
    return replace(
        base,
        n_pos=base.n_pos[-1:],
        doses=base.doses if large else (8, 16, 32, 64, 96, 128),
        experiments=("rebound", "repair"),
        controls=(),
        resistance_rows=0,
        mitigate=(
            *(f"overbend:{mu}" for mu in ("0.25", "0.5", "1")),
            "overbend:0.5@8",
            "overbend:1@8",
            *(f"mix:{share}" for share in ("0.12", "0.2", "0.5")),
        ),
        repair_rows=1000 if large else 64,
        probes=("margin", "kl", "bits_per_byte", "neutral_nll", "choice"),
        behaviour=None,
    )


REPRODUCTIONS: dict[str, Reproduction] = {
    "elasticity-resistance": Reproduction(
        question="Is going back easier than going forward (section A2, their Table 1)?",
        finding="The inverse loss was below the forward loss in all 27 cells: three base models, "
        "three data sets, three pairs of checkpoints of one epoch of SFT.",
        columns=("resistance_ratio",),
        small=_one,
        paper=_models(LLAMA, "meta-llama/Llama-2-13b-hf", "meta-llama/Meta-Llama-3-8B"),
        published=(
            ("Alpaca", "2->1 against 1->2", "3->2 against 2->3", "3->1 against 1->3"),
            ("Llama2-7B", "0.159 against 0.202", "0.195 against 0.214", "0.167 against 0.235"),
            ("Llama2-13B", "0.177 against 0.196", "0.215 against 0.241", "0.184 against 0.235"),
            ("Llama3-8B", "0.254 against 0.257", "0.227 against 0.323", "0.234 against 0.323"),
        ),
        further=(
            (
                ("forward minus inverse loss", "smallest", "largest", "cells known here"),
                ("all 27 cells (Alpaca, TruthfulQA, BeaverTails)", "0.0002", "0.096", "9"),
            ),
            (
                ("change of KL, Llama2-7B (second table)", "inverse", "forward"),
                ("first of 7 pairs", "0.2796", "0.4568"),
            ),
        ),
        unknown="Of the 27 cells the nine of Alpaca could be had; of the 18 of TruthfulQA and "
        "BeaverTails only that inverse was lower, and the gaps' limits. A second table has the "
        "change of KL at finer checkpoints: forward was above inverse in all 7 pairs, of which the "
        "first could be had. No seeds and no variance are given.",
        begin={
            "small": _RESISTANCE,
            "paper": replace(
                _RESISTANCE,
                align="tatsu-lab/alpaca",
                resistance_rows=1000,
                resistance_tokens=512,
                max_tokens=512,
            ),
        },
    ),
    "elasticity-rebound": Reproduction(
        question="Does a model fall faster the further it was aligned (section A3)?",
        finding="More positive data, a steeper fall; first fast, then slow: the first negatives "
        "take more and the curve flattens sooner. On IMDb (share of continuations that a sentiment "
        "classifier calls positive) the curves go past the pre-trained level, on BeaverTails (cost "
        "model, single-turn) they approach it.",
        unknown=FIGURES_ONLY,
        columns=REBOUND,
        small=_one,
        paper=_both_sets(LLAMA, GEMMA),
    ),
    "elasticity-dose": Reproduction(
        question="How many opposite examples undo an alignment (section A3, their Table 3)?",
        finding="The more alignment, the fewer examples until KL to the start is under 0.01.",
        columns=("kl_dose", "half_life_dose", "dose_to_undo"),
        small=_one,
        paper=_models(LLAMA, GEMMA),
        published=(
            ("BeaverTails", "1000 safe", "2000", "5000", "10000"),
            ("Llama2-7B: KL after alignment", "0.21", "0.22", "0.26", "0.27"),
            ("Llama2-7B: unsafe examples needed", "961", "844", "801", "729"),
            ("Gemma-2B: KL after alignment", "0.18", "0.21", "0.24", "0.25"),
            ("Gemma-2B: unsafe examples needed", "923", "853", "709", "598"),
        ),
        begin={
            "small": replace(SMALL, probes=(*SMALL.probes, "reverse_kl")),
            "paper": replace(LARGE_SAFETY, probes=(*LARGE.probes, "reverse_kl")),
        },
        by_amount=True,
    ),
    "elasticity-algorithms": Reproduction(
        question="Is it the same with DPO, KTO, SimPO and an online algorithm in SFT's place, when "
        "aligning and on the way back?",
        finding="The same with PPO, DPO, KTO and SimPO (appendix). Sources differ on whether they "
        "take SFT's place in the aligning or in the reverse step; both are measured.",
        unknown=FIGURES_ONLY,
        columns=REBOUND,
        small=_ALGORITHMS,
        paper=_ALGORITHMS,
        begin={
            "small": replace(SMALL, prompt="Review:", resistance_rows=0),
            "paper": replace(LARGE, model=LLAMA, prompt="Review:", resistance_rows=0),
        },
    ),
    "elasticity-symmetry": Reproduction(
        question="Is it the same with negative first and positive second?",
        finding="Symmetric.",
        unknown=FIGURES_ONLY,
        columns=REBOUND,
        small=_both_orders,
        paper=_both_orders,
        begin={
            "small": replace(SMALL, resistance_rows=0),
            "paper": replace(LARGE, model=LLAMA, resistance_rows=0),
        },
    ),
    "elasticity-size": Reproduction(
        question="Do larger models fall faster?",
        finding="Larger models fell faster (Qwen1.5 0.5B, 4B, 7B), by SFT and by DPO.",
        unknown=FIGURES_ONLY,
        columns=REBOUND,
        small=_by_algorithm("smollm2-135m", "gemma3-270m"),
        paper=_by_algorithm("Qwen/Qwen1.5-0.5B", "Qwen/Qwen1.5-4B", "Qwen/Qwen1.5-7B"),
    ),
    "elasticity-pretraining": Reproduction(
        question="Do models that saw more pre-training text fall faster?",
        finding="Barely there at 0.1T tokens, clear from 0.5T on (TinyLlama; 2.0T, 2.5T and 3.0T "
        "in the main text, 0.1T, 0.5T and 1.0T in the appendix).",
        unknown=FIGURES_ONLY,
        columns=REBOUND,
        small=lambda settings: [],  # made of the checkpoints that are pre-trained first
        paper=_models(
            "TinyLlama/TinyLlama-1.1B-step-50K-105b",
            "TinyLlama/TinyLlama-1.1B-intermediate-step-240k-503b",
            "TinyLlama/TinyLlama-1.1B-intermediate-step-480k-1T",
            "TinyLlama/TinyLlama-1.1B-intermediate-step-955k-token-2T",
            "TinyLlama/TinyLlama-1.1B-intermediate-step-1195k-token-2.5T",
            "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
        ),
        begin={"small": replace(SMALL, learning_rate=3e-4), "paper": LARGE},
        volumes=(512, 2048, 8192),
    ),
    "overbend": Reproduction(
        question="Does moving further along an alignment (paper B) make it harder to undo (paper "
        "A), what does it cost, and does it repair an alignment that benign training wore?",
        finding="Neither paper asked; paper A proposes to mix aligning data into later training.",
        ours="All of it is ours: no paper measured this.",
        columns=("gain", "share_lost", "half_life_dose"),
        small=_one,
        paper=_both_sets(LLAMA, GEMMA),
        begin={"small": _bridge(SMALL), "paper": _bridge(LARGE)},
    ),
}
