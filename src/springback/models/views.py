"""A second model out of the same weights: other modules, the same tensors."""

from __future__ import annotations

import copy
from typing import Any

from transformers import PreTrainedModel

from springback.models.placement import is_spread
from springback.models.quantized import shared_states


def view_of(model: PreTrainedModel) -> PreTrainedModel:
    """``model`` once more, sharing all its parameters and buffers.

    Layers may be put into one of the two, such as an adapter, and the other does not have them;
    what changes a parameter changes it in both.
    """
    hooks = [module._hf_hook for module in model.modules() if is_spread(module)]
    every = (*model.parameters(), *model.buffers(), *hooks)
    # What turns 4-bit weights into numbers is no tensor, and belongs to them.
    shared: dict[int, Any] = {id(one): one for one in every} | shared_states(model)
    return copy.deepcopy(model, shared)
