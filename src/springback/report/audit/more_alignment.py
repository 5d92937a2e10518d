"""More alignment: fall and share lost by the amount of alignment."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import figure, text
from springback.report.audit.rebound import AS_IT_IS
from springback.report.components import Section, there
from springback.report.figure import Axis, Caption, Chart, Plot, Series
from springback.results.audit_schema import AtSize, Audit, Rebound
from springback.results.schema import Interval


def more_alignment_section(rebound: Rebound, audit: Audit) -> Section | None:
    over = fall_words(rebound)
    charts = there(
        (
            _by_size_chart(
                Caption(
                    "alignment-fall",
                    "How far it falls",
                    f"What is lost{over}, in nats per token: the absolute fall. Rebound says that "
                    "it grows with alignment.",
                ),
                "fall of the margin, nats/token",
                rebound.fall,
            ),
            _by_size_chart(
                Caption(
                    "alignment-share",
                    "What share is lost",
                    f"What is lost{over}, as a share of what alignment had gained. Equal shares "
                    "mean that the fall only keeps pace with the height; a rising share is more "
                    "than that.",
                ),
                "share of the gain lost, %",
                rebound.share_lost,
                100,
            ),
        )
    )
    lead = "Does a model that was aligned further fall faster?"
    notes = tuple(_slope_notes(rebound, audit))
    title = "Effect of more alignment"
    return Section("more-alignment", title, lead, charts, notes) if charts else None


def fall_words(rebound: Rebound) -> str:
    """To what, or over what dose, the fall is measured; begins with a space."""
    dose = rebound.fall_dose
    return " to the opposite" if dose is None else f" over {dose:,} examples of the opposite"


def _by_size_chart(
    caption: Caption, above: str, values: Sequence[AtSize], scale: float = 1.0
) -> Chart | None:
    """Values against ``n_pos``, times ``scale``: 100 for a share shown in percent."""
    known = [(v.n_pos, v.value.scaled(scale)) for v in values if v.value is not None]
    return figure.points(
        caption,
        Plot(above, [Series("", [value for _, value in known], join=":")], zero=True),
        size_axis([n for n, _ in known]),
    )


def size_axis(sizes: Sequence[int]) -> Axis:
    if tuple(sizes) == (0,):
        return Axis("model", [AS_IT_IS], head="model")
    return Axis("examples of alignment", [size_words(n) for n in sizes], head="aligned on")


def size_words(n_pos: int) -> str:
    return f"{n_pos:,}" if n_pos else "0 (as it is)"


def _slope_notes(rebound: Rebound, audit: Audit) -> list[str]:
    """What each doubling changes, as far as no card says it."""
    decay = audit.phases.decay if audit.phases is not None else None
    beyond = "fall beyond proportional decay, fitted to the curves at one rate,"
    slopes: list[tuple[Interval | None, str, float, str]] = [
        (decay.slope if decay is not None else None, beyond, 100, "points of the gain")
    ]
    if audit.card is None and rebound.slope is not None:
        slopes = [
            (rebound.slope.fall_per_log2, "fall", 1, "nats/token"),
            (rebound.slope.share_per_log2, "share lost", 100, "points"),
            *slopes,
        ]
    return [
        f"Each doubling of alignment changes the {what} by "
        f"{text.both(slope, scale, sign=True)} {unit}."
        for slope, what, scale, unit in slopes
        if slope is not None
    ]
