"""The boost's side of a vLLM that runs in a process, and mostly an environment, of its own.

Both sides write a line of JSON a message: requests go in by stdin, answers come back by stdout, and
what vLLM prints goes to stderr.  Light: standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from springback.errors import SpringbackError

#: Both sides must speak the same; raised when a message changes.
PROTOCOL = 2
#: What messages hold beside an answer: how many requests are finished, a part of the answer.
DONE, PART = "done", "part"
MODULE = "springback.integrations.vllm.boost_worker"
#: Seconds until vLLM is up, and without a word of it while it works.
START, SILENCE = 1800.0, 1800.0
#: Seconds that the worker has to end by itself, and lines of its stderr that an error repeats.
_LAST_RESORT, _LINES = 10.0, 12
#: What vLLM is told unless the user said otherwise.
_DEFAULTS = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_CPU_KVCACHE_SPACE": "4"}
#: In one process, which ends with ours.
_OURS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Weights:
    """What a model's weights are: of one folder, or of the last moved along those before it.

    ``weights``: one for each folder but the last, w_i of theta + sum w_i (theta - theta_i).
    """

    folders: tuple[str, ...]
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Place:
    """The strong model and the weak one; None is no weak model.

    On a line of adapters a model is the weight of each of them, all 0 for their base alone.
    """

    strong: Weights | tuple[float, ...]
    weak: Weights | tuple[float, ...] | None = None


class Worker:
    """A vLLM engine in a process that ends when it is closed, or we are gone.

    Every method raises :class:`SpringbackError` with the last words of a worker that ended, failed,
    or said nothing for too long.
    """

    def __init__(
        self, python: Path, *, start: float = START, silence: float = SILENCE, **opening: Any
    ) -> None:
        """``opening``: what ``boost_worker.Engine`` takes; ``start`` and ``silence``: seconds."""
        self.python, self.silence = python, silence
        self._place: Place | None = None
        self._words: deque[str] = deque(maxlen=_LINES)
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._process = subprocess.Popen(  # unbuffered: a reader has a line when it is written
            [str(python), "-u", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_DEFAULTS, **os.environ, **_OURS},
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
        self._end = weakref.finalize(self, _end, self._process)
        readers = (self._listen, self._read_words)
        self._readers = [threading.Thread(target=reader, daemon=True) for reader in readers]
        for reader in self._readers:
            reader.start()
        spoken = self._next(start).get("protocol")
        if spoken != PROTOCOL:
            raise self._failed(f"speaks version {spoken} of {MODULE}, this side {PROTOCOL}")
        self.ask("open", None, start, **opening)

    def close(self) -> None:
        """End the worker."""
        self._end()
        for reader in self._readers:
            reader.join(1.0)

    def place(self, place: Place) -> None:
        """Put the models in their places, unless they are there."""
        if place != self._place:
            self._place = None  # also where what follows fails
            self.ask("place", **asdict(place))
            self._place = place

    def ask(
        self,
        what: str,
        done: Callable[[int], None] | None = None,
        silence: float | None = None,
        part: Callable[[Any], None] | None = None,
        **given: Any,
    ) -> Any:
        """The worker's answer; ``done`` is called with how many answers are finished meanwhile, and
        ``part`` with what is whole."""
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it said is more than that
            stdin.write(json.dumps({"ask": what, **given}) + "\n")
            stdin.flush()
        while True:
            answer = self._next(silence or self.silence)
            if "error" in answer:
                raise self._failed(str(answer["error"]))
            if "answer" in answer:
                return answer["answer"]
            if part and PART in answer:
                part(answer[PART])
            if done and answer.get(DONE):
                done(int(answer[DONE]))

    def _next(self, patience: float) -> dict[str, Any]:
        try:
            answer = self._answers.get(timeout=patience)
        except queue.Empty:
            self.close()
            raise self._failed(f"said nothing for {patience:g} seconds") from None
        if answer is not None:
            return answer
        code = self._process.wait()
        how = f"status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += ", as where memory runs out"
        raise self._failed(f"ended by itself ({how})")

    def _failed(self, why: str) -> SpringbackError:
        """The error, with the last words of the worker; it is closed."""
        self.close()
        words = " | ".join(self._words) or "it left no words"
        return SpringbackError(
            f"vLLM's worker ({self.python}) {why}; allowed: a worker that goes on; its last words: "
            f"{words}; mend what they say and start the same command again, or use --engine "
            "transformers"
        )

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    answer = json.loads(line)
                except ValueError:
                    answer = None
                wrong = {"error": f"wrote what is no message: {line.strip()[:200]}"}
                self._answers.put(answer if isinstance(answer, dict) else wrong)
        self._answers.put(None)

    def _read_words(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                if line.strip():
                    self._words.append(line.strip()[:400])


def _end(process: subprocess.Popen[str]) -> None:
    """End a worker: it goes when its stdin is closed, else its whole group is killed."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_LAST_RESORT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
