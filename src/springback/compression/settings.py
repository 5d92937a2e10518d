"""How to compress: chunk, batch, dtype, threads, verify.  Light, for the help."""

from __future__ import annotations

from dataclasses import dataclass

from springback.compression import container
from springback.errors import SpringbackError, describe


@dataclass(frozen=True)
class CodecSettings:
    """How to compress.

    chunk: tokens coded from an empty context.  Longer packs better, and takes more memory.
    batch: chunks that go through the model together, at most.  More is faster.
    dtype: float32, or bfloat16, which is faster on some machines and packs slightly worse.
    threads: of torch, for coding and decoding; None takes torch's own number.
    verify: decode what was written before it appears under its name.  Doubles the time.
    """

    chunk: int = 512
    batch: int = 64
    dtype: str = "float32"
    threads: int | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        for name, most in (("chunk", 1 << 20), ("batch", 1 << 20), ("threads", MOST_THREADS)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise SpringbackError(
                    describe(f"--{name} {value}", f"1 to {most}", "choose another number")
                )
        if self.dtype not in container.DTYPES:
            raise SpringbackError(
                describe(f"--dtype {self.dtype}", ", ".join(container.DTYPES), "use one of these")
            )


#: More than this is no number of threads, but a damaged header.
MOST_THREADS = 4096
