"""Two checkpoints of the tiny model, near each other."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from springback.jobs.boost.settings import BoostSettings


def save_pair(tiny_llama: Path, root: Path, dtype: torch.dtype) -> tuple[Path, Path]:
    """The tiny model and a neighbour, in ``dtype``."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    torch.manual_seed(3)
    folders = root / "early", root / "ft"
    for folder in folders:
        shutil.copytree(tiny_llama, folder)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.03 * torch.randn_like(weight))
        # A copy, so that the next checkpoint does not begin from rounded weights.
        state = {name: weight.to(dtype) for name, weight in model.state_dict().items()}
        copy = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=dtype)
        copy.load_state_dict(state)
        copy.save_pretrained(folder)
    return folders


def choice_settings(pair: tuple[Path, Path], **changes: Any) -> BoostSettings:
    """A boost of the pair on a few built-in questions with choices."""
    early, ft = map(str, pair)
    plain = BoostSettings(
        early=early,
        ft=ft,
        validation="problems-choice",
        test="problems-choice",
        validation_rows=3,
        test_rows=4,
        metric="choice",
        mu=(0.5,),
        lam=(1.0,),
        lam_cd=(0.5,),
        positive=True,
        max_new_tokens=3,
        batch_size=4,
        precheck=False,
    )
    return replace(plain, **changes)
