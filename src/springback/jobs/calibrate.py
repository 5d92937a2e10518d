"""``--calibrate``: this machine timed for ten seconds at a model's shapes.

A model of two layers of that shape, with random weights, is trained, scored and decoded with as
jobs do it; what a pass takes is in proportion to weights (``benchmarks/plan_calibration.py``).
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from springback.core import Recipe
from springback.decoding import DecodeSettings, decode
from springback.jobs.hardware import architecture
from springback.jobs.speeds import Speeds, keep, scored_in
from springback.models.builtin import cache_folder
from springback.models.encoding import Encoded
from springback.models.from_scratch import random_numbers_kept, two_layers
from springback.models.hub import base_of, local_folder
from springback.models.loading import Model, release_memory, tune_allocator
from springback.models.memory import Architecture, read_architecture
from springback.probes import Precision, nll
from springback.results.provenance import cpu_model, gpu, threads
from springback.training import finetune
from springback.weights import is_adapter

#: Seconds of training, and half of that of each other measurement, beside what warms up.
SECONDS = 2.0
#: Rows of a batch and their tokens in training and scoring; decoded tokens of a row.
ROWS, TOKENS, NEW = 8, 64, 12
#: Steps of the longer of two trainings.
STEPS = 3
#: Rows decoded at once, in two sizes: their difference is what a row costs.
FEW, MANY = 1, 16
#: Bytes written to time the disk.
WRITTEN = 64 << 20


def calibrate(shape: Architecture, precision: str, scoring: str = "float32") -> Speeds:
    """Time this machine and keep what it does for later plans.

    ``precision``: of training; ``scoring``: of scoring and decoding.
    """
    tune_allocator()
    scoring = scored_in(scoring)
    place = gpu() or f"{cpu_model()}, {threads()} threads"
    today = datetime.now(UTC).date().isoformat()
    speeds = replace(
        _timed(two_layers(shape), precision, scoring),
        source=f"measured on {place}, {today}, at two layers of {shape.name}, "
        f"{precision} and {scoring}",
    )
    release_memory()
    keep(speeds, precision, scoring)
    return speeds


def shape_of(model: str, sizes: Sequence[str] = ()) -> Architecture:
    """Of the first size; without one of a model at hand (of an adapter, of its base)."""
    if sizes:
        return architecture(sizes[0])
    folder = local_folder(model)
    if is_adapter(folder):
        folder = base_of([folder])
    return read_architecture(folder, Path(model).name)


def _timed(model: Model, precision: str, scoring: str) -> Speeds:
    """Training, scoring and decoding of the model, and the disk."""
    tokenizer: Any = SimpleNamespace(pad_token_id=0)
    weights = sum(p.numel() for p in model.parameters())
    rows = _rows(int(model.config.vocab_size))
    recipe = Recipe(batch_size=ROWS, max_tokens=TOKENS, precision=precision, learning_rate=1e-6)
    tokens = len(rows) * TOKENS
    with random_numbers_kept():
        one = _seconds(lambda: finetune(model, tokenizer, rows, recipe), SECONDS / 2)
        many = _seconds(lambda: finetune(model, tokenizer, rows * STEPS, recipe), SECONDS)
    # Three steps less one: what setting a run up takes is in both.
    train = 6 * weights * (STEPS - 1) * tokens / max(many - one, many / STEPS / 2)
    if scoring == "bfloat16":
        model = model.bfloat16()
    scored = _seconds(lambda: nll(model, rows, tokenizer, Precision(scoring)), SECONDS / 2)
    if scoring != "float32":
        model.bfloat16()
    few, lots = (_step_seconds(model, rows, count) for count in (FEW, MANY))
    row = max(lots - few, 0.02 * lots) / (MANY - FEW)
    step = max(few - FEW * row, 0.02 * few)
    score = 2 * weights * tokens / scored
    return Speeds(train, score, step / weights, row / weights, _disk_speed(), "")


def _rows(vocabulary: int) -> list[Encoded]:
    draw = random.Random(0)
    return [
        Encoded(tuple(draw.randrange(1, vocabulary) for _ in range(TOKENS)), 1, TOKENS)
        for _ in range(ROWS)
    ]


def _step_seconds(model: Model, rows: list[Encoded], count: int) -> float:
    """Of a step of decoding ``count`` rows: an answer of many tokens less one of a single one."""
    prompts = [list(rows[i % len(rows)].ids[:16]) for i in range(count)]
    ends = DecodeSettings(max_new_tokens=1, batch_size=count)
    long = replace(ends, max_new_tokens=1 + NEW)
    first = _seconds(lambda: decode(model, prompts, ends), SECONDS / 6)
    whole = _seconds(lambda: decode(model, prompts, long), SECONDS / 3)
    return max(whole - first, 1e-6) / NEW


def _seconds(work: Callable[[], object], most: float) -> float:
    """The shortest time of ``work``, after one that warms up, in about ``most`` seconds."""
    began = time.perf_counter()
    work()
    times: list[float] = []
    while not times or time.perf_counter() - began < most:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _disk_speed() -> float:
    """Bytes a second that reach the disk of the cache folder."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        began = time.perf_counter()
        with Path(scratch, "bytes").open("wb") as file:
            file.write(os.urandom(WRITTEN))
            os.fsync(file.fileno())
        return WRITTEN / (time.perf_counter() - began)
