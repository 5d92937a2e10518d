"""Logit errors of the two models of a contrast: what they predict, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from springback.report import figure, text
from springback.report.components import Cell, Grid, Section, there
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series
from springback.results.boost_schema import Boost, Contrast, LambdaPoint
from springback.results.schema import Interval


def logit_errors_section(boost: Boost, contrasts: Sequence[Contrast]) -> Section:
    head = (
        "Contrast", "Prediction", "rho k", "k", "rho", "Best lambda", "Chosen", "Contested, %",
    )  # fmt: skip
    rows = tuple(
        (
            Cell(c.method, f"{c.strong} against {c.weak}"),
            Cell(c.label or "–"),
            *(_interval_cell(v) for v in (c.rho_k, c.k, c.rho, c.best_lambda)),
            Cell("–" if c.chosen is None else text.plain(c.chosen)),
            _interval_cell(c.contested, 100),
        )
        for c in contrasts
    )
    return Section(
        "diagnostics",
        "Why contrast helps, or not",
        "Are the errors of the two models so alike, and the weak one's so much larger, that "
        "subtracting helps?",
        there([lambda_chart(beside_search(boost, contrasts))]),
        grids=(Grid("Logit errors", head, rows, frozenset({1})),),
        reading="Errors are those of the logits against the reference model, at plausible tokens "
        "of the validation solutions. The weak model's is k times as large, rho is their "
        "correlation: contrast shrinks the error where rho k is above 1. The reference's own error "
        "counts in both, which raises rho.",
    )


def _interval_cell(value: Interval | None, scale: float = 1) -> Cell:
    return Cell(text.value(value, scale), text.bounds(value, scale))


def beside_search(boost: Boost, contrasts: Sequence[Contrast]) -> list[LambdaPoint]:
    """EpiCoDe's prediction, with the changes of NLL and accuracy that the search for lambda saw."""
    prediction = next((c.prediction for c in contrasts if c.method == "EpiCoDe"), None)
    variances = {p.lam: p.error_variance for p in prediction or ()}
    tried = {c.value: c for c in (boost.search or {}).get("lambda", ())}
    plain = tried.get(0.0)

    def change(now: Interval | None, then: Interval | None) -> Interval | None:
        return None if now is None or then is None else Interval(now.mean - then.mean)

    points = []
    for lam in sorted({*variances, *tried}) if variances else ():
        variance = Interval(variances[lam]) if lam in variances else None
        here = tried.get(lam)
        nll = change(here.nll, plain.nll) if here and plain else None
        accuracy = change(here.accuracy, plain.accuracy) if here and plain else None
        points.append(LambdaPoint(lam, variance, nll, accuracy))
    return points


def lambda_chart(curve: Sequence[LambdaPoint], name: str = "theory-lambda") -> Chart | None:
    """Predicted error variance over lambda, and below it what was measured."""
    measures: list[tuple[str, float, Callable[[LambdaPoint], Interval | None]]] = [
        ("predicted error variance (1 = as at lambda 0)", 1.0, lambda p: p.error_variance),
        ("change of NLL, nats/token (lower = better)", 0.0, lambda p: p.nll_difference),
        (
            "change of accuracy, points (higher = better)",
            0.0,
            lambda p: p.accuracy_difference and p.accuracy_difference.scaled(100),
        ),
    ]
    plots = []
    for i, (above, level, value) in enumerate(measures):
        if known := [(p.lam, v) for p in curve if (v := value(p)) is not None]:
            series = Series("", [v for _, v in known], [lam for lam, _ in known], index=i)
            plots.append(Plot(above, [series], Level(level)))
    return figure.lines(
        Caption(
            name,
            "Lambda: predicted beside measured" if len(plots) == len(measures) else "Lambda",
            "Where the prediction lies below its dashed line, contrast should shrink the logit "
            "error; where NLL lies below its own, it did.",
        ),
        plots,
        Axis("lambda"),
    )
