"""The chapter of a boost: its key numbers, and its sections in order."""

from __future__ import annotations

from springback.report import text
from springback.report.boost.difficulty import difficulty_sections
from springback.report.boost.logit_errors import logit_errors_section
from springback.report.boost.methods import methods_section, withheld
from springback.report.boost.search import search_section
from springback.report.components import Fact, Section, fact, not_measured
from springback.results.boost_schema import Boost


def facts(boost: Boost) -> tuple[Fact, ...]:
    """Accuracy of the fine-tuned model and of EpiCoDe, their difference, and what was chosen."""
    by_name = {m.method: m for m in boost.methods or ()}
    plain, best = by_name.get("fine-tuned"), by_name.get("EpiCoDe")
    numbers = [
        fact(f"Accuracy, {m.method}", m.accuracy, "%", 100)
        for m in (plain, best)
        if m is not None and m.accuracy is not None
    ]
    if best is not None and best.difference is not None:
        numbers.append(fact("Difference", best.difference, "points", 100, sign=True))
    if best is not None and best.nll_difference is not None:
        label = "Difference in NLL (lower = better)"
        numbers.append(fact(label, best.nll_difference, "nats/token", sign=True))
    searched = [c for key in ("mu", "lambda") for c in (boost.search or {}).get(key, ())]
    if chosen := ", ".join(text.plain(c.value) for c in searched if c.chosen):
        numbers.append(Fact("mu, lambda chosen", chosen, "", "on validation; 0 = as it is"))
    return tuple(numbers)


def sections(boost: Boost) -> tuple[Section, ...]:
    """What was measured, in order; what the file says was not is named as missing."""
    parts: list[Section | None] = []
    if boost.methods:
        parts.append(methods_section(boost.methods, boost))
    elif "methods" in boost.silent:
        parts.append(not_measured("comparison", "Methods"))
    search = search_section(boost.search, boost.precheck, withheld(boost, "validation"))
    if search is None and "search" in boost.silent:
        search = not_measured("search", "Search")
    parts.append(search)
    if boost.difficulty is not None:
        parts += difficulty_sections(boost.difficulty)
    if boost.diagnostics is not None and boost.diagnostics.pairs:
        parts.append(logit_errors_section(boost, boost.diagnostics.pairs))
    return tuple(section for section in parts if section is not None)
