"""How much a probe takes at once: on a GPU as much as memory allows, else always the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from springback.core import Checkpoint
from springback.models.hub import local_folder
from springback.models.memory import Architecture, available_bytes, read_architecture
from springback.models.memory_parts import (
    SCORED_TOKENS,
    Scored,
    Training,
    audit_parts,
    decoding_parts,
    scoring_parts,
    total,
)
from springback.models.placement import Placement, dtype_name

#: Rows sampled at once where memory is not asked.
SAMPLED_ROWS = 32
#: More than this a GPU is not busier with.
MOST_TOKENS, MOST_ROWS = 16_384, 512


@dataclass(frozen=True)
class ProbeBatches:
    """``tokens``: padded ones that are scored at once; ``rows``: continuations sampled at once."""

    tokens: int = SCORED_TOKENS
    rows: int = SAMPLED_ROWS

    def describe(self) -> dict[str, int]:
        """For provenance."""
        return asdict(self)


def probe_batches(settings: Any, checkpoint: Checkpoint, place: Placement) -> ProbeBatches:
    """Of an audit with these settings, before its models are loaded.

    On a CPU, where results are known to the digit, and over several devices always the same.  On a
    GPU what half of the memory holds that the audit leaves free; values move by rounding alone, as
    far as the noise floor of the start model says.
    """
    if place.device.type != "cuda" or place.device_map is not None:
        return ProbeBatches()
    s, dtype = settings, dtype_name(place.dtype) if place.dtype else "float32"
    shape = read_architecture(local_folder(checkpoint.path, checkpoint.revision), checkpoint.path)
    held = audit_parts(
        shape,
        # At most, whatever algorithm trains.
        Training(
            max(2, s.generations) * s.batch_size,
            max(s.max_tokens, s.prompt_tokens + s.answer_tokens),
            s.precision == "bf16-mixed",
            s.lora_rank,
            cpu=False,
            dtype=dtype,
            whole_logits=True,
            reference=not s.lora_rank,
            quantize=place.quantize,
        ),
        kl_tokens=s.prompts * s.sample_tokens,
        fixed=1 if s.base is None else 2,
    )
    free = available_bytes(str(place.device)) - total(held)
    columns = s.prompt_tokens + max(s.sample_tokens, s.resistance_tokens)
    return fitting(shape, dtype, free // 2 // s.probe_processes, columns)


def fitting(shape: Architecture, dtype: str, free: int, columns: int) -> ProbeBatches:
    """The largest batches that take at most ``free`` bytes, by doubling; ``columns``: of a prompt
    and its continuation.  Never smaller than where memory is not asked."""

    def scoring(tokens: int) -> int:  # KL has the logits of two models
        return total(scoring_parts(shape, dtype, 2, Scored(tokens, batch=tokens)))

    def sampling(rows: int) -> int:
        return total(decoding_parts(shape, dtype, rows, columns, 1))

    tokens, rows = SCORED_TOKENS, SAMPLED_ROWS
    while tokens < MOST_TOKENS and scoring(2 * tokens) <= free:
        tokens *= 2
    while rows < MOST_ROWS and sampling(2 * rows) <= free:
        rows *= 2
    return ProbeBatches(tokens, rows)
