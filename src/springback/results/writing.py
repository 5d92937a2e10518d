"""What the jobs share: checks of settings and data, the result file."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from springback.core import Measurement, Slice, to_jsonable
from springback.data import check_disjoint
from springback.errors import SpringbackError
from springback.results.provenance import now, provenance
from springback.results.redaction import without_secrets
from springback.results.schema import SCHEMA_VERSION, Analysis, Verdict
from springback.results.store import Store, write_json
from springback.stats import Interval, mean_interval


@dataclass(frozen=True)
class Result:
    """What a job found, as written to ``result.json`` in ``folder``."""

    folder: Path
    data: dict[str, Any]

    @property
    def verdict(self) -> str:
        return str(self.data["verdict"]["text"])


@dataclass(frozen=True)
class Clock:
    """When a job began, in both clocks."""

    started: str
    monotonic: float

    @classmethod
    def start(cls) -> Clock:
        return cls(now(), time.monotonic())


def write_result(
    store: Store,
    kind: str,
    clock: Clock,
    *,
    inputs: Mapping[str, Any],
    measurements: Sequence[Measurement],
    analysis: Analysis | Mapping[str, Any],
    verdict: Verdict | Mapping[str, Any],
    computing: Mapping[str, Any] | None = None,
) -> Result:
    """Write ``result.json`` (docs/result_schema.md).

    ``computing``: dtype and devices of the models, for provenance.

    Only ``provenance`` differs between two runs of the same command: it holds the times.
    """
    facts = provenance(started=clock.started, finished=now())
    facts["seconds"] = round(time.monotonic() - clock.monotonic, 1)
    facts["runs"] = store.origins()
    if computing is not None:
        facts["computing"] = computing
    data = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "provenance": facts,
        "inputs": inputs,
        "measurements": measurements,
        "analysis": analysis,
        "verdict": verdict,
    }
    plain = to_jsonable(data)
    plain["inputs"] = without_secrets(plain["inputs"])
    write_json(store.root / "result.json", plain)
    store.drop_done_partials()
    return Result(store.root, plain)


def geometric(values: Iterable[float]) -> Interval | None:
    """Geometric mean with its 95 % interval over seeds; None unless all values are above 0."""
    known = list(values)
    if not known or not all(math.isfinite(v) and v > 0 for v in known):
        return None
    logs = mean_interval([math.log(v) for v in known])
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    return replace(logs, mean=math.exp(logs.mean), low=low, high=high)


def require_disjoint(parts: Sequence[Slice]) -> None:
    """Raise if any two of the slices share a row."""
    for index, a in enumerate(parts):
        for b in parts[index + 1 :]:
            check_disjoint(a, b)


def check_positive(settings: Mapping[str, float]) -> None:
    """Raise unless every value is above zero; the key is the flag's name."""
    for name, value in settings.items():
        if not value > 0:  # NaN is refused too
            raise SpringbackError(f"--{name} is {value}; give a number above 0")
