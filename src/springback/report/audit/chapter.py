"""The chapter of an audit: its key numbers, and its sections in order."""

from __future__ import annotations

from springback.report import elasticity_card
from springback.report.audit.attackers import attackers_section
from springback.report.audit.controls import controls_section
from springback.report.audit.doses import dose_section, half_dose_words
from springback.report.audit.judges import judges_section
from springback.report.audit.more_alignment import fall_words, more_alignment_section
from springback.report.audit.opposite_order import opposite_order_section
from springback.report.audit.phases import phases_section
from springback.report.audit.protections import protection_sections
from springback.report.audit.rates import rates_section
from springback.report.audit.realign import realign_section
from springback.report.audit.rebound import rebound_section
from springback.report.audit.resistance import resistance_section
from springback.report.components import Fact, Section, fact, last, not_measured
from springback.results.audit_schema import Audit, Pair, Rebound


def facts(audit: Audit) -> tuple[Fact, ...]:
    """None where there is a card, which holds the same numbers and more."""
    if audit.card is not None:
        return ()
    numbers = [] if audit.rebound is None else _rebound_facts(audit.rebound)
    if audit.resistance is not None and (pairs := audit.resistance.pairs):
        value = f"{sum(map(_goes_back_easier, pairs))} of {len(pairs)}"
        note = "inverse loss lower, raw and in excess"
        numbers.append(Fact("Going back is easier in", value, "pairs", note))
    return tuple(numbers)


def _rebound_facts(rebound: Rebound) -> list[Fact]:
    numbers = []
    if (gain := last(rebound.gain)) is not None:
        label = f"Gained by {gain[0]:,} examples of alignment"
        numbers.append(fact(label, gain[1], "nats/token"))
    if (fall := last(rebound.fall)) is not None:
        numbers.append(fact(f"Lost again{fall_words(rebound)}", fall[1], "nats/token"))
    if (share := last(rebound.share_lost)) is not None:
        numbers.append(fact("Share of the gain lost", share[1], "%", 100))
    if rebound.half_dose:
        half = max(rebound.half_dose, key=lambda h: h.n_pos)
        text = half_dose_words(half, max(rebound.doses, default=None))
        unit = "examples" if text[-1].isdigit() else ""
        numbers.append(Fact("Dose that undoes half", text, unit, f"aligned on {half.n_pos:,}"))
    return numbers


def _goes_back_easier(pair: Pair) -> bool:
    """By the raw loss and, where it was measured, by the excess: the raw one alone misleads."""
    ways = [(pair.inverse, pair.forward), (pair.excess_inverse, pair.excess_forward)]
    known = [(back, on) for back, on in ways if back is not None and on is not None]
    return bool(known) and all(back.mean < on.mean for back, on in known)


def sections(audit: Audit) -> tuple[Section, ...]:
    """What was measured, in order; what the file says was not is named as missing."""
    rebound, card = audit.rebound, audit.card
    parts: list[Section | None] = []
    if card is not None:
        parts.append(elasticity_card.card_section(card))
    if rebound is not None:
        parts.append(rebound_section(rebound, audit.known_floor))
        parts.append(dose_section(audit, rebound))
        parts.append(phases_section(audit.phases) if audit.phases else None)
        if not rebound.finished:
            parts.append(more_alignment_section(rebound, audit))
        parts.append(controls_section(audit.controls, rebound) if audit.controls else None)
    elif "rebound" in audit.silent:
        parts.append(not_measured("rebound", "Rebound"))
    parts.append(judges_section(audit.judges) if audit.judges else None)
    parts.append(rates_section(audit.rates) if audit.rates else None)
    parts.append(attackers_section(audit.attackers, audit) if audit.attackers else None)
    parts += protection_sections(audit.protections, audit.repair)
    parts.append(realign_section(audit.realign) if audit.realign else None)
    if rebound is not None and audit.symmetry is not None:
        parts.append(opposite_order_section(rebound, audit.symmetry))
    if audit.resistance is not None and audit.resistance.pairs:
        parts.append(resistance_section(audit.resistance, card))
    elif "resistance" in audit.silent:
        parts.append(not_measured("resistance-pairs", "Resistance"))
    return tuple(section for section in parts if section is not None)
