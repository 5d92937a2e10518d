"""Charts of what a boost found beside its methods: by difficulty, and prediction beside result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from springback.report import formatting
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style, whisker
from springback.report.theme import LIGHT, series
from springback.results.boost_schema import Boost, Difficulty, LambdaPoint
from springback.results.schema import Interval


def difficulty_chart(found: Difficulty, name: str = "difficulty") -> Chart | None:
    """Difference to the fine-tuned model in each bin, a marker for each method."""
    shown = [m for m in found.methods if any(b.difference for b in m.bins)]
    if not shown or not found.bins:
        return None
    title = "Effect by difficulty"
    legend = [LegendItem(m.method, *series(i), lone=True) for i, m in enumerate(shown)]
    labels = [f"{formatting.plain(b.low)}–{formatting.plain(b.high)}" for b in found.bins]
    with style(name):
        figure, (axes,) = panel(title, "accuracy, points (up = better)", legend)
        axes.axhline(0, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
        for i, method in enumerate(shown):
            colour, marker = series(i)
            aside = 0.12 * (i - (len(shown) - 1) / 2)
            for at, one in enumerate(method.bins):
                if (value := one.difference) is not None:
                    whisker(axes, at + aside, value.scaled(100), colour)
                    axes.plot(
                        [at + aside], [100 * value.mean], color=colour, marker=marker, markersize=7
                    )
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        number_axis(axes.yaxis)
        axes.set_xlabel(found.unit)
    rows = tuple(
        (
            m.method,
            *(formatting.both(b.difference, 100, sign=True) for b in m.bins),
            formatting.both(m.trend, 100, sign=True),
            "–" if m.p_holm is None else formatting.number(m.p_holm, 2),
        )
        for m in shown
    )
    counts = formatting.listing(
        f"{label}: {b.questions} questions" for label, b in zip(labels, found.bins, strict=True)
    )
    return Chart(
        name,
        title,
        "Dot chart of the difference in accuracy to the fine-tuned model by length of the "
        "reference solution. "
        + "; ".join(
            f"{m.method}: "
            + ", ".join(formatting.value(b.difference, 100, sign=True) for b in m.bins)
            for m in shown
        )
        + ".",
        f"Questions by the length of their reference solution ({counts}). Hardest minus easiest is "
        "a slope over the rank of that length, tested for all questions at once. "
        + formatting.interval_note((b.difference for m in shown for b in m.bins), "Whiskers"),
        Table(("method", *labels, "hardest minus easiest", "p (Holm)"), rows),
        figure,
    )


def lambda_chart(points: Sequence[LambdaPoint], name: str = "theory-lambda") -> Chart | None:
    """Predicted error variance over lambda, and below it what was measured."""
    measures: list[tuple[str, Callable[[LambdaPoint], Interval | None], float]] = [
        ("predicted error variance (1 = as at lambda 0)", lambda p: p.error_variance, 1.0),
        ("change of NLL, nats/token (lower = better)", lambda p: p.nll_difference, 1.0),
        ("change of accuracy, points (higher = better)", lambda p: p.accuracy_difference, 100.0),
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


def beside_search(boost: Boost) -> list[LambdaPoint]:
    """EpiCoDe's prediction, with the changes of NLL and accuracy that the search for lambda saw."""
    pairs = boost.diagnostics.pairs if boost.diagnostics is not None else ()
    contrast = next((p for p in pairs if p.method == "EpiCoDe"), None)
    predicted = (contrast.prediction if contrast is not None else None) or ()
    variances = {p.lam: p.error_variance for p in predicted}
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


def _span(places: Sequence[float]) -> tuple[float, float]:
    room = 0.04 * (max(places) - min(places) or 1.0)
    return min(places) - room, max(places) + room
