"""What the page tells of an audit, in order."""

from __future__ import annotations

from springback.report import elasticity_card
from springback.report.audit import (
    attackers,
    doses,
    opposite_order,
    phases,
    protections,
    rates,
    realign,
)
from springback.report.audit import rebound as audit_charts
from springback.report.audit.more_alignment import _over, _size_charts, _slopes
from springback.report.audit.rebound import _floor_words
from springback.report.audit.resistance import _resistance
from springback.report.components import Fact, Section, fact, last, not_measured, there
from springback.report.schema import Audit, Pair, Rebound


def facts(audit: Audit) -> tuple[Fact, ...]:
    """None where there is a card, which holds the same numbers and more."""
    if audit.card is not None:
        return ()
    told: list[Fact] = []
    rebound = audit.rebound
    if rebound is not None:
        if (found := last(rebound.gain)) is not None:
            label = f"Gained by {found[0]:,} examples of alignment"
            told.append(fact(label, found[1], "nats/token"))
        if (found := last(rebound.fall)) is not None:
            told.append(fact(f"Lost again{_over(rebound)}", found[1], "nats/token"))
        if (found := last(rebound.share_lost)) is not None:
            told.append(fact("Share of the gain lost", found[1], "%", 100))
        if rebound.half_dose:
            half = max(rebound.half_dose, key=lambda h: h.n_pos)
            largest = max(rebound.doses, default=None)
            text = doses.half_dose_words(half, largest)
            note = f"aligned on {half.n_pos:,}"
            unit = "examples" if text[-1].isdigit() else ""
            told.append(Fact("Dose that undoes half", text, unit, note))
    if audit.resistance:
        easier = sum(map(_goes_back_easier, audit.resistance))
        value = f"{easier} of {len(audit.resistance)}"
        note = "inverse loss lower, raw and in excess"
        told.append(Fact("Going back is easier in", value, "pairs", note))
    return tuple(told)


def _goes_back_easier(pair: Pair) -> bool:
    """By the raw loss and, where it was measured, by the excess: the raw one alone misleads."""
    ways = [(pair.inverse, pair.forward), (pair.excess_inverse, pair.excess_forward)]
    known = [(back, on) for back, on in ways if back is not None and on is not None]
    return bool(known) and all(back.mean < on.mean for back, on in known)


def sections(audit: Audit) -> tuple[Section, ...]:
    told: list[Section | None] = []
    rebound = audit.rebound
    if audit.card is not None:
        told.append(elasticity_card.card_section(audit.card))
    if rebound is not None:
        told += _rebound_sections(rebound, audit)
    elif "rebound" in audit.silent:
        told.append(not_measured("rebound", "Rebound"))
    if audit.rates is not None:
        told.append(rates.rates_section(audit.rates))
    if audit.attackers is not None:
        told.append(attackers.attackers_section(audit.attackers, rebound))
    told += protections.sections(audit.protections, audit.repair)
    if audit.realign is not None:
        told.append(realign.realign_section(audit.realign))
    if rebound is not None and audit.opposite is not None:
        told.append(opposite_order.symmetry_section(rebound, audit.opposite))
    if audit.resistance:
        told.append(_resistance(audit.resistance, audit.card, audit.resistance_data))
    elif "resistance" in audit.silent:
        told.append(not_measured("resistance-pairs", "Resistance"))
    return tuple(section for section in told if section is not None)


def _rebound_sections(rebound: Rebound, audit: Audit) -> list[Section | None]:
    floor = audit.noise_floor
    by_key = {p.key: p for p in rebound.probes}
    order = sorted(by_key, key=lambda key: {"margin": 0, "kl": 1}.get(key, 2))
    curves = there([audit_charts.rebound_chart(rebound, by_key[k]) for k in order])
    notes = []
    if floor:
        said = "; ".join(_floor_words(k, v, by_key) for k, v in floor.items())
        notes.append(f"Noise floor, from scoring the start model twice: {said}.")
    sections: list[Section | None] = [
        Section(
            "rebound",
            "Rebound",
            "What becomes of the aligned model when it is trained on the opposite?",
            curves,
            tuple(notes),
            reading="Each line starts at a model aligned on that many examples and follows it "
            "while it is trained on the opposite. The dashed line is the start model.",
        )
    ]
    margin = by_key.get("margin")
    share = doses.dose_chart(margin) if margin else None
    drawn = (*there([share]), *doses.dose_charts_of(audit, rebound))
    if drawn:
        lead = "How many examples of the opposite undo the alignment?"
        notes = [*doses.dose_notes(audit)]
        sections.append(Section("dose", "Dose to undo", lead, drawn, tuple(notes)))
    if audit.phases is not None:
        sections.append(phases.phases_section(audit.phases))
    if sizes := _size_charts(rebound):
        lead = "Does a model that was aligned further fall faster?"
        slopes = tuple(_slopes(rebound, audit))
        sections.append(Section("more-alignment", "Effect of more alignment", lead, sizes, slopes))
    return sections
