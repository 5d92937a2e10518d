"""What the page tells, in order: key numbers, then sections of charts, tables and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from springback.report import audit_charts, boost_charts, words
from springback.report.draw import Chart
from springback.report.schema import (
    AtSize,
    Audit,
    Boost,
    Interval,
    Method,
    Pair,
    Probe,
    Rebound,
    Result,
)


@dataclass(frozen=True)
class Fact:
    """A key number: ``note`` holds its interval or what it rests on."""

    label: str
    value: str
    unit: str
    note: str


@dataclass(frozen=True)
class MethodRow:
    """One row of the method table, in words; ``tone`` is good, bad or plain."""

    method: str
    mu: str
    lam: str
    accuracy: tuple[str, str]
    difference: tuple[str, str]
    nll: tuple[str, str]
    nll_difference: tuple[str, str]
    verdict: str
    tone: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; ``missing`` says why there is nothing.

    ``reading`` is what holds for all of its charts.
    """

    id: str
    title: str
    lead: str = ""
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    methods: tuple[MethodRow, ...] = ()
    missing: str = ""
    reading: str = ""


@dataclass(frozen=True)
class Chapter:
    """One job's share of the page; ``title`` is empty unless the page tells of two jobs."""

    title: str
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]


def tone(label: str | None) -> str:
    """good, bad or plain: for a verdict's colour, which never stands without its word."""
    return {"gain": "good", "harm": "bad"}.get((label or "").strip().lower(), "plain")


def chapters(result: Result) -> tuple[Chapter, ...]:
    """The audit's chapter, the boost's, or both; a null job of a demo is named as not run."""
    if result.theory is not None:
        from springback.report import theory_story  # it builds on this module

        return theory_story.chapters(result.theory)
    both = result.kind == "demo"
    told = []
    if result.audit is not None:
        title = "Does it spring back?" if both else ""
        told.append(Chapter(title, _audit_facts(result.audit), _audit_sections(result.audit)))
    if result.boost is not None:
        title = "Can it be made better without training?" if both else ""
        told.append(Chapter(title, _boost_facts(result.boost), _boost_sections(result.boost)))
    for job in ("audit", "boost"):
        if both and job in result.silent:
            missing = Section(f"no-{job}", job.capitalize(), missing=f"The {job} was not run.")
            told.append(Chapter("", (), (missing,)))
    return tuple(told)


def _last(values: Sequence[AtSize]) -> tuple[int, Interval] | None:
    """The value for the largest ``n_pos`` that has one."""
    known = [(v.n_pos, v.value) for v in values if v.value is not None]
    return max(known, key=lambda pair: pair[0]) if known else None


def _fact(label: str, found: Interval, unit: str, scale: float = 1.0, sign: bool = False) -> Fact:
    inside = words.bounds(found, scale, sign)
    note = f"{inside} (95 %)" if inside else ("one value, no interval" * (found.n == 1))
    return Fact(label, words.value(found, scale, sign), unit, note)


def _audit_facts(audit: Audit) -> tuple[Fact, ...]:
    facts = []
    rebound = audit.rebound
    if rebound is not None:
        if (found := _last(rebound.gain)) is not None:
            label = f"Gained by {found[0]:,} examples of alignment"
            facts.append(_fact(label, found[1], "nats/token"))
        if (found := _last(rebound.fall)) is not None:
            facts.append(_fact(f"Lost again{_over(rebound)}", found[1], "nats/token"))
        if (found := _last(rebound.share_lost)) is not None:
            facts.append(_fact("Share of the gain lost", found[1], "%", 100))
        if rebound.half_dose:
            half = max(rebound.half_dose, key=lambda h: h.n_pos)
            largest = max(rebound.doses, default=None)
            text = audit_charts.half_dose_words(half, largest)
            note = f"aligned on {half.n_pos:,}"
            unit = "examples" if text[-1].isdigit() else ""
            facts.append(Fact("Dose that undoes half", text, unit, note))
    if audit.resistance:
        easier = sum(map(_goes_back_easier, audit.resistance))
        value = f"{easier} of {len(audit.resistance)}"
        note = "inverse loss lower, raw and in excess"
        facts.append(Fact("Going back is easier in", value, "pairs", note))
    return tuple(facts)


def _goes_back_easier(pair: Pair) -> bool:
    """By the raw loss and, where it was measured, by the excess: the raw one alone misleads."""
    ways = [(pair.inverse, pair.forward), (pair.excess_inverse, pair.excess_forward)]
    known = [(back, on) for back, on in ways if back is not None and on is not None]
    return bool(known) and all(back.mean < on.mean for back, on in known)


def _over(rebound: Rebound) -> str:
    dose = rebound.fall_dose
    return " to the opposite" if dose is None else f" over {dose:,} examples of the opposite"


def _audit_sections(audit: Audit) -> tuple[Section, ...]:
    sections = []
    if audit.rebound is not None:
        sections += _rebound_sections(audit.rebound, audit.noise_floor)
    elif "rebound" in audit.silent:
        sections.append(_not_measured("rebound", "Rebound"))
    if audit.resistance:
        charts = (
            audit_charts.pairs_chart(audit.resistance),
            audit_charts.pairs_chart(audit.resistance, excess=True),
        )
        ratios = words.listing(
            f"{words.both(p.ratio)} for {p.pair}" for p in audit.resistance if p.ratio is not None
        )
        notes = [f"Inverse over forward loss: {ratios}; below 1 is resistance."] if ratios else []
        sections.append(
            Section(
                "resistance-pairs",
                "Resistance",
                "Is it easier to lead the model back than to lead it on?",
                _there(charts),
                tuple(notes),
            )
        )
    elif "resistance" in audit.silent:
        sections.append(_not_measured("resistance-pairs", "Resistance"))
    return tuple(sections)


def _not_measured(name: str, title: str) -> Section:
    return Section(name, title, missing="This run did not measure it.")


def _there(charts: Sequence[Chart | None]) -> tuple[Chart, ...]:
    return tuple(c for c in charts if c is not None)


def _rebound_sections(rebound: Rebound, floor: Mapping[str, float]) -> list[Section]:
    by_key = {p.key: p for p in rebound.probes}
    order = sorted(by_key, key=lambda key: {"margin": 0, "kl": 1}.get(key, 2))
    curves = _there([audit_charts.rebound_chart(rebound, by_key[k]) for k in order])
    notes = []
    if floor:
        said = "; ".join(_floor_words(k, v, by_key) for k, v in floor.items())
        notes.append(f"Noise floor, from scoring the start model twice: {said}.")
    sections = [
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
    doses = _there(
        (
            audit_charts.dose_chart(margin) if margin else None,
            audit_charts.half_dose_chart(rebound.half_dose, max(rebound.doses, default=None)),
        )
    )
    if doses:
        lead = "How many examples of the opposite undo the alignment?"
        sections.append(Section("dose", "Dose to undo", lead, doses))
    sizes = _size_charts(rebound)
    if sizes:
        lead = "Does a model that was aligned further fall faster?"
        sections.append(
            Section(
                "more-alignment", "Effect of more alignment", lead, sizes, tuple(_slopes(rebound))
            )
        )
    return sections


def _floor_words(key: str, value: float, probes: Mapping[str, Probe]) -> str:
    probe = probes.get(key.removesuffix("_se"))
    name = probe.title if probe else key.replace("_", " ")
    if probe and key.endswith("_se"):
        name += ", standard error from the choice of texts,"
    return f"{name} {words.number(value)}" + (f" {probe.unit}" if probe else "")


def _size_charts(rebound: Rebound) -> tuple[Chart, ...]:
    over = _over(rebound)
    return _there(
        (
            audit_charts.by_size_chart(
                "alignment-fall",
                "How far it falls",
                "fall of the margin, nats/token",
                f"What is lost{over}, in nats per token: the absolute fall. Rebound says that it "
                "grows with alignment.",
                rebound.fall,
            ),
            audit_charts.by_size_chart(
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


def _slopes(rebound: Rebound) -> list[str]:
    said = []
    if (slope := rebound.fall_per_log2) is not None:
        text = words.both(slope, sign=True)
        said.append(f"Each doubling of alignment changes the fall by {text} nats/token.")
    if (slope := rebound.share_per_log2) is not None:
        text = words.both(slope, 100, sign=True)
        said.append(f"Each doubling of alignment changes the share lost by {text} points.")
    return said


def _boost_facts(boost: Boost) -> tuple[Fact, ...]:
    methods = boost.methods or ()
    facts = []
    plain = next((m for m in methods if m.method == "fine-tuned"), None)
    best = next((m for m in methods if m.method == "EpiCoDe"), None)
    if plain is not None and plain.accuracy is not None:
        facts.append(_fact(f"Accuracy, {plain.method}", plain.accuracy, "%", 100))
    if best is not None:
        if best.accuracy is not None:
            facts.append(_fact(f"Accuracy, {best.method}", best.accuracy, "%", 100))
        if best.difference is not None:
            facts.append(_fact("Difference", best.difference, "points", 100, sign=True))
        if best.nll_difference is not None:
            label = "Difference in NLL (lower = better)"
            facts.append(_fact(label, best.nll_difference, "nats/token", sign=True))
    chosen = [
        words.plain(c.value)
        for key in ("mu", "lambda")
        for c in boost.search.get(key, ())
        if c.chosen
    ]
    if chosen:
        facts.append(
            Fact("mu, lambda chosen", ", ".join(chosen), "", "on validation; 0 = as it is")
        )
    return tuple(facts)


def _boost_sections(boost: Boost) -> tuple[Section, ...]:
    sections = []
    if boost.methods:
        sections.append(
            Section(
                "comparison",
                "Methods",
                "Four ways to use the same two checkpoints, once each on the test set.",
                _there([boost_charts.methods_chart(boost.methods)]),
                (),
                (words.sentence(boost.floor),) if boost.floor else (),
                tuple(_method_row(m) for m in boost.methods),
            )
        )
    elif "methods" in boost.silent:
        sections.append(_not_measured("comparison", "Methods"))
    charts = _there([boost_charts.search_chart(k, c) for k, c in boost.search.items()])
    if charts:
        lead = "Which mu and lambda does the validation set choose?"
        reading = (
            "Tried on the validation set only, first mu, then lambda. 0 leaves the model as it is; "
            "the best mean accuracy is chosen, and ties go to the smaller value. The chosen one "
            "is a filled square; candidates stand evenly spaced."
        )
        sections.append(Section("search", "Search", lead, charts, reading=reading))
    elif "search" in boost.silent:
        sections.append(_not_measured("search", "Search"))
    return tuple(sections)


def _method_row(m: Method) -> MethodRow:
    def cell(found: Interval | None, scale: float, sign: bool = False) -> tuple[str, str]:
        return words.value(found, scale, sign), words.bounds(found, scale, sign)

    return MethodRow(
        m.method,
        words.plain(m.mu) if m.mu is not None else "–",
        words.plain(m.lam) if m.lam is not None else "–",
        cell(m.accuracy, 100),
        cell(m.difference, 100, True),
        cell(m.nll, 1),
        cell(m.nll_difference, 1, True),
        m.verdict or "–",
        tone(m.verdict),
    )
