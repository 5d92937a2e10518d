"""An adapter folder that is decoded contrastively: the weak adapter beside the extrapolated one.

``out`` is the expert's adapter, an ordinary PEFT folder; ``out/amateur`` is the fine-tuned one;
``springback.json`` has lambda and alpha.  ``springback.load`` puts both on one base.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from springback.errors import SpringbackError, describe
from springback.progress import Progress
from springback.results.store import below, clear_folder, whole_folder, write_json
from springback.weights.adapters.extrapolation import (
    AdapterExtrapolation,
    AdapterReport,
    extrapolate_adapters,
)
from springback.weights.adapters.reading import open_adapter, refuse_more
from springback.weights.io.folder import ADAPTER, ADAPTER_CONFIG, hash_weights, readable_json
from springback.weights.io.report import RECORD

AMATEUR_FOLDER = "amateur"


@dataclass(frozen=True)
class Contrast:
    """How the pair is decoded; ``system``: the message that prompts are given."""

    lam: float
    alpha: float = 0.1
    system: str | None = None


def write_adapter_pair(
    adapters: Sequence[str | Path],
    how: AdapterExtrapolation,
    contrast: Contrast,
    out: str | Path,
    progress: Progress | None = None,
) -> AdapterReport:
    """:func:`extrapolate_adapters`, with the last of ``adapters`` as the weak one beside it.

    A call that was cut off is completed by the next.  Raises as that function does, and for
    lambda below 0, alpha outside 0 to 1, and adapters of more than LoRA matrices.
    """
    lam, alpha = contrast.lam, contrast.alpha
    if not (0 < lam < float("inf") and 0 < alpha <= 1):
        raise SpringbackError(
            describe(
                f"lambda {lam} and alpha {alpha}",
                "lambda above 0, alpha above 0 and at most 1",
                "change them, or leave lambda out",
            )
        )
    target = below(Path(out), AMATEUR_FOLDER)
    for adapter in adapters:
        refuse_more(open_adapter(adapter))  # the two share one base where they are decoded
    report = extrapolate_adapters(adapters, how, out, progress)
    ft = open_adapter(adapters[-1]).root
    if target.exists() and hash_weights(target) != hash_weights(ft):
        clear_folder(target)
    if not target.exists():
        with whole_folder(target) as folder:
            for name in (ADAPTER_CONFIG, ADAPTER):
                shutil.copyfile(ft / name, folder / name)
    facts = {"lambda": lam, "alpha": alpha, "system": contrast.system, "amateur": AMATEUR_FOLDER}
    record = Path(out) / RECORD
    write_json(record, {**readable_json(record), **facts})
    return report
