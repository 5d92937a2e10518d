"""Expert and amateur as one Transformers model whose logits are the contrasted ones (paper B, B2).

Full weights are two stacks.  Two adapters on one base (:mod:`springback.decoding.lora_pair`) are
one stack, through which both models' rows go in one batch.  What works on a causal language model
works on it: ``generate`` with all its options, pipelines, streaming, assisted generation,
evaluation. State-space halves (Mamba) are generated from without their state: right, and slow. Both
halves run at every position; for lazy and speculative decoding use
:func:`springback.decoding.decode_fast` on the two halves.
"""

from __future__ import annotations

import copy
import inspect
import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from springback.decoding import contrast
from springback.decoding.lora_pair import LoraLinear, install, twin_of, views
from springback.errors import ModelError, describe
from springback.models.loading import BOOST_FILE
from springback.models.placement import running_device
from springback.results.store import write_json

KIND = "contrast"
#: Inputs that have a row for each text.
BY_ROW = ("input_ids", "attention_mask", "position_ids")
HALVES = ("expert", "amateur")


class ContrastConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """``half``: the configuration of both halves, as a dict; strengths as in paper B.

    ``masked`` puts implausible tokens :data:`springback.decoding.contrast.STEP` below the others,
    which is what generating wants; set it to False to score given texts, where a gold token may be
    implausible.  ``adapters``: for two adapters on one base, their rank and the layers they are on.
    """

    model_type: ClassVar[str] = "springback_contrast"
    half: dict[str, Any] | None = None
    lam: float = 0.0
    alpha: float = 0.1
    masked: bool = True
    adapters: dict[str, Any] | None = None

    #: What other libraries ask a configuration for.
    _SHOWN: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "hidden_size",
        "num_attention_heads",
        "max_position_embeddings",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    )

    def __post_init__(self, **kwargs: Any) -> None:
        for name in self._SHOWN:
            if self.half is not None and name in self.half:
                kwargs.setdefault(name, self.half[name])
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    def of_half(self) -> PreTrainedConfig:
        """The configuration of one half."""
        if self.half is None:
            raise ModelError(
                describe("a ContrastConfig without 'half'", "a model's config", "use from_pair")
            )
        config: PreTrainedConfig = AutoConfig.for_model(**copy.deepcopy(self.half))
        return config

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> PreTrainedConfig:
        """Both halves as one stack of layers, the amateur's after the expert's.

        Caches are built from this, so that any of them (dynamic, static) holds both halves, and
        cropping, reordering and selecting rows do the right thing.
        """
        if self.half is None:
            return self
        both = self.of_half().get_text_config(decoder=decoder, encoder=encoder)
        layers = both.num_hidden_layers
        kinds = getattr(both, "layer_types", None)
        both.num_hidden_layers = 2 * layers
        if kinds is not None and len(both.layer_types) == len(kinds):  # not made from the number
            both.layer_types = [*kinds, *kinds]
        # Masks, too, are made from this where the cache is static; without it there would be none.
        both._attn_implementation = self._attn_implementation
        return both


class _JoinedLayer(CacheLayerMixin):
    """A layer of the expert's cache and the same of the amateur's, as one with twice the rows."""

    def __init__(self, expert: Any, amateur: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parts = expert, amateur
        self.is_sliding = bool(getattr(expert, "is_sliding", False))
        self.is_compileable = bool(expert.is_compileable)  # static: masks span the whole cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: each part does it for itself."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        new = zip(self.parts, key_states.chunk(2), value_states.chunk(2), strict=True)
        whole = [part.update(k, v, *args, **kwargs) for part, k, v in new]
        return torch.cat([k for k, _ in whole]), torch.cat([v for _, v in whole])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        sizes: tuple[int, int] = self.parts[0].get_mask_sizes(query_length)
        return sizes

    def get_seq_length(self) -> int:
        length: int = self.parts[0].get_seq_length()
        return length

    def get_max_length(self) -> int:
        longest: int = self.parts[0].get_max_length()
        return longest


def _twice(given: Any, rows: int) -> Any:
    """Rows for both halves: a tensor (rows, ...), or a dict of such, repeated; else as it is."""
    if isinstance(given, dict):
        return {name: _twice(value, rows) for name, value in given.items()}
    if isinstance(given, Tensor) and given.dim() > 1 and len(given) == rows:
        return torch.cat([given, given])
    return given  # of one row: the same for all


def _takes_cache(half: Any) -> bool:
    """State-space models call their cache otherwise, and Transformers' generate goes by names."""
    return "past_key_values" in inspect.signature(half.forward).parameters


def _half_logits(half: Any, cache: Cache | None, given: dict[str, Any]) -> Tensor:
    """A half's bare logits; of a state-space model without cache and positions."""
    if _takes_cache(half):
        given = {**given, "past_key_values": cache}
    else:
        given = {k: v for k, v in given.items() if k != "position_ids"}
    logits: Tensor = half(**given).logits
    return logits


def _adapters_of(both: PreTrainedModel) -> dict[str, Any]:
    layers = {n: m for n, m in both.named_modules() if isinstance(m, LoraLinear)}
    return {"rank": next(iter(layers.values())).a.shape[-1], "modules": list(layers)}


class ContrastModel(PreTrainedModel, GenerationMixin):
    """Expert and amateur; ``forward`` gives the combined logits."""

    config_class = ContrastConfig
    config: ContrastConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    expert: PreTrainedModel
    amateur: PreTrainedModel
    both: PreTrainedModel
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012

    def __init__(self, config: ContrastConfig) -> None:
        half = config.of_half()
        kind: Any = AutoModelForCausalLM._model_mapping[type(half)]
        if config._attn_implementation is None and not kind._supports_sdpa:
            config._attn_implementation = (
                "eager"  # no attention was asked for: one that the halves have
            )
        super().__init__(config)
        contrast.check_settings(config.lam, config.alpha)
        half.dtype = config.dtype
        how = {"attn_implementation": config._attn_implementation}
        build: Any = AutoModelForCausalLM.from_config
        self._views: list[PreTrainedModel] = []  # in a list: no modules of this one
        if config.adapters is None:
            self.expert = build(half, **how)
            self.amateur = build(copy.deepcopy(half), **how)
        else:
            self.both = build(half, **how)
            install(self.both, config.adapters["modules"], config.adapters["rank"])
        self.post_init()  # type: ignore[no-untyped-call]

    def __getattr__(self, name: str) -> Any:
        """Of adapters, the halves are views on ``both``, made when its weights are there."""
        if name in HALVES and "both" in self._modules:
            if not self._views:
                self._views.extend(views(self.both))
            return self._views[HALVES.index(name)]
        return super().__getattr__(name)

    @classmethod
    def from_pair(
        cls, expert: PreTrainedModel, amateur: PreTrainedModel, lam: float, alpha: float = 0.1
    ) -> ContrastModel:
        """The pair as one model; weights are shared with the two given, not copied.

        Of a boosted folder: ``m = springback.load(folder)``, then
        ``ContrastModel.from_pair(m.expert, m.amateur, m.lam, m.alpha)``.

        Raises :class:`ModelError` unless both are of one class with tensors of the same shapes.
        """
        shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (expert, amateur)]
        if type(expert) is not type(amateur) or shapes[0] != shapes[1]:
            raise ModelError(
                describe(
                    f"a {type(expert).__name__} and a {type(amateur).__name__}",
                    "two models of one class with tensors of the same names and shapes",
                    "use two checkpoints of one run",
                )
            )
        twin = twin_of(expert, amateur)
        config = ContrastConfig(
            half=expert.config.to_dict(),
            lam=lam,
            alpha=alpha,
            adapters=None if twin is None else _adapters_of(twin),
            dtype=expert.dtype,
        )
        config._attn_implementation = expert.config._attn_implementation
        with torch.device("meta"):  # an empty frame for weights that are there already
            model = cls(config)
        if twin is not None:
            model.both, model._views = twin, [expert, amateur]
        else:
            model.expert, model.amateur = expert, amateur
        model.generation_config = copy.deepcopy(expert.generation_config)
        if model.generation_config is not None and not _takes_cache(expert):
            model.generation_config.use_cache = False
        model.train(False)
        return model

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> None:
        """Weights, config and ``springback.json``, which says what the folder holds."""
        super().save_pretrained(save_directory, *args, **kwargs)
        facts = {"kind": KIND, "lambda": self.config.lam, "alpha": self.config.alpha}
        write_json(Path(save_directory) / BOOST_FILE, facts)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return running_device(self.expert)

    def get_input_embeddings(self) -> Any:
        return self.expert.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        expert: Any = self.expert
        return expert.get_output_embeddings()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Combined logits (rows, positions, vocabulary), fp32 (fp64 stays).

        The loss of ``labels`` is that of the unmasked scores, in nats a token.
        """
        if input_ids is None:
            raise ModelError(
                describe("no input_ids", "token ids", "each half embeds tokens its own way")
            )
        use_cache = (use_cache is None or use_cache) and _takes_cache(self.expert)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config.get_text_config(decoder=True))
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            **{k: v for k, v in kwargs.items() if k != "return_dict"},
        }
        strong, weak = self._logits(past_key_values, given)
        loss, lam, alpha = None, self.config.lam, self.config.alpha
        if labels is not None:
            scores = contrast.contest(strong, weak, lam)
            size = scores.shape[-1]
            loss = self.loss_function(logits=scores, labels=labels, vocab_size=size, **kwargs)
        if self.config.masked and lam > 0:
            logits = contrast.stepped(strong, weak, lam, alpha)
        else:
            logits = contrast.contest(strong, weak, lam)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values,
        )

    def _logits(self, cache: Cache | None, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Bare logits of both halves; twice the expert's where the amateur does not count."""
        caches = self._caches(cache)
        if self.config.lam == 0:
            strong = _half_logits(self.expert, caches[0], given)
            return strong, strong
        if self.config.adapters is None:
            strong = _half_logits(self.expert, caches[0], given)
            weak = _half_logits(self.amateur, caches[1], given)
            return strong, weak.to(strong.device)
        joined = None
        if caches[0] is not None and caches[1] is not None:
            pairs = zip(caches[0].layers, caches[1].layers, strict=True)
            joined = Cache(layers=[_JoinedLayer(a, b) for a, b in pairs])
        n = len(given["input_ids"])
        twice = {k: _twice(v, n) if k in BY_ROW else v for k, v in given.items()}
        both = self.both(past_key_values=joined, **twice).logits  # (2 rows, positions, vocabulary)
        return both.chunk(2)  # type: ignore[no-any-return]

    def _caches(self, both: Cache | None) -> tuple[Cache | None, Cache | None]:
        """The layers of each half, as caches of their own over the same layers."""
        if both is None:
            return None, None
        if not both.layers:  # DynamicCache() makes its layers as they are asked for
            both.layers = DynamicCache(config=self.config.get_text_config(decoder=True)).layers
        middle = len(both.layers) // 2
        return Cache(layers=both.layers[:middle]), Cache(layers=both.layers[middle:])


AutoConfig.register(ContrastConfig.model_type, ContrastConfig)
AutoModelForCausalLM.register(ContrastConfig, ContrastModel)
