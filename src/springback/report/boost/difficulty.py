"""What each method gains by the difficulty of the questions."""

from __future__ import annotations

from springback.report import figure, text
from springback.report.components import Section
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series, Table
from springback.results.boost_schema import ByDifficulty, Difficulty


def difficulty_sections(difficulty: Difficulty, key: str = "difficulty") -> list[Section]:
    """One section, or none where no method differs from the fine-tuned model."""
    chart = difficulty_chart(difficulty, key)
    lead = "Does it gain on the easy questions or on the hard ones?"
    return [] if chart is None else [Section(key, "By difficulty", lead, (chart,))]


def difficulty_chart(difficulty: Difficulty, name: str) -> Chart | None:
    """Difference to the fine-tuned model in each bin, a marker for each method."""
    methods = [m for m in difficulty.methods if any(b.difference for b in m.bins)]
    bins = difficulty.bins
    places = [f"{text.plain(b.low)}–{text.plain(b.high)}" for b in bins]
    counts = text.listing(
        f"{place}: {b.questions} questions" for place, b in zip(places, bins, strict=True)
    )
    return figure.points(
        Caption(
            name,
            "Effect by difficulty",
            f"Questions by the length of their reference solution ({counts}). Hardest minus "
            "easiest is a slope over the rank of that length, tested for all questions at once.",
        ),
        Plot(
            "accuracy against the fine-tuned model, points (up = better)",
            [
                Series(
                    m.method, [b.difference and b.difference.scaled(100) for b in m.bins], join=""
                )
                for m in methods
            ],
            Level(0.0),
        ),
        Axis(difficulty.unit, places),
        table=Table(
            ("method", *places, "hardest minus easiest", "p (Holm)"), tuple(map(_row, methods))
        ),
    )


def _row(method: ByDifficulty) -> tuple[str, ...]:
    differences = [*(b.difference for b in method.bins), method.trend]
    p = "–" if method.p_holm is None else text.number(method.p_holm, 2)
    return (method.method, *(text.both(d, 100, sign=True) for d in differences), p)
