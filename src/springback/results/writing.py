"""What the jobs share: the result file."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from springback.core import Measurement, printable, to_jsonable
from springback.results.checks import check_positive as check_positive
from springback.results.checks import require_disjoint as require_disjoint
from springback.results.frames import Table, frame_of, shown_in_notebook
from springback.results.provenance import now, provenance
from springback.results.redaction import without_secrets
from springback.results.schema import SCHEMA_VERSION, Analysis, Verdict
from springback.results.store import Store, write_json
from springback.results.timing import sum_of_parts
from springback.stats import Interval, mean_interval


@dataclass(frozen=True, repr=False)
class Result:
    """What a job found, as written to ``result.json`` in ``folder``."""

    folder: Path
    data: dict[str, Any]

    @property
    def verdict(self) -> str:
        return str(self.data["verdict"]["text"])

    def __repr__(self) -> str:
        return f"<{self.data['kind']} in {self.folder}: {printable(self.verdict)}>"

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, and the table of methods where there is one."""
        return shown_in_notebook(self.folder, self.data)

    def to_frame(self, what: Table = "measurements") -> Any:
        """A table of the result as a pandas ``DataFrame``.

        ``measurements``: one row each, its tags as columns.  ``methods``: of a boost, one row a
        method, ``accuracy``, ``accuracy_low`` and so on.  ``questions``: of a boost or a check, one
        row for each question or text and each run that scored it, from the folder's runs.

        Raises :class:`SpringbackError` for a table that the result does not have, and
        :class:`MissingExtraError` without pandas.
        """
        return frame_of(self.folder, self.data, what)


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
    jobs: Iterable[Result] = (),
) -> Result:
    """Write ``result.json`` (docs/result_schema.md).

    ``computing``: dtype and devices of the models, for provenance.  ``jobs``: what this one is
    made of, each in a store of its own, whose time by part is this one's.

    Only ``provenance`` differs between two runs of the same command: it holds the times.
    """
    facts = provenance(started=clock.started, finished=now())
    facts["seconds"] = round(time.monotonic() - clock.monotonic, 1)
    facts["runs"] = store.origins()
    each = [job.data["provenance"].get("time", {}) for job in jobs]  # old ones have none
    facts["time"] = sum_of_parts(each) or store.time_by_part()
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
