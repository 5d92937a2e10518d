"""The second alignment beside the first."""

from __future__ import annotations

from springback.report import figure, text
from springback.report.components import Section
from springback.report.estimate import Estimate
from springback.report.figure import Axis, Caption, Chart, Plot, Series
from springback.results.schema import Interval, Realignment

#: Rates are for each example in the file; a hundred of them make readable numbers.
EXAMPLES = 100


def realign_section(realign: Realignment) -> Section | None:
    chart = realign_chart(realign)
    if chart is None:
        return None
    notes: tuple[str, ...] = ()
    if realign.examples is not None:
        between = text.with_limits(Estimate.of(realign.examples), sign=True)
        notes = (
            f"Between two heights that both alignments pass, second minus first: {between} "
            "examples; below 0 the second is faster from equal height too.",
        )
    lead = "Is the second alignment faster than the first?"
    return Section("realign", "Second alignment", lead, (chart,), notes)


def realign_chart(realign: Realignment) -> Chart | None:
    """First beside second alignment: margin gained for each 100 examples, at equal counts."""
    counts = realign.counts
    first = [_per_hundred(c.first) for c in counts]
    second = [_per_hundred(c.second) for c in counts]
    difference = [text.both(_per_hundred(c.difference), sign=True) for c in counts]
    return figure.points(
        Caption(
            "realign-gain",
            "First and second alignment",
            "Counted from where each alignment begins: the first at the start model, the second "
            "at the model that was aligned and undone. One that begins lower gains faster for "
            "that alone.",
        ),
        Plot(
            f"margin gained per {EXAMPLES} examples, nats/token",
            [Series("first", first, join=""), Series("second", second, join="")],
            zero=True,
        ),
        Axis(
            "examples of alignment",
            [text.plain(c.count) for c in counts],
            "examples",
            {"second minus first": difference},
        ),
    )


def _per_hundred(rate: Interval | None) -> Interval | None:
    return None if rate is None else rate.scaled(EXAMPLES)
