"""One thread that decodes: it takes what waits, batch by batch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from springback.decoding import DecodeSettings, Hooks, decode_fast
from springback.inference import Loaded
from springback.integrations.server.metrics import Metrics
from springback.models.encoding import answer_text


class Busy(Exception):
    """Too many rows wait."""


class Closed(Exception):
    """The server is stopping."""


class _Abort(Exception):
    """Raised inside decoding when no client waits for its answers any more."""


@dataclass
class Job:
    """Prompts of one request, as token ids, and the callbacks for its answers.

    ``on_token(row, token)``, then ``on_end`` once, with the answers' ids or with what went wrong;
    both are called in the worker's thread.
    """

    prompts: Sequence[Sequence[int]]
    settings: DecodeSettings
    on_token: Callable[[int, int], None]
    on_end: Callable[[list[list[int]] | Exception], None]
    cancelled: threading.Event = field(default_factory=threading.Event)


class Worker:
    """Decodes jobs in the order they came.

    Greedy jobs of equal settings that wait are decoded together, ``batch`` rows at most; a sampled
    one runs alone, since its noise is keyed by its rows' numbers.
    """

    def __init__(self, loaded: Loaded, batch: int, queue: int, metrics: Metrics) -> None:
        self.loaded, self.batch, self.queue, self.metrics = loaded, batch, queue, metrics
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing, self._aborting = False, False
        self.running = 0  # rows
        self._thread = threading.Thread(target=self._work, name="decode", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait and are still wanted."""
        with self._changed:
            return self._rows()

    def _rows(self) -> int:
        return sum(len(job.prompts) for job in self._waiting if not job.cancelled.is_set())

    @property
    def closing(self) -> bool:
        return self._closing

    def submit(self, job: Job) -> None:
        """Raises :class:`Busy` when ``queue`` rows wait, :class:`Closed` after :meth:`close`.  Rows
        whose client has left take no place."""
        with self._changed:
            if self._closing:
                raise Closed
            idle = not self._waiting and not self.running
            if not idle and self._rows() + len(job.prompts) > self.queue:
                raise Busy
            self._waiting.append(job)
            self._changed.notify()

    def drain(self, grace: float) -> None:
        """Take no more; what was taken has ``grace`` seconds.  May be called in a signal handler:
        the lock is reentrant."""
        with self._changed:
            if self._aborting:
                return
            self._closing = True
            self._changed.notify()
        timer = threading.Timer(grace, self._abort)
        timer.daemon = True
        timer.start()

    def close(self, timeout: float = 5.0) -> None:
        """Take no more, break off what runs at its next token, and end the thread."""
        self._abort()
        self._thread.join(timeout)

    def _abort(self) -> None:
        with self._changed:
            self._closing = self._aborting = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if self._aborting or not self._waiting:
                    left, self._waiting = list(self._waiting), deque()
                    break
                jobs = self._take()
                self.running = sum(len(job.prompts) for job in jobs)
            try:
                self._decode(jobs)
            finally:
                self.running = 0
        for job in left:
            job.on_end(Closed())

    def _take(self) -> list[Job]:
        """The oldest job, and those that may share its batch."""
        first = self._waiting.popleft()
        jobs, rows = [first], len(first.prompts)
        if first.settings.temperature == 0:
            for job in list(self._waiting):
                if job.settings == first.settings and rows + len(job.prompts) <= self.batch:
                    self._waiting.remove(job)
                    jobs.append(job)
                    rows += len(job.prompts)
        return jobs

    def _decode(self, jobs: list[Job]) -> None:
        jobs = [job for job in jobs if not job.cancelled.is_set()]
        if not jobs:
            return
        owner = [(job, row) for job in jobs for row in range(len(job.prompts))]

        def on_token(row: int, token: int) -> None:
            if self._aborting or all(job.cancelled.is_set() for job in jobs):
                raise _Abort
            job, job_row = owner[row]
            job.on_token(job_row, token)

        def text_of(ids: Sequence[int]) -> str:
            return answer_text(self.loaded.tokenizer, ids)

        settings = replace(jobs[0].settings, batch_size=self.batch)
        prompts = [prompt for job in jobs for prompt in job.prompts]
        hooks = Hooks(on_token=on_token, text_of=text_of)
        try:
            decoded = decode_fast(
                self.loaded.expert, prompts, settings, self.loaded.amateur, hooks=hooks
            )
        except _Abort:
            for job in jobs:
                job.on_end(Closed())
            return
        except Exception as error:  # the server outlives a request that fails
            for job in jobs:
                job.on_end(error)
            return
        self.metrics.count("batches_total")
        if decoded.work:
            self.metrics.count("expert_calls_total", decoded.work.expert_calls)
            self.metrics.count("amateur_calls_total", decoded.work.amateur_calls)
        answers = iter(decoded.answers)
        for job in jobs:
            job.on_end([next(answers) for _ in job.prompts])
