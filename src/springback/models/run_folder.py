"""The checkpoints of a training run, as trainers lay them out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from springback.errors import ModelError, describe
from springback.weights import hash_weights, is_adapter
from springback.weights.io.folder import ADAPTER

#: Folders that trainers write: Transformers, TRL, Axolotl, LLaMA-Factory and Unsloth
#: (``checkpoint-500``), ``KeepEarly`` (``early-500``), torchtune (``epoch_1``).
_CHECKPOINT = re.compile(r"(?:checkpoint|early|epoch|step)[-_](\d+)")


def checkpoints_of(run: Sequence[str | Path]) -> list[Path]:
    """The checkpoints of a run in order of training, the last one last.

    ``run`` is one folder of them, with the model that the run ended with in it where it has one
    and is not the last checkpoint again; or two or more checkpoints as they are, in order.
    Raises :class:`ModelError` for fewer than two.
    """
    if len(run) > 1:
        return [Path(folder) for folder in run]
    folder = Path(run[0])
    if not folder.is_dir():
        raise ModelError(
            describe(
                f"--run {folder}, which is no folder",
                "the folder of a training run, or its checkpoints in order",
                "name it, or --run A,B,C",
            )
        )
    numbered = [
        (int(match[1]), path)
        for path in folder.iterdir()
        if (match := _CHECKPOINT.fullmatch(path.name)) and _has_weights(path)
    ]
    found = [path for _, path in sorted(numbered)]
    if _has_weights(folder) and not (found and hash_weights(folder) == hash_weights(found[-1])):
        found.append(folder)
    if len({is_adapter(path) for path in found}) > 1:  # a merged model beside its adapters
        found = [path for path in found if is_adapter(path)]
    if len(found) < 2:
        have = ", ".join(path.name for path in found) or "none"
        raise ModelError(
            describe(
                f"a run with {len(found)} checkpoint(s) of one kind in {folder} ({have})",
                "two or more folders such as checkpoint-500, all with weights or all with adapters",
                "train with save_strategy steps or epoch, or name the checkpoints: --run A,B,C",
            )
        )
    return found


def _has_weights(folder: Path) -> bool:
    """Whether a folder holds a model or an adapter in safetensors, by its files."""
    if (folder / ADAPTER).is_file():
        return True
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
