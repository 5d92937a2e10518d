"""How to compress: chunk, batch, dtype, threads, verify.  Light, for the help."""

from __future__ import annotations

from dataclasses import dataclass

from springback.compression import container
from springback.errors import SpringbackError, describe
from springback.settings import Settings, setting


@dataclass(frozen=True)
class CodecSettings(Settings):
    """How to compress; ``threads`` None takes torch's own number."""

    chunk: int = setting(
        512, "Tokens coded from an empty context; more packs better and takes more memory."
    )
    batch: int = setting(64, "Chunks coded together, at most; more is faster.")
    dtype: str = setting(
        "float32",
        "float32, float16, float64, or bfloat16, which is faster on some machines and packs "
        "slightly worse.",
    )
    threads: int | None = setting(None, "Default: what torch takes.")
    verify: bool = setting(False, "Decode it again before it appears; twice the time.")

    def __post_init__(self) -> None:
        super().__post_init__()
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
