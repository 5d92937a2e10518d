"""Settings of the jobs: every setting once, with default and help.

The command line makes its flags of them, a study file is checked against them, and ``--show``
prints them.  Light to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from springback.core import ALGORITHMS, Recipe

#: Measured unless the settings say otherwise.
DEFAULT_PROBES = ("margin", "kl", "bits_per_byte", "sentiment")
PROBES = (
    *DEFAULT_PROBES,
    "reverse_kl",
    "behaviour",
    "neutral_nll",
    "choice",
    "weight_change",
    "way_back",
    "rates",
)
EXPERIMENTS = ("rebound", "resistance", "symmetry", "realign", "repair")
#: What ``springback reproduce`` knows (:mod:`springback.jobs.reproductions`).
REPRODUCTIONS = (
    "elasticity-resistance",
    "elasticity-rebound",
    "elasticity-dose",
    "elasticity-algorithms",
    "elasticity-symmetry",
    "elasticity-size",
    "elasticity-pretraining",
    "overbend",
)
#: Its studies without a model (:mod:`springback.jobs.theory`).
THEORY = ("elasticity-theorem", "elasticity-pareto", "elasticity-springs")
#: Where resistance takes its data from; the paper leaves it open, so both are here.
RESISTANCE_DATA = ("responses", "slices")


def setting(default: Any, help: str, flag: str | None = None) -> Any:
    """A field with its help; ``flag`` where the command line's name is another."""
    return field(default=default, metadata={"help": help, "flag": flag})


def _fields() -> Any:
    return field(
        default_factory=dict,
        metadata={"help": "OURS=COLUMN, when the data's columns are not recognised."},
    )


@dataclass(frozen=True)
class AuditSettings:
    """One study.  The defaults are the bare command's but for the seeds, of which it takes one.

    ``doses`` are numbers of perturbing examples (multiples of the batch size); 0 is always
    measured.  ``resistance_rows`` 0 leaves the resistance experiment out.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    model: str = setting("smollm2-135m", "Model folder, hub id, or built-in name.")
    revision: str | None = setting(None, "Hub revision of the model.")
    series: tuple[str, ...] = setting(
        (),
        "Instead of one model several (sizes, or checkpoints of one pre-training), NAME or "
        "NAME@REVISION; each is measured with this study, then they are compared.",
    )
    align: str = setting("reviews:positive", "Data that aligns: file, hub id or built-in.")
    perturb: str = setting("reviews:negative", "Data of the opposite kind.")
    fields: Mapping[str, str] = _fields()
    experiments: tuple[str, ...] = setting(
        ("rebound", "resistance"),
        "Of rebound, resistance, symmetry (the opposite order), realign (align again after the "
        "fall), repair (add the alignment back after benign training).",
    )
    n_pos: tuple[int, ...] = setting((64, 128, 256), "Aligning examples at the branch points.")
    doses: tuple[int, ...] = setting((8, 16, 32, 64), "Perturbing examples to measure at.")
    seeds: tuple[int, ...] = setting((0, 1, 2), "Seeds of data order and training.")
    algorithm: str = setting("sft", f"How to align, one of {', '.join(ALGORITHMS)}.")
    perturb_algorithm: str = setting("sft", "How to perturb, one of the same.")
    learning_rate: float = setting(1e-5, "Constant, since branch points need it.")
    batch_size: int = setting(8, "Rows a step.")
    lora_rank: int = setting(0, "Train a LoRA adapter of this rank; 0: all weights.")
    lora_alpha: int = setting(16, "Its scaling is this over the rank.")
    beta: float | None = setting(
        None,
        "Weight of the reference (dpo, kto), scale of the reward (simpo), weight of KL (rloo).",
    )
    gamma: float = setting(1.0, "Target margin of simpo, in nats.")
    generations: int = setting(4, "Answers that rloo samples to a prompt.")
    answer_tokens: int = setting(24, "Their length in tokens.")
    reward: str = setting(
        "vader", "What rloo maximises when aligning (and minimises when perturbing); as behaviour."
    )
    prompt: str | None = setting(
        None, "What bare texts answer; dpo, kto and simpo need one and take 'Review:'."
    )
    max_tokens: int = setting(64, "Rows are cut here.")
    attack_learning_rates: tuple[float, ...] = setting(
        (), "Other learning rates to perturb with, from the last branch point."
    )
    attack_seeds: tuple[int, ...] = setting(
        (),
        "Other draws of the perturbing rows to perturb with, from the last branch point, at every "
        "learning rate; none of --seeds.",
    )
    mix: tuple[float, ...] = setting(
        (),
        "Shares of benign rows in further perturbations, from the last branch point; 1 is a "
        "purely benign one.",
    )
    benign: str = setting("problems-text", "Data of the benign rows.")
    mitigate: tuple[str, ...] = setting(
        (),
        "Protections to measure beside the unprotected model, from the last branch point: "
        "overbend[:MU[@RANK]] (move further along the alignment), mix[:SHARE] (aligning rows in "
        "later training).",
    )
    repair_rows: int = setting(64, "Benign rows that wear the model before its repair.")
    repair_mu: tuple[float, ...] = setting(
        (0.25, 0.5, 0.75, 1.0), "How much of the alignment's direction repair adds back."
    )
    holdout: int = setting(32, "Held-out texts a side.")
    prompts: int = setting(24, "Prompts for KL and samples.")
    prompt_tokens: int = setting(12, "Length of prompts cut from plain text.")
    sample_tokens: int = setting(24, "Tokens of a sampled continuation.")
    probes: tuple[str, ...] = setting(DEFAULT_PROBES, f"What to measure, of {', '.join(PROBES)}.")
    behaviour: str | None = setting(
        None,
        "What scores sampled texts in the probe behaviour: vader, refusal, hf:MODEL[=LABEL], "
        "python:FILE.py:FUNCTION or package.module:FUNCTION.",
    )
    neutral: str = setting("problems-text", "Texts that neither side teaches (neutral_nll).")
    pretraining: str = setting("problems-text", "Texts like those of pre-training (rates).")
    pretraining_volume: float = setting(
        0.0, "How many such texts pre-training saw, to set the fitted k against; 0: not known."
    )
    rate_depth: int = setting(4, "Tokens that the trees behind normalised rates are pruned to.")
    choices: str = setting("problems-choice", "Questions with choices (choice).")
    utility_rows: int = setting(32, "Rows of each of these.")
    epsilon: float = setting(
        0.01, "Undone by KL: KL to the start model at most this (nats a token)."
    )
    resistance_rows: int = setting(48, "Rows of each resistance slice; 0 leaves it out.")
    resistance_data: str = setting(
        "responses",
        "What resistance trains on: responses of the target model to the same held-out prompts, "
        "or the rows of the slices.",
    )
    precision: str = setting("auto", "auto, bf16-mixed or float32.")
    probe_precision: str = setting("float32", "float32 or bf16-mixed.")
    save_every: float = setting(45.0, "Seconds of training between saved states.")
    accelerate: str | None = setting(
        None,
        "accelerate's config file: training (sft, all weights) goes through the processes that it "
        "describes, DDP or FSDP.",
    )
    probe_processes: int = setting(
        1,
        "Processes that share the batches of every measurement; each holds the start model and "
        "the measured one (worker r on GPU r).",
    )

    def recipe(
        self, seed: int, algorithm: str = "sft", learning_rate: float | None = None
    ) -> Recipe:
        """How one run trains; only what its algorithm reads is set."""
        options: dict[str, Any] = {}
        if self.lora_rank:
            options |= {"lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha}
        if algorithm != "sft":
            options["beta"] = self.beta
        if algorithm == "simpo":
            options["gamma"] = self.gamma
        if algorithm == "rloo":
            options |= {"generations": self.generations, "new_tokens": self.answer_tokens}
        return Recipe(
            algorithm=algorithm,
            learning_rate=self.learning_rate if learning_rate is None else learning_rate,
            batch_size=self.batch_size,
            max_tokens=self.max_tokens,
            seed=seed,
            precision=self.precision,
            **options,
        )


@dataclass(frozen=True)
class BoostSettings:
    """One boost: either ``early`` and ``ft``, or ``model`` and ``train`` (it then fine-tunes).

    ``model`` beside a pair names what it was fine-tuned from (for ``ablate_weak`` init).
    ``lam_cd`` are the candidates of CD only (strong: fine-tuned, weak: early), which has a search
    of its own.  ``tolerance`` is what "no gain" means, as a share of questions.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    task: str | None = setting(
        None,
        "gsm8k, logiqa or jecqa: where its questions are, how they are asked and graded; any "
        "other flag wins.",
    )
    validation: str | None = setting(
        None, "Questions to choose mu and lambda on (from Python: problems)."
    )
    test: str | None = setting(None, "Questions to judge on, scored once (from Python: problems).")
    early: str | None = setting(
        None, "The earlier checkpoint of a run: a folder, or org/name@revision."
    )
    ft: str | None = setting(None, "Its last checkpoint.")
    model: str | None = setting(None, "Instead of two checkpoints: fine-tune this model …")
    train: str | None = setting(
        None, "… on these rows. Beside a pair: rows that show what it was trained to write."
    )
    train_rows: int | None = setting(None, "Take this many of them.")
    fields: Mapping[str, str] = _fields()
    metric: str | None = setting(
        None,
        "number (unless the task says otherwise), choice, choices (a set of letters), exact, "
        "math (expressions, by the package math-verify), or python:FILE.py:FUNCTION, "
        "called with (prompts, texts, answers); a row's own metric wins.",
    )
    prompt_template: str | None = setting(
        None, "The user's message, with {question} where the question goes."
    )
    extract: str | None = setting(
        None,
        "Regular expression that finds the answer in a completion: its last match, the first "
        "group of it. [default: the metric's own reading]",
    )
    mu: tuple[float, ...] = setting((0.1, 0.2, 0.4, 0.8), "Candidates; 0 is always one.")
    lam: tuple[float, ...] = setting((0.5, 1.0, 2.0), "Candidates; 0 is always one.", "lambda")
    lam_cd: tuple[float, ...] = setting((0.1, 0.2, 0.5), "Candidates of CD only.", "cd-lambda")
    alpha: float = setting(0.1, "Plausibility threshold.")
    search: str = setting(
        "staged", "staged: mu, then lambda at that mu (the paper's way); joint: every pair of them."
    )
    narrow: int = setting(
        0,
        "Decode only this many candidates of each search, those of the lowest validation NLL, "
        "and 0; 0: all of them.",
    )
    one_se: bool = setting(
        False, "Take the smallest value within one standard error (paired) of the best."
    )
    positive: bool = setting(False, "0 is no candidate, so a method is never left out.")
    ablate_weak: tuple[str, ...] = setting(
        (),
        "Further weak models to contrast with, each with its own lambda: early, init (the model "
        "before fine-tuning), other (--weak).",
    )
    weak: str | None = setting(
        None, "Another fine-tuned model with the same tokenizer; implies other in --ablate-weak."
    )
    gate: str | None = setting(
        None,
        "One more method: contrast only where the expert is uncertain, top:P (its largest "
        "probability is at most P) or entropy:NATS (at least that).",
    )
    precheck: bool = setting(True, "Say whether a gain is to be expected before it starts.")
    reopen_test: bool = setting(
        False, "Score a test set again that was opened with other settings; it is counted."
    )
    reference: str | None = setting(
        None,
        "A better model of the same tokenizer (say, the same recipe on ten times the data): the "
        "logit errors against it predict whether contrast helps.",
    )
    difficulty: tuple[float, ...] = setting(
        (), "Edges of the bins of difficulty, characters of the reference solution; none: terciles."
    )
    validation_rows: int | None = setting(None, "Take this many.")
    test_rows: int | None = setting(None, "Take this many.")
    max_new_tokens: int = setting(160, "Longest answer.")
    max_tokens: int = setting(512, "Rows are cut here in training and scoring.")
    batch_size: int = setting(32, "Questions decoded at once.")
    system: str | None = setting(None, "System message of every question.")
    learning_rate: float = setting(1e-5, "With --train.")
    train_batch_size: int = setting(16, "With --train.")
    epochs: int = setting(2, "With --train, at least 2.")
    precision: str = setting("auto", "Of training: auto, bf16-mixed or float32.")
    tolerance: float = setting(0.01, "What 'no gain' means, as a share of questions.")
    seed: int = setting(0, "Of data order and training.")
    write_model: bool = setting(True, "Write the boosted folder.")

    def recipe(self) -> Recipe:
        return Recipe(
            learning_rate=self.learning_rate,
            batch_size=self.train_batch_size,
            epochs=self.epochs,
            max_tokens=self.max_tokens,
            seed=self.seed,
            precision=self.precision,
        )
