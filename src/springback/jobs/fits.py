"""What fits where: one table for the docs, ``springback doctor`` and errors, from the plans' parts.

python -m springback.jobs.fits     # the table of docs/costs.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from springback.jobs.audit.plan import memory_of
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.plan import RANK, phases_of, rows_of
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.hardware import USABLE_MEMORY, architecture
from springback.models.memory import Architecture
from springback.models.memory_parts import Parts, decoding_parts, pair_weights, total

#: Sizes of the table, and memory of the cards in it, in GB.
SIZES = ("1B", "3B", "8B", "14B", "32B", "70B")
CARDS = (24, 80, 141)
#: Sizes that ``doctor`` tries, from small to large.
TRIED = ("135M", "300M", "500M", "1B", "3B", "7B", "8B", "14B", "32B", "70B", "405B")
#: Rows that generate and serve decode at once here, and their tokens.
ROWS, COLUMNS = 8, 2048


def jobs(dtype: str, cpu: bool) -> Mapping[str, Callable[[Architecture], Parts]]:
    """What each job holds of a model, with default settings; ``dtype``: of decoding."""
    boost, study = BoostSettings(), AuditSettings(precision="float32" if cpu else "bf16-mixed")
    load = rows_of(boost)

    def boosting(shape: Architecture, adapter: float) -> Parts:
        phases = phases_of(boost, shape, load, dtype, adapter, cpu)
        return max(phases.values(), key=total)

    def pair(shape: Architecture) -> Parts:
        return (*pair_weights(shape, dtype), *decoding_parts(shape, dtype, ROWS, COLUMNS))

    adapted = AuditSettings(precision=study.precision, dtype=dtype, lora_rank=RANK)
    return {
        "boost, full checkpoints": lambda shape: boosting(shape, 0),
        "boost, adapters": lambda shape: boosting(shape, shape.adapter_weights(RANK)),
        "audit, all weights": lambda shape: memory_of(study, shape, cpu),
        "audit, LoRA": lambda shape: memory_of(adapted, shape, cpu),
        "generate, serve (a pair)": pair,
    }


def where(needed: float) -> str:
    """The smallest card that holds so many bytes, in GB; of the largest as many as do."""
    for card in CARDS:
        if needed <= USABLE_MEMORY * card * 1e9:
            return f"{card}"
    cards = 1
    while needed > USABLE_MEMORY * CARDS[-1] * 1e9 * cards:
        cards *= 2
    return f"{cards} x {CARDS[-1]}"


def table() -> list[str]:
    """Markdown: what each job needs by size, and in brackets the card that holds it."""
    head = ["", *SIZES]
    rows = [head, ["---"] * len(head)]
    for name, parts_of in jobs("bfloat16", cpu=False).items():
        cells = (total(parts_of(architecture(size))) for size in SIZES)
        rows.append([name, *(f"{n / 1e9:,.0f} GB ({where(n)})" for n in cells)])
    return [f"| {' | '.join(row)} |" for row in rows]


def largest_here(available: int, device: str) -> dict[str, str]:
    """The largest model that each job holds in so many bytes; "none" where even the first does
    not fit.  Computed in bf16 on an accelerator, in fp32 on a CPU."""
    cpu = device == "cpu"
    found = {}
    for name, parts_of in jobs("float32" if cpu else "bfloat16", cpu).items():
        fitting = [s for s in TRIED if total(parts_of(architecture(s))) <= available]
        found[name] = fitting[-1] if fitting else "none"
    return found


if __name__ == "__main__":
    print("\n".join(table()))
