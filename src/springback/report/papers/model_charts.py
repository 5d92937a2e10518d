"""Charts of several models: one main quantity of their cards in each."""

from __future__ import annotations

from springback.report import formatting
from springback.report.elasticity_card import Models
from springback.report.estimate import Estimate, shown
from springback.report.figure import Chart, Table
from springback.report.line_charts import Frame, Line, lines_chart
from springback.results.schema import Quantity

#: By quantity: title, how to read it, and the value that a dashed line marks.
MAIN: dict[str, tuple[str, str, tuple[float, str] | None]] = {
    "gain": ("Gained by aligning", "What alignment added to the margin.", (0.0, "no gain")),
    "share_lost": (
        "Share lost",
        "What the opposite took back of the gain at the largest dose.",
        (100.0, "all of the gain"),
    ),
    "rebound_slope": (
        "Rebound slope",
        "How much further the margin falls for each doubling of alignment; above 0 is the "
        "paper's finding.",
        (0.0, "no steeper"),
    ),
    "resistance_ratio": (
        "Resistance ratio",
        "Loss going back over loss going forward; below 1 going back is easier.",
        (1.0, "as hard"),
    ),
    "half_life_dose": (
        "Half-life dose",
        "Examples of the opposite that undo half of the gain; fewer is undone sooner.",
        None,
    ),
}


def main_charts(models: Models) -> tuple[Chart, ...]:
    """A chart of each main quantity by model, of those that some model has."""
    return tuple(c for key in MAIN if (c := _chart(models, key)) is not None)


def _chart(models: Models, key: str) -> Chart | None:
    title, reading, mark = MAIN[key]
    found = [
        (s.name, s.card.quantities.get(key) if s.card is not None else None) for s in models.studies
    ]
    unit = next((shown(q)[1] for _, q in found if q is not None), "")
    lines = [
        Line(_name(name, q), Estimate(None) if q is None else shown(q)[0], _missing(q))
        for name, q in found
    ]
    frame = Frame(
        f"models-{key.replace('_', '-')}",
        title,
        unit,
        "",
        reading,
        mark,
        zero=key != "resistance_ratio",
    )
    rows = tuple(
        (name, formatting.with_limits(line.found), _finding(q))
        for line, (name, q) in zip(lines, found, strict=True)
    )
    return lines_chart(frame, lines, Table(("model", unit, "finding"), rows))


def _name(name: str, q: Quantity | None) -> str:
    """What did not align says so in the chart itself: its other values mean little."""
    return f"{name} ({q.label})" if q is not None and q.label == "did not align" else name


def _missing(q: Quantity | None) -> str:
    return "no card" if q is None else q.reason or "not measured"


def _finding(q: Quantity | None) -> str:
    return "–" if q is None else q.label or "–"
