"""A strong and a weak model in memory, made of two checkpoints without writing them (paper B)."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal, Protocol

from transformers import PreTrainedModel

from springback.core import Checkpoint
from springback.models.loading import (
    Configs,
    Tokenizer,
    fit_vocabulary,
    load_model,
    load_tokenizer,
    read_configs,
    release_memory,
    require_tokenizer_of,
    tokenizer_files,
)
from springback.models.memory import weight_bytes
from springback.models.placement import Placement
from springback.models.stored_line import StoredLine
from springback.progress import Silent
from springback.settings import ChatSettings
from springback.weights import Extrapolation, extrapolate, extrapolate_along
from springback.weights.extrapolation import open_checkpoints
from springback.weights.io.folder import freed_record
from springback.weights.span import on_line, shares_of

#: Where the strong model lies: at a mu of the pair's line, or at a point that the checkpoints of
#: the run span (:class:`springback.weights.span.Point`), by its weights.
At = float | tuple[float, ...]
#: What a slot holds: the model at a place (0.0 is the fine-tuned one), the early one, another.
What = At | Literal["early"] | Checkpoint


class ModelPair(Protocol):
    """Two checkpoints of one run, of which a strong and a weak model are in memory at most.

    ``configs`` are the fine-tuned model's, ``width`` is that of the logits.  ``to_load``: bytes of
    the weights that are still to come into memory.
    """

    tokenizer: Tokenizer
    configs: Configs
    place: Placement
    mu: At

    @property
    def width(self) -> int: ...

    @property
    def to_load(self) -> int: ...

    def at(self, mu: At) -> PreTrainedModel: ...

    def weak(self, which: Literal["ft", "early"] | Checkpoint) -> PreTrainedModel: ...


@dataclass
class _Slot:
    """A model in memory, and what it is; ``holds`` is None while that is not known."""

    model: PreTrainedModel | None = None
    holds: What | None = None


class CheckpointPair:
    """Two models at most, whatever is contrasted: a strong one and, once it is asked for, a weak.

    The strong one is the expert theta_ft + mu * (theta_ft - theta_early), computed in float64 and
    rounded once to the dtype that the fine-tuned weights are stored in: bit for bit what
    :func:`springback.weights.extrapolate` writes, and then cast to the dtype that is computed in.
    Weights are set in place from the checkpoints' files; a weak model that is computed in its own
    dtype on a CPU stays mapped from them.  Where a model's tensors are not those of
    its files (:meth:`springback.models.stored_line.StoredLine.places`), the expert is written
    beside and loaded.  A model is loaded when it is first asked for.
    """

    def __init__(
        self,
        early: Checkpoint,
        ft: Checkpoint,
        *,
        chat: ChatSettings | None = None,
        place: Placement | None = None,
        scratch: Path | None = None,
        before: Sequence[Checkpoint] = (),
    ) -> None:
        """``before``: checkpoints of the run before ``early``, which span further points.

        ``chat``: what the chat template is given beside the messages.  ``place``: where and in
        which dtype is computed; None: in fp32, on the accelerator if there is one.
        ``scratch``: where an expert is written that cannot be set in place.  Raises
        :class:`springback.errors.ModelError` for checkpoints that do not fit each other.
        """
        self.tokenizer = load_tokenizer(ft, chat)
        for earlier in (*before, early):
            if not tokenizer_files(earlier.path):
                continue  # a Trainer that was given no tokenizer; the weights are held to ft's
            require_tokenizer_of(earlier, ft, self.tokenizer, (earlier.path, ft.path))
        self.early, self.ft, self.before = early, ft, tuple(before)
        self.configs = read_configs(ft.path)
        self.place = (place or Placement()).of_files(ft.path)
        self.mu: At = 0.0
        if not any(freed_record(c.path) for c in (*before, early, ft)):
            _ = self._line  # refuses checkpoints that do not fit each other
        #: Whether a loaded model's weights are pages of its files, until they are written to.
        self._mapped = (
            self.place.device.type == "cpu"
            and not self.place.device_map
            and self.place.dtype == Placement(None).of_files(ft.path).dtype
        )
        self._places: dict[str, str] | None = None
        self._in_place = True  # until a loaded model shows otherwise
        self._strong, self._weak = _Slot(), _Slot()
        self._scratch = scratch
        self._drop_written: Callable[[], object] = lambda: None

    @cached_property
    def _line(self) -> StoredLine:
        every = (*self.before, self.early, self.ft)
        return StoredLine(*open_checkpoints([Path(c.path) for c in every]))

    @property
    def width(self) -> int:
        """Of the logits."""
        return int(self.configs.config.get_text_config().vocab_size)

    @property
    def to_load(self) -> int:
        """Bytes of weights of the models that are not in memory yet."""
        missing = sum(slot.model is None for slot in (self._strong, self._weak))
        return missing * weight_bytes(self.ft.path, self.place.dtype)

    def at(self, mu: At) -> PreTrainedModel:
        """The expert, the strong model, with its weights set for ``mu`` or to a point."""
        self.mu = mu if isinstance(mu, tuple) else float(mu)
        return self._set(self._strong, self.mu)

    def weak(self, which: Literal["ft", "early"] | Checkpoint) -> PreTrainedModel:
        """The weak model: one of the pair, or another, with logits as wide as the pair's.

        It stands in the place of the one asked for before, which is not to be used any more.
        """
        return self._set(self._weak, 0.0 if which == "ft" else which)

    def _set(self, slot: _Slot, what: What) -> PreTrainedModel:
        if slot.model is not None and slot.holds == what:
            return slot.model
        fillable = self._of_line(slot.holds) and self._of_line(what)
        if slot is self._weak and self._mapped:
            fillable = False  # loaded as it is, its weights take no memory of ours
        slot.holds = None  # also where what follows fails
        if self._places is None or not fillable:
            slot.model = None
        # What decoding left free is not used again: weights that were mapped become pages of ours.
        release_memory(circles=slot.model is None)
        if slot.model is None:
            slot.model = self._load(what)
        else:
            self._fill(slot.model, what)
        slot.holds = what
        return slot.model

    def _of_line(self, what: What | None) -> bool:
        """Whether it is the fine-tuned model with other weights."""
        on_it = isinstance(what, float | tuple)
        return on_it or (what == "early" and self._line.same_config)

    def _fill(self, model: PreTrainedModel, what: What) -> None:
        assert self._places is not None
        point = self._point(what) if isinstance(what, float | tuple) else None
        self._line.fill(model, self._places, point)

    def _point(self, at: At) -> tuple[float, ...]:
        return at if isinstance(at, tuple) else on_line(at, len(self.before) + 2)

    def _load(self, what: What) -> PreTrainedModel:
        if isinstance(what, Checkpoint):
            model = load_model(what, self.place)
            return fit_vocabulary(model, self.width, len(self.tokenizer), what.path)
        if self._in_place and self._of_line(what) and not (self._mapped and what == "early"):
            model = load_model(self.ft, self.place)
            self._places = self._places or self._line.places(model)
            self._in_place = self._places is not None
            if self._in_place and what != 0.0:
                self._fill(model, what)
            if self._in_place or what == 0.0:
                return model
            del model
            release_memory()
        if what in (0.0, "early"):
            return load_model(self.early if what == "early" else self.ft, self.place)
        assert isinstance(what, float | tuple)
        return self._written(what)

    def _written(self, at: At) -> PreTrainedModel:
        """The expert loaded from files written beside, which stay until the next are."""
        self._drop_written()
        folder = Path(mkdtemp(prefix=".expert-", suffix=".tmp", dir=self._scratch)).resolve()
        remove = partial(shutil.rmtree, folder, ignore_errors=True)
        self._drop_written = weakref.finalize(self, remove)
        if isinstance(at, float):
            extrapolate(self.early.path, self.ft.path, at, folder / "model", progress=Silent())
        else:
            paths = [c.path for c in (*self.before, self.early, self.ft)]
            how = Extrapolation(1.0, shares=shares_of(at))
            extrapolate_along(paths, how, folder / "model")
        return load_model(Checkpoint(str(folder / "model")), self.place)
