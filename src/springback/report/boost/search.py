"""The search for mu and lambda on the validation set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from springback.report import figure, text
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
    "rewind": (
        "mu",
        "Search for a step back",
        "how far back from the last checkpoint along the last update, as a share of it: -0.5 is "
        "the average of the last two checkpoints, -1 the one before",
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
    "run": (
        "point",
        "Points of the run",
        "an ordinary set of weights that the checkpoints of the run span: a checkpoint, an average "
        "of them, a step back or ahead along the last update (mu), or along the line through all",
    ),
    "checkpoint": (
        "checkpoint",
        "The best single checkpoint",
        "a checkpoint as it stands, the last one first; the best accuracy is chosen",
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
    charts = there([step_chart(known), *charts])
    if not charts:
        return None
    return Section(
        "search",
        "Search",
        "Which mu and lambda does the validation set choose?",
        charts,
        (*((_precheck_words(precheck),) if precheck is not None else ()), *notes),
        reading="Tried on the validation set only, first mu, then lambda. 0 leaves the model as it "
        "is; the setting choose_by says what is chosen by, and ties go to the smaller value. The "
        "chosen one is a filled square; candidates stand evenly spaced.",
    )


def _precheck_words(precheck: PrecheckPart) -> str:
    why = f" ({'; '.join(precheck.reasons)})" if precheck.reasons else ""
    return text.sentence(f"The pre-check, before anything was decoded: {precheck.label}{why}")


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
            _label(candidate) + " (chosen)" * candidate.chosen,
            *(text.both(value) for value in values),
        )
        for candidate, *values in zip(candidates, *(p.series[0].values for p in plots), strict=True)
    )
    return figure.points(
        Caption(f"search-{key.replace('_', '-')}", title, f"Here {symbol} is {tried}."),
        plots,
        Axis(symbol, [_place(key, c) for c in candidates], dodge=0.0),
        table=Table((symbol, *(p.short for p in plots)), rows),
    )


def _label(candidate: Candidate) -> str:
    return candidate.name or text.plain(candidate.value)


def _place(key: str, candidate: Candidate) -> str:
    """Names are too long for an axis: points of a run stand there by number, as in the table."""
    return (
        str(int(candidate.value) + 1)
        if key in ("run", "checkpoint")
        else text.plain(candidate.value)
    )


def step_chart(search: Mapping[str, Sequence[Candidate]]) -> Chart | None:
    """NLL and accuracy over how far each candidate goes, contrast and extrapolation on one axis.

    To first order in the weights a contrasted pair is one plain model at mu (1 + lambda), and CD
    only at lambda (docs/theory.md): where families part, that ends.
    """
    mu = next((c.value for c in search.get("mu", ()) if c.chosen), None)
    if mu is None:
        return None
    families = {
        "extrapolated": [(c.value, c) for c in search["mu"]],
        f"contrasted at mu {mu:g}": [(mu * (1 + c.value), c) for c in search.get("lambda", ())],
        "contrasted with early": [(c.value, c) for c in search.get("cd_lambda", ())],
    }
    drawn = {name: found for name, found in families.items() if len({s for s, _ in found}) > 1}
    if len(drawn) < 2:
        return None

    def plot(above: str, value: Callable[[Candidate], Interval | None]) -> Plot:
        series = []
        for name, found in drawn.items():
            by_step = {round(step, 9): value(c) for step, c in found}
            known = {step: v.mean for step, v in sorted(by_step.items()) if v is not None}
            series.append(Series(name, tuple(known.values()), x=tuple(known)))
        return Plot(above, series)

    plots = [
        plot("NLL of the reference solutions, nats/token", lambda c: c.nll),
        plot("accuracy, %", lambda c: c.accuracy and c.accuracy.scaled(100)),
    ]
    plots = [p for p in plots if all(series.values for series in p.series)]
    reading = (
        "How far a candidate goes past the fine-tuned model: mu, or for a contrasted pair mu (1 + "
        "lambda), which to first order is the same model. Families on one curve say that contrast "
        "is a longer step; where they part it is more, or less. Means on the validation set."
    )
    axis = Axis("effective step s")
    return figure.lines(Caption("search-steps", "Contrast as a longer step", reading), plots, axis)
