"""What a boost has vLLM's workers do: set the weights of a pair anew for each mu, or have the rows
of a batch weighed by their requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from springback.integrations.vllm.runners import chosen
from springback.integrations.vllm.two_models import TwoModels
from springback.models.stored_line import StoredLine
from springback.weights.extrapolation import open_checkpoints


class BoostExtension:
    """Methods that vLLM adds to each of its workers (``worker_extension_cls``).

    ``strong`` and ``weak`` are :class:`springback.integrations.vllm.client.Weights` as plain
    values; a weak model of None leaves the one before, which then does not run.
    """

    vllm_config: Any
    model_runner: Any

    def springback_place(self, strong: dict[str, Any], weak: dict[str, Any] | None) -> None:
        """Set both models of full weights.  What vLLM has cached of prefixes is then of others."""
        from vllm.config import set_current_vllm_config

        pair = self.model_runner.get_model()
        with set_current_vllm_config(self.vllm_config), torch.no_grad():
            _set_half(pair, pair.expert, strong, self.vllm_config.model_config)
            if weak is not None:
                _set_half(pair, pair.amateur, weak, self.vllm_config.model_config)
        pair.alone = weak is None

    def springback_weigh(self) -> None:
        """Have a V1 runner's layout of each batch read, of which it tells no one; V2 tells it."""
        runner = self.model_runner
        if chosen(self.vllm_config) == 1:
            table = runner.get_model().combine.table
            starts = runner.query_start_loc
            table.starts = lambda: starts.np[: runner.input_batch.num_reqs + 1]

    def springback_strengths(self, lam: float, alpha: float | None) -> None:
        """What requests have that name no strengths of their own; alpha None masks no token."""
        combine = self.model_runner.get_model().combine
        combine.lam, combine.alpha = lam, alpha


def _set_half(pair: TwoModels, half: Any, given: dict[str, Any], model_config: Any) -> None:
    """theta + sum w_i (theta - theta_i) into one half, by the half's own way to load weights.

    That knows which tensors are fused, and vLLM repacks each layer when it is whole.  Nothing is
    read where the half holds these weights already.
    """
    from vllm.model_executor.model_loader.reload import (
        finalize_layerwise_reload,
        initialize_layerwise_reload,
    )

    if getattr(half, "springback_holds", None) == given:
        return
    half.springback_holds = None
    line = StoredLine(*open_checkpoints([Path(folder) for folder in given["folders"]]))
    initialize_layerwise_reload(half)
    half.load_weights(line.tensors(given["weights"]))
    finalize_layerwise_reload(half, model_config)
    _repack_tied(half)
    half.springback_holds = given


def _repack_tied(half: Any) -> None:
    """Have layers that share another's weight take it anew: on a CPU they compute with a copy."""
    owners: set[int] = set()
    for layer in half.modules():
        weight, method = getattr(layer, "weight", None), getattr(layer, "quant_method", None)
        if id(weight) in owners and method is not None:
            method.process_weights_after_loading(layer)
        if weight is not None:
            owners.add(id(weight))
