"""Machines and sizes of models that plans know of without having them.  Light: no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from springback.errors import SpringbackError, describe
from springback.jobs.plan_settings import HARDWARE, PlanSettings
from springback.jobs.speeds import Speeds, known_speeds, scored_in
from springback.models.memory import Architecture, available_bytes, item_bytes
from springback.models.memory_parts import Parts, total

#: Of a device's memory that weights, caches and activations may fill.
USABLE_MEMORY = 0.85


@dataclass(frozen=True)
class Machine:
    """One device: FLOP a second of training and of scoring, bytes of memory, bytes a second of
    disk, bytes of weights a second that decoding reads.  ``source`` says where its speeds are
    from, ``measured`` whether they were measured."""

    name: str
    train: float
    score: float
    memory: float
    disk: float
    measured: bool
    source: str
    read: float = 1e10

    @property
    def is_cpu(self) -> bool:
        """As far as memory goes: batches go through a model in pieces there."""
        return self.name == "cpu"

    def speeds(self, dtype: str) -> Speeds:
        """For weights in ``dtype``."""
        step, row = item_bytes(dtype) / self.read, 2 / self.score
        return Speeds(self.train, self.score, step, row, self.disk, self.source)

    def devices(self, parts: Parts, given: int, what: str, smaller: str) -> int:
        """How many hold ``parts``: as many as ``given``, with 0 the smallest power of two.

        Raises :class:`SpringbackError` where so many do not hold them; ``smaller``: the flag by
        which it needs less.
        """
        needed = total(parts)
        fits = max(1, math.ceil(needed / (USABLE_MEMORY * self.memory)))
        if given and given < fits:
            raise SpringbackError(
                f"--gpus is {given}; {what} needs {needed / 1e9:,.0f} GB, so {fits} or more of "
                f"{self.name} ({self.memory / 1e9:.0f} GB each); raise it, or train an adapter "
                f"({smaller})"
            )
        return given or 2 ** math.ceil(math.log2(fits))


def _gpu(name: str, peak: float, memory: float, read: float) -> Machine:
    # Shares of peak that FSDP trainings report (0.3 to 0.5); scoring goes in fp32 (TF32 half).
    return Machine(
        name,
        0.35 * peak,
        0.15 * peak,
        memory,
        2e9,
        False,
        "assumed: 35 % and 15 % of peak bf16, half of the memory's peak",
        0.5 * read,
    )


MACHINES = {
    "cpu": Machine(
        "cpu",
        3.4e11,
        1.2e11,
        24e9,
        5e8,
        True,
        "measured: SmolLM2-135M on 2 cores with AVX-512 bf16 (docs/results/imdb-audit, log.md)",
    ),
    "l4": _gpu("l4", 121e12, 24e9, 3e11),
    "a100": _gpu("a100", 312e12, 80e9, 2e12),
    "h100": _gpu("h100", 989e12, 80e9, 3.3e12),
    "h200": _gpu("h200", 989e12, 141e9, 4.8e12),
}
assert {*MACHINES, "here"} == set(HARDWARE)


def _llama(name: str, weights: float, layers: int, width: int, heads: int, shared: int,
           hidden: int, vocabulary: int, tied: bool = False) -> Architecture:  # fmt: skip
    head = width // heads
    return Architecture(
        name, weights, layers, width, hidden, width, shared * head, shared * head, vocabulary, tied
    )


#: The models that these names stand for: Llama 3.2 1B, 2 7B, 3.1 8B, Qwen2.5 14B and 32B, Llama 3
#: 70B, 3.1 405B.
KNOWN = {
    "1B": _llama("1B", 1.24e9, 16, 2048, 32, 8, 8192, 128256, tied=True),
    "7B": _llama("7B", 6.74e9, 32, 4096, 32, 32, 11008, 32000),
    "8B": _llama("8B", 8.03e9, 32, 4096, 32, 8, 14336, 128256),
    "14B": _llama("14B", 14.8e9, 48, 5120, 40, 8, 13824, 152064),
    "32B": _llama("32B", 32.8e9, 64, 5120, 40, 8, 27648, 152064),
    "70B": _llama("70B", 70.6e9, 80, 8192, 64, 8, 28672, 128256),
    "405B": _llama("405B", 405.9e9, 126, 16384, 128, 8, 53248, 128256),
}
_UNITS = {"": 1.0, "M": 1e6, "B": 1e9}


def machine_of(asked: PlanSettings, precision: str, scoring: str = "float32") -> Machine:
    """The machine that is asked for; ``here`` is this one, with the speeds that it was timed at.

    ``precision``: of training; ``scoring``: of scoring and decoding.  Raises
    :class:`SpringbackError` on what cannot be.
    """
    for flag, value in (("gpus", asked.gpus), ("price", asked.price)):
        if value < 0:
            raise SpringbackError(f"--{flag} is {value}; give 0 or more")
    if asked.hardware == "here":
        return _here(precision, scoring)
    if asked.hardware not in MACHINES:
        raise SpringbackError(f"--hardware is {asked.hardware}; allowed: {', '.join(HARDWARE)}")
    return MACHINES[asked.hardware]


def _here(precision: str, scoring: str) -> Machine:
    from springback.models.placement import accelerator

    speeds, device = known_speeds(precision, scoring), accelerator()
    size = 4 if scored_in(scoring) == "float32" else 2
    return Machine(
        "cpu" if device.type == "cpu" else "here",
        speeds.train,
        speeds.score,
        available_bytes(str(device)) / USABLE_MEMORY,
        speeds.disk,
        speeds.source.startswith("measured"),
        speeds.source,
        size / speeds.step,
    )


def architecture(size: str) -> Architecture:
    """A known size, or a Llama of so many weights, its width 128 for each layer.

    Raises :class:`SpringbackError` where it is no number of weights.
    """
    if size.upper() in KNOWN:
        return KNOWN[size.upper()]
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)([MB]?)", size.upper())
    weights = float(parts[1]) * _UNITS[parts[2]] if parts else 0.0
    if not 1e6 <= weights <= 1e13:
        raise SpringbackError(
            "--size: " + describe(repr(size), f"{', '.join(KNOWN)}, or 1M to 10000B", "write 3B")
        )
    layers = max(2, round((weights / (12 * 128**2)) ** (1 / 3)))
    width = 128 * layers
    vocabulary = 128256 if weights >= 1e9 else 49152
    return _llama(
        size.upper(), weights, layers, width, layers, min(layers, 8), 7 * width // 2, vocabulary
    )
