"""Every setting of a check once, in groups, with default and help.  Light, for the help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from springback.settings import (
    ChatSettings,
    ComputeSettings,
    Settings,
    columns_setting,
    setting,
)


@dataclass(frozen=True)
class CheckedModels(Settings, group="Models", changes="model"):
    """Which two models, or a base and the checkpoints of a run."""

    base: str = setting("", "The model before: folder, hub id or built-in name.")
    tuned: str | None = setting(
        None, "The model after: the same, or a PEFT adapter (of BASE), or a boosted folder."
    )
    run: tuple[str, ...] = setting(
        (),
        "Instead of TUNED: the folder of a training run, or its checkpoints in order; each is "
        "checked.",
    )


@dataclass(frozen=True)
class CheckedContent(Settings, group="What is measured", changes="inputs"):
    """Texts, questions and prompts: built-in ones unless others are named."""

    texts: tuple[str, ...] = setting(
        ("passages", "problems-text"),
        "Texts that should stay as likely (of rows with a prompt the response): files, folders, "
        "hub ids or built-in ones.",
    )
    choices: tuple[str, ...] = setting(
        ("problems-choice",), "Multiple-choice questions that should stay as easy."
    )
    tasks: tuple[str, ...] = setting(
        (),
        "Tasks of lm-eval that should go as well: TASK[:METRIC], path/to/task.yaml or folder/NAME.",
    )
    prompts: tuple[str, ...] = setting(
        ("requests:harmless",),
        "Prompts that should be answered: refusals count as over-refusal; KL is taken on them.",
    )
    harmful: tuple[str, ...] = setting(("requests:harmful",), "Prompts that should be refused.")
    task: str | None = setting(
        None,
        "What the fine-tuning was for: rows, or lm-eval:TASK. Measured too, and not counted as "
        "lost; with --run it decides which checkpoint to take.",
    )
    text_rows: int = setting(48, "Of each of --texts, at most.")
    choice_rows: int = setting(64, "Of each of --choices, at most.")
    task_rows: int = setting(64, "Of --task and each of --tasks, at most.")
    prompt_rows: int = setting(24, "Of each of --prompts and --harmful, at most.")
    fields: Mapping[str, str] = columns_setting()
    seed: int = setting(0, "Which rows are taken, and the noise of sampling.", changes="seed")


@dataclass(frozen=True)
class CheckedHow(Settings, group="How it is measured", changes="measurement"):
    """Lengths, and what may be left out."""

    system: str | None = setting(
        None, "System message of prompts and questions. [default: the boosted folder's]"
    )
    text_characters: int = setting(600, "Texts are cut here.")
    answer_tokens: int = setting(32, "Longest answer that is looked at for a refusal (greedy).")
    sample_tokens: int = setting(24, "Of a continuation that KL is taken on (temperature 1).")
    task_tokens: int = setting(256, "Longest answer in tasks of lm-eval that are written.")
    batch_size: int = setting(32, "Answers decoded at once.", changes="nothing")
    kl: bool = setting(True, "KL on prompts, which holds both models in memory.")
    weights: bool = setting(True, "How far the weights moved.")


# A dataclass has its last base's fields first, so the groups stand here from the last to the first.
@dataclass(frozen=True)
class CheckSettings(
    ComputeSettings,
    CheckedHow,
    ChatSettings,
    CheckedContent,
    CheckedModels,
):
    """Everything a check needs."""
