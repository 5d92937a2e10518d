"""The opposite order: the unwanted side first, and then the alignment."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import figure
from springback.report.audit.rebound import curve_series, start_level
from springback.report.components import Section, there
from springback.report.figure import Axis, Caption, Chart, Plot, Series
from springback.results.audit_schema import AtSize, Probe, Rebound
from springback.results.schema import Interval

ORDERS = ("this order", "the opposite order")


def opposite_order_section(rebound: Rebound, opposite: Rebound) -> Section | None:
    both = (rebound, opposite)
    margins = [p for r in both if (p := r.probes.get("margin")) is not None and p.curves]
    charts = there([orders_chart(margins) if len(margins) == 2 else None, gains_chart(both)])
    if not charts:
        return None
    lead = "Is it the same when the unwanted side comes first?"
    return Section("symmetry", "Opposite order", lead, charts)


def orders_chart(margins: Sequence[Probe]) -> Chart | None:
    """Margin along the doses in both orders, one above the other, on equal scales."""
    return figure.lines(
        Caption(
            "symmetry-margin",
            "Both orders",
            "Above, aligned first and then trained on the opposite; below, trained on the opposite "
            "first and then aligned, with wanted and unwanted exchanged in the margin. Both scales "
            "span as much, so that slopes can be compared.",
            legend="first on",
            intervals="",
        ),
        figure.equal_spans(
            [
                Plot(
                    f"{order}: margin, {margin.unit}",
                    curve_series(margin.curves),
                    start_level(margin),
                    name=order,
                    equal_decimals=True,
                )
                for order, margin in zip(ORDERS, margins, strict=True)
            ]
        ),
        Axis("examples of the other side", head="dose", unit="examples"),
    )


def gains_chart(both: Sequence[Rebound]) -> Chart | None:
    """Gain and fall of both orders, by the amount of the first training."""
    sizes = [n for n in both[0].n_pos if n in both[1].n_pos]

    def series(each: Sequence[Sequence[AtSize]]) -> list[Series]:
        return [
            Series(order, _for_sizes(values, sizes), join="")
            for order, values in zip(ORDERS, each, strict=True)
        ]

    return figure.points(
        Caption(
            "symmetry-change",
            "Gain and fall in both orders",
            "If the effect belongs to the model and not to one side, both orders fall.",
        ),
        [
            Plot(
                "gain of the margin, nats/token",
                series([r.gain for r in both]),
                name="gain",
                zero=True,
            ),
            Plot(
                "fall of the margin, nats/token",
                series([r.fall for r in both]),
                name="fall",
                zero=True,
            ),
        ],
        Axis("examples of the first training", [f"{n:,}" for n in sizes], head="first training"),
    )


def _for_sizes(values: Sequence[AtSize], sizes: Sequence[int]) -> list[Interval | None]:
    by_size = {v.n_pos: v.value for v in values}
    return [by_size.get(n) for n in sizes]
