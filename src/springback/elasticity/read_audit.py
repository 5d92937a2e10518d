"""The single values of an audit, read back out of its result file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from springback.core import content_hash
from springback.elasticity.rebound import ReboundCurves
from springback.errors import DataError, describe
from springback.settings import ExecutionSettings, SubjectSettings, names_changing

#: Settings that two studies may differ in and still be the same study of two models.
FREE = (
    *names_changing(SubjectSettings, "model", "seed"),
    *names_changing(ExecutionSettings, "nothing"),
)
_SLICES = ("align", "perturb", "wanted", "unwanted")
#: Tags of the rebound's records.  One with other tags belongs to another part of the study.
_REBOUND_TAGS = {"phase", "seed", "n_pos", "n_neg", "job"}


@dataclass(frozen=True)
class Source:
    """An audit's parts of a result file; what is missing is empty.

    ``cells``: probe -> seed -> (n_pos, n_neg) -> value; ``start``: probe -> value of the start
    model; ``losses``: pair -> seed -> way (``forward``, ...) -> nats a token.
    """

    inputs: Mapping[str, Any]
    analysis: Mapping[str, Any]
    cells: Mapping[str, Mapping[int, Mapping[tuple[int, int], float]]]
    start: Mapping[str, float]
    losses: Mapping[str, Mapping[int, Mapping[str, float]]]
    seeds: tuple[int, ...]
    n_pos: tuple[int, ...]
    doses: tuple[int, ...]

    @property
    def settings(self) -> Mapping[str, Any]:
        return part(self.inputs, "settings")

    @property
    def study(self) -> str:
        """Hash of data and settings but for model and seeds; empty if the file lacks them."""
        rows = [part(self.inputs, name).get("content_hash") for name in _SLICES]
        if not self.settings or None in rows:
            return ""
        kept = {key: value for key, value in self.settings.items() if key not in FREE}
        return content_hash({"rows": rows, "settings": kept})

    def curves(self, probe: str) -> dict[int, list[list[float]]]:
        """Seed -> [branch][dose]; seeds that were not measured everywhere are left out."""
        grid = [[(n, d) for d in self.doses] for n in self.n_pos]
        return {
            seed: [[values[cell] for cell in row] for row in grid]
            for seed, values in self.cells.get(probe, {}).items()
            if grid and all(cell in values for row in grid for cell in row)
        }

    def rebound(self) -> ReboundCurves | None:
        """The margins, or None if no seed has them all."""
        margins = self.curves("margin")
        if not margins or "margin" not in self.start:
            return None
        start = dict.fromkeys(margins, self.start["margin"])
        return ReboundCurves(self.n_pos, self.doses, start, margins)


def part(of: Any, key: str) -> Mapping[str, Any]:
    """The object under ``key``; empty where it is missing or something else."""
    found = of.get(key) if isinstance(of, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def finite(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def read_source(result: Mapping[str, Any]) -> Source:
    """The audit in a result file of an audit or a demo.

    Raises :class:`~springback.errors.DataError` on a result of another kind.
    """
    kind = result.get("kind")
    if kind not in ("audit", "demo"):
        raise DataError(
            describe(
                f"a result of kind {kind!r}",
                "audit or demo",
                "name the result.json that springback audit wrote",
            )
        )
    inputs, analysis = part(result, "inputs"), part(result, "analysis")
    if kind == "demo":
        inputs, analysis = part(inputs, "audit"), part(analysis, "audit")
    cells: dict[str, dict[int, dict[tuple[int, int], float]]] = {}
    losses: dict[str, dict[int, dict[str, float]]] = {}
    start: dict[str, float] = {}
    records = result.get("measurements")
    for record in records if isinstance(records, list) else ():
        tags = part(record, "tags")
        value = finite(record.get("value")) if tags else None
        if value is None or tags.get("job", "audit") != "audit":
            continue
        probe, phase, seed = str(record.get("probe")), tags.get("phase"), tags.get("seed")
        if phase == "start" and tags.keys() <= _REBOUND_TAGS:
            start[probe] = value
        elif not isinstance(seed, int):
            continue
        elif phase in ("align", "perturb") and tags.keys() <= _REBOUND_TAGS:
            cell = (int(tags.get("n_pos", -1)), int(tags.get("n_neg", -1)))
            cells.setdefault(probe, {}).setdefault(seed, {})[cell] = value
        elif phase == "resistance" and probe.startswith("loss_"):
            by_seed = losses.setdefault(str(tags.get("pair")), {})
            by_seed.setdefault(seed, {})[probe.removeprefix("loss_")] = value
    rebound = part(analysis, "rebound")
    margins = cells.get("margin", {})
    grid = {cell for values in margins.values() for cell in values}
    return Source(
        inputs,
        analysis,
        cells,
        start,
        losses,
        tuple(rebound.get("seeds") or sorted(margins)),
        tuple(rebound.get("n_pos") or sorted({n for n, _ in grid})),
        tuple(rebound.get("doses") or sorted({d for _, d in grid})),
    )
