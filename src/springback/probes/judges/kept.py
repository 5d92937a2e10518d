"""Verdicts that were asked for from afar, kept so that none is asked for twice.

A file holds hashes of what was asked and the verdicts, no text.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from springback.core import content_hash
from springback.errors import StoreError
from springback.probes.judges.scorer import Scorer
from springback.results.store import (
    read_json,
    require_file,
    require_folder,
    tell_damaged,
    write_json,
)

#: Texts asked for between two writes.
EACH = 16


def keep_verdicts(scorer: Scorer, folder: Path) -> Scorer:
    """``scorer``, which first looks into its file in ``folder`` and adds what it learns."""
    path = folder / f"judged-{content_hash(scorer.identity)[:16]}.json"

    def numbers(prompts: list[str], texts: list[str]) -> list[float]:
        require_folder(folder)
        known = _read(path)
        keys = [content_hash(pair) for pair in zip(prompts, texts, strict=True)]
        asked = dict(zip(keys, zip(prompts, texts, strict=True), strict=True))
        new = [key for key in asked if key not in known]
        for first in range(0, len(new), EACH):
            part = new[first : first + EACH]
            ours, theirs = (list(side) for side in zip(*(asked[key] for key in part), strict=True))
            said = scorer.function(ours, theirs)
            known |= dict(zip(part, map(float, said), strict=True))
            write_json(path, known)
        return [known[key] for key in keys]

    return replace(scorer, function=numbers)


def _read(path: Path) -> dict[str, float]:
    """Hash -> verdict, NaN for none; a damaged file holds nothing."""
    require_file(path)
    if not path.exists():
        return {}
    try:
        held = read_json(path)
        return {key: math.nan if value is None else float(value) for key, value in held.items()}
    except (StoreError, AttributeError, TypeError, ValueError) as error:
        tell_damaged(path, error)
        return {}
