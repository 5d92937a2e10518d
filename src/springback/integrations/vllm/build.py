"""Build one half of a pair as a vLLM model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from springback.errors import ModelError, describe
from springback.integrations.vllm.folder import AMATEUR_KEY, FOLDER_KEY, Folder, open_folder
from springback.integrations.vllm.pair_state import pair_state
from springback.integrations.vllm.request_lambda import Combiner, table_of
from springback.models.hub import local_folder
from springback.results.store import read_json

EXPERT, AMATEUR, BASE = "expert", "amateur", "base"


class TwoRoles(nn.Module):
    """What both vLLM classes share: the folder, how logits combine, and that token ids go in.

    ``inner`` is the half whose embeddings vLLM's interface may ask for.
    """

    #: vLLM falls back to pickles otherwise.
    fall_back_to_pt_during_load = False
    inner: str
    #: The expert alone runs; set in a boost while no request contrasts.  What the amateur's cache
    #: then lacks must not be used later: prefixes are to be forgotten when this changes.
    alone = False

    def __init__(self, vllm_config: Any) -> None:
        super().__init__()
        self.folder = folder_of(vllm_config.model_config)
        self.combine = Combiner(self.folder.lam, self.folder.alpha, table_of(vllm_config))

    @staticmethod
    def get_model_state_cls() -> Any:
        """Asked for by vLLM's V2 runner."""
        return pair_state()

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """Asked for by vLLM's interface; a pair embeds for itself."""
        embedded: Tensor = getattr(self, self.inner).embed_input_ids(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (tokens, expert + amateur); ``input_ids``, ``positions``: (tokens,).

        Raises ValueError for embeddings instead of token ids.
        """
        if input_ids is None or inputs_embeds is not None:
            raise ValueError("a pair takes token ids, not embeddings: each half embeds its own way")
        return self.hidden_states(input_ids, positions)

    def hidden_states(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """(tokens, expert + amateur)."""
        raise NotImplementedError


def folder_of(model_config: Any) -> Folder:
    """The folder that vLLM's configuration of a model is about."""
    named, model = getattr(model_config.hf_config, FOLDER_KEY, None), model_config.model
    if weak := getattr(model_config.hf_config, AMATEUR_KEY, None):
        adapter = None if named is None else Path(named)
        return Folder(Path(model), Path(weak), adapter)
    folder = open_folder(named, base=model) if named else open_folder(model)
    if folder.amateur is None:
        raise ModelError(
            describe(
                f"{named or model}, which has no weak model",
                "a boosted folder with lambda above 0, or a pair of adapters",
                "serve it as any model: leave the override of its architecture out",
            )
        )
    return folder


def half_architectures(model_config: Any) -> list[str]:
    """The classes that the model's own config.json names."""
    config = read_json(local_folder(str(model_config.model)) / "config.json")
    return [str(name) for name in config.get("architectures") or ()]


def build(vllm_config: Any, role: str, prefix: str, config_of: Path | None = None) -> Any:
    """A vLLM model of the class that its config.json names; its layers begin with ``prefix``.

    ``config_of``: a folder whose config.json counts, else that of vLLM's configuration.  Raises
    :class:`ModelError` for a class that does more than read tokens through attention.
    """
    from vllm.compilation.backends import set_model_tag
    from vllm.model_executor.models.utils import init_vllm_registered_model

    model = vllm_config.model_config
    names = half_architectures(model)
    if config_of is None:
        config = copy.deepcopy(model.hf_config)
    else:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(config_of, trust_remote_code=False)
        names = list(config.architectures or names)
    config.architectures = names
    # Part of the hash of what is compiled, as the tag is of its place: two halves of the same
    # shapes name other layers, so neither may run the other's graph.
    config.springback_role = role
    with set_model_tag(f"springback_{role}"):
        built = init_vllm_registered_model(vllm_config, prefix=prefix, hf_config=config)
    _refuse_more(built, names)
    return built


def _refuse_more(model: Any, names: list[str]) -> None:
    from vllm.model_executor.models.interfaces import (
        has_inner_state,
        is_attention_free,
        is_hybrid,
        supports_mrope,
        supports_multimodal,
    )

    faults = {
        "takes more than text": supports_multimodal(model) or supports_mrope(model),
        "has a state besides the KV cache": has_inner_state(model) or is_hybrid(model),
        "has no attention": is_attention_free(model),
    }
    for what, present in faults.items():
        if present:
            raise ModelError(
                describe(
                    f"{', '.join(names)}, which {what}",
                    "language models with attention",
                    "use the built-in server: springback serve --engine transformers",
                )
            )


def vocabulary(model_config: Any) -> int:
    """Size of the vocabulary of a Transformers configuration."""
    return int(model_config.get_text_config().vocab_size)
