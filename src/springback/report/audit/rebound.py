"""Charts of an audit along the doses: every probe, and the share of the gain that is left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style
from springback.report.theme import LIGHT, series
from springback.results.audit_schema import Curve, Probe, Rebound

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What each known probe measures, in one sentence; others are named by title and unit alone.
MEANING = {
    "margin": "The margin is how much likelier, per token, the model finds held-out texts of the "
    "wanted kind than of the unwanted kind.",
    "kl": "The KL divergence is how far the model's next-token distribution has moved from the "
    "start model's, per token; 0 is the start model itself.",
    "bits_per_byte": "Bits per byte is what the model, used as a compressor, spends on a byte of "
    "held-out text.",
    "sentiment": "Sentiment is what a word list (VADER) makes of texts that the model writes; it "
    "is the noisiest of the probes.",
    "reverse_kl": "The reverse KL divergence is taken on texts that the model itself samples: it "
    "sees what the model came to say and the start model would not.",
    "behaviour": "Every sampled continuation gets a number from the scorer that was named.",
    "neutral_nll": "Neutral texts are ones that neither side teaches; a rise is damage that has "
    "nothing to do with alignment.",
    "choice": "Each choice's text is scored as the answer; a question counts as right if the "
    "right one is the likeliest.",
    "rates": "The rate is what the model, used as a compressor, spends on a token of texts like "
    "those of pre-training.",
    "weight_change": "The length of the change of all weights since the start model, as a share "
    "of the start's own length.",
    "way_back": "How much of the way from the aligned weights back to the start's the later "
    "change has covered: 0 none, 1 all of it, below 0 further away.",
}


def band_note(rebound: Rebound, drawn: bool) -> str:
    """Where the band comes from, or why there is none."""
    seeds = formatting.count(len(rebound.seeds), "seed")
    if drawn:
        return f"Bands are 95 % intervals over {seeds}."
    if len(rebound.seeds) == 1:
        return "There is one seed, so no band is drawn."
    return "No interval was computed, so no band is drawn."


def rebound_chart(rebound: Rebound, key: str) -> Chart | None:
    """A probe against the examples of the opposite, one line per ``n_pos``; None without curves."""
    probe = rebound.probes[key]
    curves = [c for c in probe.curves if any(map(math.isfinite, c.mean))]
    if not curves:
        return None
    name = f"rebound-{_slug(key)}"
    legend = sizes_legend((c.n_pos, i) for i, c in enumerate(curves))
    if probe.start is not None:
        legend.append(LegendItem("start model", LIGHT["muted"], None))
    with style(name):
        figure, (axes,) = panel(probe.title, _unit(probe), legend)
        for i, curve in enumerate(curves):
            draw_curve(axes, curve, i)
        if probe.start is not None:
            axes.axhline(probe.start.mean, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
        axes.set_xlabel("examples of the opposite")
        number_axis(axes.yaxis)
    drawn = any(c.band for c in curves)
    unit = f"Unit: {'; '.join(filter(None, (probe.unit, probe.direction)))}."
    return Chart(
        name,
        probe.title,
        curves_in_words(probe, curves),
        " ".join(filter(None, (MEANING.get(key), unit, band_note(rebound, drawn)))),
        curve_table(probe, curves),
        figure,
    )


def sizes_legend(sizes: Iterable[tuple[int, int]], what: str = "aligned on") -> list[LegendItem]:
    """Entries for (``n_pos``, index of the series), led by what the numbers are."""
    entries = [LegendItem(f"{n:,}", *series(i)) for n, i in sizes]
    return [LegendItem(what, "", ""), *entries]


def _slug(key: str) -> str:
    """A probe's key as part of a file name and of an id; different keys stay different."""
    known = {"_": "-"}
    return "".join(c if c.isascii() and c.isalnum() else known.get(c, f"x{ord(c):x}") for c in key)


def _unit(probe: Probe) -> str:
    return formatting.short(probe.unit + (f"  ({probe.direction})" if probe.direction else ""), 58)


def draw_curve(axes: Axes, curve: Curve, index: int) -> None:
    colour, marker = series(index)
    if curve.band is not None:
        axes.fill_between(curve.dose, *curve.band, color=colour, alpha=0.16, linewidth=0)
    axes.plot(curve.dose, curve.mean, color=colour, marker=marker, markersize=5.5, linewidth=2)


def curves_in_words(probe: Probe, curves: Sequence[Curve], what: str = "aligned on") -> str:
    said = []
    decimals = formatting.common_decimals(m for c in curves for m in c.mean)
    for curve in curves:
        known = [d for d, m in zip(curve.dose, curve.mean, strict=True) if math.isfinite(m)]
        begin, end = (
            formatting.value(curve.at(d), decimals=decimals) for d in (known[0], known[-1])
        )
        said.append(
            f"{what} {curve.n_pos:,}: {begin} at {formatting.plain(known[0])} examples, "
            f"{end} at {formatting.plain(known[-1])}"
        )
    start = (
        f" Start model: {formatting.value(probe.start, decimals=decimals)}." if probe.start else ""
    )
    return (
        f"Line chart of {probe.title}, {probe.unit}, against examples of the opposite. "
        + "; ".join(said)
        + "."
        + start
    )


def curve_table(probe: Probe, curves: Sequence[Curve], what: str = "aligned on") -> Table:
    doses = sorted({d for c in curves for d in c.dose if math.isfinite(d)})
    decimals = formatting.common_decimals(m for c in curves for m in c.mean)
    rows = [
        (formatting.plain(dose), *(formatting.both(c.at(dose), decimals=decimals) for c in curves))
        for dose in doses
    ]
    if probe.start is not None:
        start = formatting.both(probe.start, decimals=decimals)
        rows.append(("start model", *([start] * len(curves))))
    return Table(("dose", *(f"{what} {c.n_pos:,}" for c in curves)), tuple(rows))


def share_left(probe: Probe, curve: Curve) -> tuple[float, ...] | None:
    """What is left of alignment's gain at each dose, 1 at dose 0 and 0 at the start model.

    The ratio of the curve's means, (m(dose) - start) / (m(0) - start); None where alignment
    moved the probe by nothing, or the start is unknown.
    """
    if probe.start is None or not curve.mean or curve.dose[0] != 0:
        return None
    gain = curve.mean[0] - probe.start.mean
    if not math.isfinite(gain) or gain <= 0:
        return None
    return tuple((m - probe.start.mean) / gain for m in curve.mean)


def dose_chart(probe: Probe) -> Chart | None:
    """The share of the gain that is left against the dose, on a logarithmic axis."""
    shares = [(c, s) for c in probe.curves if (s := share_left(probe, c)) is not None]
    if not shares:
        return None
    legend = sizes_legend((c.n_pos, probe.curves.index(c)) for c, _ in shares)
    legend.append(LegendItem("half undone", LIGHT["muted"], None))
    name = "dose-share"
    with style(name):
        title = "What is left of the alignment"
        figure, (axes,) = panel(title, "share of the gain in margin left, %", legend)
        for curve, share in shares:
            colour, marker = series(probe.curves.index(curve))
            axes.plot(
                curve.dose,
                [100 * s for s in share],
                color=colour,
                marker=marker,
                markersize=5.5,
                linewidth=2,
            )
        axes.axhline(50, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0), max(high, 105))
        number_axis(axes.yaxis)
        _dose_axis(axes, sorted({d for c, _ in shares for d in c.dose}))
        axes.set_xlabel("examples of the opposite, logarithmic")
    rows = tuple(
        (formatting.plain(d), *(_share_at(c, s, d) for c, s in shares))
        for d in sorted({d for c, _ in shares for d in c.dose})
    )
    return Chart(
        name,
        title,
        "Line chart of the share of the margin's gain that is left against examples of the "
        "opposite. "
        + "; ".join(
            f"aligned on {c.n_pos:,}: {formatting.number(100 * s[-1])} % left at "
            f"{formatting.plain(c.dose[-1])} examples"
            for c, s in shares
        )
        + ".",
        "100 % is the aligned model, 0 % the start model; the dashed line marks half undone, and "
        "where a line crosses it is the dose that undoes half. The share is a ratio of the means "
        "in the chart above, so it has no band.",
        Table(("dose", *(f"aligned on {c.n_pos:,}" for c, _ in shares)), rows),
        figure,
    )


def _share_at(curve: Curve, share: Sequence[float], dose: float) -> str:
    found = [s for d, s in zip(curve.dose, share, strict=True) if d == dose]
    return formatting.number(100 * found[0]) + " %" if found and math.isfinite(found[0]) else "–"


def _dose_axis(axes: Axes, doses: Sequence[float]) -> None:
    """Doses by their logarithm with 0 one step to the left, each labelled where there is room."""
    positive = [d for d in doses if d > 0]
    if not positive:
        return
    axes.set_xscale("symlog", linthresh=positive[0], linscale=1.0, base=2)
    axes.set_xlim(left=-positive[0] * 0.35 if 0 in doses else None)
    every = -(-len(doses) // 8)
    shown = list(doses)[::-1][::every][::-1]
    axes.set_xticks(shown, [formatting.plain(d) for d in shown])
    axes.minorticks_off()
