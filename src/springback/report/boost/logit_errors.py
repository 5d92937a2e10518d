"""Charts of what a boost found beside its methods: by difficulty, and prediction beside result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from springback.report import formatting
from springback.report.boost_findings import LambdaPoint
from springback.report.components import Cell, Grid, Section, there
from springback.report.figure import Chart, Table, number_axis, panel, style, whisker
from springback.report.schema import Boost
from springback.report.theme import LIGHT, series
from springback.report.values import Interval


def lambda_chart(points: Sequence[LambdaPoint], name: str = "theory-lambda") -> Chart | None:
    """Predicted error variance over lambda, and below it what was measured."""
    measures: list[tuple[str, Callable[[LambdaPoint], Interval | None], float]] = [
        ("predicted error variance (1 = as at lambda 0)", lambda p: p.error_variance, 1.0),
        ("change of NLL, nats/token (lower = better)", lambda p: p.nll, 1.0),
        ("change of accuracy, points (higher = better)", lambda p: p.accuracy, 100.0),
    ]
    shown = [m for m in measures if any(m[1](p) for p in points)]
    if not shown:
        return None
    title = "Lambda: predicted beside measured" if len(shown) == 3 else "Lambda"
    first, *others = [m[0] for m in shown]
    with style(name):
        figure, axes = panel(title, first, (), (None, *others), plot_height=120)
        for i, (label, read, scale) in enumerate(shown):
            known = [(p.lam, found.scaled(scale)) for p in points if (found := read(p))]
            colour, marker = series(i)
            axes[i].axhline(
                1.0 if label.startswith("predicted") else 0.0,
                color=LIGHT["muted"],
                linestyle="--",
                linewidth=1.5,
            )
            for lam, value in known:
                whisker(axes[i], lam, value, colour)
            places, means = [lam for lam, _ in known], [v.mean for _, v in known]
            axes[i].plot(places, means, color=colour, marker=marker, markersize=6, linewidth=1.4)
            number_axis(axes[i].yaxis)
            number_axis(axes[i].xaxis)
            axes[i].margins(y=0.15)
            if i < len(shown) - 1:
                axes[i].tick_params(labelbottom=False)
            axes[i].set_xlim(*_span([p.lam for p in points]))
        axes[-1].set_xlabel("lambda")
    rows = tuple(
        (formatting.plain(p.lam), *(formatting.both(read(p), scale) for _, read, scale in shown))
        for p in points
    )
    return Chart(
        name,
        title,
        f"Line charts of {formatting.listing(m[0].split(',')[0].split(' (')[0] for m in shown)} "
        "against lambda. "
        + "; ".join(
            f"lambda {formatting.plain(p.lam)}: "
            + ", ".join(formatting.value(read(p), scale) for _, read, scale in shown)
            for p in points
        )
        + ".",
        "Where the prediction lies below its dashed line, contrast should shrink the logit error; "
        "where NLL lies below its own, it did. "
        + formatting.interval_note((read(p) for _, read, _ in shown for p in points), "Whiskers"),
        Table(("lambda", *(m[0].split(" (")[0] for m in shown)), rows),
        figure,
    )


def _span(places: Sequence[float]) -> tuple[float, float]:
    room = 0.04 * (max(places) - min(places) or 1.0)
    return min(places) - room, max(places) + room


def _diagnostics(boost: Boost) -> Section:
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
        for c in boost.contrasts
    )
    return Section(
        "diagnostics",
        "Why contrast helps, or not",
        "Are the errors of the two models so alike, and the weak one's so much larger, that "
        "subtracting helps?",
        there([lambda_chart(boost.curve)]),
        grids=(Grid("Logit errors", head, rows, frozenset({1})),),
        reading="Errors are those of the logits against the reference model, at plausible tokens "
        "of the validation solutions. The weak model's is k times as large, rho is their "
        "correlation: contrast shrinks the error where rho k is above 1. The reference's own error "
        "counts in both, which raises rho.",
    )


def _both(found: Interval | None, scale: float = 1) -> Cell:
    return Cell(formatting.value(found, scale), formatting.bounds(found, scale))
