"""What the page tells of ``springback theory``."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import formatting
from springback.report.components import Chapter, Fact, Section
from springback.report.figure import Chart
from springback.report.papers import springs as spring_charts
from springback.report.papers import tails
from springback.report.papers import theorem as charts
from springback.results.theory_schema import DataTails, Noise, Scaling, Springs, Theorem, Theory


def chapters(analysis: Theory) -> tuple[Chapter, ...]:
    """The theorem's chapter, the Pareto tests', the springs', or several of them."""
    told = []
    if (theorem := analysis.theorem) is not None:
        told.append(Chapter("", _theorem_facts(theorem), _theorem_sections(theorem)))
    if analysis.pareto:
        told.append(Chapter("", (), _pareto_sections(analysis.pareto)))
    if (springs := analysis.springs) is not None:
        told.append(Chapter("", _springs_facts(springs), _springs_sections(springs)))
    return tuple(told)


def _there(found: Sequence[Chart | None]) -> tuple[Chart, ...]:
    return tuple(chart for chart in found if chart is not None)


def _theorem_facts(found: Theorem) -> tuple[Fact, ...]:
    identity = found.identity
    note = f"largest over {identity.cells:,} cells"
    return (
        Fact(
            "Residue of the balance at l = 0",
            formatting.number(identity.residue_at_zero),
            "bits",
            note,
        ),
        Fact(
            "Closed form against differences",
            formatting.number(identity.difference),
            "relative",
            "at l = 0",
        ),
    )


def _theorem_sections(found: Theorem) -> tuple[Section, ...]:
    drawn = charts.sign_chart(found.map), charts.map_chart(found.map)
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
            (charts.huffman_chart(found.huffman),),
        ),
    )


def _ratio_charts(found: Theorem) -> list[Chart | None]:
    k, l = found.at.k, found.at.l  # noqa: E741
    what = "rate2' / rate1' over -k at"
    by_k = [row for row in found.by_k if row.l]
    reading = f"{what} l = {l:g}; at l = 0 it is 1 for all."
    return [
        charts.kept_chart("theory-ratio-k", by_k, "k", ("Ratio against k", "k", reading)),
        charts.kept_chart(
            "theory-ratio-l", found.by_l, "l", ("Ratio against l", "l", f"{what} k = {k:g}.")
        ),
    ]


def _departure_charts(found: Theorem) -> list[Chart | None]:
    escaped = [
        row for row in found.escaped if row.arrangement == "independent" and row.k in (10, 1e3, 1e6)
    ]
    reading = "l = 0, independent leaves: a mass near 1/k already undoes the ratio."
    return [
        charts.collapse_chart(found.departures),
        charts.chi2_chart(found.departures),
        charts.kept_chart(
            "theory-escaped", escaped, "mass", ("Escaped mass", "mass of D3 on new leaves", reading)
        ),
    ]


def _pareto_sections(found: Sequence[DataTails]) -> tuple[Section, ...]:
    drawn = _there(
        [
            tails.exponents_chart(found),
            *(tails.tail_chart(i + 1, d) for i, d in enumerate(found)),
        ]
    )
    notes = tuple(
        f"{d.data}, {t.leaves}: no fit ({t.reason})." for d in found for t in d.tails if not t.fit
    )
    lead = "Do leaf masses follow a Pareto law?"
    return (Section("tails", "Tails", lead, drawn, notes),)


def _springs_facts(found: Springs) -> tuple[Fact, ...]:
    gap, bounds = found.gap, found.bounds
    return (
        Fact(
            "Joint trainings end above the exact optimum by",
            formatting.number(gap.median),
            "nats/response",
            f"median of {gap.trainings:,}; at most {formatting.number(gap.largest)}",
        ),
        Fact(
            "An optimum's two bounds are broken in",
            f"{bounds.two_below_zero} and {bounds.three_above_zero}",
            f"of {bounds.cells:,}",
            "n1 d1 + n2 d2 at least 0; with n3 d3 at most 0; by twice the noise",
        ),
    )


def _springs_sections(found: Springs) -> tuple[Section, ...]:
    cells, dose = found.cells, found.at.l
    ratio = [spring_charts.fitted_chart(cells, dose), spring_charts.balance_chart(cells, dose)]
    products = [
        spring_charts.products_chart(cells, arrangement, at + 1)
        for at, arrangement in enumerate(found.arrangements)
    ]
    exact = [spring_charts.exact_chart(cells), spring_charts.forms_chart(found.controls, dose)]
    return (
        Section(
            "springs-k",
            "Stiffness and elongation",
            "Does a set k times as large move k times less?",
            _there(ratio),
            tuple(_exponents(found.scaling)),
        ),
        Section(
            "springs-products",
            "The three products",
            "Is volume times elongation the same for all sets?",
            _there(products),
        ),
        Section(
            "springs-exact",
            "Beside the exact optimum",
            "Is the training at fault, or the claim?",
            _there(exact),
            tuple(_noise_words(found.noise)),
        ),
    )


def _exponents(scaling: Sequence[Scaling]) -> list[str]:
    """Exponent of -d2 / d1 in k, for each arm, arrangement and dose."""
    said = []
    for row in scaling:
        arm = "Trained jointly" if row.arm == "joint" else "Trained in sequence"
        start = f"{arm}, {row.arrangement}, l = {row.l:g}: "
        if row.exponent is None:
            opposite = f"{100 * row.opposite:.0f} %"
            above = f"{formatting.count(len(row.k), 'k')} above the noise"
            said.append(f"{start}no exponent; signs opposite in {opposite} of the runs, {above}.")
        else:
            text = spring_charts.interval_words(row.exponent)
            over = f"k from {formatting.plain(min(row.k))} to {formatting.plain(max(row.k))}"
            said.append(f"{start}-d2 / d1 grows as k to the power of {text}, {over}.")
    return said


def _noise_words(noise: Sequence[Noise]) -> list[str]:
    said = []
    for arm, name in (("joint", "joint trainings"), ("sequence", "trainings in sequence")):
        sizes = [row.changes for row in noise if row.arm == arm]
        if sizes:
            each = ", ".join(
                f"D{i + 1} {formatting.number(min(s[i] for s in sizes))} to "
                f"{formatting.number(max(s[i] for s in sizes))}"
                for i in range(3)
            )
            said.append(
                f"Noise of an elongation in {name}, from other weights and order with the same "
                f"sets, by k: {each} nats a response."
            )
    return said
