"""A real boosted folder of tiny models, for tests of what uses one."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from springback.jobs.boost.export import Strengths, write_boosted
from springback.models.loading import resolve

MU, LAM, ALPHA = 0.5, 1.5, 0.05


def checkpoints(tiny_llama: Path, folder: Path) -> tuple[Path, Path]:
    """Two checkpoints of "one run": the tiny model, and it moved a little."""
    early, ft = folder / "early", folder / "ft"
    for at, path in enumerate((early, ft)):
        shutil.copytree(tiny_llama, path)
        model = AutoModelForCausalLM.from_pretrained(tiny_llama)
        noise = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.02 * at * torch.randn(p.shape, generator=noise))
        model.save_pretrained(path)
    return early, ft


def boosted(tiny_llama: Path, folder: Path, lam: float = LAM, system: str | None = None) -> Path:
    """The folder that ``boost`` would write for them."""
    early, ft = (resolve(path) for path in checkpoints(tiny_llama, folder))
    write_boosted((early, ft), Strengths(MU, lam, ALPHA), folder / "model", system)
    return folder / "model"
