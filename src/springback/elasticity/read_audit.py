"""The single values of an audit, as its job has them or as its result file holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from springback.core import content_hash
from springback.elasticity.attackers import Sweep
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
class AuditValues:
    """What an audit measured; what is not known is empty.

    ``values``: probe -> seed -> [branch][dose], of seeds that were measured everywhere; ``start``:
    probe -> value of the start model; ``losses``: pair -> seed -> way (``forward``, ...) -> nats a
    token; ``attackers``: share of the gain lost over a sweep of attackers; ``study``: hash of data
    and settings but for model and seeds (:func:`study_hash`).  ``means``: of a file without single
    values, its ``analysis``.
    """

    model: str = ""
    model_hash: str = ""
    study: str = ""
    seeds: Sequence[int] = ()
    n_pos: Sequence[int] = ()
    doses: Sequence[float] = ()
    values: Mapping[str, Mapping[int, Sequence[Sequence[float]]]] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)
    losses: Mapping[str, Mapping[int, Mapping[str, float]]] = field(default_factory=dict)
    noise_floor: Mapping[str, float] = field(default_factory=dict)
    attackers: Sweep | None = None
    resistance_data: str = "responses"
    means: Mapping[str, Any] = field(default_factory=dict)

    def rebound(self) -> ReboundCurves | None:
        """The margins, or None if no seed has them all."""
        margins = self.values.get("margin")
        if not margins or "margin" not in self.start:
            return None
        start = dict.fromkeys(margins, self.start["margin"])
        return ReboundCurves(self.n_pos, self.doses, start, margins)


def study_hash(inputs: Mapping[str, Any]) -> str:
    """Of data and settings but for model and seeds; empty if the inputs, as JSON, lack them."""
    rows = [part(inputs, name).get("content_hash") for name in _SLICES]
    settings = part(inputs, "settings")
    if not settings or None in rows:
        return ""
    kept = {key: value for key, value in settings.items() if key not in FREE}
    return content_hash({"rows": rows, "settings": kept})


def part(of: Any, key: str) -> Mapping[str, Any]:
    """The object under ``key``; empty where it is missing or something else."""
    value = of.get(key) if isinstance(of, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def finite(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def read_audit(result: Mapping[str, Any]) -> AuditValues:
    """The audit in the content of a ``result.json`` of an audit or a demo.

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
            n_pos, n_neg = (finite(tags.get(name, -1)) for name in ("n_pos", "n_neg"))
            if n_pos is not None and n_neg is not None:
                cell = (int(n_pos), int(n_neg))
                cells.setdefault(probe, {}).setdefault(seed, {})[cell] = value
        elif phase == "resistance" and probe.startswith("loss_"):
            by_seed = losses.setdefault(str(tags.get("pair")), {})
            by_seed.setdefault(seed, {})[probe.removeprefix("loss_")] = value
    rebound, settings = part(analysis, "rebound"), part(inputs, "settings")
    margins = cells.get("margin", {})
    grid = {cell for by_cell in margins.values() for cell in by_cell}
    sizes = rebound.get("n_pos") or sorted({n for n, _ in grid})
    doses = rebound.get("doses") or sorted({d for _, d in grid})
    model = part(inputs, "model")
    floor = part(analysis, "noise_floor")
    return AuditValues(
        str(model.get("path") or settings.get("model") or ""),
        str(model.get("content_hash") or ""),
        study_hash(inputs),
        rebound.get("seeds") or sorted(margins),
        sizes,
        doses,
        {probe: _whole(by_seed, sizes, doses) for probe, by_seed in cells.items()},
        start,
        losses,
        {key: value for key in floor if (value := finite(floor[key])) is not None},
        _swept(part(part(analysis, "attackers"), "share")),
        settings.get("resistance_data", "responses"),
        analysis,
    )


def _whole(
    by_seed: Mapping[int, Mapping[tuple[int, int], float]],
    n_pos: Sequence[int],
    doses: Sequence[int],
) -> dict[int, list[list[float]]]:
    """Seed -> [branch][dose]; seeds that were not measured everywhere are left out."""
    grid = [[(n, d) for d in doses] for n in n_pos]
    return {
        seed: [[values[cell] for cell in row] for row in grid]
        for seed, values in by_seed.items()
        if grid and all(cell in values for row in grid for cell in row)
    }


def _swept(share: Mapping[str, Any]) -> Sweep | None:
    """What a card has of a sweep: worst and median, and how many attackers there were."""
    if finite(share.get("worst")) is None:
        return None
    names = ("unit", "worst", "worst_by", "median", "median_by", "typical", "attackers", "left_out")
    return Sweep(**{name: share.get(name) for name in names})  # type: ignore[arg-type]
