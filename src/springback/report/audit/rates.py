"""Whose compression rate moves: along the examples of a trajectory, and for each of them."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import formatting
from springback.report.estimate import Estimate
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style
from springback.report.line_charts import Frame, Line, lines_chart
from springback.report.theme import LIGHT, series
from springback.results.audit_schema import RatePath, Rates, RateSet
from springback.results.schema import Interval

TITLES = {
    "pretraining": "like pre-training",
    "aligning": "aligning",
    "perturbing": "perturbing",
}
#: Slopes are for each example in the file; a thousandth of a bit makes readable numbers.
MILLI = 1000.0


def title_of(name: str) -> str:
    return TITLES.get(name, name)


def path_chart(path: RatePath) -> Chart:
    """Change of the three rates since the trajectory began."""
    align = path.phase == "align"
    n = f"{path.n_pos:,}"
    name = "alignment-rates" if align else "rebound-rates-sets"
    title = "Rates while aligning" if align else "Rates while trained on the opposite"
    legend = [LegendItem(title_of(name), *series(i)) for i, name in enumerate(path.sets)]
    with style(name):
        figure, (axes,) = panel(title, "change of the rate, bits/token", legend)
        axes.axhline(0, color=LIGHT["axis"], linewidth=1)
        for i, one in enumerate(path.sets.values()):
            colour, marker = series(i)
            means = [c.mean for c in one.change]
            axes.plot(path.examples, means, color=colour, marker=marker, linewidth=2)
            if all(c.bounds for c in one.change):
                lows, highs = zip(*(c.bounds or (0.0, 0.0) for c in one.change), strict=True)
                axes.fill_between(path.examples, lows, highs, color=colour, alpha=0.16, linewidth=0)
        number_axis(axes.yaxis)
        number_axis(axes.xaxis)
        axes.set_xlabel("examples that align" if align else "examples of the opposite")
    since = "the start model" if align else f"the model aligned on {n} examples"
    rows = tuple(
        (
            formatting.plain(at),
            *(formatting.both(s.change[i], sign=True) for s in path.sets.values()),
        )
        for i, at in enumerate(path.examples)
    )
    return Chart(
        name,
        title,
        f"Line chart of the change of the rate since {since}, by set. "
        + "; ".join(
            f"{title_of(name)}: {formatting.both(s.change[-1], sign=True)}"
            for name, s in path.sets.items()
        )
        + ".",
        f"Since {since}; above 0 = compressed worse. "
        + formatting.interval_note((c for s in path.sets.values() for c in s.change), "Bands"),
        Table(("examples", *map(title_of, path.sets)), rows),
        figure,
    )


def per_example_chart(found: Rates) -> Chart | None:
    """Change of each set's rate for each example, over the first mark of both trajectories."""
    shown = [path for path in (found.path("align"), found.path("perturb")) if path is not None]
    lines, rows = [], []
    for path in shown:
        what = "aligning" if path.phase == "align" else "opposite"
        first = formatting.plain(path.examples[1]) if len(path.examples) > 1 else "0"
        for set_, one in path.sets.items():
            label = f"{title_of(set_)} set, over the first {first} {what} examples"
            lines.append(Line(label, _milli(one.first_per_example)))
            rows.append((label, _cell(one.first_per_example), _cell(one.per_example)))
    frame = Frame(
        "rebound-rates-each",
        "Whose rate moves how much",
        "0.001 bits/token for each example (left = compressed better)",
        "0.001 bits/token for each example",
        "Slope from where a trajectory begins to its first mark. The theorem says that under "
        "perturbing examples the aligning set's moves k times as far as the pre-training set's, "
        "the other way.",
    )
    head = ("set", "first mark, 0.001 bits/token for each", "whole trajectory, the same")
    return lines_chart(frame, lines, Table(head, tuple(rows)))


def _milli(found: Interval) -> Estimate:
    return Estimate.of(found.scaled(MILLI))


def _cell(found: Interval) -> str:
    return formatting.both(found, MILLI, sign=True)


def k_words(found: Rates) -> list[str]:
    """One sentence for each fitted k, and what the volumes say where they are known."""
    said = []
    for fit in found.k:
        where = "while aligning" if fit.phase == "align" else "under the opposite"
        examples = formatting.plain(fit.first.examples)
        text = f"Aligned on {fit.n_pos:,}, {where}, over {examples} examples: "
        if fit.first.k is None:
            text += (
                "no k, for the aligning and the pre-training set's rates move opposite ways in "
                f"{100 * fit.first.opposite:.0f} % of the seeds only."
            )
        else:
            text += f"k = {formatting.both(fit.first.k)}."
        if fit.volumes is not None and fit.phase == "perturb":
            text += f" By volumes {formatting.number(fit.volumes)}."
        said.append(text)
    return said


def normalised_words(sets: Sequence[RateSet], depth: int) -> str:
    """Rates of the start model, and what is taken off them."""
    each = "; ".join(
        f"{title_of(s.name)} ({s.source}, {formatting.count(s.texts, 'text')}): "
        f"{formatting.number(s.start.bits_per_byte)} bits/byte, "
        f"rate {formatting.number(s.start.rate)}, "
        f"normalised {formatting.number(s.start.normalised)} bits/token (M = {s.leaves:,})"
        for s in sets
    )
    return f"Start model, trees pruned to {formatting.count(depth, 'token')}: {each}."
