"""LoRA through PEFT: put an adapter into a model, start it again, merge it, take it out.

The adapter goes into the model in place: the model itself stays what runs train, probes score and
decoding uses.  The object that :func:`add_lora` returns is only the handle for the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from springback.core import Recipe
from springback.errors import MissingExtraError, SpringbackError
from springback.models.loading import Model
from springback.models.quiet import old_names_allowed

#: PEFT's own class; it has ``disable_adapter()``, under which the model is the base again.
Lora = Any


def add_lora(model: Model, recipe: Recipe) -> Lora:
    """Put a fresh adapter on every linear layer but the head, in place; freeze the rest.

    The adapter is fp32, without dropout, and changes nothing until it is trained (B is 0); A is
    drawn from the recipe's seed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("peft", "train", "LoRA") from error
    if recipe.lora_rank is None:
        raise SpringbackError("the recipe has no LoRA rank; set lora_rank, such as 8")
    if has_lora(model):
        raise SpringbackError("the model has an adapter already; use reset_lora or drop_lora")
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
    )
    with torch.random.fork_rng(), old_names_allowed():
        lora = get_peft_model(model, config)
    reset_lora(lora, recipe.seed)
    model.train(False)
    return lora


def has_lora(model: Model) -> bool:
    """Whether :func:`add_lora` put an adapter into the model."""
    return any(".lora_A." in name for name, _ in model.named_parameters())


def reset_lora(lora: Lora, seed: int) -> None:
    """Make the adapter fresh, so that the model is the start model again: A by seed, B zero."""
    from peft.tuners.lora import LoraLayer

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        layers: list[Any] = [m for m in lora.modules() if isinstance(m, LoraLayer)]
        for layer in layers:
            for name in layer.active_adapters:
                layer.reset_lora_parameters(name, True)


def save_lora(lora: Lora, folder: Path) -> None:
    """Write the adapter alone as a PEFT folder; embeddings, which it never trains, stay out."""
    lora.save_pretrained(str(folder), save_embedding_layers=False)


def merge_lora(lora: Lora) -> Model:
    """Add the adapter to the weights in place and take it out: a plain model, all trainable."""
    return _thawed(lora.merge_and_unload())


def drop_lora(lora: Lora) -> Model:
    """Take the adapter out and forget it: the start model, to the bit, all trainable."""
    return _thawed(lora.unload())


def _thawed(model: Model) -> Model:
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model
