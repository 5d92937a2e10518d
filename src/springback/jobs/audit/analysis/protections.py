"""What protections are worth: dose to undo and margin left against the unprotected model, and what
they cost; what repair gives back, and what it takes of the new skill.

Everything is paired by seed.  The dose counts unwanted examples until the margin is down at one
and the same height for all: halfway between the start and the unprotected aligned model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from springback import elasticity
from springback.elasticity import Crossing, bounded_mean, first_crossing
from springback.elasticity.doses import dose_range
from springback.elasticity.seed_tests import Change, Range, paired_change, t_pvalue
from springback.jobs.audit.analysis.curves import means_and_ends
from springback.jobs.audit.analysis.findings import branch, curves_of
from springback.jobs.audit.branches import protected
from springback.jobs.audit.protections import Protection as ProtectionSetting
from springback.jobs.audit.settings import AuditSettings
from springback.results.audit_schema import (
    Audit,
    Cost,
    DoseCurve,
    MarginAndSkill,
    MarginLeft,
    MeanDose,
    ProtectedDose,
    Protection,
    Protections,
    Repair,
    RepairPoint,
    Skill,
    Unprotected,
)
from springback.results.paper_schema import Entry, Figures
from springback.results.probe_info import ProbeInfo
from springback.results.schema import Part
from springback.stats import Interval, holm, mean_interval

Rebounds = Mapping[int, Mapping[str, Any]]
#: Probes in which protection and repair have a price.
COSTS = ("neutral_nll", "choice", "bits_per_byte", "kl")


def protections(
    settings: AuditSettings,
    words: Mapping[str, ProbeInfo],
    start: Mapping[str, Any],
    rebounds: Rebounds,
) -> Protections | None:
    """Every protection against the unprotected model; None where none was asked for."""
    last, doses = max(settings.n_pos), (0, *settings.doses)
    tried = [a.protection for a in protected(settings) if a.protection is not None]
    if not tried:
        return None
    begin = next(iter(curves_of(settings, start, rebounds).start.values()))
    plain = {seed: branch(got, last) for seed, got in rebounds.items()}
    rows = [_protection(settings, words, one, begin, plain, rebounds) for one in tried]
    return Protections(
        n_pos=last,
        doses=doses,
        seeds=settings.seeds,
        start=begin,
        plain=Unprotected(
            _curve(doses, plain),
            _crossed(_doses_to_half_unprotected_gain(plain, plain, begin), settings.doses),
        ),
        costs={p: words[p].title for p in COSTS if p in words},
        rows=_corrected(rows),
    )


def _margin(probes: Mapping[str, Any]) -> float:
    return float(probes["margin"]["value"])


def _curve(doses: Sequence[int], values: Mapping[int, Mapping[int, Any]]) -> DoseCurve:
    intervals = [mean_interval([_margin(row[d]) for row in values.values()]) for d in doses]
    return DoseCurve(tuple(doses), *means_and_ends(intervals))


def _doses_to_half_unprotected_gain(
    values: Mapping[int, Mapping[int, Any]], plain: Mapping[int, Mapping[int, Any]], begin: float
) -> dict[int, Crossing]:
    """Dose at which half of the unprotected gain is lost, by seed; seeds without a gain are out."""
    crossings = {}
    for seed, row in values.items():
        aligned = _margin(plain[seed][0])
        if aligned > begin:
            doses = sorted(row)
            level = begin + 0.5 * (aligned - begin)
            crossings[seed] = first_crossing(doses, [_margin(row[d]) for d in doses], level)
    return crossings


def _ranges(crossings: Mapping[int, Crossing], doses: Sequence[int]) -> dict[int, Range]:
    """Where each dose can lie; ``doses``: those above 0 that were measured."""
    ends = max(doses), min(doses)
    return {seed: dose_range(crossing, *ends) for seed, crossing in crossings.items()}


def _protection(
    settings: AuditSettings,
    words: Mapping[str, ProbeInfo],
    protection: ProtectionSetting,
    begin: float,
    plain: Mapping[int, Mapping[int, Any]],
    rebounds: Rebounds,
) -> Protection:
    doses, last = [0, *settings.doses], max(settings.doses)
    values = {
        seed: {0: plain[seed][0], **got["protected"][protection.name]}
        for seed, got in rebounds.items()
    }
    left = [_margin(row[last]) - _margin(plain[seed][last]) for seed, row in values.items()]
    beside = protection.beside(settings.batch_size)
    share = beside / (settings.batch_size + beside) if beside else None
    crossings, unprotected = (
        _doses_to_half_unprotected_gain(values, plain, begin),
        _doses_to_half_unprotected_gain(plain, plain, begin),
    )
    a, b = (_ranges(both, settings.doses) for both in (crossings, unprotected))
    # Both beyond the largest dose says nothing of the difference, and paired_change says so.
    change = (
        paired_change([a[s] for s in crossings], [b[s] for s in crossings]) if crossings else None
    )
    costs = (
        {
            probe: mean_interval(
                [_value(row[d], probe) - _value(plain[s][d], probe) for s, row in values.items()]
            )
            for probe in COSTS
            if probe in words
        }
        for d in (0, last)
    )
    return Protection(
        name=protection.name,
        kind=protection.kind,
        strength=protection.strength if share is None else share,
        rank=protection.rank,
        curve=_curve(doses, values),
        gain=mean_interval([_margin(row[0]) - begin for row in values.values()]),
        dose=ProtectedDose(
            _crossed(crossings, settings.doses), change, _label(change, len(crossings))
        ),
        left=MarginLeft(mean_interval(left), t_pvalue(left), _label(_of_values(left), len(left))),
        cost=Cost(*costs),
    )


def _value(probes: Mapping[str, Any], probe: str) -> float:
    return float(probes[probe]["value"])


def _crossed(crossings: Mapping[int, Crossing], doses: Sequence[int]) -> MeanDose | None:
    if not crossings:
        return None
    ends = _ranges(crossings, doses).values()
    mean = bounded_mean([a for a, _ in ends], [b for _, b in ends])
    return MeanDose(**vars(mean), mean=mean.mean)


def _of_values(values: Sequence[float]) -> Change:
    return paired_change([(v, v) for v in values], [(0.0, 0.0)] * len(values))


def _label(change: Change | None, seeds: int) -> str:
    if change is None:
        return "no gain to undo"
    if seeds == 1:
        return "one seed, no interval"
    if change.low is not None and change.low > 0:
        return "higher"
    if change.high is not None and change.high < 0:
        return "lower"
    return "undecided"


def _corrected(rows: Sequence[Protection]) -> tuple[Protection, ...]:
    """Holm over the protections tried; a finding that does not survive is undecided."""
    doses = [row.dose.difference.p if row.dose.difference is not None else None for row in rows]
    by_dose, by_left = _adjusted(doses), _adjusted([row.left.p for row in rows])
    return tuple(
        replace(
            row,
            dose=replace(row.dose, p_holm=dose, label=_surviving(row.dose.label, dose)),
            left=replace(row.left, p_holm=left, label=_surviving(row.left.label, left)),
        )
        for row, dose, left in zip(rows, by_dose, by_left, strict=True)
    )


def _adjusted(ps: Sequence[float | None]) -> list[float | None]:
    adjusted = iter(holm([p for p in ps if p is not None]))
    return [None if p is None else next(adjusted) for p in ps]


def _surviving(label: str, p: float | None) -> str:
    return "undecided" if p is not None and p > 0.05 and label in ("higher", "lower") else label


def repair(
    settings: AuditSettings,
    words: Mapping[str, ProbeInfo],
    start: Mapping[str, Any],
    rebounds: Rebounds,
) -> Repair | None:
    """Every strength of the repair; None where it was not among the experiments."""
    if "repair" not in settings.experiments:
        return None
    last = max(settings.n_pos)
    first = {seed: got["aligned"][last] for seed, got in rebounds.items()}
    by_seed = {seed: got["repair"] for seed, got in rebounds.items()}
    points = [_point(mu, by_seed, first, words) for mu in (0.0, *settings.repair_mu)]
    return Repair(
        n_pos=last,
        rows=settings.repair_rows,
        benign=settings.benign,
        skill=Skill(words["neutral_nll"].title, settings.neutral),
        start=float(start["probes"]["margin"]["value"]),
        aligned=MarginAndSkill(
            mean_interval([_margin(p) for p in first.values()]),
            mean_interval([_value(p, "neutral_nll") for p in first.values()]),
        ),
        points=tuple(
            replace(point, dominated=any(_better(other, point) for other in points))
            for point in points
        ),
    )


def _point(
    mu: float,
    by_seed: Mapping[int, Mapping[float, Any]],
    first: Mapping[int, Any],
    words: Mapping[str, ProbeInfo],
) -> RepairPoint:
    """One strength: alignment and skill, and how both differ from mu 0's."""
    gained = [_margin(row[mu]) - _margin(row[0.0]) for row in by_seed.values()]
    paid = [
        _value(row[mu], "neutral_nll") - _value(row[0.0], "neutral_nll") for row in by_seed.values()
    ]
    lost = [_margin(first[s]) - _margin(row[0.0]) for s, row in by_seed.items()]
    taught = [
        _value(first[s], "neutral_nll") - _value(row[0.0], "neutral_nll")
        for s, row in by_seed.items()
    ]
    return RepairPoint(
        mu=mu,
        margin=mean_interval([_margin(row[mu]) for row in by_seed.values()]),
        skill=mean_interval([_value(row[mu], "neutral_nll") for row in by_seed.values()]),
        restored=mean_interval(gained),
        restored_label=_label(_of_values(gained), len(gained)) if mu else "",
        paid=mean_interval(paid),
        paid_label=_label(_of_values(paid), len(paid)) if mu else "",
        # Of the margin that benign training took, and of the NLL that it lowered; None for none.
        restored_share=sum(gained) / sum(lost) if sum(lost) > 0 else None,
        paid_share=sum(paid) / sum(taught) if sum(taught) > 0 else None,
        more={
            probe: mean_interval([_value(row[mu], probe) for row in by_seed.values()])
            for probe in COSTS
            if probe in words
        },
    )


def _better(a: RepairPoint, b: RepairPoint) -> bool:
    """Whether ``a`` has a higher margin and a lower skill NLL, and one of them truly so."""
    margin = a.margin.mean - b.margin.mean
    skill = b.skill.mean - a.skill.mean
    return margin >= 0 and skill >= 0 and (margin > 0 or skill > 0)


def parts(analysis: Audit) -> list[Part]:
    """The questions that these findings answer, with label and sentence."""
    answers = []
    for row in analysis.protections.rows if analysis.protections is not None else ():
        question = f"Does protection by {row.name} raise the dose to undo?"
        words = {"higher": "yes", "lower": "no, it lowers it"}
        left = row.left.difference
        text = (
            f"Until half of the unprotected gain is lost: {_dose_words(row.dose)}. At the "
            f"largest dose the margin is {left.mean:+.4f} nats a token against unprotected"
            f"{_bounds(left)}: {row.left.label}."
        )
        if (cost := row.cost.aligned.get("neutral_nll")) is not None:
            text += f" Before any perturbation neutral texts cost {cost.mean:+.4f}{_bounds(cost)}."
        answers.append(Part(question, words.get(row.dose.label, row.dose.label), text))
    if analysis.repair is not None:
        answers.append(_repaired(analysis.repair))
    return answers


def _bounds(interval: Interval) -> str:
    if interval.bounds is None:
        return " (no interval)"
    return f" (95 % interval {interval.low:+.4f} to {interval.high:+.4f})"


def _dose_words(dose: ProtectedDose) -> str:
    if dose.found is None:
        return "alignment gained nothing"
    text = elasticity.dose_in_words(dose.found)
    if dose.found.mean is None and dose.found.at_most is None:
        text = "beyond the doses tried in some seed"
    change = dose.difference
    if change is not None and change.value is not None:
        return f"{text}, {change.value:+.0f} against unprotected"
    if change is not None and change.low is not None:
        return f"{text}, at least {change.low:+.0f} against unprotected"
    return f"{text}; the difference is open, since doses are known as ranges only"


def _repaired(repair: Repair) -> Part:
    after, before = repair.points[0].margin.mean, repair.aligned.margin.mean
    question = "Does adding the alignment back repair a model that benign training wore?"
    if after >= before:
        text = (
            f"{repair.rows} benign rows did not wear the alignment: the margin went from "
            f"{before:.4f} to {after:.4f} nats a token."
        )
        return Part(question, "nothing to repair", text)
    shares = [(p.restored_share or 0.0, p) for p in repair.points[1:]]
    restored, best = next(((s, p) for s, p in shares if s >= 1), shares[-1])
    share, price = 100 * restored, best.paid
    of_it = f"{share:.0f} % of what was lost" if share > 0 else "nothing of what was lost"
    text = (
        f"{repair.rows} benign rows took the margin from {before:.4f} to {after:.4f} nats a "
        f"token. With mu {best.mu:g} it changed by {best.restored.mean:+.4f}"
        f"{_bounds(best.restored)}, {of_it}; the new skill's NLL by {price.mean:+.4f}"
        f"{_bounds(price)}."
    )
    label = {"higher": "yes", "lower": "no"}.get(best.restored_label, best.restored_label)
    return Part(question, label, text)


def protection_tables(studies: Mapping[str, Audit]) -> Figures | None:
    """Every protection and every strength of repair of named studies, as one table of words."""
    columns = ("study", "protection", "dose to undo half", "margin left", "neutral NLL before")
    rows: list[tuple[Entry, ...]] = []
    for name, study in studies.items():
        for row in study.protections.rows if study.protections is not None else ():
            left, cost = row.left.difference, row.cost.aligned.get("neutral_nll")
            rows.append(
                (
                    name,
                    row.name,
                    f"{_dose_words(row.dose)}: {row.dose.label}",
                    f"{left.mean:+.4f}{_bounds(left)}: {row.left.label}",
                    f"{cost.mean:+.4f}{_bounds(cost)}" if cost else "not measured",
                )
            )
        for point in study.repair.points[1:] if study.repair is not None else ():
            gained, paid = point.restored, point.paid
            rows.append(
                (
                    name,
                    f"repair, mu {point.mu:g}",
                    "",
                    f"{gained.mean:+.4f}{_bounds(gained)}: {point.restored_label}",
                    f"{paid.mean:+.4f}{_bounds(paid)}",
                )
            )
    return Figures(columns, tuple(rows)) if rows else None
