"""The methods of a boost against the fine-tuned model."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import figure, text
from springback.report.components import Cell, Grid, Section, there, tone
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series
from springback.results.boost_schema import Boost, ComparedMethod, PowerRow, SampledScore
from springback.results.schema import Interval

#: From this share on of cut answers the page says what that does to accuracy.
MANY_CUT = 0.1


def methods_section(methods: Sequence[ComparedMethod], boost: Boost) -> Section:
    letters = tuple(m for m in methods if m.letter_probability is not None)
    sampled = [(m.method, m.sampled) for m in methods if m.sampled is not None]
    return Section(
        "comparison",
        "Methods",
        "Ways to use the same two checkpoints, once each on the test set.",
        there([methods_chart(methods)]),
        notes=(
            *((boost.power.text,) if boost.power is not None and boost.power.text else ()),
            *cut_notes(methods),
            *withheld(boost, "test"),
        ),
        warnings=(text.sentence(boost.floor),) if boost.floor else (),
        grids=(
            methods_grid(methods),
            *((letters_grid(letters),) if letters else ()),
            *((samples_grid(sampled),) if sampled else ()),
            *((power_grid(boost.power.table),) if boost.power and boost.power.table else ()),
        ),
    )


def samples_grid(methods: Sequence[tuple[str, SampledScore]]) -> Grid:
    """What sampled answers vary by, and how often one of several is right."""
    passed = [p.k for p in methods[0][1].pass_at]
    head = ("Method", "Samples", "Between questions, points", "One sample, points")
    rows = tuple(
        (
            Cell(name),
            Cell(str(s.samples)),
            *(Cell(text.number(100 * max(v, 0.0) ** 0.5)) for v in (s.questions, s.sampling)),
            *(_cell(p.share, 100) for p in s.pass_at),
        )
        for name, s in methods
    )
    title = "Standard deviation of sampled answers by source, and pass@k"
    return Grid(title, (*head, *(f"pass@{k}, %" for k in passed)), rows)


def power_grid(table: Sequence[PowerRow]) -> Grid:
    """Questions that gains of 1, 2 and 5 points take by each kind of score."""
    head = ("Score", "Difference, points", "Standard deviation, points", "1 point")
    rows = tuple(
        (
            Cell(row.score),
            Cell(text.number(100 * row.difference, sign=True)),
            Cell(text.number(100 * row.deviation)),
            *(Cell(f"{questions:,}") for questions in row.needed),
        )
        for row in table
    )
    title = "Questions that show a gain of EpiCoDe's with 80 % chance, by kind of score"
    return Grid(title, (*head, "2 points", "5 points"), rows, titled=True)


def letters_grid(methods: Sequence[ComparedMethod]) -> Grid:
    """Choices by log-likelihood, beside the letters that were decoded."""
    head = (
        "Method",
        "Probability of the right letter, %",
        "Difference, points",
        "p (Holm)",
        "Right letter likeliest, %",
        "Difference of it, points",
    )
    rows = tuple(
        (
            Cell(m.method),
            _cell(m.letter_probability, 100),
            _cell(m.letter_difference, 100, sign=True),
            Cell("–" if m.letter_p_holm is None else text.number(m.letter_p_holm, 2)),
            _cell(m.letter_accuracy, 100),
            _cell(m.letter_accuracy_difference, 100, sign=True),
        )
        for m in methods
    )
    return Grid("Choices by log-likelihood, right after the prompt", head, rows)


def withheld(boost: Boost, part: str) -> tuple[str, ...]:
    """Why there is no NLL of a part (``validation``, ``test``), where there is none."""
    why = (boost.nll_withheld or {}).get(part)
    return (text.sentence(f"NLL is withheld: {why}"),) if why else ()


def methods_chart(methods: Sequence[ComparedMethod], name: str = "methods") -> Chart | None:
    """Each method's difference to the fine-tuned model, in points of accuracy."""
    compared = [(m.method, m.difference) for m in methods if m.difference is not None]
    return figure.rows(
        Caption(
            name,
            "Difference to the fine-tuned model",
            "Percentage points of accuracy on the test set, question by question against the "
            "fine-tuned model, which is the dashed line: an interval that crosses it cannot tell "
            "gain from harm.",
        ),
        Plot(
            "accuracy on the test set, points (right = better)",
            [Series("", [d.scaled(100) for _, d in compared], join="")],
            Level(0.0),
            name="difference, points",
            signed=True,
        ),
        Axis("points against the fine-tuned model", [m for m, _ in compared], head="method"),
    )


def methods_grid(methods: Sequence[ComparedMethod]) -> Grid:
    """One row a method; adjusted p-values where the file has any."""
    tested = any(m.p_holm is not None or m.nll_p_holm is not None for m in methods)
    p = ("p (Holm)",) if tested else ()
    head = ("Method", "Verdict", "Difference, points", *p, "Accuracy, %", "Difference in NLL")
    head += (*(("p of it (Holm)",) if tested else ()), "NLL, nats/token")
    cut = any(m.cut is not None for m in methods)
    head += (*(("Cut, %",) if cut else ()), "mu", "lambda")
    calls = any(m.calls is not None for m in methods)
    head += (*(("Model calls a token",) if calls else ()),)
    rows = tuple((*_method_row(m, tested, cut), *((_calls(m),) if calls else ())) for m in methods)
    return Grid("Table of methods", head, rows, frozenset({1}))


def _calls(method: ComparedMethod) -> Cell:
    return Cell("–" if method.calls is None else str(method.calls))


def cut_notes(methods: Sequence[ComparedMethod]) -> tuple[str, ...]:
    """What the column of cut answers means, where there is one."""
    known = [m.cut for m in methods if m.cut is not None]
    if not known:
        return ()
    note = "Cut: answers that reached the limit of new tokens. They are graded as far as they go"
    if max(known) >= MANY_CUT:
        note += "; with so many of them accuracy says less (--max-new-tokens raises the limit)"
    return (f"{note}.",)


def _cell(value: Interval | None, scale: float = 1, sign: bool = False) -> Cell:
    return Cell(text.value(value, scale, sign), text.bounds(value, scale, sign))


def _method_row(m: ComparedMethod, tested: bool, cut: bool) -> tuple[Cell, ...]:
    def p(value: float | None) -> tuple[Cell, ...]:
        return (Cell("–" if value is None else text.number(value, 2)),) if tested else ()

    return (
        Cell(m.method),
        Cell(m.verdict or "–", tone=tone(m.verdict) if m.verdict else ""),
        _cell(m.difference, 100, sign=True),
        *p(m.p_holm),
        _cell(m.accuracy, 100),
        _cell(m.nll_difference, sign=True),
        *p(m.nll_p_holm),
        _cell(m.nll),
        *((Cell("–" if m.cut is None else text.number(100 * m.cut, 2)),) if cut else ()),
        Cell(text.plain(m.mu) if m.mu is not None else "–"),
        Cell(text.plain(m.lam) if m.lam is not None else "–"),
    )
