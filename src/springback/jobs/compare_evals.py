"""Runs of lm-eval and inspect_ai side by side, paired by question (``springback compare``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

from springback.core import printable
from springback.elasticity.card import page, table
from springback.errors import DataError
from springback.integrations.eval_logs import EvalRun, TaskScores, read_eval
from springback.stats import (
    Interval,
    holm,
    mcnemar_exact,
    paired_clusters,
    paired_interval,
    paired_t,
    power_questions,
    verdict,
)

#: One point, what "no difference" means and what power is given for.
POINT = 0.01
_WORDS = {"gain": "higher", "harm": "lower", "no gain": "same", "undecided": "undecided"}


@dataclass(frozen=True)
class ComparedTask:
    """One task and metric: the other run against the first, question by question.

    Attributes:
        task: its name
        metric: its name
        run: the other run
        questions: that both runs have
        first: the first run's mean over these
        other: the other run's mean
        difference: other minus first, with a paired interval
        p: two-sided, of the paired test
        p_holm: adjusted over every test of the comparison
        p_unpaired: of the two standard errors by themselves, as harnesses print them
        label: ``higher``, ``lower``, ``same`` (within a point) or ``undecided``
        method: the paired test
        won: questions that only the other run has right; None where scores are not 0 or 1
        lost: questions that only the first has right
        needed: questions that show a difference of one point with 80 % chance
        notes: what to know
    """

    task: str
    metric: str
    run: str
    questions: int
    first: float
    other: float
    difference: Interval
    p: float | None
    p_holm: float | None
    p_unpaired: float | None
    label: str
    method: str
    won: int | None
    lost: int | None
    needed: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class ComparedEvals:
    """Every run against the first."""

    first: str
    rows: tuple[ComparedTask, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<comparison with {printable(self.first)}: {len(self.rows)} tests>"

    def _repr_markdown_(self) -> str:
        """For notebooks."""
        return self.to_markdown()

    def to_markdown(self) -> str:
        """A table, a line of notes each, and how to read it."""
        head = (
            "task", "metric", "run", "questions", self.first, "run's", "difference (95 %)",
            "p", "p, Holm", "unpaired p", "", "for 1 point",
        )  # fmt: skip
        rows: list[tuple[str, ...]] = [
            (
                r.task, r.metric, r.run, f"{r.questions:,}", f"{r.first:.4g}", f"{r.other:.4g}",
                r.difference.with_bounds("+.4f"), _p(r.p), _p(r.p_holm), _p(r.p_unpaired), r.label,
                "–" if r.needed is None else f"{r.needed:,}",
            )
            for r in self.rows
        ]  # fmt: skip
        lines = table(head, rows)
        notes = [*self.notes, *(f"{r.task}, {r.run}: {n}" for r in self.rows for n in r.notes)]
        lines += ["", *(f"- {note}" for note in dict.fromkeys(notes))]
        lines += [
            "",
            f"Differences are each run less {self.first}, on the questions that both answered. "
            "`p` pairs them by question; `unpaired p` is what two standard errors say that know "
            "nothing of the pairs. `for 1 point`: questions that show a difference of one point "
            "with 80 % chance.",
        ]
        return page(lines)


def compare_evals(places: Sequence[str | Path], answers: str | None = None) -> ComparedEvals:
    """Files or folders of lm-eval and inspect_ai, each against the first.

    ``answers``: lm-eval's filter, where tasks have several.  Raises :class:`DataError` for fewer
    than two runs, no shared task or questions, several versions of a task, and what
    :func:`springback.integrations.eval_logs.read_eval` refuses.
    """
    if len(places) < 2:
        raise DataError(f"got {len(places)} run; allowed: two or more; name another")
    runs = [read_eval(place, answers) for place in places]
    names = _names(runs)
    rows: list[ComparedTask] = []
    notes: list[str] = []
    for name, run in zip(names[1:], runs[1:], strict=True):
        ours = {(t.task, t.metric): t for t in runs[0].tasks}
        theirs = {(t.task, t.metric): t for t in run.tasks}
        shared = [key for key in ours if key in theirs]
        if not shared:
            raise DataError(
                f"'{runs[0].place}' and '{run.place}' share no task and metric "
                f"({_listed(ours)} and {_listed(theirs)}); allowed: runs of one task; name others"
            )
        alone = sorted({task for task, _ in ours.keys() ^ theirs.keys()} - {t for t, _ in shared})
        notes += [f"only one of {names[0]} and {name} has {', '.join(alone)}"] if alone else []
        places_of = (runs[0].place, run.place)
        rows += [_compared(name, ours[key], theirs[key], places_of) for key in shared]
    tested = [row.p for row in rows if row.p is not None]
    adjusted = iter(holm(tested))
    rows = [row if row.p is None else replace(row, p_holm=next(adjusted)) for row in rows]
    return ComparedEvals(names[0], tuple(_labelled(row) for row in rows), tuple(notes))


def _names(runs: Sequence[EvalRun]) -> list[str]:
    """Models' names where these tell the runs apart, else their places."""
    models = [run.model for run in runs]
    return models if len(set(models)) == len(models) else [run.place for run in runs]


def _listed(tasks: dict[tuple[str, str], TaskScores]) -> str:
    return ", ".join(f"{task} {metric}" for task, metric in list(tasks)[:5])


def _compared(
    name: str, first: TaskScores, other: TaskScores, places: tuple[str, str]
) -> ComparedTask:
    if first.version != other.version and None not in (first.version, other.version):
        raise DataError(
            f"{first.task} is version {first.version} in '{places[0]}' and {other.version} in "
            f"'{places[1]}'; allowed: one version; run one of them again"
        )
    shared = [q for q in first.scores if q in other.scores]
    if not shared:
        raise DataError(
            f"'{places[0]}' and '{places[1]}' share no question of {first.task}; allowed: runs on "
            "the same questions; name others"
        )
    old, new = ([run.scores[q] for q in shared] for run in (first, other))
    notes = []
    if rest := len(first.scores) + len(other.scores) - 2 * len(shared):
        notes.append(f"{rest} questions stand in one of the two runs only and are left out")
    put = [q for q in shared if q in first.prompts and q in other.prompts]
    if differ := sum(first.prompts[q] != other.prompts[q] for q in put):
        notes.append(f"{differ} of {len(put)} questions were put in other words")
    right_or_wrong = all(value in (0.0, 1.0) for value in (*old, *new))
    clusters = [first.clusters[q] for q in shared] if first.clusters else None
    p: float | None
    if clusters is not None:
        difference, p = paired_clusters(new, old, clusters)
        method = f"t over {difference.n} clusters by {first.cluster}"
        notes.append(f"questions share their {first.cluster}, so whole clusters are compared")
    elif right_or_wrong:
        difference, p = paired_interval(new, old), mcnemar_exact(new, old)
        method = "exact McNemar"
    else:
        difference, p = paired_interval(new, old), paired_t(new, old)
        method = "paired t"
    won, lost = (sum(a > b for a, b in zip(x, y, strict=True)) for x, y in ((new, old), (old, new)))
    discordance = (won + lost) / len(shared)
    plain = right_or_wrong and clusters is None
    return ComparedTask(
        first.task, first.metric, name, len(shared), sum(old) / len(old), sum(new) / len(new),
        difference, p, None, _unpaired(old, new), "undecided", method,
        won if right_or_wrong else None, lost if right_or_wrong else None,
        power_questions(POINT, max(discordance, POINT)) if plain else None, tuple(notes),
    )  # fmt: skip


def _labelled(row: ComparedTask) -> ComparedTask:
    word = verdict(row.difference, tolerance=POINT, p=row.p_holm)
    return replace(row, label=_WORDS[word])


def _unpaired(old: Sequence[float], new: Sequence[float]) -> float | None:
    """Two-sided p of the difference of two means by their own standard errors (normal)."""
    n = len(old)
    if n < 2:
        return None
    means = [sum(v) / n for v in (old, new)]
    squares = [
        sum((x - m) ** 2 for x in v) / (n - 1) / n for v, m in zip((old, new), means, strict=True)
    ]
    error = math.sqrt(sum(squares))
    return 2 * NormalDist().cdf(-abs(means[1] - means[0]) / error) if error else None


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
