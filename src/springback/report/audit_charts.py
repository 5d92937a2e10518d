"""Charts of an audit: rebound, dose to undo, the effect of more alignment, resistance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from springback.report import words
from springback.report.draw import Chart, LegendItem, Table, number_axis, panel, style, whisker
from springback.report.schema import AtSize, Curve, HalfDose, Interval, Pair, Probe, Rebound
from springback.report.theme import LIGHT, series

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
    "weight_change": "The length of the change of all weights since the start model, as a share "
    "of the start's own length.",
    "way_back": "How much of the way from the aligned weights back to the start's the later "
    "change has covered: 0 none, 1 all of it, below 0 further away.",
}

RAW = (
    "Forward trains the earlier model on texts of the later one, inverse the later model on texts "
    "of the earlier one, with equal data, steps and settings. Shown is the mean loss of the run: "
    "an inverse loss to the left of the forward one means that going back is easier, resistance."
)
EXCESS = (
    "The same losses less what the model that wrote the texts scores on them itself: raw losses "
    "are also lower where the texts are merely more predictable."
)


def band_note(rebound: Rebound, drawn: bool) -> str:
    """Where the band comes from, or why there is none."""
    seeds = words.count(len(rebound.seeds), "seed")
    if drawn:
        return f"Bands are 95 % intervals over {seeds}."
    if len(rebound.seeds) == 1:
        return "There is one seed, so no band is drawn."
    return "No interval was computed, so no band is drawn."


def rebound_chart(rebound: Rebound, probe: Probe) -> Chart | None:
    """A probe against the examples of the opposite, one line per ``n_pos``; None without curves."""
    curves = [c for c in probe.curves if any(map(math.isfinite, c.mean))]
    if not curves:
        return None
    name = f"rebound-{_slug(probe.key)}"
    legend = _sizes_legend((c.n_pos, i) for i, c in enumerate(curves))
    if probe.start is not None:
        legend.append(LegendItem("start model", LIGHT["muted"], None))
    with style(name):
        figure, (axes,) = panel(probe.title, _unit(probe), legend)
        for i, curve in enumerate(curves):
            _draw_curve(axes, curve, i)
        if probe.start is not None:
            axes.axhline(probe.start.mean, color=LIGHT["muted"], linestyle="--", linewidth=1.5)
        axes.set_xlabel("examples of the opposite")
        number_axis(axes.yaxis)
    drawn = any(c.low for c in curves)
    unit = f"Unit: {'; '.join(filter(None, (probe.unit, probe.direction)))}."
    return Chart(
        name,
        probe.title,
        _curves_in_words(probe, curves),
        " ".join(filter(None, (MEANING.get(probe.key), unit, band_note(rebound, drawn)))),
        _curve_table(probe, curves),
        figure,
    )


def _sizes_legend(sizes: Iterable[tuple[int, int]]) -> list[LegendItem]:
    """Entries for (``n_pos``, index of the series), led by what the numbers are."""
    entries = [LegendItem(f"{n:,}", *series(i)) for n, i in sizes]
    return [LegendItem("aligned on", "", ""), *entries]


def _slug(key: str) -> str:
    """A probe's key as part of a file name and of an id; different keys stay different."""
    known = {"_": "-"}
    return "".join(c if c.isascii() and c.isalnum() else known.get(c, f"x{ord(c):x}") for c in key)


def _unit(probe: Probe) -> str:
    return words.short(probe.unit + (f"  ({probe.direction})" if probe.direction else ""), 58)


def _draw_curve(axes: Axes, curve: Curve, index: int) -> None:
    colour, marker = series(index)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.dose, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(curve.dose, curve.mean, color=colour, marker=marker, markersize=5.5, linewidth=2)


def _curves_in_words(probe: Probe, curves: Sequence[Curve]) -> str:
    said = []
    decimals = words.common_decimals(m for c in curves for m in c.mean)
    for curve in curves:
        known = [d for d, m in zip(curve.dose, curve.mean, strict=True) if math.isfinite(m)]
        begin, end = (words.value(curve.at(d), decimals=decimals) for d in (known[0], known[-1]))
        said.append(
            f"aligned on {curve.n_pos:,}: {begin} at {words.plain(known[0])} examples, "
            f"{end} at {words.plain(known[-1])}"
        )
    start = f" Start model: {words.value(probe.start, decimals=decimals)}." if probe.start else ""
    return (
        f"Line chart of {probe.title}, {probe.unit}, against examples of the opposite. "
        + "; ".join(said)
        + "."
        + start
    )


def _curve_table(probe: Probe, curves: Sequence[Curve]) -> Table:
    doses = sorted({d for c in curves for d in c.dose if math.isfinite(d)})
    decimals = words.common_decimals(m for c in curves for m in c.mean)
    rows = [
        (words.plain(dose), *(words.both(c.at(dose), decimals=decimals) for c in curves))
        for dose in doses
    ]
    if probe.start is not None:
        start = words.both(probe.start, decimals=decimals)
        rows.append(("start model", *([start] * len(curves))))
    return Table(("dose", *(f"aligned on {c.n_pos:,}" for c in curves)), tuple(rows))


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
    legend = _sizes_legend((c.n_pos, probe.curves.index(c)) for c, _ in shares)
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
        (words.plain(d), *(_share_at(c, s, d) for c, s in shares))
        for d in sorted({d for c, _ in shares for d in c.dose})
    )
    return Chart(
        name,
        title,
        "Line chart of the share of the margin's gain that is left against examples of the "
        "opposite. "
        + "; ".join(
            f"aligned on {c.n_pos:,}: {words.number(100 * s[-1])} % left at "
            f"{words.plain(c.dose[-1])} examples"
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
    return words.number(100 * found[0]) + " %" if found and math.isfinite(found[0]) else "–"


def _dose_axis(axes: Axes, doses: Sequence[float]) -> None:
    """Doses by their logarithm with 0 one step to the left, each labelled where there is room."""
    positive = [d for d in doses if d > 0]
    if not positive:
        return
    axes.set_xscale("symlog", linthresh=positive[0], linscale=1.0, base=2)
    axes.set_xlim(left=-positive[0] * 0.35 if 0 in doses else None)
    every = -(-len(doses) // 8)
    shown = list(doses)[::-1][::every][::-1]
    axes.set_xticks(shown, [words.plain(d) for d in shown])
    axes.minorticks_off()


def half_dose_chart(halves: Sequence[HalfDose], largest: float | None) -> Chart | None:
    """The dose that undoes half of the gain against ``n_pos``; open where none did.

    None where no alignment gained anything: there is nothing to undo then.
    """
    if not any(h.censored or h.value is not None for h in halves):
        return None
    name, title = "dose-half", "Dose that undoes half"
    reached = [h for h in halves if h.value is not None and not h.censored]
    beyond = [h for h in halves if h.censored]
    blue, marker = series(0)
    legend = [LegendItem("reached", blue, marker)] if reached else []
    if beyond:
        hollow = LegendItem("not within the doses tried", LIGHT["s2"], "^", lone=True, hollow=True)
        legend.append(hollow)
    with style(name):
        figure, (axes,) = panel(title, "examples of the opposite (higher = more durable)", legend)
        sizes = [h.n_pos for h in halves]
        heights = [h.value or 0.0 for h in reached]
        axes.plot(
            [sizes.index(h.n_pos) for h in reached],
            heights,
            color=blue,
            marker=marker,
            linewidth=2,
            markersize=7,
        )
        top = max([*heights, *(h.value or largest or 0.0 for h in beyond)])
        axes.plot(
            [sizes.index(h.n_pos) for h in beyond],
            [h.value or largest or top for h in beyond],
            color=LIGHT["s2"],
            marker="^",
            linestyle="None",
            markersize=8,
            markerfacecolor=LIGHT["card"],
            markeredgewidth=1.8,
        )
        axes.set_ylim(0, top * 1.15 or 1.0)
        _size_axis(axes, sizes)
        number_axis(axes.yaxis)
    texts = [(f"{h.n_pos:,}", half_dose_words(h, largest)) for h in halves]
    return Chart(
        name,
        title,
        "Chart of the number of examples of the opposite that undo half of the gain. "
        + "; ".join(f"aligned on {n}: {text}" for n, text in texts)
        + ".",
        "The number of examples of the opposite after which half of what alignment gained in "
        "margin is lost. Lower means undone sooner. An open triangle stands at the largest dose "
        "tried where half was never lost: the true dose lies above it.",
        Table(("aligned on", "dose that undoes half"), tuple(texts)),
        figure,
    )


def half_dose_words(half: HalfDose, largest: float | None) -> str:
    """The dose in words: a number, or what is known where half was not lost."""
    if half.value is None and not half.censored:
        return "no gain to undo"
    if half.censored or half.value is None:
        beyond = half.value if half.value is not None else largest
        return "not reached" if beyond is None else f"more than {words.plain(beyond)}"
    return words.number(half.value, 2 if half.value < 100 else 3)


def _size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xticks(range(len(sizes)), [f"{n:,}" for n in sizes])
    axes.set_xlim(-0.4, len(sizes) - 0.6)
    axes.set_xlabel("examples of alignment")


def by_size_chart(
    name: str, title: str, above: str, reading: str, values: Sequence[AtSize], scale: float = 1.0
) -> Chart | None:
    """Dots with intervals against ``n_pos``, zero always in view; None without values.

    ``scale`` multiplies the values: 100 for a share shown in percent.
    """
    known = [(v.n_pos, v.value.scaled(scale)) for v in values if v.value is not None]
    if not known:
        return None
    sizes = [n for n, _ in known]
    colour, marker = series(0)
    with style(name):
        figure, (axes,) = panel(title, above)
        for place, (_, found) in enumerate(known):
            whisker(axes, place, found, colour)
        means = [found.mean for _, found in known]
        axes.plot(
            range(len(known)),
            means,
            color=colour,
            marker=marker,
            markersize=7.5,
            linewidth=1.2,
            linestyle=":",
        )
        _keep_zero(axes, [b for _, found in known for b in (found.bounds or (found.mean,))])
        _size_axis(axes, sizes)
        number_axis(axes.yaxis)
    rows = tuple((f"{n:,}", words.both(v)) for n, v in known)
    return Chart(
        name,
        title,
        f"Dot chart of {above} against examples of alignment. "
        + "; ".join(f"aligned on {n}: {text}" for n, text in rows)
        + ".",
        reading + " " + words.interval_note((v for _, v in known), "Whiskers"),
        Table(("aligned on", above), rows),
        figure,
    )


def _keep_zero(axes: Axes, values: Sequence[float]) -> None:
    """Limits that hold all values and zero, with room on either side where there are values."""
    low, high = min(*values, 0.0), max(*values, 0.0)
    room = 0.12 * (high - low or 1.0)
    axes.set_ylim(low - room if low < 0 else 0.0, high + room if high > 0 else 0.0)
    axes.axhline(0, color=LIGHT["axis"], linewidth=1.2)


def pairs_chart(pairs: Sequence[Pair], excess: bool = False) -> Chart | None:
    """Forward against inverse loss, a row per pair; ``excess`` draws the loss in excess."""
    shown = [
        (p.pair, a, b)
        for p in pairs
        for a, b in [(p.excess_forward, p.excess_inverse) if excess else (p.forward, p.inverse)]
        if a is not None and b is not None
    ]
    if not shown:
        return None
    name = "resistance-excess" if excess else "resistance"
    title = "Loss in excess" if excess else "Forward and inverse loss"
    above = "per pair of slices (left = easier)"
    legend = [
        LegendItem("forward", *series(0), lone=True),
        LegendItem("inverse", *series(1), lone=True),
    ]
    height = max(110, 46 * len(shown) + 20)
    with style(name):
        figure, (axes,) = panel(title, above, legend, plot_height=height, left=78)
        for row, (_, forward, inverse) in enumerate(shown):
            _dumbbell(axes, row, forward, inverse)
        axes.set_yticks(range(len(shown)), [words.short(p, 10) for p, _, _ in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        number_axis(axes.xaxis)
        axes.set_xlabel("training loss, nats/token" + (" above the writer's own" if excess else ""))
    reading = EXCESS if excess else RAW
    return Chart(
        name,
        title,
        f"Dot chart of {title}, nats per token, per pair of slices. "
        + "; ".join(f"{p}: forward {words.value(a)}, inverse {words.value(b)}" for p, a, b in shown)
        + ".",
        reading + " " + words.interval_note((v for _, *both in shown for v in both), "Whiskers"),
        Table(
            ("pair", "forward", "inverse"),
            tuple((p, words.both(a), words.both(b)) for p, a, b in shown),
        ),
        figure,
    )


def _dumbbell(axes: Axes, row: int, forward: Interval, inverse: Interval) -> None:
    axes.plot(
        [forward.mean, inverse.mean], [row - 0.13, row + 0.13], color=LIGHT["axis"], linewidth=1.2
    )
    for index, (value, shift) in enumerate(((forward, -0.13), (inverse, 0.13))):
        colour, marker = series(index)
        whisker(axes, row + shift, value, colour, across=True)
        axes.plot([value.mean], [row + shift], color=colour, marker=marker, markersize=7.5)
