"""Models that judge, as Transformers loads them."""

from __future__ import annotations

from typing import Any

import torch

from springback.core import Checkpoint
from springback.errors import ModelError
from springback.models.loading import Model
from springback.models.placement import accelerator
from springback.models.quiet import one_line, quiet


def load_judge(auto_class: Any, checkpoint: Checkpoint, kind: str, lacking: str) -> Model:
    """The model by one of Transformers' auto classes, in evaluation mode, fp32.

    ``kind``: what it is loaded as, in words.  Raises :class:`ModelError` where it does not load,
    and with ``lacking`` (of ``path`` and ``missing``) where weights are not in its file:
    Transformers fills these with random numbers, which would score at random.
    """
    try:
        with quiet():
            model, info = auto_class.from_pretrained(
                checkpoint.path,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:
        raise ModelError(f"cannot load {checkpoint.path} as {kind}: {one_line(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(lacking.format(path=checkpoint.path, missing=missing[0]))
    loaded: Model = model.to(accelerator()).eval()
    return loaded
