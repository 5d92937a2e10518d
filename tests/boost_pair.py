"""Two checkpoints of the tiny model, near each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


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
