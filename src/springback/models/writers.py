"""What a model's config says of how its blocks write to the residual stream.  Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from springback.errors import ModelError
from springback.models.builtin import BUILTIN, builtin_folder
from springback.weights.io.folder import readable_json

#: Modules of a block that write to the residual stream, by the last part of their names.
WRITERS = ("o_proj", "down_proj", "c_proj", "out_proj", "fc2", "fc_out", "dense", "dense_4h_to_h")
#: Kinds of models (``model_type``, with what may follow it, such as ``_text``) that normalise what
#: a block or the embedding writes, or write by layers of other names.
OTHERS = (
    "afmoe", "bloom", "exaone4", "flex_olmo", "gemma2", "gemma3", "gemma3n", "gemma4", "glm4",
    "lfm2", "olmo2", "olmo3",
)  # fmt: skip
#: What configs call the number of experts, whose weights are stacked in one tensor.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def require_plain_writers(model: str) -> None:
    """Raise :class:`ModelError` for a model at hand that is seen to write to the residual stream
    by more than linear layers.  One that is not here yet is believed."""
    folder = builtin_folder(BUILTIN[model]) if model in BUILTIN else Path(model)
    if not (folder / "config.json").is_file():
        return
    config = readable_json(folder / "config.json")
    parts = (config, config.get("text_config")) if isinstance(config, dict) else ()
    for part in (part for part in parts if isinstance(part, dict)):
        kind = str(part.get("model_type", ""))
        if any(kind == one or kind.startswith(f"{one}_") for one in OTHERS):
            raise elsewhere(f"{model} ({kind})")
        if any(_more_than_one(part.get(name)) for name in EXPERTS):
            raise elsewhere(f"{model} (of experts)")


def _more_than_one(count: Any) -> bool:
    return isinstance(count, int) and count > 1


def elsewhere(name: str) -> ModelError:
    """The error for a model that refusal ablation cannot take."""
    return ModelError(
        f"{name} writes along the direction elsewhere too (norms behind its blocks, or experts); "
        f"ablation takes models whose blocks write by {', '.join(WRITERS[:3])}: leave it out of "
        "--attackers"
    )
