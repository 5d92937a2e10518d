"""The measurements that have a cost, forward passes and sampling: in one process or several.

Several processes take whole batches of those that one process would make, so every sum is taken
over the same numbers in the same order: the values are equal to the bit where each process has as
many threads as the one would have.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from springback.core import Checkpoint
from springback.decoding import sampling_groups
from springback.errors import SpringbackError
from springback.models.encoding import Encoded, scoring_groups
from springback.models.loading import (
    WEIGHTS_FILE,
    Model,
    Tokenizer,
    copy_weights,
    fixed_threads,
    load_model,
    load_tokenizer,
    read_weights,
    write_weights,
)
from springback.models.placement import Placement
from springback.models.stored_model import AnyModel, in_memory
from springback.probes.behaviour import SampleSettings, sample
from springback.probes.divergence import KEEP_BYTES, StartDistribution, kl_on
from springback.probes.likelihood import Precision, TextNLL, nll
from springback.results.store import require_folder
from springback.results.timing import Timer, timed
from springback.settings import ChatSettings

T = TypeVar("T")
#: Seconds between two looks whether the process that a worker belongs to is still there.
FOLLOW = 2.0


class Measures(Protocol):
    """The measurements of one model beside its start that have a cost, wherever they are made.

    ``subject``: the model that :meth:`hold` named last.
    """

    subject: AnyModel

    def hold(self, model: AnyModel) -> None:
        """``model``, as its weights are now, is measured next."""

    def nll(self, rows: Sequence[Encoded]) -> list[TextNLL]:
        """:func:`springback.probes.nll`."""

    def start_nll(self, rows: Sequence[Encoded], batch_tokens: int) -> list[TextNLL]:
        """The same of the start model, in one process and in batches of so many tokens."""

    def kl(self, rows: Sequence[Encoded]) -> list[float]:
        """:meth:`springback.probes.StartDistribution.kl`; the start's side of the last rows asked
        for is kept."""

    def kl_to_itself(self, rows: Sequence[Encoded]) -> list[float]:
        """:meth:`springback.probes.StartDistribution.kl_to_itself`, in one process."""

    def kl_to_held(
        self, rows: Sequence[Encoded], keep_bytes: int = KEEP_BYTES
    ) -> Callable[[], list[float]]:
        """What gives, whenever it is called, the KL from the model that is held now to the one that
        is held then, on ``rows``.

        This model's side is kept in so many bytes; where it needs more, the model has to stay as it
        is.  Of models in training it is the last one alone that may be asked for.
        """

    def reverse_kl(self, rows: Sequence[Encoded]) -> list[float]:
        """:func:`springback.probes.divergence.kl_on`."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        settings: SampleSettings,
        numbers: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """:func:`springback.probes.sample`."""

    def close(self) -> None:
        """End what was started for this."""


class Meter:
    """:class:`Measures` in this process.

    ``start`` is the start model, ``model`` the one that :meth:`hold` named, in the same dtype:
    computed in another, the difference of the two would be of two roundings.
    """

    def __init__(
        self,
        start: Model,
        tokenizer: Tokenizer,
        precision: Precision,
        timer: Timer | None = None,
    ) -> None:
        self.timer = timer or Timer()
        self.start, self.model = start, start
        self.subject: AnyModel = start
        self.tokenizer, self.precision = tokenizer, precision
        self._distribution: StartDistribution | None = None
        self._rounded: Model | None = None

    def hold(self, model: AnyModel) -> None:
        self.subject, self.model = model, self._in_start_dtype(in_memory(model))

    def _in_start_dtype(self, model: Model) -> Model:
        """``model``, or a copy of it in the start model's dtype; the next copy overwrites it."""
        if model.dtype == self.start.dtype:
            return model
        if self._rounded is None:
            self._rounded = copy.deepcopy(self.start)
        copy_weights(model, self._rounded)
        return self._rounded

    def nll(self, rows: Sequence[Encoded]) -> list[TextNLL]:
        return nll(self.model, rows, self.tokenizer, self.precision)

    def start_nll(self, rows: Sequence[Encoded], batch_tokens: int) -> list[TextNLL]:
        precision = replace(self.precision, batch_tokens=batch_tokens)
        return nll(self.start, rows, self.tokenizer, precision)

    def kl(self, rows: Sequence[Encoded]) -> list[float]:
        return self._start_side(rows).kl(self.model)

    def kl_to_itself(self, rows: Sequence[Encoded]) -> list[float]:
        return self._start_side(rows).kl_to_itself()

    def kl_to_held(
        self, rows: Sequence[Encoded], keep_bytes: int = KEEP_BYTES
    ) -> Callable[[], list[float]]:
        given = self.tokenizer, self.precision, keep_bytes
        distribution = StartDistribution(self.model, rows, *given)
        return lambda: distribution.kl(self.model)

    def _start_side(self, rows: Sequence[Encoded]) -> StartDistribution:
        if self._distribution is None or self._distribution.rows != rows:
            made = StartDistribution(self.start, rows, self.tokenizer, self.precision)
            self._distribution = made
        return self._distribution

    def reverse_kl(self, rows: Sequence[Encoded]) -> list[float]:
        return kl_on(self.model, self.start, rows, self.tokenizer, self.precision)

    @timed("sampling")
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        settings: SampleSettings,
        numbers: Sequence[int] | None = None,
    ) -> list[list[int]]:
        return sample(self.model, self.tokenizer, prompts, settings, numbers)

    def close(self) -> None: ...


@dataclass(frozen=True)
class Workers:
    """How many processes, this one included; what each loads; a folder that all of them see.

    ``chat``: of their tokenizer.  ``place``: of the start model.
    """

    processes: int
    checkpoint: Checkpoint
    folder: Path
    chat: ChatSettings | None = None
    place: Placement = field(default_factory=Placement)


class SharedMeter(Meter):
    """:class:`Meter` over processes that each hold both models; worker r has GPU r.

    Its first part is measured here.  Raises :class:`SpringbackError` where a process is lost.
    """

    def __init__(
        self,
        start: Model,
        tokenizer: Tokenizer,
        precision: Precision,
        workers: Workers,
        timer: Timer | None = None,
    ) -> None:
        super().__init__(start, tokenizer, precision, timer)
        self.workers = workers
        self.threads = max(1, torch.get_num_threads() // workers.processes)
        # One pool each, since a worker holds what it was given.
        context = multiprocessing.get_context("spawn")
        self.pools = [
            ProcessPoolExecutor(
                1,
                context,
                _begin,
                (workers, precision, rank, self.threads, os.getpid()),
            )
            for rank in range(1, workers.processes)
        ]

    def hold(self, model: AnyModel) -> None:
        super().hold(model)
        if model is self.start:
            self._every([pool.submit(_hold, None) for pool in self.pools])
            return
        require_folder(self.workers.folder)
        self.workers.folder.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(".tmp", ".measured-", self.workers.folder))
        file = place / WEIGHTS_FILE
        try:
            write_weights(in_memory(model), file)
            self._every([pool.submit(_hold, file) for pool in self.pools])
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def nll(self, rows: Sequence[Encoded]) -> list[TextNLL]:
        return self._scored(super().nll, "nll", rows)

    def kl(self, rows: Sequence[Encoded]) -> list[float]:
        return self._scored(super().kl, "kl", rows)

    def reverse_kl(self, rows: Sequence[Encoded]) -> list[float]:
        return self._scored(super().reverse_kl, "reverse_kl", rows)

    @timed("sampling")
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        settings: SampleSettings,
        numbers: Sequence[int] | None = None,
    ) -> list[list[int]]:
        parts = self._parts(sampling_groups(prompts, settings.batch_size))
        given = [
            (
                [prompts[i] for i in part],
                settings,
                part if numbers is None else [numbers[i] for i in part],
            )
            for part in parts
        ]
        return self._dealt(super().sample, "sample", parts, given)

    def close(self) -> None:
        for pool in self.pools:
            pool.shutdown(cancel_futures=True)

    def _parts(self, groups: Sequence[Sequence[int]]) -> list[list[int]]:
        """Rows of each process, in order: whole groups, dealt out in turn."""
        count = self.workers.processes
        return [sorted(i for group in groups[rank::count] for i in group) for rank in range(count)]

    def _scored(
        self, here: Callable[[Sequence[Encoded]], list[T]], name: str, rows: Sequence[Encoded]
    ) -> list[T]:
        parts = self._parts(scoring_groups(rows, self.precision.batch_tokens))
        return self._dealt(here, name, parts, [([rows[i] for i in part],) for part in parts])

    def _dealt(
        self,
        here: Callable[..., list[T]],
        name: str,
        parts: Sequence[Sequence[int]],
        given: Sequence[tuple[Any, ...]],
    ) -> list[T]:
        """Every process's values of its part, what it is ``given``; in the order of all rows."""
        others = self._submit(name, given)
        with fixed_threads(self.threads):
            values = [here(*given[0])]
        values += self._every(others)
        indices = (i for part in parts for i in part)
        by_index = dict(zip(indices, (v for part in values for v in part), strict=True))
        return [by_index[i] for i in range(len(by_index))]

    def _submit(self, name: str, parts: Sequence[tuple[Any, ...]]) -> list[Future[Any]]:
        """To every worker its part; the first one is this process's."""
        return [
            pool.submit(_do, name, *part) for pool, part in zip(self.pools, parts[1:], strict=True)
        ]

    def _every(self, futures: Sequence[Future[Any]]) -> list[Any]:
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise SpringbackError(
                f"one of {self.workers.processes} measuring processes ended by itself, perhaps for "
                "want of memory: each holds the start model and the measured one; lower "
                "--probe-processes and run the same command again"
            ) from error


#: In a worker: its meter, and the model that takes the weights to be measured once there are any.
_meter: list[Meter] = []
_work: list[Model] = []


def _begin(workers: Workers, precision: Precision, rank: int, threads: int, parent: int) -> None:
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # the first process reports it
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    checkpoint = workers.checkpoint
    tokenizer = load_tokenizer(checkpoint, workers.chat)
    _meter.append(Meter(load_model(checkpoint, workers.place), tokenizer, precision))


def _follow(parent: int) -> None:
    """End with the process that started this one, however that ended."""
    while os.getppid() == parent:
        time.sleep(FOLLOW)
    os._exit(1)


def _hold(file: Path | None) -> None:
    meter = _meter[0]
    if file is None:
        meter.hold(meter.start)
        return
    if not _work:
        _work.append(copy.deepcopy(meter.start))
    read_weights(_work[0], file)
    meter.hold(_work[0])


def _do(name: str, *given: Any) -> Any:
    """The measurement ``name`` of a part; an empty part has an empty result."""
    return getattr(_meter[0], name)(*given) if given[0] else type(given[0])()
