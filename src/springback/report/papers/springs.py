"""Charts of ``springback theory springs``: fitted k, balance, products, exact beside measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from springback.report import formatting
from springback.report.figure import Chart, LegendItem, Table, number_axis, panel, style
from springback.report.papers.theorem import legend, log_axis, power
from springback.report.theme import LIGHT, series
from springback.results.schema import Interval
from springback.results.theory_schema import Control, SpringsCell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cells = Sequence[SpringsCell]
ARMS = {"joint": "joint", "sequence": "in sequence"}
SETS = ("D1", "D2", "D3")
FORMS = ("unigram", "bigram", "trigram")


def interval_words(found: Interval | None) -> str:
    """Mean and bounds; a dash where there is none."""
    if found is None:
        return "–"
    text = formatting.number(found.mean)
    if found.low is None or found.high is None:
        return text
    return f"{text} ({formatting.number(found.low)} to {formatting.number(found.high)})"


def _groups(cells: Cells, dose: float) -> dict[tuple[str, str], list[SpringsCell]]:
    """Cells of one dose by arm and arrangement."""
    found: dict[tuple[str, str], list[SpringsCell]] = {}
    for cell in cells:
        if cell.l == dose:
            found.setdefault((cell.arm, cell.arrangement), []).append(cell)
    return found


def _names(groups: Mapping[tuple[str, str], Cells]) -> list[str]:
    return [f"{arrangement}, {ARMS[arm]}" for arm, arrangement in groups]


def _resolved(cell: SpringsCell) -> str:
    if cell.resolved is None:
        return "not known"
    held = [name for name, fine in zip(SETS, cell.resolved, strict=True) if fine]
    return ", ".join(held) or "none"


def _errorbars(
    axes: Axes, points: Sequence[tuple[float, Interval | None]], index: int, place: float
) -> None:
    """Markers with whiskers and a line through them; ``place`` shifts them on a log axis."""
    colour, marker = series(index)
    shown = [(x * place, y) for x, y in points if y is not None]
    axes.plot([x for x, _ in shown], [y.mean for _, y in shown], color=colour, marker=marker)
    for x, y in shown:
        if y.low is not None and y.high is not None:
            axes.vlines(x, y.low, y.high, color=colour, linewidth=1.6)


def fitted_chart(cells: Cells, dose: float) -> Chart | None:
    """-d2 / d1 against k, both on logarithmic axes; the dashed line is the invariant."""
    groups = _groups(cells, dose)
    if not any(c.fitted_k for own in groups.values() for c in own):
        return None
    name, title = "theory-springs-k", "Does -d2 / d1 follow k?"
    ks = sorted({c.k for own in groups.values() for c in own})
    items = [*legend(_names(groups)), LegendItem("equal to k", LIGHT["muted"], None)]
    with style(name):
        figure, (axes,) = panel(title, "-d2 / d1 (geometric mean over seeds)", items, (None,), 220)
        log_axis(axes, ks)
        axes.set_yscale("log")
        axes.plot(ks, ks, color=LIGHT["muted"], linestyle="--", linewidth=1.2)
        for i, own in enumerate(groups.values()):
            _errorbars(axes, [(c.k, c.fitted_k) for c in own], i, 1 + 0.04 * i)
        _plain_powers(axes)
        axes.set_xlabel("k = |D1| / |D2|")
    rows = tuple(
        (
            label,
            formatting.plain(c.k),
            interval_words(c.fitted_k),
            interval_words(c.predicted.fitted_k),
            f"{100 * c.opposite:.0f}",
            _resolved(c),
        )
        for label, own in zip(_names(groups), groups.values(), strict=True)
        for c in own
    )
    head = (
        "sets and arm",
        "k",
        "-d2 / d1",
        "exact, joint optimum",
        "seeds with opposite signs, %",
        "above the noise",
    )
    return Chart(
        name,
        title,
        f"Line chart of -d2 / d1 against k at l = {dose:g}. "
        + "; ".join(f"{a}, k {b}: {c}" for a, b, c, *_ in rows)
        + ".",
        f"l = {dose:g}. d1 and d2: change of the NLL of D1 and D2 when D3 comes. The invariant "
        "|D1| d1 = -|D2| d2 is the dashed line. A point is left out where the signs are not "
        "opposite in all seeds. Whiskers are 95 % intervals over the seeds.",
        Table(head, rows),
        figure,
    )


def _plain_powers(axes: Axes) -> None:
    """Few short ticks on a logarithmic y axis, whatever its limits."""
    from matplotlib.ticker import NullLocator

    low, high = axes.get_ylim()
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    every = -(-len(powers) // 6) or 1
    ticks = [10.0**p for p in powers][::every]
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticks(ticks, [power(t) for t in ticks])
    axes.set_ylim(low, high)


def balance_chart(cells: Cells, dose: float) -> Chart | None:
    """(n1 d1 + n2 d2) / (|n1 d1| + |n2 d2|) against k."""
    groups = _groups(cells, dose)
    if not groups:
        return None
    name, title = "theory-springs-balance", "Do the two products cancel?"
    ks = sorted({c.k for own in groups.values() for c in own})
    unit = "balance of n1 d1 and n2 d2 (0 = they cancel)"
    with style(name):
        figure, (axes,) = panel(title, unit, legend(_names(groups)), (None,), 200)
        log_axis(axes, ks)
        axes.axhline(0, color=LIGHT["muted"], linestyle="--", linewidth=1.2)
        for i, own in enumerate(groups.values()):
            _errorbars(axes, [(c.k, c.balance) for c in own], i, 1 + 0.04 * i)
        axes.set_ylim(-1.15, 1.15)
        number_axis(axes.yaxis)
        axes.set_xlabel("k = |D1| / |D2|")
    rows = tuple(
        (
            label,
            formatting.plain(c.k),
            interval_words(c.balance),
            interval_words(c.predicted.balance),
            interval_words(c.total),
        )
        for label, own in zip(_names(groups), groups.values(), strict=True)
        for c in own
    )
    return Chart(
        name,
        title,
        "; ".join(f"{a}, k {b}: {c}" for a, b, c, *_ in rows) + ".",
        f"l = {dose:g}. (n1 d1 + n2 d2) / (|n1 d1| + |n2 d2|): 0 where the invariant holds, 1 or "
        "-1 where one product is nothing beside the other or both have one sign.",
        Table(("sets and arm", "k", "balance", "exact, joint optimum", "with D3"), rows),
        figure,
    )


def products_chart(cells: Cells, arrangement: str, number: int) -> Chart | None:
    """n_i d_i along l at a middle k: the joint arm above, the sequence below."""
    mine = [c for c in cells if c.arrangement == arrangement]
    if not mine:
        return None
    ks = sorted({c.k for c in mine})
    k = ks[len(ks) // 2]
    name, title = f"theory-springs-products-{number}", f"Volume times elongation: {arrangement}"
    items = [*legend(SETS), LegendItem("exact", LIGHT["muted"], None)]
    rows = []
    with style(name):
        above = "joint: n_i d_i, nats a response in |D2|"
        figure, plots = panel(title, above, items, (None, "in sequence: n_i d_i"), 150)
        for axes, arm in zip(plots, ARMS, strict=True):
            own = [c for c in mine if c.arm == arm and c.k == k]
            axes.axhline(0, color=LIGHT["axis"], linewidth=1)
            for i, label in enumerate(SETS):
                _errorbars(axes, [(c.l, c.products[i]) for c in own], i, 1.0)
                if arm == "joint":
                    exact = [c.predicted.products[i].mean for c in own]
                    doses = [c.l for c in own]
                    axes.plot(doses, exact, color=LIGHT["muted"], linestyle="--", linewidth=1.2)
                rows += [
                    (
                        f"{label}, {ARMS[arm]}",
                        formatting.plain(c.l),
                        interval_words(c.products[i]),
                        interval_words(c.predicted.products[i]),
                    )
                    for c in own
                ]
            number_axis(axes.yaxis)
        number_axis(plots[-1].xaxis)
        plots[0].tick_params(labelbottom=False)
        plots[-1].set_xlabel("l = |D3| / |D2|")
    return Chart(
        name,
        title,
        "; ".join(f"{a}, l {b}: {c}" for a, b, c, _ in rows) + ".",
        f"k = {k:g}, volumes in |D2|. If the sets were springs in series, the three would have one "
        "size. Above 0 = fits worse since D3 came. Dashed: the joint optimum, known exactly.",
        Table(("set and arm", "l", "n_i d_i", "exact, joint optimum"), tuple(rows)),
        figure,
    )


def exact_chart(cells: Cells) -> Chart | None:
    """Measured against exact elongations of the joint arm, sizes on logarithmic axes."""
    own = [c for c in cells if c.arm == "joint"]
    pairs = [
        (i, abs(c.predicted.changes[i].mean), abs(c.changes[i].mean), c)
        for c in own
        for i in range(3)
    ]
    pairs = [p for p in pairs if p[1] > 0 and p[2] > 0 and math.isfinite(p[1])]
    if not pairs:
        return None
    name, title = "theory-springs-exact", "Trained beside exact"
    ends = [min(min(p[1], p[2]) for p in pairs), max(max(p[1], p[2]) for p in pairs)]
    items = [*legend(SETS, lone=True), LegendItem("equal", LIGHT["muted"], None)]
    with style(name):
        figure, (axes,) = panel(title, "size of d_i, trained, nats a response", items, (None,), 220)
        log_axis(axes, ends)
        axes.set_yscale("log")
        axes.plot(ends, ends, color=LIGHT["muted"], linestyle="--", linewidth=1.2)
        for i in range(3):
            colour, marker = series(i)
            shown = [p for p in pairs if p[0] == i]
            places = [p[1] for p in shown]
            axes.plot(places, [p[2] for p in shown], marker, color=colour, markersize=5)
        _plain_powers(axes)
        axes.set_xlabel("size of d_i at the exact optimum")
    rows = tuple(
        (
            f"{SETS[i]}, {c.arrangement}",
            formatting.plain(c.k),
            formatting.plain(c.l),
            interval_words(c.changes[i]),
            interval_words(c.predicted.changes[i]),
        )
        for i, _, _, c in pairs
    )
    return Chart(
        name,
        title,
        f"Scatter of {len(pairs)} elongations, trained against exact.",
        "Joint arm, means over the seeds. The leaf masses are known, so the joint optimum is too: "
        "what lies off the dashed line is training that has not ended there.",
        Table(("set", "k", "l", "trained", "exact"), rows),
        figure,
    )


def forms_chart(controls: Sequence[Control], dose: float) -> Chart | None:
    """Balance of the best n-gram models, in closed form, against k."""
    shown = [c for c in controls if c.l == dose]
    if not shown:
        return None
    groups: dict[tuple[str, int], list[Control]] = {}
    for cell in shown:
        groups.setdefault((cell.arrangement, cell.order), []).append(cell)
    names = [f"{arrangement}, {_form(order)}" for arrangement, order in groups]
    name, title = "theory-springs-forms", "The same without training"
    with style(name):
        unit = "balance of n1 d1 and n2 d2 (0 = they cancel)"
        figure, (axes,) = panel(title, unit, legend(names), (None,), 200)
        log_axis(axes, sorted({c.k for c in shown}))
        axes.axhline(0, color=LIGHT["muted"], linestyle="--", linewidth=1.2)
        for i, own in enumerate(groups.values()):
            _errorbars(axes, [(c.k, c.balance) for c in own], i, 1 + 0.03 * i)
        number_axis(axes.yaxis)
        axes.set_xlabel("k = |D1| / |D2|")
    rows = tuple(
        (
            label,
            formatting.plain(c.k),
            interval_words(c.balance),
            interval_words(c.fitted_k),
        )
        for label, own in zip(names, groups.values(), strict=True)
        for c in own
    )
    return Chart(
        name,
        title,
        "; ".join(f"{a}, k {b}: {c}" for a, b, c, _ in rows) + ".",
        f"l = {dose:g}. Best n-gram models of the joint weights, in closed form: no training and "
        "no noise. As l goes to 0 all of them go to 0: at an optimum the gradient of the joint "
        "loss is 0, whatever the form of the model.",
        Table(("sets and model", "k", "balance", "-d2 / d1"), rows),
        figure,
    )


def _form(order: int) -> str:
    return FORMS[order] if order < len(FORMS) else f"{order + 1}-gram"
