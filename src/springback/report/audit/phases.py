"""What the page tells of an audit's further findings: card, phases, attackers, opposite order.

The verdict's parts have a sentence for each; here stand the numbers behind it.
"""

from __future__ import annotations

from dataclasses import replace

from springback.report import elasticity_card, formatting
from springback.report.audit import doses as dose_charts
from springback.report.audit import more_alignment, opposite_order, rates
from springback.report.components import Cell, Grid, Section, there
from springback.report.estimate import Estimate
from springback.report.figure import Chart
from springback.results.audit_schema import Attackers, Audit, FallPhases, Rates, Rebound
from springback.results.card_schema import Card
from springback.results.schema import Interval, Phases, Realignment

#: In ``aicc``, the shape of two phases.
TWO_LINES = "two lines"


def card_section(card: Card) -> Section:
    aligned = f"{max(card.n_pos):,} examples" if card.n_pos else "the most examples"
    largest = formatting.plain(max(card.doses, default=0))
    dose = f", then trained on up to {largest} of the opposite"
    seeds = f", over {formatting.count(len(card.seeds), 'seed')}" if card.seeds else ""
    return Section(
        "card",
        "Elasticity card",
        "How strongly does this model spring back?",
        reading=f"Where a line does not say otherwise: of the model aligned on {aligned}"
        f"{dose if card.doses else ''}{seeds}. Cards of several models can be laid side by side.",
        grids=(elasticity_card.quantities_grid("Elasticity card", card.quantities.values()),),
    )


def dose_charts_of(audit: Audit, rebound: Rebound) -> tuple[Chart, ...]:
    """Doses to undo by the amount of alignment; of older files that of half the gain alone."""
    if audit.doses_to_undo is not None:
        known = audit.doses_to_undo.known()
        return there([dose_charts.to_undo_chart(key, doses) for key, doses in known.items()])
    return there(
        [more_alignment.half_dose_chart(rebound.half_dose, max(rebound.doses, default=None))]
    )


def dose_notes(audit: Audit) -> tuple[str, ...]:
    """Trends that the verdict does not tell, for it has no part for this dose."""
    doses = audit.doses_to_undo.reverse_kl if audit.doses_to_undo is not None else None
    if doses is None or doses.trend is None or not doses.trend.sentence:
        return ()
    return (f"On the model's own texts: {formatting.sentence(doses.trend.sentence)}",)


def phases_section(phases: FallPhases) -> Section | None:
    if not phases.branches:
        return None
    lead = "Does it fall fast first and slowly then?"
    if all(b.breakpoint is None for b in phases.branches.values()):
        labels = formatting.listing(dict.fromkeys(b.label for b in phases.branches.values()))
        return Section("phases", "Phases", lead, missing=f"Not judged: {labels or 'no fit'}.")
    head = (
        "Aligned on",
        "Finding",
        "Breakpoint, examples",
        "Slope before",
        "Slope after",
        "Best shape of one phase",
        "Lead of two lines, AICc",
    )
    rows = tuple(_phases_row(n, b) for n, b in phases.branches.items())
    return Section(
        "phases",
        "Phases",
        lead,
        reading="Two straight lines that meet at a breakpoint, against the best curve of one "
        "phase. Two phases are claimed only where AICc prefers them by 2 or more and they predict "
        "left-out seeds better; elsewhere the breakpoint is that of the best two lines and means "
        "little. Slopes are in nats/token for each 100 examples, below 0 = falling.",
        grids=(Grid("Phases of the fall", head, rows, frozenset({1, 5})),),
    )


def _phases_row(n_pos: int, b: Phases) -> tuple[Cell, ...]:
    before, after = b.slopes or (None, None)
    point = _breakpoint(b)
    aicc = {key: value for key, value in b.aicc.items() if value is not None}
    single = min((k for k in aicc if k != TWO_LINES), key=aicc.__getitem__, default="")
    lead = aicc[single] - aicc[TWO_LINES] if single and TWO_LINES in aicc else None
    hundred = opposite_order.EXAMPLES
    return (
        Cell(f"{n_pos:,}"),
        Cell(b.label or "–", _phases_words(b)),
        Cell(formatting.value(point), formatting.bounds(point)),
        Cell(formatting.number(None if before is None else hundred * before, sign=True)),
        Cell(formatting.number(None if after is None else hundred * after, sign=True)),
        Cell(single or "–"),
        Cell(formatting.number(lead, sign=True)),
    )


def _breakpoint(b: Phases) -> Interval | None:
    """With its interval, where there is one."""
    if b.breakpoint is None:
        return None
    return replace(b.interval or Interval(b.breakpoint), mean=b.breakpoint)


def _phases_words(b: Phases) -> str:
    """What two phases are like; nothing is said where they are not claimed."""
    if b.label != "two phases" or b.slopes is None or b.breakpoint is None:
        return ""
    before, after = b.slopes
    point = f"up to {formatting.value(_breakpoint(b))} examples"
    if before < 0 and after < 0:
        pace = ("fast", "slowly") if before < after else ("slowly", "fast")
        return f"falls {pace[0]} {point}, then {pace[1]}"
    one, two = ("falls" if slope < 0 else "rises" for slope in b.slopes)
    return f"{one} {point}, then {two}"


def attackers_section(found: Attackers, rebound: Rebound | None) -> Section | None:
    largest = max(rebound.doses, default=None) if rebound is not None else None
    charts = there(
        (
            opposite_order.share_chart(found.share) if found.share else None,
            opposite_order.dose_chart(found.dose, largest) if found.dose else None,
            opposite_order.mixed_chart(found, rebound),
        )
    )
    if not charts:
        return None
    model = f"the model aligned on {found.n_pos:,} examples" if found.n_pos else "one model"
    left = sum(s.left_out for s in (found.share,) if s is not None)
    note = f"{formatting.count(left, 'attacker')} left out: alignment had gained nothing there."
    return Section(
        "attackers",
        "Attackers",
        "What is the alignment worth against the worst of several attackers?",
        charts,
        (note,) if left else (),
        reading=f"All of them train {model} on the opposite.",
    )


def realign_section(found: Realignment) -> Section | None:
    charts = there([opposite_order.realign_chart(found)])
    notes = []
    if found.examples is not None:
        text = formatting.with_limits(Estimate.of(found.examples), sign=True)
        notes.append(
            f"Between two heights that both alignments pass, second minus first: {text} examples; "
            "below 0 the second is faster from equal height too."
        )
    if not charts:
        return None
    lead = "Is the second alignment faster than the first?"
    return Section("realign", "Second alignment", lead, charts, tuple(notes))


def symmetry_section(here: Rebound, there_: Rebound) -> Section | None:
    one, two = (rebound.probes.get("margin") for rebound in (here, there_))
    charts = there(
        (
            opposite_order.orders_chart(one, two) if one and two else None,
            opposite_order.gains_chart(here, there_),
        )
    )
    if not charts:
        return None
    lead = "Is it the same when the unwanted side comes first?"
    return Section("symmetry", "Opposite order", lead, charts)


def rates_section(found: Rates) -> Section | None:
    paths = [found.path(phase) for phase in ("align", "perturb")]
    drawn = [rates.path_chart(path) for path in paths if path is not None]
    charts = there([rates.per_example_chart(found), *drawn])
    if not charts:
        return None
    notes = (rates.normalised_words(found.sets, found.depth), *rates.k_words(found))
    return Section(
        "rates",
        "Compression rates",
        "Whose rate moves how much per example?",
        charts,
        notes,
        reading="A set's rate is the model's code length for its held-out texts, in bits a token. "
        "k is how many times as far the aligning set's rate moves as that of texts like "
        "pre-training's, the other way, over the first mark: a geometric mean over the seeds.",
    )
