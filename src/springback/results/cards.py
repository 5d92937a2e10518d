"""Elasticity cards of files: of a result file, and of a card as it was written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from springback.core import Measurement
from springback.elasticity import (
    AuditValues,
    Comparison,
    ElasticityCard,
    Quantity,
    card_of,
    compare,
    study_hash,
)
from springback.elasticity.card import LATER, QUANTITIES
from springback.elasticity.make_card import WORDS
from springback.elasticity.resistance import JUDGED
from springback.errors import DataError, SpringbackError, StoreError, describe
from springback.results.audit_schema import Audit, Rebound, Resistance, Slope
from springback.results.card_schema import Card
from springback.results.reading import read_part, require_moderate
from springback.results.schema import Interval, ResultFile, read
from springback.results.store import read_json

#: Tags of the rebound's records.  One with other tags belongs to another part of the study.
_REBOUND_TAGS = {"phase", "seed", "n_pos", "n_neg", "job"}
#: Probe -> seed -> (examples of alignment, dose) -> value.
_Cells = dict[str, dict[int, dict[tuple[int, int], float]]]


@dataclass(frozen=True)
class _Content:
    path: str = ""
    content_hash: str = ""


@dataclass(frozen=True)
class _Inputs:
    """What a card needs of an audit's ``inputs``."""

    model: _Content = _Content()
    align: _Content = _Content()
    perturb: _Content = _Content()
    wanted: _Content = _Content()
    unwanted: _Content = _Content()
    settings: Mapping[str, Any] = field(default_factory=dict)


def card_of_result(result: Any) -> ElasticityCard:
    """The card of the content of a ``result.json`` of an audit or a demo, computed anew.

    Raises as :func:`springback.results.schema.read` and :func:`audit_values`.
    """
    return card_of(audit_values(read(result)))


def read_card(given: Any) -> ElasticityCard:
    """The card that :meth:`ElasticityCard.to_dict` wrote; keys that are not known are ignored.

    Raises :class:`~springback.errors.DataError` on another version or a key that is missing
    or of the wrong form.
    """
    do = "make the card again from result.json"
    try:
        card = read_part(Card, "card", given, "audit")
    except StoreError as error:
        raise DataError(f"this is no elasticity card; {do}: {error}") from error
    needed = [name for name in QUANTITIES if name not in LATER]
    if missing := [name for name in needed if name not in card.quantities]:
        given = f"an elasticity card without {', '.join(missing)}"
        raise DataError(describe(given, "a card as it was written", do))
    return card.full()


def audit_values(result: ResultFile) -> AuditValues:
    """The single values of an audit, or of the audit of a demo, and its means where there are none.

    Raises :class:`~springback.errors.DataError` on a result of another kind.
    """
    if result.kind not in ("audit", "demo"):
        raise DataError(
            describe(
                f"a result of kind {result.kind!r}",
                "audit or demo",
                "name the result.json that springback audit wrote",
            )
        )
    whole = result.inputs.get("audit", {}) if result.kind == "demo" else result.inputs
    inputs = read_part(_Inputs, "inputs", whole, "audit")
    audit = result.audit or Audit()
    rebound = audit.rebound or Rebound()
    start, base, cells = _rebound_values(result.measurements)
    margins = cells.get("margin", {})
    grid = {cell for by_cell in margins.values() for cell in by_cell}
    n_pos = rebound.n_pos or sorted({n for n, _ in grid})
    doses = [int(d) for d in rebound.doses if math.isfinite(d)] or sorted({d for _, d in grid})
    share = audit.attackers.share if audit.attackers is not None else None
    rows = (inputs.align, inputs.perturb, inputs.wanted, inputs.unwanted)
    return AuditValues(
        model=inputs.model.path or str(inputs.settings.get("model") or ""),
        model_hash=inputs.model.content_hash,
        study=study_hash([slice_.content_hash for slice_ in rows], inputs.settings),
        seeds=rebound.seeds or sorted(margins),
        n_pos=n_pos,
        doses=doses,
        values={probe: _whole(by_seed, n_pos, doses) for probe, by_seed in cells.items()},
        start=start,
        base=base,
        units={name: probe.unit for name, probe in rebound.probes.items()},
        losses=_losses(result.measurements),
        noise_floor=audit.known_floor,
        attackers=share if share is not None and share.worst is not None else None,
        resistance_data=inputs.settings.get("resistance_data", "responses"),
        controls=_controls(result.measurements, start.get("margin"), n_pos, doses),
        gain_noise=rebound.gain_noise,
        means=_means(rebound, audit.resistance or Resistance(), max(n_pos, default=0)),
    )


def _rebound_values(
    records: Sequence[Measurement],
) -> tuple[dict[str, float], dict[str, float], _Cells]:
    """Of the start model by probe, of the base model, and of the aligned and perturbed ones."""
    start: dict[str, float] = {}
    base: dict[str, float] = {}
    cells: _Cells = {}
    for record in records:
        tags, value = record.tags, record.value
        if value is None or not _of_audit(tags) or not tags.keys() <= _REBOUND_TAGS:
            continue
        match [tags.get(name) for name in ("phase", "seed", "n_pos", "n_neg")]:
            case ["start", *_]:
                start[record.probe] = value
            case ["base", *_]:
                base[record.probe] = value
            case ["align" | "perturb", int(seed), int(n_pos), int(dose)]:
                cells.setdefault(record.probe, {}).setdefault(seed, {})[n_pos, dose] = value
    return start, base, cells


def _controls(
    records: Sequence[Measurement],
    start: float | None,
    n_pos: Sequence[int],
    doses: Sequence[int],
) -> dict[str, dict[int, list[list[float]]]]:
    """Control -> seed -> [branch][dose], margins; of `unaligned` the start model's in each branch.

    Controls and seeds that were not measured everywhere are left out.
    """
    aligned: dict[int, dict[tuple[int, int], float]] = {}
    cells: dict[str, dict[int, dict[tuple[int, int], float]]] = {}
    for record in records:
        tags, value = record.tags, record.value
        if record.probe != "margin" or value is None or not _of_audit(tags) or "order" in tags:
            continue
        match [tags.get(name) for name in ("phase", "seed", "n_pos", "n_neg", "control")]:
            case ["align", int(seed), int(n), 0, None]:
                aligned.setdefault(seed, {})[n, 0] = value
            case ["control", int(seed), int(n), int(dose), str(control)]:
                cells.setdefault(control, {}).setdefault(seed, {})[n, dose] = value
            case ["perturb", int(seed), 0, int(dose), None] if max(n_pos, default=0):
                same = {(n, dose): value for n in n_pos}
                cells.setdefault("unaligned", {}).setdefault(seed, {}).update(same)
    for name in cells.keys() - {"unaligned"}:
        for seed, by_cell in cells[name].items():
            by_cell |= aligned.get(seed, {}) | ({} if start is None else {(0, 0): start})
    whole = {name: _whole(by_seed, n_pos, doses) for name, by_seed in cells.items()}
    return {name: by_seed for name, by_seed in whole.items() if by_seed}


def _losses(records: Sequence[Measurement]) -> dict[str, dict[int, dict[str, float]]]:
    """Pair -> seed -> way -> nats a token, of the resistance; ways of an arm that is not judged
    begin with its name."""
    losses: dict[str, dict[int, dict[str, float]]] = {}
    for record in records:
        tags, value, seed = record.tags, record.value, record.tags.get("seed")
        resisted = tags.get("phase") == "resistance" and record.probe.startswith("loss_")
        if resisted and value is not None and isinstance(seed, int) and _of_audit(tags):
            by_seed = losses.setdefault(str(tags.get("pair")), {})
            arm = "" if tags.get("arm", JUDGED) == JUDGED else f"{tags['arm']}_"
            by_seed.setdefault(seed, {})[arm + record.probe.removeprefix("loss_")] = value
    return losses


def _of_audit(tags: Mapping[str, Any]) -> bool:
    return bool(tags) and tags.get("job", "audit") == "audit"


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


def _means(rebound: Rebound, resistance: Resistance, n_pos: int) -> dict[str, Quantity]:
    """Means over the seeds by their name on a card, of the model aligned on ``n_pos`` examples."""
    gain = next((row.value for row in rebound.gain if row.n_pos == n_pos), None)
    share = next((row.value for row in rebound.share_lost if row.n_pos == n_pos), None)
    slope, words = rebound.slope or Slope(), WORDS["half_life_dose"]
    means = {
        "gain": _mean("gain", gain),
        "share_lost": _mean("share_lost", share),
        "rebound_slope": _mean("rebound_slope", slope.fall_per_log2),
        "share_slope": _mean("share_slope", slope.share_per_log2),
    }
    for half in (row for row in rebound.half_dose if row.n_pos == n_pos):
        if half.censored:
            largest = max(rebound.doses, default=0.0)
            censored = Quantity(*words, at_least=largest, label="censored", reason="not reached")
            means["half_life_dose"] = censored
        elif half.value is not None:
            reason = "of the mean curve; no values by seed"
            means["half_life_dose"] = Quantity(*words, half.value, reason=reason)
    if len(resistance.pairs) == 1:
        pair = resistance.pairs[0]
        means["resistance_ratio"] = _mean("resistance_ratio", pair.ratio, pair.label)
    elif resistance.pairs:
        reason = "only means by pair are in the file"
        means["resistance_ratio"] = Quantity(*WORDS["resistance_ratio"], reason=reason)
    return means


def _mean(name: str, interval: Interval | None, label: str = "") -> Quantity:
    if interval is None:
        return Quantity(*WORDS[name], reason="not measured")
    reason = interval.method or "one seed" if interval.low is None else ""
    reason = reason.removesuffix(", no interval")
    return Quantity(
        *WORDS[name], interval.mean, interval.low, interval.high, label=label, reason=reason
    )


def read_cards(folders: Sequence[str | Path]) -> Comparison:
    """The comparison of finished audits: their folders, or their result files.

    Raises :class:`SpringbackError` where there are fewer than two or one is no audit.
    """
    if len(folders) < 2:
        raise SpringbackError(
            f"got {len(folders)} folder(s); give the folders of two audits or more"
        )
    cards: list[ElasticityCard] = []
    for folder in folders:
        path = Path(folder)
        file = path / "result.json" if path.is_dir() else path
        if not file.is_file():
            raise StoreError(f"no result.json in '{folder}'; name a folder that an audit wrote to")
        data = read_json(file)
        if isinstance(data, dict):  # what else it may be is refused by what reads it
            require_moderate(data, file)
        cards.append(card_of_result(data))
    names = [card.model for card in cards]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return compare(cards, names=names)
