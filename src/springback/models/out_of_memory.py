"""Running out of memory as an error that says what was needed, part by part, and what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ParamSpec, TypeVar

from springback.core import byte_size
from springback.errors import SpaceError
from springback.models.memory import available_bytes
from springback.models.memory_parts import Part, Parts, total

P = ParamSpec("P")
R = TypeVar("R")

#: What torch, safetensors and the kernel say of it, in errors of a general kind.
_WORDS = (
    "DefaultCPUAllocator: can't allocate",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Cannot allocate memory",
)
#: How to need less, as errors say it.
LESS = {
    "boost": "take --dtype bfloat16, a smaller --batch-size, adapters instead of full "
    "checkpoints, with --train --checkpoint-activations, or --device-map auto",
    "audit": "take --lora-rank 16, --checkpoint-activations, a smaller --batch-size or "
    "--max-tokens, or a smaller model",
    "check": "take --dtype bfloat16, --no-kl (KL holds both models), a smaller --batch-size, or "
    "--device-map auto",
    "generate": "take --dtype bfloat16, fewer prompts at once, or --device-map auto",
}
#: Parts that an error names, the largest first.
_NAMED = 4


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the error, or one that it was raised from, says that memory ran out."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if any(word in str(error) for word in _WORDS):
            return True
        error = error.__cause__
    return False


@contextmanager
def memory_explained(
    job: str, parts_of: Callable[[], Parts], device: str | None = None
) -> Iterator[None]:
    """Within, running out of memory raises :class:`SpaceError`.

    ``job``: one of :data:`LESS`; ``parts_of`` says what it needs, asked only then.  ``device``:
    whose memory it is, by default that of an accelerator if torch has one; what is free at the
    beginning is what it has.
    """
    place = _device() if device in (None, "auto") else str(device)
    there = ""
    with suppress(Exception):  # a device that is not here is told of by what is within
        there = f"{byte_size(available_bytes(place))} were free on {place}; "
    try:
        yield
    except Exception as error:
        if isinstance(error, SpaceError) or not is_out_of_memory(error):
            raise
        parts: Parts = ()
        with suppress(Exception):  # the plan must not hide what it is about
            parts = parts_of()
        needed = f"it needs {_named(parts)}; " if parts else ""
        raise SpaceError(
            f"{job}: not enough memory: {needed}{there}{LESS[job]}; "
            "springback doctor says what fits here"
        ) from error


def explained(
    job: str, parts_of: Callable[..., Parts]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """:func:`memory_explained` around a function; ``parts_of`` gets its arguments."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with memory_explained(job, lambda: parts_of(*args, **kwargs)):
                return function(*args, **kwargs)

        return call

    return wrap


def _named(parts: Parts) -> str:
    """The sum, and its largest parts."""

    def size(part: Part) -> int:
        return part.bytes

    first = sorted(parts, key=size, reverse=True)[:_NAMED]
    names = [f"{part.name} {byte_size(part.bytes)}" for part in first]
    if len(parts) > len(first):
        names.append(f"other {byte_size(total(parts) - total(first))}")
    return f"{byte_size(total(parts))} ({', '.join(names)})"


def _device() -> str:
    from springback.models.placement import accelerator

    return str(accelerator())
