"""Activations that are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from springback.errors import ModelError, describe
from springback.models.loading import Model
from springback.models.quiet import old_names_allowed

#: How a layer's activations come back; the older way would lose gradients of what has no inputs
#: that learn, as the first layer below an adapter.
WAY = {"use_reentrant": False}


@contextmanager
def checkpointed_activations(model: Model, wanted: bool = True) -> Iterator[None]:
    """Within, training keeps one layer's activations and the hidden states between the layers.

    Losses and weights are the same: each layer computes a second time what it computed before.
    Only in training mode, so probes are not slower.  Raises :class:`ModelError` for a model whose
    layers cannot.
    """
    if not wanted:
        yield
        return
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ModelError(
            describe(
                f"--checkpoint-activations with a {type(model).__name__}",
                "models whose layers Transformers can compute again",
                "leave it out",
            )
        )
    untyped: Any = model
    with old_names_allowed():  # Transformers before 5.20 has the old names alone
        untyped.gradient_checkpointing_enable(gradient_checkpointing_kwargs=WAY)
        try:
            yield
        finally:
            untyped.gradient_checkpointing_disable()
