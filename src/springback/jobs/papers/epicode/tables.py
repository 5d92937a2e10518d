"""What a reproduction of paper B prints: measured tables, the page beside, the verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from springback.jobs.boost.analysis.methods import too_few
from springback.jobs.papers import claims
from springback.results.schema import Part, Verdict
from springback.stats import Interval

Fields = Mapping[str, Any]


def measured(name: str, cells: Sequence[Fields]) -> dict[str, Any]:
    """The table beside the paper's; intervals as in every result file."""
    if name == "epicode-theory":
        return _theory(cells)
    return _difficulty(cells) if name == "epicode-difficulty" else _methods(cells)


def _methods(cells: Sequence[Fields]) -> dict[str, Any]:
    columns = [
        "model", "method", "accuracy, %", "against fine-tuned, points", "p (paired t)",
        "p (Wilcoxon)", "p (t, Holm)", "NLL difference, nats/token", "p of it (t, Holm)",
        "seeds better, worse", "verdict",
    ]  # fmt: skip
    rows = []
    for cell in cells:
        for row in [*cell["methods"], *cell["rivals"]]:
            rival = row["against"] != "fine-tuned"
            better = row.get("seeds_better")
            rows.append(
                [
                    cell["name"],
                    f"{row['method']} against {row['against']}" if rival else row["method"],
                    None if rival else _scaled(row["accuracy"], 100),
                    _scaled(row["difference"], 100),
                    *(_p(row.get(key)) for key in ("p_t", "p_wilcoxon", "p_t_holm")),
                    row["nll_difference"],
                    _p(row.get("nll_p_t_holm")),
                    None if better is None else f"{better}, {row['seeds_worse']}",
                    row["verdict"],
                ]
            )
    return {"columns": columns, "rows": rows}


def _difficulty(cells: Sequence[Fields]) -> dict[str, Any]:
    columns = [
        "model", "method", "solution, characters", "questions", "fine-tuned, %", "gain, points",
        "hardest minus easiest, points", "p (Holm)",
    ]  # fmt: skip
    rows = []
    for cell in cells:
        bins = cell["difficulty"]["bins"]
        for row in cell["difficulty"]["methods"]:
            for i, (bin_, values) in enumerate(zip(bins, row["bins"], strict=True)):
                rows.append(
                    [
                        cell["name"],
                        row["method"],
                        f"{bin_['low']:g} to {bin_['high']:g}",
                        bin_["questions"],
                        _scaled(values["accuracy"], 100),
                        _scaled(values["difference"], 100),
                        None if i else _scaled(row["trend"], 100),
                        None if i else _p(row.get("p_holm")),
                    ]
                )
    return {"columns": columns, "rows": rows}


def _theory(cells: Sequence[Fields]) -> dict[str, Any]:
    columns = [
        "model", "seed", "mu", "contested, %", "eps", "k", "rho", "rho k", "contrast, predicted",
        "measured (NLL)", "best lambda, predicted", "of lowest NLL", "chosen on validation",
    ]  # fmt: skip
    rows = [
        [
            cell["name"], s["seed"], s["mu"], _scaled(s.get("contested"), 100), s.get("eps"),
            s.get("k"), s.get("rho"), s.get("rho_k"), s["predicted"], s["measured"],
            s.get("best_lambda"), s["nll_lambda"], s["chosen"],
        ]
        for cell in cells
        for s in cell["seeds"]
    ]  # fmt: skip
    return {"columns": columns, "rows": rows}


def _scaled(interval: Fields | None, factor: float) -> dict[str, Any] | None:
    return None if interval is None else Interval(**interval).scaled(factor).to_dict()


def _p(value: float | None) -> float | None:
    """As many digits as a p-value is worth."""
    return None if value is None else float(f"{value:.2g}")


def verdict(name: str, cells: Sequence[Fields]) -> Verdict:
    """Label and sentences; of several cells the label counts them."""
    special = {"epicode-theory": _theory_verdict, "epicode-difficulty": _difficulty_verdict}
    judge = special.get(name, _methods_verdict)
    parts = tuple(Part(cell["name"], *judge(cell)) for cell in cells)
    if len(parts) == 1:
        return Verdict(parts[0].label, parts[0].text)
    labels = Counter(part.label for part in parts)
    counts = "; ".join(f"{label}: {count}" for label, count in labels.items())
    text = f"Of {len(parts)} groups of model and task, {counts}."
    return Verdict(counts, text, parts)


def _methods_verdict(cell: Fields) -> tuple[str, str]:
    row = next(r for r in cell["methods"] if r["method"] == "EpiCoDe")
    if row["difference"] is None:
        return "same", "Validation chose the fine-tuned model in every seed."
    seeds = len(cell["seeds"])
    text = (
        f"EpiCoDe against the fine-tuned model over {_count(seeds)}: {_points(row['difference'])} "
        f"points; {row['seeds_better']} better, {row['seeds_worse']} worse"
    )
    nll = row["nll_difference"]
    if nll is None:
        text += "; NLL is withheld, since the reference answers are bare."
    else:
        shown = Interval(**nll).with_bounds("+.4f")
        text += f"; NLL of the reference solutions {shown} nats/token."
    if row.get("p_t_holm") is not None:
        text += f" p (paired t, Holm over the table) {row['p_t_holm']:.2g}."
    text += too_few(row["verdict"], Interval(**row["difference"]), row.get("p_mcnemar"))
    if seeds < 6:
        text += " With fewer than 6 seeds Wilcoxon's test cannot reach 0.05."
    return str(row["verdict"]), text


def _difficulty_verdict(cell: Fields) -> tuple[str, str]:
    if len(cell["difficulty"]["bins"]) < 2:
        return "not testable", "All reference solutions are of one length: none is the harder one."
    rows = [r for r in cell["difficulty"]["methods"] if r["method"] == "EpiCoDe"]
    if not rows:
        return "same", "Validation chose the fine-tuned model in every seed."
    (row,) = rows
    low, high = row["trend"]["low"], row["trend"]["high"]
    label = "undecided"
    if low is not None and (low > 0 or high < 0):
        label = "gains are in the hard questions" if low > 0 else "gains are in the easy questions"
    text = (
        "The effect of EpiCoDe on the hardest question minus that on the easiest, by length of the "
        f"reference solution: {_points(row['trend'])} points."
    )
    return label, text


def _theory_verdict(cell: Fields) -> tuple[str, str]:
    agreement = cell["agreement"]
    right, judged = agreement["right"], agreement["judged"]
    if not judged:
        if {s["predicted"] for s in cell["seeds"]} == {"no reference"}:
            return "no reference", "Without a reference only NLL against lambda is shown."
        return "undecided", "In no seed does the interval of rho k leave 1."
    text = (
        f"In {right} of {_count(judged)} whose interval of rho k leaves 1, the "
        "predicted sign is that of the change of NLL at the smallest lambda."
    )
    return f"{right} of {judged} signs right", text


def page(analysis: Fields) -> str:
    """``reproduce.md``: published, then measured."""
    lines = claims.page(analysis, _cell)
    for cell in analysis["cells"]:
        if "curve" in cell:
            table = claims.markdown_table(curve_table(cell), _cell)
            lines += [f"## Lambda: {cell['name']}", "", *table, ""]
    return "\n".join(lines)


def curve_table(cell: Fields) -> dict[str, Any]:
    """Predicted beside measured, by lambda."""
    columns = [
        "lambda", "predicted error variance (1 at lambda 0)", "change of NLL, nats/token",
        "change of accuracy, points",
    ]  # fmt: skip
    rows = [
        [
            point["lambda"],
            point["error_variance"],
            point["nll_difference"],
            _scaled(point["accuracy_difference"], 100),
        ]
        for point in cell["curve"]
    ]
    return {"columns": columns, "rows": rows}


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return _rounded(Interval(**value))
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _rounded(interval: Interval) -> str:
    """All to one place, the fourth of the largest: so what is next to nothing is 0, not 1e-16."""
    ends = (interval.mean, *(interval.bounds or ()))
    largest = max(map(abs, ends))
    if largest and math.isfinite(largest):
        place = 3 - math.floor(math.log10(largest))
        interval = Interval(*(round(end, place) + 0.0 for end in ends))
    return interval.with_bounds("g")


def _points(interval: Fields) -> str:
    return Interval(**interval).scaled(100).with_bounds("+.2f")


def _count(seeds: int) -> str:
    return f"{seeds} seed{'s' * (seeds != 1)}"
