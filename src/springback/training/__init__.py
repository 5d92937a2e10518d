"""Fine-tuning: SFT, DPO, KTO, SimPO, ORPO and RLOO; full weights or LoRA.

Transformers' Trainer does SFT and TRL's trainers the rest; here are branch points, measuring on
the way, resume.  A run is a fixed list of batches.  At given numbers of examples a callback sees
the model: to keep a checkpoint, or to measure.  State goes to safetensors and JSON every
``save_every`` seconds, so that a killed run loses at most that much and ends in exactly the same
weights.
"""

from typing import TYPE_CHECKING

from springback.core import on_first_use

if TYPE_CHECKING:
    from springback.training.batches import Marks, OnMark, Resume, Trained, plan_batches
    from springback.training.examples import (
        Example,
        Examples,
        Labelled,
        Preference,
        Prompt,
        Reward,
        encode_labelled,
        encode_preferences,
        encode_prompts,
        labelled_rows,
        preference_rows,
        with_prompt,
    )
    from springback.training.lora import Lora, add_lora, drop_lora, has_lora, merge_lora, reset_lora
    from springback.training.recipes import NEUTRAL_PROMPT, check_recipe
    from springback.training.run import finetune
else:
    __getattr__ = on_first_use(
        __name__,
        {
            "batches": "Marks OnMark Resume Trained plan_batches",
            "examples": "Example Examples Labelled Preference Prompt Reward encode_labelled "
            "encode_preferences encode_prompts labelled_rows preference_rows "
            "with_prompt",
            "lora": "Lora add_lora drop_lora has_lora merge_lora reset_lora",
            "recipes": "NEUTRAL_PROMPT check_recipe",
            "run": "finetune",
        },
    )

__all__ = [
    "NEUTRAL_PROMPT",
    "Example",
    "Examples",
    "Labelled",
    "Lora",
    "Marks",
    "OnMark",
    "Preference",
    "Prompt",
    "Resume",
    "Reward",
    "Trained",
    "add_lora",
    "check_recipe",
    "drop_lora",
    "encode_labelled",
    "encode_preferences",
    "encode_prompts",
    "finetune",
    "has_lora",
    "labelled_rows",
    "merge_lora",
    "plan_batches",
    "preference_rows",
    "reset_lora",
    "with_prompt",
]
