"""Expert and amateur, two sets of weights, as one vLLM model (paper B, B2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from springback.errors import ModelError, describe
from springback.integrations.vllm.build import AMATEUR, EXPERT, TwoRoles, build, vocabulary
from springback.integrations.vllm.folder import LAZY_KEY


class TwoModels(TwoRoles):
    """Each half is a vLLM model with layers, and so a KV cache, of its own.

    ``forward`` returns the hidden states of both side by side (tokens, expert + amateur), so that
    whatever vLLM picks of them, it picks of both.

    The amateur runs at every token, since its cache must be whole; but where one token is
    plausible it cannot change the choice, and its head is left out there (``lazy``).  Which rows
    these are has to be known before going on: free on a CPU, a wait for the stream on a GPU.
    """

    inner = EXPERT

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config)
        from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
        from vllm.model_executor.models.utils import maybe_prefix
        from vllm.platforms import current_platform

        folder = self.folder
        assert folder.amateur is not None
        self.expert = build(vllm_config, EXPERT, maybe_prefix(prefix, EXPERT))
        self.amateur = build(vllm_config, AMATEUR, maybe_prefix(prefix, AMATEUR), folder.amateur)
        configs = [half.config for half in (self.expert, self.amateur)]
        sizes = [vocabulary(config) for config in configs]
        if sizes[0] != sizes[1]:
            raise ModelError(
                describe(
                    f"vocabularies of {sizes[0]} and {sizes[1]} tokens",
                    "two checkpoints of one run",
                    "pad the embeddings alike",
                )
            )
        self.width = int(configs[0].get_text_config().hidden_size)
        alone = vllm_config.parallel_config.tensor_parallel_size == 1
        asked = getattr(vllm_config.model_config.hf_config, LAZY_KEY, current_platform.is_cpu())
        self.lazy = bool(asked) and alone  # of several ranks not all have the logits
        self.secondary_weights = [
            DefaultModelLoader.Source(
                str(folder.amateur), revision=None, prefix=f"{AMATEUR}.", fall_back_to_pt=False
            )
        ]

    def hidden_states(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """(tokens, expert + amateur)."""
        if self.alone:
            hidden: Tensor = self.expert(input_ids, positions)
            return torch.cat([hidden, hidden], -1)
        return torch.cat([half(input_ids, positions) for half in (self.expert, self.amateur)], -1)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Combined logits (rows, vocabulary) in fp32; None where vLLM gathers none."""
        strong: Tensor | None = self.expert.compute_logits(hidden_states[:, : self.width])
        if self.alone:
            return strong
        weak = self._weak(strong, hidden_states[:, self.width :])
        return None if strong is None or weak is None else self.combine(strong, weak)

    def _weak(self, strong: Tensor | None, hidden_states: Tensor) -> Tensor | None:
        """The amateur's logits; the expert's own in rows where they do not count."""
        if strong is not None and self.lazy and not self.combine.table.strengths:
            rows = self.combine.contested(strong).nonzero().flatten()
            if len(rows) < len(strong):
                weak = strong.clone()
                if len(rows):
                    weak[rows] = self.amateur.compute_logits(hidden_states[rows])
                return weak
        every: Tensor | None = self.amateur.compute_logits(hidden_states)
        return every

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """The expert's first, by their own names; then the amateur's, with a prefix."""
        from vllm.model_executor.models.utils import AutoWeightsLoader

        mine = f"{AMATEUR}."
        named = ((n if n.startswith(mine) else f"{EXPERT}.{n}", t) for n, t in weights)
        loaded: set[str] = AutoWeightsLoader(self).load_weights(named)
        return loaded
