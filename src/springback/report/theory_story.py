"""What the page tells of ``springback theory``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from springback.errors import StoreError, describe
from springback.report import tail_charts, words
from springback.report import theory_charts as charts
from springback.report.draw import Chart
from springback.report.sections import Chapter, Fact, Section


def chapters(analysis: Mapping[str, Any]) -> tuple[Chapter, ...]:
    """The theorem's chapter, the Pareto tests', or both.

    Raises :class:`StoreError` where the analysis has not the form that the job writes.
    """
    try:
        told = []
        if theorem := analysis.get("theorem"):
            told.append(Chapter("", _theorem_facts(theorem), _theorem_sections(theorem)))
        if pareto := analysis.get("pareto"):
            told.append(Chapter("", (), _pareto_sections(pareto)))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(
            "result.json, analysis: "
            + describe(
                f"{type(error).__name__} {error}",
                "the form that springback theory writes",
                "run the job again",
            )
        ) from error
    return tuple(told)


def _there(found: Sequence[Chart | None]) -> tuple[Chart, ...]:
    return tuple(chart for chart in found if chart is not None)


def _theorem_facts(found: Mapping[str, Any]) -> tuple[Fact, ...]:
    identity = found["identity"]
    note = f"largest over {identity['cells']:,} cells"
    return (
        Fact(
            "Residue of the balance at l = 0",
            words.number(identity["residue_at_zero"]),
            "bits",
            note,
        ),
        Fact(
            "Closed form against differences",
            words.number(identity["difference"]),
            "relative",
            "at l = 0",
        ),
    )


def _theorem_sections(found: Mapping[str, Any]) -> tuple[Section, ...]:
    drawn = charts.sign_chart(found["map"]), charts.map_chart(found["map"])
    return (
        Section(
            "ratio",
            "Ratio of the two rates",
            "Does D2's rate change k times as fast as D1's?",
            _there(_ratio_charts(found)),
        ),
        Section(
            "departures",
            "Where it departs",
            "What decides how far the theorem reaches?",
            _there(_departure_charts(found)),
        ),
        Section(
            "map", "Sign and map", "For which data does the alignment set get worse?", _there(drawn)
        ),
        Section(
            "huffman",
            "Huffman codes",
            "And with whole bits?",
            (charts.huffman_chart(found["huffman"]),),
        ),
    )


def _ratio_charts(found: Mapping[str, Any]) -> list[Chart | None]:
    k, l = found["at"]["k"], found["at"]["l"]  # noqa: E741
    what = "rate2' / rate1' over -k at"
    by_k = [row for row in found["by_k"] if row["l"]]
    reading = f"{what} l = {l:g}; at l = 0 it is 1 for all."
    return [
        charts.kept_chart("theory-ratio-k", by_k, "k", ("Ratio against k", "k", reading)),
        charts.kept_chart(
            "theory-ratio-l", found["by_l"], "l", ("Ratio against l", "l", f"{what} k = {k:g}.")
        ),
    ]


def _departure_charts(found: Mapping[str, Any]) -> list[Chart | None]:
    escaped = [
        row
        for row in found["escaped"]
        if row["arrangement"] == "independent" and row["k"] in (10, 1e3, 1e6)
    ]
    reading = "l = 0, independent leaves: a mass near 1/k already undoes the ratio."
    return [
        charts.collapse_chart(found["departures"]),
        charts.chi2_chart(found["departures"]),
        charts.kept_chart(
            "theory-escaped", escaped, "mass", ("Escaped mass", "mass of D3 on new leaves", reading)
        ),
    ]


def _pareto_sections(found: Sequence[Mapping[str, Any]]) -> tuple[Section, ...]:
    drawn = _there(
        [
            tail_charts.exponents_chart(found),
            *(tail_charts.tail_chart(i + 1, d) for i, d in enumerate(found)),
        ]
    )
    notes = tuple(
        f"{d['data']}, {t['leaves']}: no fit ({t['reason']})."
        for d in found
        for t in d["tails"]
        if not t["fit"]
    )
    lead = "Do leaf masses follow a Pareto law?"
    return (Section("tails", "Tails", lead, drawn, notes),)
