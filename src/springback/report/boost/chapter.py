"""What the page tells of a boost, in order."""

from __future__ import annotations

from springback.report import formatting
from springback.report.boost import methods as boost_charts
from springback.report.boost.difficulty import difficulty_sections
from springback.report.boost.logit_errors import _diagnostics
from springback.report.boost.methods import cut_notes, methods_grid
from springback.report.boost.search import _precheck, search_chart
from springback.report.components import Fact, Section, fact, not_measured, there
from springback.report.schema import Boost


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
        formatting.plain(c.value)
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
                "Ways to use the same two checkpoints, once each on the test set.",
                there([boost_charts.methods_chart(boost.methods)]),
                notes=(*((boost.power,) if boost.power else ()), *cut_notes(boost.methods)),
                warnings=(formatting.sentence(boost.floor),) if boost.floor else (),
                grids=(methods_grid(boost.methods),),
            )
        )
    elif "methods" in boost.silent:
        told.append(not_measured("comparison", "Methods"))
    charts = there([search_chart(k, c) for k, c in boost.search.items()])
    if charts:
        lead = "Which mu and lambda does the validation set choose?"
        reading = (
            "Tried on the validation set only, first mu, then lambda. 0 leaves the model as it is; "
            "the best mean accuracy is chosen, and ties go to the smaller value. The chosen one "
            "is a filled square; candidates stand evenly spaced."
        )
        notes = (_precheck(boost.precheck),) if boost.precheck else ()
        told.append(Section("search", "Search", lead, charts, notes, reading=reading))
    elif "search" in boost.silent:
        told.append(not_measured("search", "Search"))
    if boost.difficulty is not None:
        told += difficulty_sections(boost.difficulty)
    if boost.contrasts:
        told.append(_diagnostics(boost))
    return tuple(told)
