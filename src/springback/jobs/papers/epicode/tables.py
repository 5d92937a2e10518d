"""What a reproduction of paper B prints: measured tables, the page beside, the verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from springback.jobs.boost.analysis.methods import too_few
from springback.jobs.papers import claims
from springback.results.boost_schema import Difficulty, LambdaPoint, SeedsComparison
from springback.results.paper_schema import Agreement, Cell, Entry, Figures, Reproduction
from springback.results.schema import Part, Verdict
from springback.stats import Interval

#: Columns of a table of choices whose letters were scored.
_LETTERS = ("probability of the right letter, %", "its difference, points", "p of that (t, Holm)")


def measured(name: str, cells: Sequence[Cell]) -> Figures:
    """The table beside the paper's; intervals as in every result file."""
    if name == "epicode-theory":
        return _theory(cells)
    return _difficulty(cells) if name == "epicode-difficulty" else _methods(cells)


def _methods(cells: Sequence[Cell]) -> Figures:
    columns: tuple[str, ...] = (
        "model", "method", "accuracy, %", "against fine-tuned, points", "p (paired t)",
        "p (Wilcoxon)", "p (t, Holm)", "NLL difference, nats/token", "p of it (t, Holm)",
        "seeds better, worse", "verdict",
    )  # fmt: skip
    every = [row for cell in cells for row in (*(cell.methods or ()), *(cell.rivals or ()))]
    letters = any(row.letter_probability for row in every)
    if letters:
        columns = (*columns, *_LETTERS)
    rows: list[tuple[Entry, ...]] = []
    for cell in cells:
        for row in (*(cell.methods or ()), *(cell.rivals or ())):
            rival = row.against != "fine-tuned"
            better = getattr(row, "seeds_better", None)
            rows.append(
                (
                    cell.name,
                    f"{row.method} against {row.against}" if rival else row.method,
                    None if rival else _percent(row.accuracy),
                    _percent(row.difference),
                    *(_p(row, key) for key in ("p_t", "p_wilcoxon", "p_t_holm")),
                    row.nll_difference,
                    _p(row, "nll_p_t_holm"),
                    None if better is None else f"{better}, {row.seeds_worse}",
                    row.verdict,
                    *(_letters(row) if letters else ()),
                )
            )
    return Figures(columns, tuple(rows))


def _letters(row: SeedsComparison) -> tuple[Entry, ...]:
    """The cells of :data:`_LETTERS`."""
    alone = None if row.against != "fine-tuned" else _percent(row.letter_probability)
    return alone, _percent(row.letter_difference), _p(row, "letter_p_t_holm")


def _difficulty(cells: Sequence[Cell]) -> Figures:
    columns = (
        "model", "method", "solution, characters", "questions", "fine-tuned, %", "gain, points",
        "hardest minus easiest, points", "p (Holm)",
    )  # fmt: skip
    rows = []
    for cell in cells:
        difficulty = cell.difficulty or Difficulty()
        for row in difficulty.methods:
            for i, (bin_, values) in enumerate(zip(difficulty.bins, row.bins, strict=True)):
                rows.append(
                    (
                        cell.name,
                        row.method,
                        f"{bin_.low:g} to {bin_.high:g}",
                        bin_.questions,
                        _percent(values.accuracy),
                        _percent(values.difference),
                        None if i else _percent(row.trend),
                        None if i else _p(row, "p_holm"),
                    )
                )
    return Figures(columns, tuple(rows))


def _theory(cells: Sequence[Cell]) -> Figures:
    columns = (
        "model", "seed", "mu", "contested, %", "eps", "k", "rho", "rho k", "contrast, predicted",
        "measured (NLL)", "best lambda, predicted", "of lowest NLL", "chosen on validation",
    )  # fmt: skip
    rows = [
        (
            cell.name, s.seed, s.mu, _percent(s.contested), s.eps, s.k, s.rho, s.rho_k,
            s.predicted, s.measured, s.best_lambda, s.nll_lambda, s.chosen,
        )
        for cell in cells
        for s in cell.theory
    ]  # fmt: skip
    return Figures(columns, tuple(rows))


def _percent(share: Interval | None) -> Interval | None:
    return None if share is None else share.scaled(100)


def _p(row: object, name: str) -> float | None:
    """The p-value of that name, if it has one, with as many digits as it is worth."""
    value = getattr(row, name, None)
    return None if value is None else float(f"{value:.2g}")


def verdict(name: str, cells: Sequence[Cell]) -> Verdict:
    """Label and sentences; of several cells the label counts them."""
    special = {"epicode-theory": _theory_verdict, "epicode-difficulty": _difficulty_verdict}
    judge = special.get(name, _methods_verdict)
    parts = tuple(Part(cell.name, *judge(cell)) for cell in cells)
    if len(parts) == 1:
        return Verdict(parts[0].label, parts[0].text)
    labels = Counter(part.label for part in parts)
    counts = "; ".join(f"{label}: {count}" for label, count in labels.items())
    text = f"Of {len(parts)} groups of model and task, {counts}."
    return Verdict(counts, text, parts)


def _methods_verdict(cell: Cell) -> tuple[str, str]:
    row = next(r for r in cell.methods or () if r.method == "EpiCoDe")
    if row.difference is None:
        return "same", "Validation chose the fine-tuned model in every seed."
    seeds = len(cell.seeds)
    text = (
        f"EpiCoDe against the fine-tuned model over {_count(seeds)}: {_points(row.difference)} "
        f"points; {row.seeds_better} better, {row.seeds_worse} worse"
    )
    if row.nll_difference is None:
        text += "; NLL is withheld, since the reference answers are bare."
    else:
        shown = row.nll_difference.with_bounds("+.4f")
        text += f"; NLL of the reference solutions {shown} nats/token."
    if row.p_t_holm is not None:
        text += f" p (paired t, Holm over the table) {row.p_t_holm:.2g}."
    label = str(row.verdict)
    text += too_few(label, row.difference, row.p_mcnemar)
    if seeds < 6:
        text += " With fewer than 6 seeds Wilcoxon's test cannot reach 0.05."
    return label, text


def _difficulty_verdict(cell: Cell) -> tuple[str, str]:
    difficulty = cell.difficulty or Difficulty()
    if len(difficulty.bins) < 2:
        return "not testable", "All reference solutions are of one length: none is the harder one."
    trends = [r.trend for r in difficulty.methods if r.method == "EpiCoDe" and r.trend]
    if not trends:
        return "same", "Validation chose the fine-tuned model in every seed."
    label, bounds = "undecided", trends[0].bounds
    if bounds is not None and (bounds[0] > 0 or bounds[1] < 0):
        side = "hard" if bounds[0] > 0 else "easy"
        label = f"gains are in the {side} questions"
    text = (
        "The effect of EpiCoDe on the hardest question minus that on the easiest, by length of the "
        f"reference solution: {_points(trends[0])} points."
    )
    return label, text


def _theory_verdict(cell: Cell) -> tuple[str, str]:
    agreement = cell.agreement or Agreement(0, 0, 0)
    right, judged = agreement.right, agreement.judged
    if not judged:
        if {s.predicted for s in cell.theory} == {"no reference"}:
            return "no reference", "Without a reference only NLL against lambda is shown."
        return "undecided", "In no seed does the interval of rho k leave 1."
    text = (
        f"In {right} of {_count(judged)} whose interval of rho k leaves 1, the "
        "predicted sign is that of the change of NLL at the smallest lambda."
    )
    return f"{right} of {judged} signs right", text


def page(analysis: Reproduction) -> str:
    """``reproduce.md``: published, then measured."""
    lines = claims.page(analysis, _cell)
    for cell in analysis.cells:
        if cell.curve is not None:
            table = claims.markdown_table(_curve(cell.curve), _cell)
            lines += [f"## Lambda: {cell.name}", "", *table, ""]
    return "\n".join(lines)


def _curve(curve: Sequence[LambdaPoint]) -> Figures:
    """Predicted beside measured, by lambda."""
    columns = (
        "lambda", "predicted error variance (1 at lambda 0)", "change of NLL, nats/token",
        "change of accuracy, points",
    )  # fmt: skip
    rows = (
        (p.lam, p.error_variance, p.nll_difference, _percent(p.accuracy_difference)) for p in curve
    )
    return Figures(columns, tuple(rows))


def _cell(value: Entry) -> str:
    if value is None:
        return "–"
    if isinstance(value, Interval):
        return _rounded(value)
    return value if isinstance(value, str) else f"{value:g}"


def _rounded(interval: Interval) -> str:
    """All to one place, the fourth of the largest: so what is next to nothing is 0, not 1e-16."""
    ends = (interval.mean, *(interval.bounds or ()))
    largest = max(map(abs, ends))
    if largest and math.isfinite(largest):
        place = 3 - math.floor(math.log10(largest))
        interval = Interval(*(round(end, place) + 0.0 for end in ends))
    return interval.with_bounds("g")


def _points(share: Interval) -> str:
    return share.scaled(100).with_bounds("+.2f")


def _count(seeds: int) -> str:
    return f"{seeds} seed{'s' * (seeds != 1)}"
