"""Two LoRA adapters of one run on one base in memory: the expert at any mu, and the weak model.

The expert is base + (1 + mu) dW_ft - mu dW_early as one adapter of both ranks, exact but for the
rounding of its factors (:mod:`springback.weights.adapters.combining`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from springback.core import Checkpoint
from springback.decoding.lora_pair import AMATEUR, EXPERT, install, set_side, views
from springback.models.checkpoint_pair import At
from springback.models.loading import (
    Model,
    fit_vocabulary,
    load_model,
    load_tokenizer,
    read_configs,
    release_memory,
    require_tokenizer_of,
    tokenizer_source,
)
from springback.models.memory import held_bytes, read_architecture
from springback.models.placement import Placement
from springback.settings import ChatSettings
from springback.weights import hash_weights
from springback.weights.adapters.combining import AdapterSum
from springback.weights.adapters.reading import Adapter, check_bases, open_adapter, refuse_more
from springback.weights.arithmetic import Floats
from springback.weights.io.stream import Reader
from springback.weights.span import on_line


def require_shared_base(adapters: Sequence[str], base: str) -> list[Adapter]:
    """The adapters of a run, ft last, that one base in memory can have; loads nothing.

    Raises :class:`springback.errors.ModelError` for what :class:`AdapterPair` cannot represent: all
    but LoRA on linear layers.
    """
    opened = [open_adapter(folder) for folder in adapters]
    for adapter in opened:
        refuse_more(adapter)
    check_bases(opened, base)
    transformers: Any = AutoModelForCausalLM
    with torch.device("meta"):
        empty = transformers.from_config(read_configs(base).config)
    install(empty, _everything(opened).modules, 1)
    return opened


def _total(adapters: list[Adapter], point: tuple[float, ...]) -> AdapterSum:
    return AdapterSum(adapters, 1.0, point, None)


def _everything(adapters: list[Adapter]) -> AdapterSum:
    """The sum in which every adapter has a part: all modules, at the ranks that suffice."""
    return _total(adapters, (1.0,) * (len(adapters) - 1))


class AdapterPair:
    """One base in memory, and an adapter for each of two models on it; a third model only if a weak
    one is asked for that is none of these.

    As :class:`springback.models.checkpoint_pair.CheckpointPair`, of checkpoints whose ``path`` is
    the base and whose ``adapter`` is the adapter's folder.
    """

    def __init__(
        self,
        early: Checkpoint,
        ft: Checkpoint,
        *,
        chat: ChatSettings | None = None,
        place: Placement | None = None,
        before: Sequence[Checkpoint] = (),
    ) -> None:
        """``before``: checkpoints of the run before ``early``.  Raises as
        :func:`require_shared_base`."""
        folders = [str(c.adapter) for c in (*before, early, ft)]
        self._adapters = require_shared_base(folders, ft.path)
        self.base = Checkpoint(ft.path, content_hash=hash_weights(ft.path))
        sources = [tokenizer_source(Path(folder), self.base) for folder in folders]
        self.tokenizer = load_tokenizer(sources[-1], chat)
        for source, folder in zip(sources[:-1], folders, strict=False):
            require_tokenizer_of(source, sources[-1], self.tokenizer, (folder, folders[-1]))
        self.configs = read_configs(ft.path, ft.adapter)
        self.place = (place or Placement()).of_files(ft.path)
        self.mu: At = 0.0
        self._views: tuple[Model, Model] | None = None
        self._sides: dict[int, object] = {}
        self._other: tuple[Checkpoint, Model] | None = None

    @property
    def width(self) -> int:
        """Of the logits."""
        return int(self.configs.config.get_text_config().vocab_size)

    @property
    def to_load(self) -> int:
        """Bytes of weights that are not in memory yet: the base, with its adapters at most."""
        if self._views is not None:
            return 0
        shape = read_architecture(self.base.path)
        return held_bytes(shape, self.place.dtype, self.place.quantize) * 5 // 4

    def at(self, mu: At) -> PreTrainedModel:
        """The expert at ``mu`` or at a point: the base with its adapter."""
        self.mu = mu if isinstance(mu, tuple) else float(mu)
        return self._set(EXPERT, self.mu)

    def weak(self, which: Literal["ft", "early"] | Checkpoint) -> PreTrainedModel:
        """The weak model: the base with an adapter of the pair or without, or another model.

        It stands in the place of the one asked for before, which is not to be used any more.
        """
        if which in ("ft", "early"):
            return self._set(AMATEUR, which)
        assert isinstance(which, Checkpoint)
        if which.adapter is not None and which.path == self.base.path:
            return self._set(AMATEUR, which)
        if which.content_hash == self.base.content_hash and which.adapter is None:
            return self._set(AMATEUR, "base")
        if self._other is None or self._other[0] != which:
            self._other = None
            release_memory()
            model = load_model(which, self.place)
            width, tokens = self.width, len(self.tokenizer)
            self._other = which, fit_vocabulary(model, width, tokens, which.path)
        return self._other[1]

    def _set(self, side: int, what: At | str | Checkpoint) -> PreTrainedModel:
        if side == AMATEUR:
            self._other = None
        if self._views is None:
            model, every = load_model(self.base, self.place), _everything(self._adapters)
            install(model, every.modules, max(every.ranks.values()))
            model.train(False)
            self._views = views(model)
        if self._sides.get(side) != what:
            self._sides.pop(side, None)
            with Reader() as reader:
                set_side(self._views[side], side, self._factors(what, reader))
            self._sides[side] = what
            release_memory()  # factors in float64
        return self._views[side]

    def _factors(
        self, what: At | str | Checkpoint, reader: Reader
    ) -> Callable[[str], tuple[Floats, Floats] | None]:
        """(B, A) of a module by its name, None where the base alone computes it."""
        if what == "base":
            return lambda name: None
        if isinstance(what, Checkpoint):  # another run's by the same recipe, so of the same modules
            return partial(open_adapter(str(what.adapter)).factors, reader)
        if isinstance(what, str):
            return partial(self._adapters[-1 if what == "ft" else -2].factors, reader)
        point = what if isinstance(what, tuple) else on_line(what, len(self._adapters))
        total = _total(self._adapters, point)
        known = set(total.modules)
        return lambda name: total.product(reader, name) if name in known else None
