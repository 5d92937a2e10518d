"""``springback theory springs``: fitted k, balance, products, trained beside exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from springback.report import figure, text
from springback.report.components import Fact, Section, there
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series, Table
from springback.results.theory_schema import (
    Control,
    ModelFirst,
    Noise,
    Scaling,
    Springs,
    SpringsCell,
)

Cells = Sequence[SpringsCell]
AnyCell = TypeVar("AnyCell", bound=SpringsCell | Control)
ARMS = {"joint": "joint", "sequence": "in sequence"}
SETS = ("D1", "D2", "D3")
FORMS = ("unigram", "bigram", "trigram")
K = "k = |D1| / |D2|"
BALANCE = "balance of n1 d1 and n2 d2 (0 = they cancel)"
OVER_SEEDS = "Whiskers are 95 % intervals over the seeds."


def springs_facts(study: Springs) -> tuple[Fact, ...]:
    gap, bounds = study.gap, study.bounds
    return (
        Fact(
            "Joint trainings end above the exact optimum by",
            text.number(gap.median),
            "nats/response",
            f"median of {gap.trainings:,}; at most {text.number(gap.largest)}",
        ),
        Fact(
            "An optimum's two bounds are broken in",
            f"{bounds.two_below_zero} and {bounds.three_above_zero}",
            f"of {bounds.cells:,}",
            "n1 d1 + n2 d2 at least 0; with n3 d3 at most 0; by twice the noise",
        ),
    )


def springs_sections(study: Springs) -> tuple[Section, ...]:
    cells, dose = study.cells, study.at.l
    products = [
        products_chart(cells, arrangement, number)
        for number, arrangement in enumerate(study.arrangements, start=1)
    ]
    return (
        Section(
            "springs-k",
            "Stiffness and elongation",
            "Does a set k times as large move k times less?",
            there([fitted_chart(cells, dose), balance_chart(cells, dose)]),
            (*_premises_notes(cells), *map(_exponent_words, study.scaling)),
        ),
        Section(
            "springs-products",
            "The three products",
            "Is volume times elongation the same for all sets?",
            there(products),
        ),
        Section(
            "springs-exact",
            "Beside the exact optimum",
            "Is the training at fault, or the claim?",
            there([exact_chart(cells), forms_chart(study.controls, dose)]),
            (*_noise_notes(study.noise), *_model_first_notes(study.model_first, dose)),
        ),
    )


def _premises_notes(cells: Cells) -> Iterator[str]:
    """Which arrangements lie within the theorem's premises."""
    inside = {c.arrangement for c in cells if c.premises}
    outside = {c.arrangement for c in cells if c.premises is False} - inside
    if inside:
        yield f"Within the theorem's premises, for l below 1/2: {', '.join(sorted(inside))}."
    if outside:
        yield f"Outside the theorem's premises: {', '.join(sorted(outside))}."


def _model_first_notes(rows: Sequence[ModelFirst], dose: float) -> Iterator[str]:
    """The paper's own elongations, KL(model || D_i), at the exact joint optimum."""
    groups: dict[str, list[ModelFirst]] = {}
    for row in rows:
        if row.l == dose:
            groups.setdefault(row.arrangement, []).append(row)
    for arrangement, some in groups.items():
        start = f"With KL(model || D_i), the model first, at the exact optimum, {arrangement}, "
        infinite = [
            name for i, name in enumerate(SETS) if any(row.changes[i] is None for row in some)
        ]
        if infinite:
            yield (
                f"{start}l = {dose:g}: infinite for {' and '.join(infinite)}, for the model gives "
                "mass to what they lack."
            )
            continue
        values = ", ".join(
            f"{text.both(row.fitted_k) if row.fitted_k else 'no value (signs)'} at "
            f"k = {text.plain(row.k)}"
            for row in some
        )
        yield f"{start}l = {dose:g}: -d2 / d1 is {values}."


def _exponent_words(row: Scaling) -> str:
    """Exponent of -d2 / d1 in k, for an arm, an arrangement and a dose."""
    arm = "Trained jointly" if row.arm == "joint" else "Trained in sequence"
    start = f"{arm}, {row.arrangement}, l = {row.l:g}: "
    if row.exponent is None:
        opposite = f"{100 * row.opposite:.0f} %"
        above = f"{text.count(len(row.k), 'k')} above the noise"
        return f"{start}no exponent; signs opposite in {opposite} of the runs, {above}."
    over = f"k from {text.plain(min(row.k))} to {text.plain(max(row.k))}"
    return f"{start}-d2 / d1 grows as k to the power of {text.both(row.exponent)}, {over}."


def _noise_notes(noise: Sequence[Noise]) -> Iterator[str]:
    for arm, name in (("joint", "joint trainings"), ("sequence", "trainings in sequence")):
        sizes = [row.changes for row in noise if row.arm == arm]
        if sizes:
            each = ", ".join(
                f"{name_of_set} {text.number(min(changes))} to {text.number(max(changes))}"
                for name_of_set, changes in zip(SETS, zip(*sizes, strict=True), strict=True)
            )
            yield (
                f"Noise of an elongation in {name}, from other weights and order with the same "
                f"sets, by k: {each} nats a response."
            )


def _by_arm(cells: Cells, dose: float) -> dict[str, list[SpringsCell]]:
    """Cells of one dose by arrangement and arm."""
    groups: dict[str, list[SpringsCell]] = {}
    for cell in cells:
        if cell.l == dose:
            groups.setdefault(f"{cell.arrangement}, {ARMS[cell.arm]}", []).append(cell)
    return groups


def _k_chart(
    caption: Caption,
    plot: Plot,
    groups: Mapping[str, Sequence[AnyCell]],
    columns: Mapping[str, Callable[[AnyCell], str]],
) -> Chart | None:
    """A line against k for each group; the series of ``plot`` come after them."""
    series = [
        Series(name, [c.fitted_k if plot.log else c.balance for c in cells], [c.k for c in cells])
        for name, cells in groups.items()
    ]
    rows = tuple(
        (name, text.plain(c.k), *(words(c) for words in columns.values()))
        for name, cells in groups.items()
        for c in cells
    )
    return figure.lines(
        caption,
        replace(plot, series=[*series, *plot.series]),
        Axis(K, scale="log", dodge=0.04),
        Table(("sets", "k", *columns), rows),
    )


def fitted_chart(cells: Cells, dose: float) -> Chart | None:
    """-d2 / d1 against k, both on logarithmic axes; the dashed line is the invariant."""
    groups = _by_arm(cells, dose)
    ks = sorted({c.k for some in groups.values() for c in some})
    return _k_chart(
        Caption(
            "theory-springs-k",
            "Does -d2 / d1 follow k?",
            f"l = {dose:g}. d1 and d2: change of the NLL of D1 and D2 when D3 comes. The invariant "
            "|D1| d1 = -|D2| d2 is the dashed line. A point is left out where the signs are not "
            "opposite in all seeds.",
            intervals=OVER_SEEDS,
        ),
        Plot(
            "-d2 / d1 (geometric mean over seeds)",
            [Series("equal to k", ks, ks, join="--", reference=True)],
            log=True,
        ),
        groups,
        {
            "-d2 / d1": lambda c: text.both(c.fitted_k),
            "exact, joint optimum": lambda c: text.both(c.predicted.fitted_k),
            "seeds with opposite signs, %": lambda c: f"{100 * c.opposite:.0f}",
            "above the noise": lambda c: _resolved_words(c.resolved),
        },
    )


def _resolved_words(resolved: Sequence[bool] | None) -> str:
    """Which sets' elongations lie above the noise."""
    if resolved is None:
        return "not known"
    return ", ".join(name for name, above in zip(SETS, resolved, strict=True) if above) or "none"


def balance_chart(cells: Cells, dose: float) -> Chart | None:
    """(n1 d1 + n2 d2) / (|n1 d1| + |n2 d2|) against k."""
    return _k_chart(
        Caption(
            "theory-springs-balance",
            "Do the two products cancel?",
            f"l = {dose:g}. (n1 d1 + n2 d2) / (|n1 d1| + |n2 d2|): 0 where the invariant holds, 1 "
            "or -1 where one product is nothing beside the other or both have one sign.",
            intervals=OVER_SEEDS,
        ),
        Plot(BALANCE, (), Level(0.0), limits=(-1.15, 1.15)),
        _by_arm(cells, dose),
        {
            "balance": lambda c: text.both(c.balance),
            "exact, joint optimum": lambda c: text.both(c.predicted.balance),
            "with D3": lambda c: text.both(c.total),
        },
    )


def products_chart(cells: Cells, arrangement: str, number: int) -> Chart | None:
    """n_i d_i along l at a middle k: the joint arm above, the sequence below."""
    ks = sorted({c.k for c in cells if c.arrangement == arrangement})
    if not ks:
        return None
    k = ks[len(ks) // 2]
    shown = [c for c in cells if c.arrangement == arrangement and c.k == k]
    by_arm = {arm: [c for c in shown if c.arm == arm] for arm in ARMS}
    rows = tuple(
        (
            f"{name}, {ARMS[arm]}",
            text.plain(c.l),
            text.both(c.products[i]),
            text.both(c.predicted.products[i]),
        )
        for arm, some in by_arm.items()
        for i, name in enumerate(SETS)
        for c in some
    )
    above = ("joint: n_i d_i, nats a response in |D2|", "in sequence: n_i d_i")
    return figure.lines(
        Caption(
            f"theory-springs-products-{number}",
            f"Volume times elongation: {arrangement}",
            f"k = {k:g}, volumes in |D2|. If the sets were springs in series, the three would have "
            "one size. Above 0 = fits worse since D3 came. Dashed: the joint optimum, known "
            "exactly.",
            intervals=OVER_SEEDS,
        ),
        [
            Plot(text, _products(some, exact=arm == "joint"), name=ARMS[arm], zero=True)
            for text, (arm, some) in zip(above, by_arm.items(), strict=True)
        ],
        Axis("l = |D3| / |D2|"),
        Table(("set and arm", "l", "n_i d_i", "exact, joint optimum"), rows),
    )


def _products(cells: Cells, exact: bool) -> list[Series]:
    """n_i d_i of each set along l, and dashed the exact ones."""
    doses = [c.l for c in cells]
    series = [Series(name, [c.products[i] for c in cells], doses) for i, name in enumerate(SETS)]
    if exact:
        for i in range(len(SETS)):
            means = [c.predicted.products[i].mean for c in cells]
            series.append(Series("exact", means, doses, join="--", reference=True))
    return series


def exact_chart(cells: Cells) -> Chart | None:
    """Measured against exact elongations of the joint arm, sizes on logarithmic axes."""
    pairs = [
        (i, abs(c.predicted.changes[i].mean), abs(c.changes[i].mean), c)
        for c in cells
        if c.arm == "joint"
        for i in range(len(SETS))
    ]
    pairs = [p for p in pairs if p[1] > 0 and p[2] > 0 and math.isfinite(p[1])]
    sizes = [size for _, exact, trained, _ in pairs for size in (exact, trained)]
    ends = [min(sizes, default=1.0), max(sizes, default=1.0)]
    rows = tuple(
        (
            f"{SETS[i]}, {c.arrangement}",
            text.plain(c.k),
            text.plain(c.l),
            text.both(c.changes[i]),
            text.both(c.predicted.changes[i]),
        )
        for i, _, _, c in pairs
    )
    return figure.lines(
        Caption(
            "theory-springs-exact",
            "Trained beside exact",
            "Joint arm, means over the seeds. The leaf masses are known, so the joint optimum is "
            "too: what lies off the dashed line is training that has not ended there.",
            alt=f"Scatter of {len(pairs)} elongations, trained against exact.",
        ),
        Plot(
            "size of d_i, trained, nats a response",
            [
                *(
                    Series(
                        name,
                        [p[2] for p in pairs if p[0] == i],
                        [p[1] for p in pairs if p[0] == i],
                        join="",
                    )
                    for i, name in enumerate(SETS)
                ),
                Series("equal", ends, ends, join="--", reference=True),
            ],
            log=True,
        ),
        Axis("size of d_i at the exact optimum", scale="log"),
        Table(("set", "k", "l", "trained", "exact"), rows),
    )


def forms_chart(controls: Sequence[Control], dose: float) -> Chart | None:
    """Balance of the best n-gram models, in closed form, against k."""
    groups: dict[str, list[Control]] = {}
    for cell in controls:
        if cell.l == dose:
            name = f"{cell.arrangement}, {_form(cell.order)}"
            groups.setdefault(name, []).append(cell)
    return _k_chart(
        Caption(
            "theory-springs-forms",
            "The same without training",
            f"l = {dose:g}. Best n-gram models of the joint weights, in closed form: no training "
            "and no noise. As l goes to 0 all of them go to 0: at an optimum the gradient of the "
            "joint loss is 0, whatever the form of the model.",
            intervals="",
        ),
        Plot(BALANCE, (), Level(0.0)),
        groups,
        {
            "balance": lambda c: text.both(c.balance),
            "-d2 / d1": lambda c: text.both(c.fitted_k),
        },
    )


def _form(order: int) -> str:
    return FORMS[order] if order < len(FORMS) else f"{order + 1}-gram"
