"""What a reproduction of paper B prints: measured tables, the page beside, the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from springback.jobs.boost.analysis.methods import too_few
from springback.stats import Interval

Told = Mapping[str, Any]
_ENDS = ("mean", "low", "high")


def measured(name: str, cells: Sequence[Told]) -> dict[str, Any]:
    """The table beside the paper's; intervals as in every result file."""
    if name == "epicode-theory":
        return _theory(cells)
    return _difficulty(cells) if name == "epicode-difficulty" else _methods(cells)


def _methods(cells: Sequence[Told]) -> dict[str, Any]:
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


def _difficulty(cells: Sequence[Told]) -> dict[str, Any]:
    columns = [
        "model", "method", "solution, characters", "questions", "fine-tuned, %", "gain, points",
        "hardest minus easiest, points", "p (Holm)",
    ]  # fmt: skip
    rows = []
    for cell in cells:
        found = cell["difficulty"]
        for row in found["methods"]:
            for i, (bin_, told) in enumerate(zip(found["bins"], row["bins"], strict=True)):
                rows.append(
                    [
                        cell["name"],
                        row["method"],
                        f"{bin_['low']:g} to {bin_['high']:g}",
                        bin_["questions"],
                        _scaled(told["accuracy"], 100),
                        _scaled(told["difference"], 100),
                        None if i else _scaled(row["trend"], 100),
                        None if i else _p(row.get("p_holm")),
                    ]
                )
    return {"columns": columns, "rows": rows}


def _theory(cells: Sequence[Told]) -> dict[str, Any]:
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


def _scaled(found: Told | None, factor: float) -> dict[str, Any] | None:
    if found is None:
        return None
    kept = {k: None if found[k] is None else found[k] * factor for k in ("mean", "low", "high")}
    return {**found, **kept}


def _p(value: float | None) -> float | None:
    """As many digits as a p-value is worth."""
    return None if value is None else float(f"{value:.2g}")


def verdict(name: str, cells: Sequence[Told]) -> dict[str, Any]:
    """Label and sentences; of several cells the label counts them."""
    said = {
        "epicode-theory": _said_theory,
        "epicode-difficulty": _said_difficulty,
    }.get(name, _said_methods)
    parts = [
        {"question": cell["name"], "label": label, "text": text}
        for cell in cells
        for label, text in (said(cell),)
    ]
    labels = list(dict.fromkeys(part["label"] for part in parts))
    if len(parts) == 1:
        return {"label": labels[0], "text": parts[0]["text"], "parts": []}
    counts = "; ".join(f"{label}: {sum(p['label'] == label for p in parts)}" for label in labels)
    text = f"Of {len(parts)} groups of model and task, {counts}."
    return {"label": counts, "text": text, "parts": parts}


def _said_methods(cell: Told) -> tuple[str, str]:
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
        text += f"; NLL of the reference solutions {_interval(nll, '+.4f')} nats/token."
    if row.get("p_t_holm") is not None:
        text += f" p (paired t, Holm over the table) {row['p_t_holm']:.2g}."
    text += too_few(row["verdict"], Interval(**row["difference"]), row.get("p_mcnemar"))
    if seeds < 6:
        text += " With fewer than 6 seeds Wilcoxon's test cannot reach 0.05."
    return str(row["verdict"]), text


def _said_difficulty(cell: Told) -> tuple[str, str]:
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


def _said_theory(cell: Told) -> tuple[str, str]:
    found = cell["agreement"]
    if not found["judged"]:
        told = {s["predicted"] for s in cell["seeds"]}
        if told == {"no reference"}:
            return "no reference", "Without a reference only NLL against lambda is shown."
        return "undecided", "In no seed does the interval of rho k leave 1."
    text = (
        f"In {found['right']} of {_count(found['judged'])} whose interval of rho k leaves 1, the "
        "predicted sign is that of the change of NLL at the smallest lambda."
    )
    return f"{found['right']} of {found['judged']} signs right", text


def page(analysis: Told) -> str:
    """``reproduce.md``: published, then measured."""
    name, scale = analysis["name"], analysis["scale"]
    lines = [f"# {name}, {scale} scale", "", analysis["question"], ""]
    lines += [f"The paper: {analysis['paper']}", ""]
    if analysis["note"]:
        lines += [analysis["note"], ""]
    if analysis["published"]:
        lines += ["## Published", "", *_table(analysis["published"]), ""]
    lines += ["## Measured", "", *_table(analysis["measured"]), ""]
    for cell in analysis["cells"]:
        if "curve" in cell:
            lines += [f"## Lambda: {cell['name']}", "", *_table(curve_table(cell)), ""]
    return "\n".join(lines)


def curve_table(cell: Told) -> dict[str, Any]:
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


def _table(table: Told) -> list[str]:
    lines = [f"| {' | '.join(table['columns'])} |", f"|{'---|' * len(table['columns'])}"]
    return [*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in table["rows"])]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return _rounded(value)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _rounded(found: Told) -> str:
    """All to one place, the fourth of the largest: so what is next to nothing is 0, not 1e-16."""
    largest = max(abs(found[k]) for k in _ENDS if found[k] is not None)
    if not (largest and math.isfinite(largest)):
        return _interval(found, "g")
    place = 3 - math.floor(math.log10(largest))
    ends = {k: None if found[k] is None else round(found[k], place) + 0.0 for k in _ENDS}
    return _interval(ends, "g")


def _interval(found: Told, form: str) -> str:
    if found["low"] is None:
        return f"{found['mean']:{form}}"
    return f"{found['mean']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def _points(found: Told) -> str:
    scaled = _scaled(found, 100)
    assert scaled is not None
    return _interval(scaled, "+.2f")


def _count(seeds: int) -> str:
    return f"{seeds} seed{'s' * (seeds != 1)}"
