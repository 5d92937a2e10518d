"""What the page tells of a boost, in order."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import formatting
from springback.report.boost import logit_errors
from springback.report.boost import methods as boost_charts
from springback.report.components import Cell, Fact, Grid, Section, fact, not_measured, there, tone
from springback.results.boost_schema import (
    Boost,
    ComparedMethod,
    Contrast,
    Difficulty,
    PrecheckPart,
)
from springback.results.schema import Interval

#: From this share on of cut answers the page says what that does to accuracy.
MANY_CUT = 0.1


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
        for c in (boost.search or {}).get(key, ())
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
                notes=(*_power(boost), *cut_notes(boost.methods)),
                warnings=(formatting.sentence(boost.floor),) if boost.floor else (),
                grids=(methods_grid(boost.methods),),
            )
        )
    elif "methods" in boost.silent:
        told.append(not_measured("comparison", "Methods"))
    searches = boost.search or {}
    charts = there(
        [boost_charts.search_chart(k, c) for k in boost_charts.SEARCHES if (c := searches.get(k))]
    )
    if charts:
        lead = "Which mu and lambda does the validation set choose?"
        reading = (
            "Tried on the validation set only, first mu, then lambda. 0 leaves the model as it is; "
            "the best mean accuracy is chosen, and ties go to the smaller value. The chosen one "
            "is a filled square; candidates stand evenly spaced."
        )
        notes = (_precheck(boost.precheck),) if boost.precheck is not None else ()
        told.append(Section("search", "Search", lead, charts, notes, reading=reading))
    elif "search" in boost.silent:
        told.append(not_measured("search", "Search"))
    if boost.difficulty is not None:
        told += difficulty_sections(boost.difficulty)
    if boost.diagnostics is not None and boost.diagnostics.pairs:
        told.append(_diagnostics(boost, boost.diagnostics.pairs))
    return tuple(told)


def difficulty_sections(found: Difficulty, key: str = "difficulty") -> list[Section]:
    """One section, or none where no method differs from the fine-tuned model."""
    charts = there([logit_errors.difficulty_chart(found, key)])
    lead = "Does it gain on the easy questions or on the hard ones?"
    return [Section(key, "By difficulty", lead, charts)] if charts else []


def _power(boost: Boost) -> tuple[str, ...]:
    return (boost.power.text,) if boost.power is not None and boost.power.text else ()


def _precheck(found: PrecheckPart) -> str:
    told = f" ({'; '.join(found.reasons)})" if found.reasons else ""
    return formatting.sentence(f"The pre-check, before anything was decoded: {found.label}{told}")


def _diagnostics(boost: Boost, pairs: Sequence[Contrast]) -> Section:
    head = (
        "Contrast", "Prediction", "rho k", "k", "rho", "Best lambda", "Chosen", "Contested, %",
    )  # fmt: skip
    rows = tuple(
        (
            Cell(c.method, f"{c.strong} against {c.weak}"),
            Cell(c.label or "–"),
            *(_both(v) for v in (c.rho_k, c.k, c.rho, c.best_lambda)),
            Cell("–" if c.chosen is None else formatting.plain(c.chosen)),
            _both(c.contested, 100),
        )
        for c in pairs
    )
    return Section(
        "diagnostics",
        "Why contrast helps, or not",
        "Are the errors of the two models so alike, and the weak one's so much larger, that "
        "subtracting helps?",
        there([logit_errors.lambda_chart(logit_errors.beside_search(boost))]),
        grids=(Grid("Logit errors", head, rows, frozenset({1})),),
        reading="Errors are those of the logits against the reference model, at plausible tokens "
        "of the validation solutions. The weak model's is k times as large, rho is their "
        "correlation: contrast shrinks the error where rho k is above 1. The reference's own error "
        "counts in both, which raises rho.",
    )


def _both(found: Interval | None, scale: float = 1) -> Cell:
    return Cell(formatting.value(found, scale), formatting.bounds(found, scale))


def methods_grid(methods: Sequence[ComparedMethod]) -> Grid:
    """One row a method; adjusted p-values where the file has any."""
    tested = any(m.p_holm is not None or m.nll_p_holm is not None for m in methods)
    p = ("p (Holm)",) if tested else ()
    head = ("Method", "Verdict", "Difference, points", *p, "Accuracy, %", "Difference in NLL")
    head += (*(("p of it (Holm)",) if tested else ()), "NLL, nats/token")
    cut = any(m.cut is not None for m in methods)
    head += (*(("Cut, %",) if cut else ()), "mu", "lambda")
    rows = tuple(_method_row(m, tested, cut) for m in methods)
    return Grid("Table of methods", head, rows, frozenset({1}))


def cut_notes(methods: Sequence[ComparedMethod]) -> tuple[str, ...]:
    """What the column of cut answers means, where there is one."""
    known = [m.cut for m in methods if m.cut is not None]
    if not known:
        return ()
    note = "Cut: answers that reached the limit of new tokens. They are graded as far as they go"
    if max(known) >= MANY_CUT:
        note += "; with so many of them accuracy says less (--max-new-tokens raises the limit)"
    return (f"{note}.",)


def _method_row(m: ComparedMethod, tested: bool, cut: bool) -> tuple[Cell, ...]:
    def cell(found: Interval | None, scale: float = 1, sign: bool = False) -> Cell:
        return Cell(formatting.value(found, scale, sign), formatting.bounds(found, scale, sign))

    def p(value: float | None) -> tuple[Cell, ...]:
        return (Cell("–" if value is None else formatting.number(value, 2)),) if tested else ()

    return (
        Cell(m.method),
        Cell(m.verdict or "–", tone=tone(m.verdict) if m.verdict else ""),
        cell(m.difference, 100, sign=True),
        *p(m.p_holm),
        cell(m.accuracy, 100),
        cell(m.nll_difference, sign=True),
        *p(m.nll_p_holm),
        cell(m.nll),
        *((Cell("–" if m.cut is None else formatting.number(100 * m.cut, 2)),) if cut else ()),
        Cell(formatting.plain(m.mu) if m.mu is not None else "–"),
        Cell(formatting.plain(m.lam) if m.lam is not None else "–"),
    )
