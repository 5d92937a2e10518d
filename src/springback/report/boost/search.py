"""The search for mu and lambda on the validation set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from springback.report import figure, formatting
from springback.report.components import Section, there
from springback.report.figure import Axis, Caption, Chart, Plot, Series, Table
from springback.results.boost_schema import Candidate, PrecheckPart
from springback.results.schema import Interval

#: Per search: symbol, title, what is tried.
SEARCHES = {
    "mu": ("mu", "Search for mu", "how far the weights are extrapolated past the last checkpoint"),
    "lambda": (
        "lambda",
        "Search for lambda",
        "how strongly the extrapolated model is set off against the fine-tuned one, mu being fixed",
    ),
    "cd_lambda": (
        "lambda",
        "Search for lambda without extrapolation",
        "how strongly the fine-tuned model is set off against the early one (CD only)",
    ),
    "lambda_early": (
        "lambda",
        "Search for lambda, weak model early",
        "how strongly the extrapolated model is set off against the early one",
    ),
    "lambda_init": (
        "lambda",
        "Search for lambda, weak model init",
        "how strongly the extrapolated model is set off against the one before fine-tuning",
    ),
    "lambda_other": (
        "lambda",
        "Search for lambda, another weak model",
        "how strongly the extrapolated model is set off against the other one",
    ),
    "lambda_gated": (
        "lambda",
        "Search for lambda, gated",
        "as for EpiCoDe, but only where the extrapolated model is uncertain",
    ),
}


def search_section(
    search: Mapping[str, Sequence[Candidate]] | None,
    precheck: PrecheckPart | None,
    notes: tuple[str, ...] = (),
) -> Section | None:
    """A chart for each search, and further ``notes``."""
    known = search or {}
    charts = there([search_chart(key, c) for key in SEARCHES if (c := known.get(key))])
    if not charts:
        return None
    return Section(
        "search",
        "Search",
        "Which mu and lambda does the validation set choose?",
        charts,
        (*((_precheck_words(precheck),) if precheck is not None else ()), *notes),
        reading="Tried on the validation set only, first mu, then lambda. 0 leaves the model as it "
        "is; the best mean accuracy is chosen, and ties go to the smaller value. The chosen one "
        "is a filled square; candidates stand evenly spaced.",
    )


def _precheck_words(precheck: PrecheckPart) -> str:
    why = f" ({'; '.join(precheck.reasons)})" if precheck.reasons else ""
    return formatting.sentence(f"The pre-check, before anything was decoded: {precheck.label}{why}")


def search_chart(key: str, candidates: Sequence[Candidate]) -> Chart | None:
    """Accuracy over NLL on the validation set for each candidate, the chosen one marked."""
    symbol, title, tried = SEARCHES[key]

    def plot(above: str, value: Callable[[Candidate], Interval | None]) -> Plot:
        values = [value(c) for c in candidates]
        chosen = [v if c.chosen else None for c, v in zip(candidates, values, strict=True)]
        every = range(len(values))
        series = [Series("", values, join=":", hollow=every), Series("chosen", chosen, join="")]
        return Plot(above, series)

    plots = [
        plot("accuracy, % (higher = better)", lambda c: c.accuracy and c.accuracy.scaled(100)),
        plot("NLL of the reference solutions, nats/token (lower = better)", lambda c: c.nll),
    ]
    plots = [p for p in plots if any(v is not None for v in p.series[0].values)]
    rows = tuple(
        (
            formatting.plain(candidate.value) + " (chosen)" * candidate.chosen,
            *(formatting.both(value) for value in values),
        )
        for candidate, *values in zip(candidates, *(p.series[0].values for p in plots), strict=True)
    )
    return figure.points(
        Caption(f"search-{key.replace('_', '-')}", title, f"Here {symbol} is {tried}."),
        plots,
        Axis(symbol, [formatting.plain(c.value) for c in candidates], dodge=0.0),
        table=Table((symbol, *(p.short for p in plots)), rows),
    )
