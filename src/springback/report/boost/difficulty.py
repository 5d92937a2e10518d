"""What each method gains by the difficulty of the questions."""

from __future__ import annotations

from springback.report import formatting
from springback.report.boost_findings import Difficulty
from springback.report.components import Section, there
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style, whisker
from springback.report.theme import LIGHT, series


def difficulty_sections(found: Difficulty, key: str = "difficulty") -> list[Section]:
    """One section, or none where no method differs from the fine-tuned model."""
    charts = there([difficulty_chart(found, key)])
    lead = "Does it gain on the easy questions or on the hard ones?"
    return [Section(key, "By difficulty", lead, charts)] if charts else []


def difficulty_chart(found: Difficulty, name: str = "difficulty") -> Chart | None:
    """Difference to the fine-tuned model in each bin, a marker for each method."""
    shown = [m for m in found.methods if any(m.differences)]
    if not shown or not found.bins:
        return None
    title = "Effect by difficulty"
    legend = [LegendItem(m.method, *series(i), lone=True) for i, m in enumerate(shown)]
    labels = [f"{formatting.plain(b.low)}–{formatting.plain(b.high)}" for b in found.bins]
    with style(name):
        figure, (axes,) = panel(title, "accuracy, points (up = better)", legend)
        axes.axhline(0, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
        for i, method in enumerate(shown):
            colour, marker = series(i)
            aside = 0.12 * (i - (len(shown) - 1) / 2)
            for at, value in enumerate(method.differences):
                if value is not None:
                    whisker(axes, at + aside, value.scaled(100), colour)
                    axes.plot(
                        [at + aside], [100 * value.mean], color=colour, marker=marker, markersize=7
                    )
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        number_axis(axes.yaxis)
        axes.set_xlabel(found.unit)
    rows = tuple(
        (
            m.method,
            *(formatting.both(d, 100, sign=True) for d in m.differences),
            formatting.both(m.trend, 100, sign=True),
            "–" if m.p_holm is None else formatting.number(m.p_holm, 2),
        )
        for m in shown
    )
    counts = formatting.listing(
        f"{label}: {b.questions} questions" for label, b in zip(labels, found.bins, strict=True)
    )
    return Chart(
        name,
        title,
        "Dot chart of the difference in accuracy to the fine-tuned model by length of the "
        "reference solution. "
        + "; ".join(
            f"{m.method}: " + ", ".join(formatting.value(d, 100, sign=True) for d in m.differences)
            for m in shown
        )
        + ".",
        f"Questions by the length of their reference solution ({counts}). Hardest minus easiest is "
        "a slope over the rank of that length, tested for all questions at once. "
        + formatting.interval_note((d for m in shown for d in m.differences), "Whiskers"),
        Table(("method", *labels, "hardest minus easiest", "p (Holm)"), rows),
        figure,
    )
