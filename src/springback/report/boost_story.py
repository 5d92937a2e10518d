"""What the page tells of a boost, in order."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import boost_charts, words
from springback.report.schema import Boost, Method
from springback.report.sections import Cell, Fact, Grid, Section, fact, not_measured, there, tone
from springback.report.values import Interval


def facts(boost: Boost) -> tuple[Fact, ...]:
    methods = boost.methods or ()
    told: list[Fact] = []
    plain = next((m for m in methods if m.method == "fine-tuned"), None)
    best = next((m for m in methods if m.method == "EpiCoDe"), None)
    if plain is not None and plain.accuracy is not None:
        told.append(fact(f"Accuracy, {plain.method}", plain.accuracy, "%", 100))
    if best is not None:
        if best.accuracy is not None:
            told.append(fact(f"Accuracy, {best.method}", best.accuracy, "%", 100))
        if best.difference is not None:
            told.append(fact("Difference", best.difference, "points", 100, sign=True))
        if best.nll_difference is not None:
            label = "Difference in NLL (lower = better)"
            told.append(fact(label, best.nll_difference, "nats/token", sign=True))
    chosen = [
        words.plain(c.value)
        for key in ("mu", "lambda")
        for c in boost.search.get(key, ())
        if c.chosen
    ]
    if chosen:
        told.append(Fact("mu, lambda chosen", ", ".join(chosen), "", "on validation; 0 = as it is"))
    return tuple(told)


def sections(boost: Boost) -> tuple[Section, ...]:
    told: list[Section] = []
    if boost.methods:
        told.append(
            Section(
                "comparison",
                "Methods",
                "Four ways to use the same two checkpoints, once each on the test set.",
                there([boost_charts.methods_chart(boost.methods)]),
                warnings=(words.sentence(boost.floor),) if boost.floor else (),
                grids=(_methods(boost.methods),),
            )
        )
    elif "methods" in boost.silent:
        told.append(not_measured("comparison", "Methods"))
    charts = there([boost_charts.search_chart(k, c) for k, c in boost.search.items()])
    if charts:
        lead = "Which mu and lambda does the validation set choose?"
        reading = (
            "Tried on the validation set only, first mu, then lambda. 0 leaves the model as it is; "
            "the best mean accuracy is chosen, and ties go to the smaller value. The chosen one "
            "is a filled square; candidates stand evenly spaced."
        )
        told.append(Section("search", "Search", lead, charts, reading=reading))
    elif "search" in boost.silent:
        told.append(not_measured("search", "Search"))
    return tuple(told)


def _methods(methods: Sequence[Method]) -> Grid:
    head = (
        "Method",
        "Verdict",
        "Difference, points",
        "Accuracy, %",
        "Difference in NLL",
        "NLL, nats/token",
        "mu",
        "lambda",
    )
    return Grid("Table of methods", head, tuple(map(_method_row, methods)), frozenset({1}))


def _method_row(m: Method) -> tuple[Cell, ...]:
    def cell(found: Interval | None, scale: float = 1, sign: bool = False) -> Cell:
        return Cell(words.value(found, scale, sign), words.bounds(found, scale, sign))

    return (
        Cell(m.method),
        Cell(m.verdict or "–", tone=tone(m.verdict) if m.verdict else ""),
        cell(m.difference, 100, sign=True),
        cell(m.accuracy, 100),
        cell(m.nll_difference, sign=True),
        cell(m.nll),
        Cell(words.plain(m.mu) if m.mu is not None else "–"),
        Cell(words.plain(m.lam) if m.lam is not None else "–"),
    )
