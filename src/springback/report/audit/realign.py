"""The second alignment beside the first."""

from __future__ import annotations

from springback.report import formatting
from springback.report.audit.more_alignment import keep_zero, size_axis
from springback.report.audit.opposite_order import _beside
from springback.report.components import Section, there
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style
from springback.report.findings import Realign
from springback.report.theme import series
from springback.report.values import Estimate, Interval


def realign_section(found: Realign) -> Section | None:
    charts = there([realign_chart(found)])
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


#: Rates are for each example in the file; a hundred of them make readable numbers.
EXAMPLES = 100


def realign_chart(found: Realign) -> Chart | None:
    """First beside second alignment: margin gained for each 100 examples, at equal counts."""
    shown = [c for c in found.counts if c.first is not None and c.second is not None]
    if not shown:
        return None
    name, title = "realign-gain", "First and second alignment"
    unit = f"margin gained per {EXAMPLES} examples, nats/token"
    legend = [LegendItem(n, *series(i), lone=True) for i, n in enumerate(("first", "second"))]
    pairs = [[_per(c.first), _per(c.second)] for c in shown]
    with style(name):
        figure, (axes,) = panel(title, unit, legend)
        known = [v for pair in pairs for p in pair if p for v in Estimate.of(p).known]
        keep_zero(axes, known)
        size_axis(axes, [round(c.count) for c in shown])
        number_axis(axes.yaxis)
        _beside(axes, pairs)
    rows = tuple(
        (
            formatting.plain(c.count),
            *(formatting.both(p) for p in pair),
            _second_minus_first(c.difference),
        )
        for c, pair in zip(shown, pairs, strict=True)
    )
    return Chart(
        name,
        title,
        f"Dot chart of {unit}, against examples of alignment. "
        + "; ".join(f"after {n}: first {a}, second {b}" for n, a, b, _ in rows)
        + ".",
        "Counted from where each alignment begins: the first at the start model, the second at "
        "the model that was aligned and undone. One that begins lower gains faster for that "
        "alone. " + formatting.interval_note((p for pair in pairs for p in pair), "Whiskers"),
        Table(("examples", "first", "second", "second minus first"), rows),
        figure,
    )


def _per(found: Interval | None) -> Interval | None:
    return None if found is None else found.scaled(EXAMPLES)


def _second_minus_first(found: Interval | None) -> str:
    return formatting.both(_per(found), sign=True)
