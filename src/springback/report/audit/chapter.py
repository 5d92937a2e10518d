"""What the page tells of an audit, in order."""

from __future__ import annotations

from collections.abc import Mapping

from springback.report import elasticity_card, formatting
from springback.report.audit import more_alignment, phases, protections_story, resistance
from springback.report.audit import rebound as audit_charts
from springback.report.components import Fact, Section, fact, last, not_measured, there
from springback.report.figure import Chart
from springback.results.audit_schema import Audit, Pair, Probe, Rebound, Resistance, Slope
from springback.results.card_schema import Card


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
            text = more_alignment.half_dose_words(half, largest)
            note = f"aligned on {half.n_pos:,}"
            unit = "examples" if text[-1].isdigit() else ""
            told.append(Fact("Dose that undoes half", text, unit, note))
    if audit.resistance is not None and audit.resistance.pairs:
        pairs = audit.resistance.pairs
        value = f"{sum(map(_goes_back_easier, pairs))} of {len(pairs)}"
        note = "inverse loss lower, raw and in excess"
        told.append(Fact("Going back is easier in", value, "pairs", note))
    return tuple(told)


def _goes_back_easier(pair: Pair) -> bool:
    """By the raw loss and, where it was measured, by the excess: the raw one alone misleads."""
    ways = [(pair.inverse, pair.forward), (pair.excess_inverse, pair.excess_forward)]
    known = [(back, on) for back, on in ways if back is not None and on is not None]
    return bool(known) and all(back.mean < on.mean for back, on in known)


def _over(rebound: Rebound) -> str:
    dose = rebound.fall_dose
    return " to the opposite" if dose is None else f" over {dose:,} examples of the opposite"


def sections(audit: Audit) -> tuple[Section, ...]:
    told: list[Section | None] = []
    rebound = audit.rebound
    if audit.card is not None:
        told.append(phases.card_section(audit.card))
    if rebound is not None:
        told += _rebound_sections(rebound, audit)
    elif "rebound" in audit.silent:
        told.append(not_measured("rebound", "Rebound"))
    if audit.rates is not None:
        told.append(phases.rates_section(audit.rates))
    if audit.attackers is not None:
        told.append(phases.attackers_section(audit.attackers, rebound))
    told += protections_story.sections(audit.protections, audit.repair)
    if audit.realign is not None:
        told.append(phases.realign_section(audit.realign))
    if rebound is not None and audit.symmetry is not None:
        told.append(phases.symmetry_section(rebound, audit.symmetry))
    if audit.resistance is not None and audit.resistance.pairs:
        told.append(_resistance(audit.resistance, audit.card))
    elif "resistance" in audit.silent:
        told.append(not_measured("resistance-pairs", "Resistance"))
    return tuple(section for section in told if section is not None)


def _resistance(found: Resistance, card: Card | None) -> Section:
    pairs, data = found.pairs, found.data
    charts = (
        resistance.pairs_chart(pairs, data=data),
        resistance.pairs_chart(pairs, excess=True, data=data),
    )
    ratios = formatting.listing(
        f"{formatting.both(p.ratio)} for {p.pair}" for p in pairs if p.ratio is not None
    )
    tested = card is not None and bool(card.pairs)
    note = f"Inverse over forward loss: {ratios}; below 1 is resistance."
    return Section(
        "resistance-pairs",
        "Resistance",
        "Is it easier to lead the model back than to lead it on?",
        there(charts),
        (note,) if ratios and not tested else (),
        grids=(elasticity_card.pairs_grid(card),) if card is not None and tested else (),
    )


def _rebound_sections(rebound: Rebound, audit: Audit) -> list[Section | None]:
    floor = audit.known_floor
    by_key = rebound.probes
    order = sorted(by_key, key=lambda key: {"margin": 0, "kl": 1}.get(key, 2))
    curves = there([audit_charts.rebound_chart(rebound, k) for k in order])
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
    share = audit_charts.dose_chart(margin) if margin else None
    doses = (*there([share]), *phases.dose_charts_of(audit, rebound))
    if doses:
        lead = "How many examples of the opposite undo the alignment?"
        notes = [*phases.dose_notes(audit)]
        sections.append(Section("dose", "Dose to undo", lead, doses, tuple(notes)))
    if audit.phases is not None:
        sections.append(phases.phases_section(audit.phases))
    if sizes := _size_charts(rebound):
        lead = "Does a model that was aligned further fall faster?"
        slopes = tuple(_slopes(rebound, audit))
        sections.append(Section("more-alignment", "Effect of more alignment", lead, sizes, slopes))
    return sections


def _floor_words(key: str, value: float, probes: Mapping[str, Probe]) -> str:
    probe = probes.get(key.removesuffix("_se"))
    name = probe.title if probe else key.replace("_", " ")
    if probe and key.endswith("_se"):
        name += ", standard error from the choice of texts,"
    return f"{name} {formatting.number(value)}" + (f" {probe.unit}" if probe else "")


def _size_charts(rebound: Rebound) -> tuple[Chart, ...]:
    over = _over(rebound)
    return there(
        (
            more_alignment.by_size_chart(
                "alignment-fall",
                "How far it falls",
                "fall of the margin, nats/token",
                f"What is lost{over}, in nats per token: the absolute fall. Rebound says that it "
                "grows with alignment.",
                rebound.fall,
            ),
            more_alignment.by_size_chart(
                "alignment-share",
                "What share is lost",
                "share of the gain lost, %",
                f"What is lost{over}, as a share of what alignment had gained. Equal shares mean "
                "that the fall only keeps pace with the height; a rising share is more than that.",
                rebound.share_lost,
                100,
            ),
        )
    )


def _slopes(rebound: Rebound, audit: Audit) -> list[str]:
    """What each doubling changes, as far as no card says it."""
    said = []
    slopes = rebound.slope or Slope()
    if (slope := slopes.fall_per_log2) is not None and audit.card is None:
        text = formatting.both(slope, sign=True)
        said.append(f"Each doubling of alignment changes the fall by {text} nats/token.")
    if (slope := slopes.share_per_log2) is not None and audit.card is None:
        text = formatting.both(slope, 100, sign=True)
        said.append(f"Each doubling of alignment changes the share lost by {text} points.")
    decay = audit.phases.decay if audit.phases is not None else None
    if decay is not None and (slope := decay.slope) is not None:
        text = formatting.both(slope, 100, sign=True)
        said.append(
            "Each doubling of alignment changes the fall beyond proportional decay, fitted to the "
            f"curves at one rate, by {text} points of the gain."
        )
    return said
