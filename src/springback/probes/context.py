"""What a probe may ask for: the model under measurement, texts, samples, the start model.

:class:`ProbeInputs` is what every model of a study is measured with, :class:`ProbeContext` is one
model beside it.  Whatever several probes need is computed on first use and once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from springback.core import Checkpoint, Slice
from springback.data import load_slice
from springback.errors import ModelError, describe
from springback.models.encoding import Encoded, encode_rows, stop_ids
from springback.models.loading import (
    Model,
    Tokenizer,
    load_model,
    read_configs,
    require_tokenizer_of,
    resolve,
)
from springback.models.memory import read_architecture
from springback.models.placement import Placement, audit_placement
from springback.models.stored_model import AnyModel, in_memory
from springback.models.templates import chat_of
from springback.probes.batches import ProbeBatches, probe_batches
from springback.probes.behaviour import SampleSettings
from springback.probes.divergence import continued
from springback.probes.judges import Scorer, load_scorers
from springback.probes.likelihood import Precision, TextNLL, margin
from springback.probes.measuring import Measures, Meter, SharedMeter, Workers
from springback.results.timing import Timer, timed

T = TypeVar("T")


def _in_turn(sides: Iterable[Sequence[T]]) -> list[T]:
    """One of each side after the other."""
    return [row for pair in zip(*sides, strict=True) for row in pair]


#: An audit's settings (:class:`springback.jobs.audit.settings.AuditSettings`), which are defined
#: above this layer.  A probe may read any of them.
ProbeSettings = Any


class ProbeInputs:
    """What every model of a study is measured with.

    ``encoded``: the held-out texts of each side, ``wanted`` and ``unwanted`` (of a finished model
    perhaps the latter alone).  ``prompts``: token
    ids that continuations are sampled from.
    """

    def __init__(
        self,
        settings: ProbeSettings,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        held_out: dict[str, Slice],
        folder: Path,
        like: ProbeInputs | None = None,
    ) -> None:
        """``folder``: where measuring processes exchange weights.

        ``like``: other inputs, whose start model and meter these share.
        """
        self.settings, self.checkpoint, self.tokenizer = settings, checkpoint, tokenizer
        #: What says where the time goes; a study's is its store's.
        self.timer: Timer = like.timer if like else Timer()
        self.folder, self.like = folder, like
        #: Of the start model and of every model that is measured.
        self.place: Placement = like.place if like else audit_placement(settings)
        self.batches: ProbeBatches = (
            like.batches if like else probe_batches(settings, checkpoint, self.place)
        )
        self.precision = Precision(settings.probe_precision, self.batches.tokens)
        #: One of the rows that continuations are sampled for.
        self.sampled_row = next(part.rows[0] for part in held_out.values() if part)
        self.encoded = {side: self.encode(part) for side, part in held_out.items() if part}
        # As many of wanted as of unwanted texts, where there are both.
        rows = _in_turn(self.encoded.values())[: settings.prompts]
        self.prompts = [list(self.beginning(row)) for row in rows]
        kept = (part.rows for part in held_out.values() if part)
        self.prompt_rows = _in_turn(kept)[: settings.prompts]
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` returns, called the first time that ``name`` is asked for."""
        if name not in self._made:
            self._made[name] = make()
        value: T = self._made[name]
        return value

    @cached_property
    def start(self) -> AnyModel:
        """The start model, loaded when first needed: a plan does without."""
        if self.like:
            return self.like.start
        with self.timer.part("loading"):
            return load_model(self.checkpoint, self.place)

    @cached_property
    def base_checkpoint(self) -> Checkpoint:
        """Of the model that a finished one was made from.

        Raises :class:`ModelError` unless both have one shape and the same tokens.
        """
        base, model = resolve(self.settings.base), self.settings.model
        shapes = [
            # A head may be stored, or tied and left out.
            replace(read_architecture(checkpoint.path, "shape"), weights=0.0, tied=False)
            for checkpoint in (self.checkpoint, base)
        ]
        if shapes[0] != shapes[1]:
            given = f"--base {self.settings.base}, whose shape is not that of --model {model}"
            allowed = "the model that it was made from: same layers, widths and vocabulary"
            raise ModelError(describe(given, allowed, "name that one, or leave --base out"))
        names = f"--model {model}", f"--base {self.settings.base}"
        require_tokenizer_of(base, self.checkpoint, self.tokenizer, names)
        return base

    @cached_property
    def base(self) -> AnyModel:
        """The model that a finished one was made from, loaded when first needed."""
        with self.timer.part("loading"):
            return load_model(self.base_checkpoint, self.place)

    @cached_property
    def kl_to_base(self) -> Callable[[], list[float]]:
        """Of the held model on the prompts with continuations that the base model wrote, to it."""
        held = self.meter.subject
        self.meter.hold(self.base)
        kl = self.meter.kl_to_held(self._continued())
        self.meter.hold(held)
        return kl

    @cached_property
    def meter(self) -> Measures:
        """What measures a model: here, or in the processes that the settings ask for."""
        if self.like:
            return self.like.meter
        shared = (in_memory(self.start), self.tokenizer, self.precision)
        count = self.settings.probe_processes
        if count == 1:
            return Meter(*shared, self.timer)
        chat = chat_of(self.tokenizer)
        workers = Workers(count, self.checkpoint, self.folder, chat, self.place)
        return SharedMeter(*shared, workers, self.timer)

    def close(self) -> None:
        """End the processes that measure, if there are any."""
        if "meter" in self.__dict__ and not self.like:
            self.meter.close()
            del self.meter

    def encode(self, part: Slice) -> list[Encoded]:
        return encode_rows(self.tokenizer, part.rows, self.settings.max_tokens)

    def beginning(self, row: Encoded) -> Sequence[int]:
        """What a continuation of ``row`` is sampled from: its prompt, or first words of a text.

        Texts that all answer one prompt give their first words beside it.
        """
        s = self.settings
        if row.start == 1:
            return row.ids[: s.prompt_tokens]
        return row.ids[: row.start + (s.prompt_tokens if s.prompt is not None else 0)]

    def sampling(self, seed: int, exact_length: bool = False) -> SampleSettings:
        return SampleSettings(
            new_tokens=self.settings.sample_tokens,
            seed=seed,
            exact_length=exact_length,
            batch_size=self.batches.rows,
            kind=self.sampled_row.kind,
        )

    @cached_property
    def stop_inputs(self) -> dict[str, Any]:
        """What ends a continuation, where the tokenizer's end token is not all of it: part of the
        id of every run that samples."""
        ends = stop_ids(self.tokenizer, self.sampled_row, read_configs(self.checkpoint.path))
        alone = [self.tokenizer.eos_token_id] if self.tokenizer.eos_token_id is not None else []
        return {} if list(ends) == alone else {"stop_ids": list(ends)}

    def rows_of(self, source: str) -> Slice:
        """``utility_rows`` held-out rows of a source that is not one of the two sides."""
        limit = self.settings.utility_rows
        return self.once(f"rows {source}", lambda: load_slice(source, limit=limit, split="test"))

    @cached_property
    def scorers(self) -> tuple[Scorer, ...]:
        """What scores sampled texts in the probe ``behaviour``, the leading one first."""
        if self.like:
            return self.like.scorers
        return load_scorers(self.settings.behaviour or "", self.folder)

    @cached_property
    def prompt_texts(self) -> list[str]:
        """What continuations are sampled from, as the model reads it, without special tokens."""
        return [self.tokenizer.decode(p, skip_special_tokens=True) for p in self.prompts]

    @cached_property
    def questions(self) -> list[str]:
        """The same as it stands in the data, where a row has a prompt of its own."""
        one_prompt = self.settings.prompt is not None
        rows = zip(self.prompt_rows, self.prompt_texts, strict=True)
        return [text if one_prompt or not row.prompt else row.prompt for row, text in rows]

    @cached_property
    def start_texts(self) -> list[Encoded]:
        """The prompts with continuations sampled from the start model once, for its KL."""
        held = self.meter.subject
        self.meter.hold(self.start)
        texts = self._continued()
        self.meter.hold(held)
        return texts

    def _continued(self) -> list[Encoded]:
        """The prompts with continuations of the model that the meter holds."""
        texts = self.meter.sample(self.prompts, self.sampling(0, exact_length=True))
        return continued(self.prompts, texts)

    @timed("probing")
    def noise_floor(self, measured: dict[str, dict[str, Any]]) -> dict[str, float]:
        """How much scoring itself moves: the start model again, in batches of another size.

        Of what was measured of these: ``margin`` is the absolute difference of the two scorings
        (nats a token), ``kl`` the KL of the first scoring to the second, ``margin_se`` the standard
        error from the choice of texts.
        """
        floor = {}
        if "margin" in measured:
            again = [
                self.meter.start_nll(self.encoded[side], self.precision.batch_tokens // 3)
                for side in ("wanted", "unwanted")
            ]
            texts = [measured["margin"][side] for side in ("wanted", "unwanted")]
            floor = {
                "margin": abs(margin(*again) - measured["margin"]["value"]),
                "margin_se": math.sqrt(sum(statistics.variance(t) / len(t) for t in texts)),
            }
        if "kl" in measured:
            again_kl = self.meter.kl_to_itself(self.start_texts)
            floor["kl"] = abs(sum(again_kl) / len(again_kl))
        return floor


class ProbeContext:
    """One model under the probes of a study.

    ``aligned``: weights of the branch point that the model comes from; None where the model is
    that point itself, or the start.
    """

    def __init__(self, inputs: ProbeInputs, model: AnyModel, aligned: Path | None = None) -> None:
        self.inputs, self.subject, self.aligned = inputs, model, aligned
        self.settings, self.meter = inputs.settings, inputs.meter
        self.meter.hold(model)
        self._scores: dict[str, list[TextNLL]] = {}

    @property
    def model(self) -> Model:
        """For a probe that runs the model itself or reads its weights; raises
        :class:`springback.errors.SpringbackError` where they lie sharded over other processes."""
        return in_memory(self.subject)

    @cached_property
    def held_out(self) -> dict[str, list[TextNLL]]:
        """NLL of the held-out texts, ``wanted`` and ``unwanted``."""
        return {side: self.meter.nll(rows) for side, rows in self.inputs.encoded.items()}

    def scores(self, part: Slice) -> list[TextNLL]:
        """NLL of any other texts, one pass however many probes read them."""
        if part.content_hash not in self._scores:
            self._scores[part.content_hash] = self.meter.nll(self.inputs.encode(part))
        return self._scores[part.content_hash]

    @cached_property
    def samples(self) -> list[str]:
        """A sampled continuation of every prompt; the same noise for every model."""
        sampled = self.meter.sample(self.inputs.prompts, self.inputs.sampling(1))
        return [self.inputs.tokenizer.decode(ids, skip_special_tokens=True) for ids in sampled]
