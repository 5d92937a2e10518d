"""Contrastive decoding for ``model.generate``, with torch and transformers alone.

A boosted folder carries this file as ``custom_generate/generate.py``, so that it decodes as it was
measured where springback is not installed::

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)
    model.generate(...)

Transformers runs such a file only when told to trust it; springback itself never does, and needs
it for nothing.  Every option of ``generate`` works: the contrast is a logits processor after the
penalties and before temperature and the filters.
"""

from __future__ import annotations

import inspect
import json
import math
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.cache_utils import DynamicLayer
from transformers.utils.hub import cached_file

#: How far implausible tokens lie below the plausible ones, in the expert's order: a grammar that
#: forbids every plausible token then still has an order to choose by.
STEP = 1e3

_AMATEURS: weakref.WeakKeyDictionary[Any, tuple[Any, float, float]] = weakref.WeakKeyDictionary()


def load_amateur(model: Any, folder: str | None = None) -> tuple[Any, float, float]:
    """The weak model (None without contrast), lambda and alpha of the folder ``model`` is from.

    Loaded once a model.  Raises :class:`ValueError` if that is not a boosted folder.
    """
    if folder is None and model in _AMATEURS:
        return _AMATEURS[model]
    name = folder or model.name_or_path
    pinned = {"revision": getattr(model.config, "_commit_hash", None)} if folder is None else {}
    file = cached_file(
        name, "springback.json", _raise_exceptions_for_missing_entries=False, **pinned
    )
    facts = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    if facts.get("kind") != "boosted":
        raise ValueError(
            f"given: {name}; allowed: a folder that springback boost wrote (springback.json says "
            "so); load the model from it, or name it with boosted_folder=..."
        )
    lam, alpha = float(facts.get("lambda") or 0), float(facts.get("alpha") or 0.1)
    amateur = None
    if lam > 0:
        sub = str(facts.get("amateur") or "")
        if not sub or Path(sub).is_absolute() or ".." in Path(sub).parts:
            raise ValueError(f"{name}/springback.json names the weak model {sub!r}, outside of it")
        # As the model itself: in its dtype, on its device or spread as it is.
        spread = {"device_map": "auto"} if len(getattr(model, "hf_device_map", ())) > 1 else {}
        weak: Any = AutoModelForCausalLM.from_pretrained(
            name, subfolder=sub, dtype=model.dtype, use_safetensors=True, **spread, **pinned
        )
        amateur = (weak if spread else weak.to(model.device)).eval()
    held = (amateur, lam, alpha)
    if folder is None:
        _AMATEURS[model] = held
    return held


class Contrast(LogitsProcessor):
    """``L + lambda * (L - amateur)`` on tokens with ``p >= alpha * max p``, anchored at the top.

    Where one token is plausible the amateur cannot change the choice; it does not run there and
    catches up later.
    """

    def __init__(self, amateur: Any, lam: float, alpha: float, prompt_mask: Tensor | None) -> None:
        self.amateur, self.lam, self.alpha = amateur, lam, alpha
        self.prompt_mask = prompt_mask
        self.seen: Tensor | None = None  # (rows, tokens) that the cache holds
        self.cache: Any = None
        self.calls = 0
        layers = DynamicCache(config=amateur.config).layers
        self.croppable = all(type(layer) is DynamicLayer for layer in layers)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Combined scores (rows, vocabulary), fp32 (fp64 stays)."""
        strong: Tensor = scores if scores.dtype == torch.float64 else scores.float()
        top = strong.amax(-1, keepdim=True)  # (rows, 1)
        open_ = strong >= top + math.log(self.alpha)
        mixed = strong
        if bool((open_.sum(-1) > 1).any()):
            weak = self._logits(input_ids).to(strong)
            gap = strong - weak  # (rows, vocabulary)
            mixed = strong + self.lam * (gap - gap.gather(-1, strong.argmax(-1, keepdim=True)))
        lowest = mixed.masked_fill(~open_, math.inf).amin(-1, keepdim=True)
        return torch.where(open_, mixed, strong - top + lowest - STEP)

    @torch.no_grad()
    def _logits(self, ids: Tensor) -> Tensor:
        """The amateur's logits (rows, vocabulary) after ``ids``; reads what it has not seen."""
        known = self._common(ids)
        if self.cache is None or known < self.seen_tokens:
            if self.cache is not None and known and self.croppable:
                self.cache.crop(known - self.seen_tokens)  # negative: how many to forget
            else:
                self.cache, known = DynamicCache(config=self.amateur.config), 0
        mask = self._mask(ids)
        given = {"attention_mask": mask, "past_key_values": self.cache, "use_cache": True}
        accepted = inspect.signature(self.amateur.forward).parameters
        if "position_ids" in accepted:
            given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, known:]
        if "logits_to_keep" in accepted:
            given["logits_to_keep"] = 1
        out = self.amateur(input_ids=ids[:, known:], **given)
        self.seen, self.calls = ids.clone(), self.calls + 1
        logits: Tensor = out.logits[:, -1]
        return logits

    @property
    def seen_tokens(self) -> int:
        return 0 if self.seen is None else self.seen.shape[1]

    def _common(self, ids: Tensor) -> int:
        """How many leading tokens of every row the cache holds; one at least is left to read."""
        if self.seen is None or self.seen.shape[0] != ids.shape[0]:
            return 0
        shared = min(self.seen.shape[1], ids.shape[1] - 1)
        same = (self.seen[:, :shared] == ids[:, :shared]).all(0)  # beams swap rows, drafts fall
        return int(same.long().cumprod(0).sum())

    def _mask(self, ids: Tensor) -> Tensor:
        """1 where a token counts: the prompt's mask, and all that was generated."""
        mask = torch.ones_like(ids)
        if self.prompt_mask is not None:
            copies = ids.shape[0] // self.prompt_mask.shape[0]
            prompt = self.prompt_mask.repeat_interleave(copies, 0).to(ids)
            mask[:, : prompt.shape[1]] = prompt
        return mask


def _prompt_mask(model: Any, inputs: Any, options: dict[str, Any]) -> Tensor | None:
    """The attention mask of the prompts, as ``generate`` would infer it."""
    given: Tensor | None = options.get("attention_mask")
    ids = inputs if inputs is not None else options.get("input_ids")
    if given is not None or ids is None:
        return given
    config = options.get("generation_config") or model.generation_config
    pad, ends = options.get("pad_token_id", config.pad_token_id), config.eos_token_id
    ends = ends if isinstance(ends, (list, tuple)) else [ends]
    if pad is None or pad in ends or not bool((ids == pad).any()):
        return None
    mask: Tensor = (ids != pad).long()
    return mask


def generate(
    inputs: Any = None, *, model: Any, boosted_folder: str | None = None, **options: Any
) -> Any:
    """``model.generate`` under the contrast of the boosted folder that ``model`` was loaded from.

    ``boosted_folder`` names another one.  Takes and returns what ``generate`` does.
    """
    amateur, lam, alpha = load_amateur(model, boosted_folder)
    options = {k: v for k, v in options.items() if k not in ("custom_generate", "kwargs")}
    if amateur is not None:
        if options.get("inputs_embeds") is not None:
            raise ValueError("given: inputs_embeds; allowed: token ids; the weak model needs them")
        contrast = Contrast(amateur, lam, alpha, _prompt_mask(model, inputs, options))
        processors = options.get("logits_processor") or []
        options["logits_processor"] = LogitsProcessorList([contrast, *processors])
        options.setdefault("renormalize_logits", True)  # beams add up log-probabilities
    # The class's method: the model's own attribute may be this function.
    run = getattr(type(model), "generate", GenerationMixin.generate)
    return run(model, inputs, **options)
