"""One boost over several seeds: the method table, with the tests of paper B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from springback.core import added
from springback.errors import DataError
from springback.jobs.boost.analysis.methods import adjusted
from springback.results.boost_schema import (
    LAMBDA,
    Bin,
    ByDifficulty,
    Difficulty,
    InBin,
    SeedsComparison,
    SeedsMethod,
)
from springback.stats import (
    Interval,
    Trend,
    bins_by_size,
    bootstrap_interval,
    mcnemar_exact,
    mean_interval,
    paired_interval,
    paired_t,
    trend,
    verdict,
    wilcoxon_exact,
)

#: What is compared beside each method with the fine-tuned model: a method, and its rival.
RIVALS = (
    ("EpiCoDe", "ME only"),
    ("EpiCoDe", "CD only"),
    ("EpiCoDe", "ME, equal step"),
    ("CD only", "ME, step of CD"),
)


@dataclass(frozen=True)
class Answers:
    """One method on one seed's test: strengths chosen, and one value a question.

    ``nll`` is empty where it is withheld.  ``same``: equal to the fine-tuned model by choice of the
    validation set.  ``cut``: share of answers that reached the limit of new tokens; None where that
    is not known.  ``letters``: how likely the right letter is among those on offer; empty where not
    all questions are choices.
    """

    mu: float
    lam: float = field(metadata=LAMBDA)
    correct: tuple[float, ...]
    nll: tuple[float, ...]
    same: bool = False
    cut: float | None = None
    letters: tuple[float, ...] = added(())


@dataclass(frozen=True)
class SeedResult:
    """What one seed found: test questions (a key and the solution's length each), methods."""

    seed: int
    questions: tuple[str, ...]
    sizes: tuple[float, ...]
    methods: Mapping[str, Answers]


def across(seeds: Sequence[SeedResult], tolerance: float = 0.01) -> dict[str, Any]:
    """``methods`` (each against fine-tuned) and ``rivals`` (those of :data:`RIVALS`).

    Differences are paired by question within a seed.  Where every seed has the same questions, the
    interval takes seeds and questions as drawn (:func:`springback.stats.paired_interval`), else it
    is Student's t over the seeds' mean differences, and a gain or harm also needs ``p_mcnemar``,
    the exact McNemar test (of scores between 0 and 1 paired t) over all questions of all seeds:
    seeds that agree by chance do not make up for few questions (null where the questions are the
    same, which it would count many times).
    ``p_t`` and ``p_wilcoxon`` are over the seeds' means, as in the paper; Holm is over
    both tables, accuracy and NLL together, for each test.  What is said of letters is a family of
    its own.
    """
    names = method_names(seeds)
    methods = [_row(seeds, name, "fine-tuned", tolerance) for name in names]
    rivals = [
        _row(seeds, name, rival, tolerance)
        for name, rival in RIVALS
        if name in names and rival in names
    ]
    rows = adjusted([*methods, *rivals], ("p_t", "nll_p_t"))
    rows = adjusted(rows, ("p_wilcoxon", "nll_p_wilcoxon"))
    rows = adjusted(rows, ("letter_p_t",))
    return {
        "seeds": [s.seed for s in seeds],
        "questions": [len(s.questions) for s in seeds],
        "same_questions": same_questions(seeds),
        "methods": rows[: len(methods)],
        "rivals": rows[len(methods) :],
    }


def method_names(seeds: Sequence[SeedResult]) -> list[str]:
    """Methods that every seed has, in order; raises where there is no seed or they share none."""
    if not seeds:
        raise DataError("no seed is done; allowed: one or more; run the command again")
    names = [name for name in seeds[0].methods if all(name in s.methods for s in seeds)]
    if "fine-tuned" not in names:
        raise DataError("the seeds share no fine-tuned model; run them with the same settings")
    return names


def same_questions(seeds: Sequence[SeedResult]) -> bool:
    """Whether all seeds are tested on the same questions, in whatever order."""
    first = set(seeds[0].questions)
    whole = all(len(set(s.questions)) == len(s.questions) for s in seeds)
    return len(seeds) > 1 and whole and all(set(s.questions) == first for s in seeds)


def table_of(seeds: Sequence[SeedResult], name: str, measure: str) -> list[list[float]]:
    """Values [seeds, questions] in the order of the first seed's questions."""
    order = seeds[0].questions
    rows = []
    for seed in seeds:
        values = getattr(seed.methods[name], measure)
        if seed.questions == order:
            rows.append(list(values))
            continue
        by_key = dict(zip(seed.questions, values, strict=True))
        rows.append([by_key[key] for key in order])
    return rows


def difference(seeds: Sequence[SeedResult], name: str, base: str, measure: str) -> Interval:
    """Mean of ``name`` minus ``base``; see :func:`across` for what is drawn."""
    if len(seeds) == 1:
        only = seeds[0].methods
        return paired_interval(getattr(only[name], measure), getattr(only[base], measure))
    if same_questions(seeds):
        return paired_interval(table_of(seeds, name, measure), table_of(seeds, base, measure))
    gaps = [
        a - b for a, b in zip(means(seeds, name, measure), means(seeds, base, measure), strict=True)
    ]
    return mean_interval(gaps)


def over_questions(seeds: Sequence[SeedResult], name: str, base: str) -> float | None:
    """p of the exact McNemar test over all questions; None where seeds share any of them, or
    scores are other than right or wrong."""
    new, old = ([c for s in seeds for c in s.methods[who].correct] for who in (name, base))
    asked = [question for s in seeds for question in s.questions]
    if len({*asked}) < len(asked) or {*new, *old} - {0.0, 1.0}:
        return None
    return mcnemar_exact(new, old)


def means(seeds: Sequence[SeedResult], name: str, measure: str) -> list[float]:
    """One mean a seed."""
    by_seed = [getattr(s.methods[name], measure) for s in seeds]
    return [sum(values) / len(values) for values in by_seed]


def _row(seeds: Sequence[SeedResult], name: str, base: str, tolerance: float) -> SeedsMethod:
    arms = [s.methods[name] for s in seeds]
    measured, letters = (
        all(getattr(s.methods[who], values) for s in seeds for who in (name, base))
        for values in ("nll", "letters")
    )
    row = SeedsMethod(
        name,
        base,
        tuple(a.mu for a in arms),
        tuple(a.lam for a in arms),
        mean_interval(means(seeds, name, "correct")),
        mean_interval(means(seeds, name, "nll")) if measured else None,
        verdict="same",
        cut=_mean_cut(arms),
        letter_probability=mean_interval(means(seeds, name, "letters")) if letters else None,
    )
    if name == base or all(a.same for a in arms):
        return row
    compared = [("correct", "difference", "")]
    if measured:
        compared.append(("nll", "nll_difference", "nll_"))
    tests: dict[str, Any] = {}
    for measure, key, prefix in compared:
        tests[key] = difference(seeds, name, base, measure)
        new, old = means(seeds, name, measure), means(seeds, base, measure)
        tests[f"{prefix}p_t"] = paired_t(new, old)
        tests[f"{prefix}p_wilcoxon"] = wilcoxon_exact(new, old) if len(seeds) > 1 else None
    if letters:
        tests["letter_difference"] = difference(seeds, name, base, "letters")
        tests["letter_p_t"] = paired_t(means(seeds, name, "letters"), means(seeds, base, "letters"))
    gaps = [
        a - b
        for a, b in zip(means(seeds, name, "correct"), means(seeds, base, "correct"), strict=True)
    ]
    p = over_questions(seeds, name, base)
    tests |= {
        "seeds_better": sum(gap > 0 for gap in gaps),
        "seeds_worse": sum(gap < 0 for gap in gaps),
        "p_mcnemar": p,
        "verdict": verdict(tests["difference"], tolerance=tolerance, p=p),
    }
    return SeedsComparison(**(vars(row) | tests))


def _mean_cut(arms: Sequence[Answers]) -> float | None:
    known = [a.cut for a in arms if a.cut is not None]
    return sum(known) / len(known) if len(known) == len(arms) else None


def by_difficulty(seeds: Sequence[SeedResult], bins: int | Sequence[float] = 3) -> Difficulty:
    """Each method's difference to fine-tuned by the length of the reference solution.

    Bins are cut on the questions of all seeds together.  With one seed intervals are over
    questions; with several, over the seeds that have questions in the bin, t on their means (where
    the questions are the same in every seed, crossed).  The trend is the effect on the hardest
    question minus that on the easiest (:func:`springback.stats.trend`): one seed's own, or t over
    the seeds' slopes.  No methods where one bin holds all questions, as with letters for answers.
    """
    sizes = [size for s in seeds for size in s.sizes]
    size_bins = bins_by_size(sizes, bins)
    rows = []
    for name in method_names(seeds) if len(size_bins) > 1 else ():
        if name == "fine-tuned" or all(s.methods[name].same for s in seeds):
            continue
        slope = _slope(seeds, name)
        inside = tuple(_in_bin(seeds, name, b.low, b.high) for b in size_bins)
        rows.append(ByDifficulty(name, inside, slope.slope, slope.p))
    return Difficulty(
        "characters of the reference solution",
        tuple(Bin(b.low, b.high, len(b.members)) for b in size_bins),
        tuple(adjusted(rows, ("p",))),
    )


def _in_bin(seeds: Sequence[SeedResult], name: str, low: float, high: float) -> InBin:
    kept = [part for s in seeds if (part := _part(s, low, high)) is not None]
    plain = means(kept, "fine-tuned", "correct")
    if len(seeds) == 1:
        accuracy = bootstrap_interval(kept[0].methods["fine-tuned"].correct, resamples=2000)
    else:
        accuracy = mean_interval(plain)
    return InBin(accuracy, difference(kept, name, "fine-tuned", "correct"))


def _part(seed: SeedResult, low: float, high: float) -> SeedResult | None:
    """The seed with the questions of one bin; None without any."""
    kept = [i for i, size in enumerate(seed.sizes) if low <= size <= high]
    if not kept:
        return None

    def pick(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[i] for i in kept)

    methods = {
        name: Answers(a.mu, a.lam, pick(a.correct), pick(a.nll) if a.nll else (), a.same)
        for name, a in seed.methods.items()
    }
    return SeedResult(seed.seed, pick(seed.questions), pick(seed.sizes), methods)


def _slope(seeds: Sequence[SeedResult], name: str) -> Trend:
    slopes = []
    for s in seeds:
        gaps = [
            a - b
            for a, b in zip(s.methods[name].correct, s.methods["fine-tuned"].correct, strict=True)
        ]
        slopes.append(trend(s.sizes, gaps))
    if len(slopes) == 1:
        return slopes[0]
    values = [t.slope.mean for t in slopes]
    return Trend(mean_interval(values), paired_t(values, [0.0] * len(values)))
