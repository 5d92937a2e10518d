"""Measurements in processes over which start and measured model are sharded (FSDP2).

The study's process writes what to measure into a folder, one numbered request after the other;
every process reads each of them, so that all run the same passes, and the first one answers.
Values are those of one process, to the bit where each has as many threads.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from springback.core import Checkpoint, to_jsonable
from springback.errors import SpringbackError
from springback.models.encoding import Encoded
from springback.models.loading import Model, Tokenizer, load_tokenizer
from springback.models.placement import DTYPES, dtype_name
from springback.models.stored_model import AnyModel, StoredModel
from springback.models.templates import chat_of
from springback.probes.behaviour import SampleSettings
from springback.probes.divergence import KEEP_BYTES
from springback.probes.likelihood import Precision, TextNLL
from springback.probes.measuring import Meter
from springback.results.store import read_json, require_folder, write_json
from springback.results.timing import Timer, timed
from springback.settings import ChatSettings
from springback.training.launch import Launch, end_process

JOB = "job.json"
#: What a process calls a model that is no checkpoint.
IN_TRAINING = "in training"
#: Seconds between two looks for the next request or answer.
WAIT = 0.01
#: Seconds that the processes have to end by themselves.
GRACE = 20.0


class ShardedMeter:
    """:class:`springback.probes.measuring.Measures` in processes of a launch that shards weights.

    ``start`` and what :meth:`hold` is given lie in files, which the processes read; nothing of them
    comes into this process's memory.  Raises :class:`SpringbackError` where they fail.
    """

    def __init__(
        self,
        start: StoredModel,
        tokenizer: Tokenizer,
        precision: Precision,
        launch: Launch,
        folder: Path,
        timer: Timer | None = None,
    ) -> None:
        self.timer = timer or Timer()
        self.start = start
        self.subject: AnyModel = start
        require_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(".tmp", ".measured-", folder))
        self.launch, self.asked = launch, 0
        facts = {
            "model": start.checkpoint,
            "dtype": dtype_name(start.dtype),
            "precision": dataclasses.asdict(precision),
            "chat": dataclasses.asdict(chat_of(tokenizer)),
            "cpu": launch.cpu,
            "threads": torch.get_num_threads(),
            "parent": os.getpid(),
        }
        write_json(self.folder / JOB, to_jsonable(facts))
        self._errors = (self.folder / "errors.log").open("w+", encoding="utf-8")
        self._child = subprocess.Popen(
            launch.command(self.folder, "springback.probes.sharded"),
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=launch.environment(),
        )

    def hold(self, model: AnyModel) -> None:
        assert isinstance(model, StoredModel)
        self.subject = model
        file = None if model.file is None else str(model.file)
        self._ask("hold", {"model": to_jsonable(model.checkpoint), "file": file})

    def nll(self, rows: Sequence[Encoded]) -> list[TextNLL]:
        return [TextNLL(*one) for one in self._ask("nll", _plain(rows))]

    def start_nll(self, rows: Sequence[Encoded], batch_tokens: int) -> list[TextNLL]:
        return [TextNLL(*one) for one in self._ask("start_nll", [_plain(rows), batch_tokens])]

    def kl(self, rows: Sequence[Encoded]) -> list[float]:
        values: list[float] = self._ask("kl", _plain(rows))
        return values

    def kl_to_held(
        self, rows: Sequence[Encoded], keep_bytes: int = KEEP_BYTES
    ) -> Callable[[], list[float]]:
        target: str = self._ask("kl_to_held", [_plain(rows), keep_bytes])
        return partial(self._ask, "kl_to", target)

    def kl_to_itself(self, rows: Sequence[Encoded]) -> list[float]:
        values: list[float] = self._ask("kl_to_itself", _plain(rows))
        return values

    def reverse_kl(self, rows: Sequence[Encoded]) -> list[float]:
        values: list[float] = self._ask("reverse_kl", _plain(rows))
        return values

    @timed("sampling")
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        settings: SampleSettings,
        numbers: Sequence[int] | None = None,
    ) -> list[list[int]]:
        which = None if numbers is None else list(numbers)
        given = [list(map(list, prompts)), dataclasses.asdict(settings), which]
        texts: list[list[int]] = self._ask("sample", given)
        return texts

    def held(self) -> list[int]:
        """Weights that each process holds of the start model while nothing runs."""
        numbers: list[int] = self._ask("held", None)
        return numbers

    def close(self) -> None:
        try:
            if self._child.poll() is None:
                self._write("stop", None)
                self._child.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._child.terminate()
            self._child.wait()
        finally:
            self._errors.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, what: str, given: Any) -> Path:
        self.asked += 1
        write_json(_request(self.folder, self.asked), {"do": what, "given": given})
        return _answer(self.folder, self.asked)

    def _ask(self, what: str, given: Any) -> Any:
        answer = self._write(what, given)
        while not answer.exists():
            if self._child.poll() is not None and not answer.exists():
                raise self._failed()
            time.sleep(WAIT)
        value = read_json(answer)["value"]
        answer.unlink()
        return value

    def _failed(self) -> SpringbackError:
        self._errors.seek(0)
        messages = [line.strip() for line in self._errors if "Error: " in line]
        return SpringbackError(
            f"measuring by accelerate with {self.launch.config} ended with status "
            f"{self._child.returncode} ({messages[0] if messages else 'no message'}); look at that "
            "config, or leave --accelerate out"
        )


def _request(folder: Path, number: int) -> Path:
    return folder / f"request-{number}.json"


def _answer(folder: Path, number: int) -> Path:
    return folder / f"answer-{number}.json"


def _plain(rows: Sequence[Encoded]) -> list[Any]:
    return [[list(row.ids), row.start, row.text_bytes] for row in rows]


def _rows(given: Sequence[Any]) -> list[Encoded]:
    return [Encoded(tuple(ids), start, size) for ids, start, size in given]


class _Process:
    """One of the processes: its parts of both models, and the requests."""

    def __init__(self, folder: Path) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        from springback.models.sharded import load_sharded

        job = read_json(folder / JOB)
        self.folder, self.parent = folder, int(job["parent"])
        torch.set_num_threads(job["threads"])
        kind = "cpu" if job["cpu"] else "cuda"
        if not job["cpu"]:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        torch.distributed.init_process_group("gloo" if job["cpu"] else "nccl")
        self.mesh = init_device_mesh(kind, (torch.distributed.get_world_size(),))
        self.checkpoint = Checkpoint(**job["model"])
        self.dtype = DTYPES[job["dtype"]]
        tokenizer = load_tokenizer(self.checkpoint, ChatSettings(**job["chat"]))
        start = load_sharded(self.checkpoint, self.dtype, self.mesh)
        self.meter = Meter(start, tokenizer, Precision(**job["precision"]))
        #: By where its files lie: the start model, and the base of a finished one.
        self.whole: dict[str, Model] = {self.checkpoint.path: start}
        #: What takes the weights of models in training.
        self.work: Model | None = None
        self.holds = self.checkpoint.path
        self.kl_to: dict[str, Callable[[], list[float]]] = {}

    def serve(self) -> None:
        """Answer one request after the other until there is to be no more."""
        number = 1
        while True:
            request = _request(self.folder, number)
            while not request.exists():
                if not _is_there(self.parent):
                    raise SpringbackError("the study's process is gone")
                time.sleep(WAIT)
            asked = read_json(request)
            if asked["do"] == "stop":
                break
            value = self.answer(asked["do"], asked["given"])
            # No request goes, nor the weights that it names, before all have read them.
            torch.distributed.barrier()
            if torch.distributed.get_rank() == 0:
                request.unlink()
                write_json(_answer(self.folder, number), {"value": value})
            number += 1

    def answer(self, what: str, given: Any) -> Any:
        if what == "hold":
            return self.hold(given)
        if what == "held":
            from springback.models.sharded import held_numbers

            every: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(every, held_numbers(self.meter.start))
            return every
        if what == "sample":
            prompts, settings, numbers = given
            return self.meter.sample(prompts, SampleSettings(**settings), numbers)
        if what == "kl_to_held":
            rows, keep_bytes = given
            self.kl_to[self.holds] = self.meter.kl_to_held(_rows(rows), keep_bytes)
            return self.holds
        if what == "kl_to":
            return self.kl_to[given]()
        if what == "start_nll":
            rows, batch_tokens = given
            values: list[Any] = self.meter.start_nll(_rows(rows), batch_tokens)
        else:
            values = getattr(self.meter, what)(_rows(given))
        return [dataclasses.astuple(v) if isinstance(v, TextNLL) else v for v in values]

    def hold(self, given: dict[str, Any]) -> None:
        from springback.models.sharded import load_sharded, read_sharded

        checkpoint, file = Checkpoint(**given["model"]), given["file"]
        self.holds = IN_TRAINING if file else checkpoint.path
        if file:
            if self.work is None:
                self.work = load_sharded(checkpoint, self.dtype, self.mesh)
            read_sharded(self.work, [Path(file)])
            self.meter.hold(self.work)
            return
        if checkpoint.path not in self.whole:
            loaded = load_sharded(checkpoint, self.dtype, self.mesh)
            self.whole[checkpoint.path] = loaded
        self.meter.hold(self.whole[checkpoint.path])


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    try:
        _Process(Path(sys.argv[1])).serve()
    except SpringbackError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    end_process()
