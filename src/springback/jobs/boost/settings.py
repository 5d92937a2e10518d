"""Every setting of a boost once, in groups, with default and help.  Light, for the help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from springback.core import Recipe
from springback.settings import (
    ENGINES,
    ChatSettings,
    ComputeSettings,
    Settings,
    activations_setting,
    columns_setting,
    lora_alpha_setting,
    lora_rank_setting,
    setting,
)


@dataclass(frozen=True)
class QuestionSettings(Settings, group="Questions", changes="inputs"):
    """The questions: where they are, how they are put, how answers are graded."""

    task: str | None = setting(
        None,
        "gsm8k, logiqa or jecqa: where its questions are, how they are asked and graded; any "
        "other flag wins.",
        changes="prompt",
    )
    validation: str | None = setting(
        None, "Questions to choose mu and lambda on (from Python: problems)."
    )
    test: str | None = setting(None, "Questions to judge on, scored once (from Python: problems).")
    validation_rows: int | None = setting(None, "Take this many.")
    test_rows: int | None = setting(None, "Take this many.")
    fields: Mapping[str, str] = columns_setting()
    metric: str | None = setting(
        None,
        "number (unless the task says otherwise), choice, choices (a set of letters), exact, "
        "math (expressions, by the package math-verify), lm-eval:TASK[:METRIC[,FILTER]] (questions "
        "too: a task's name, path/to/task.yaml, or folder/NAME), or python:FILE.py:FUNCTION, "
        "called with (prompts, texts, answers), which returns true or false a text, or scores "
        "from 0 to 1; a row's own metric wins.",
    )
    prompt_template: str | None = setting(
        None, "The user's message, with {question} where the question goes.", changes="prompt"
    )
    system: str | None = setting(None, "System message of every question.", changes="prompt")
    extract: str | None = setting(
        None,
        "Regular expression that finds the answer in a completion: its last match, the first "
        "group of it. [default: the metric's own reading]",
    )


@dataclass(frozen=True)
class CheckpointSettings(Settings, group="Checkpoints", changes="training"):
    """The two checkpoints: given, or trained from ``model`` on ``train``.

    ``model`` beside a given pair names what it was fine-tuned from (for ``ablate_weak`` init).
    """

    early: str | None = setting(
        None, "The earlier checkpoint of a run: a folder, or org/name@revision.", changes="model"
    )
    ft: str | None = setting(None, "Its last checkpoint.", changes="model")
    run: tuple[str, ...] = setting(
        (),
        "Instead of the two: the folder of a training run, or its checkpoints in order; each of "
        "them, their averages, rewinds and extrapolations are candidates.",
        changes="model",
        added=True,
    )
    model: str | None = setting(None, "Instead of two checkpoints: fine-tune this model …")
    train: str | None = setting(
        None, "… on these rows. Beside a pair: rows that show what it was trained to write."
    )
    train_rows: int | None = setting(None, "Take this many of them.")
    learning_rate: float = setting(1e-5, "With --train.")
    train_batch_size: int = setting(16, "With --train.")
    epochs: int = setting(2, "With --train, at least 2.")
    lora_rank: int = lora_rank_setting("With --train. ", added=True)
    lora_alpha: int = lora_alpha_setting(added=True)
    precision: str = setting("auto", "Of training: auto, bf16-mixed or float32.")
    checkpoint_activations: bool = activations_setting()
    seed: int = setting(0, "Of data order and training.", changes="seed")


@dataclass(frozen=True)
class StrengthSettings(Settings, group="Strengths and decoding", changes="decoding"):
    """Candidates for the strengths, and how answers are decoded.

    ``lam_cd`` are the candidates of CD only (strong: fine-tuned, weak: early), which has a search
    of its own.
    """

    mu: tuple[float, ...] = setting((0.1, 0.2, 0.4, 0.8), "Candidates; 0 is always one.")
    lam: tuple[float, ...] = setting((0.5, 1.0, 2.0), "Candidates; 0 is always one.", flag="lambda")
    lam_cd: tuple[float, ...] = setting((0.1, 0.2, 0.5), "Candidates of CD only.", flag="cd-lambda")
    alpha: float = setting(0.1, "Plausibility threshold.")
    max_new_tokens: int = setting(160, "Longest answer.")
    max_tokens: int = setting(512, "Rows are cut here in training and scoring.")
    batch_size: int | Literal["auto"] = setting(
        32, "Questions decoded at once; auto: as many as the memory allows."
    )
    samples: int = setting(
        1,
        "Answers sampled to each question, with the same noise under every method; a question's "
        "score is their mean.",
        added=True,
    )
    temperature: float | None = setting(
        None, "Of sampling. [default: greedy, 1 with several --samples]", added=True
    )


@dataclass(frozen=True)
class SearchSettings(Settings, group="Search and methods", changes="method"):
    """How the strengths are searched for, and further methods."""

    search: str = setting(
        "staged", "staged: mu, then lambda at that mu (the paper's way); joint: every pair of them."
    )
    narrow: int = setting(
        0,
        "Decode only this many candidates of each search, those of the lowest validation NLL, "
        "and 0; 0: all of them.",
    )
    choose_by: str = setting(
        "auto",
        "accuracy: expected accuracy, smoothed along the candidates; auto: the same, helped by the "
        "NLL of the reference solutions where validation shows that the two agree; nll: NLL alone; "
        "best: the best validation accuracy as it stands, as in the paper.",
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
        None,
        "Another fine-tuned model with the same tokenizer; implies other in --ablate-weak.",
        changes="inputs",
    )
    gate: str | None = setting(
        None,
        "One more method: contrast only where the expert is uncertain, top:P (its largest "
        "probability is at most P) or entropy:NATS (at least that).",
    )
    rewind: tuple[float, ...] = setting(
        (),
        "One more method that goes back from the fine-tuned model, by one of these shares of the "
        "last update (0.5 is the average of both checkpoints, 1 the early one).",
        added=True,
    )
    baselines: bool = setting(
        False,
        "Also test what a pair's cost could buy otherwise: a majority of samples (3 at least), the "
        "average of both models' probabilities, the best single checkpoint.",
        added=True,
    )


@dataclass(frozen=True)
class ProofSettings(Settings, group="Proof and results", changes="nothing"):
    """What is said of the gain, and what is written.

    ``tolerance`` is what "no gain" means, as a share of questions.
    """

    precheck: bool = setting(True, "Say whether a gain is to be expected before it starts.")
    reopen_test: bool = setting(
        False, "Score a test set again that was opened with other settings; it is counted."
    )
    reference: str | None = setting(
        None,
        "A better model of the same tokenizer (say, the same recipe on ten times the data): the "
        "logit errors against it predict whether contrast helps.",
        changes="measurement",
    )
    difficulty: tuple[float, ...] = setting(
        (),
        "Edges of the bins of difficulty, characters of the reference solution; none: terciles.",
        changes="measurement",
    )
    tolerance: float = setting(
        0.01, "What 'no gain' means, as a share of questions.", changes="verdict"
    )
    write_model: bool = setting(True, "Write the boosted folder.")
    keep_pair: bool = setting(
        False,
        "Write the contrasted pair also where it is not shown to be better than one plain model "
        "that goes as far.",
        added=True,
    )


@dataclass(frozen=True)
class EngineSettings(Settings, group="Engine", changes="nothing"):
    """What decodes and scores the arms, in the search and on the test alike."""

    engine: str = setting(
        "auto",
        f"{', '.join(ENGINES)}; auto is what made the folder's runs, in a new folder vLLM where "
        "there is CUDA and it is found.",
        added=True,
        changes="decoding",
    )
    vllm_python: str | None = setting(
        None,
        "The Python of an environment with vLLM and springback. [default: this one, "
        "SPRINGBACK_VLLM_PYTHON, what make vllm made]",
        added=True,
    )


# A dataclass has its last base's fields first, so the groups stand here from the last to the first.
@dataclass(frozen=True)
class BoostSettings(
    EngineSettings,
    ComputeSettings,
    ProofSettings,
    SearchSettings,
    StrengthSettings,
    CheckpointSettings,
    ChatSettings,
    QuestionSettings,
):
    """One boost: either ``early`` and ``ft``, or ``model`` and ``train`` (it then fine-tunes)."""

    def recipe(self) -> Recipe:
        return Recipe(
            lora_rank=self.lora_rank,
            lora_alpha=self.lora_alpha,
            learning_rate=self.learning_rate,
            batch_size=self.train_batch_size,
            epochs=self.epochs,
            max_tokens=self.max_tokens,
            seed=self.seed,
            precision=self.precision,
        )
