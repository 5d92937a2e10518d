"""What a boost's numbers say: the method table with paired intervals, and the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from springback.jobs.boost.analysis.power import needed, power, sampled_score
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.search import Searched, Tried, curve
from springback.jobs.boost.settings import BoostSettings
from springback.results.boost_schema import (
    Boost,
    ByDifficulty,
    ComparedMethod,
    Method,
    SeedsMethod,
)
from springback.results.schema import Part, Verdict
from springback.stats import (
    Interval,
    bootstrap_interval,
    holm,
    paired_interval,
    paired_p,
    paired_t,
    verdict,
)

#: What has p-values.
Row = TypeVar("Row", Method, SeedsMethod, ByDifficulty)
#: Accuracy of the fine-tuned model below which a gain in accuracy can hardly show.
FLOOR = 0.05


def _interval(values: Sequence[float]) -> Interval:
    return bootstrap_interval(values, resamples=4000)


def analyse(
    settings: BoostSettings,
    arms: Mapping[str, Arm],
    tried: Mapping[str, Searched],
    tested: Mapping[str, Tried],
    greedy: Mapping[str, Tried] | None = None,
) -> Boost:
    """Search curves, the method table (against fine-tuned, paired by question), a floor remark.

    ``greedy``: greedy answers of fine-tuned and EpiCoDe, where ``tested`` has samples.
    """
    base, base_key = tested["fine-tuned"], arms["fine-tuned"].key()
    methods = []
    for name, result in tested.items():
        row = Method(
            name,
            arms[name].mu,
            arms[name].lam,
            _interval([float(c) for c in result.correct]),
            _interval(result.nll) if result.nll else None,
            verdict="same",
            cut=result.cut_share,
            sampled=sampled_score(result),
            calls=arms[name].calls if settings.baselines else None,
        )
        if (letters := result.letters) is not None:
            row = replace(
                row,
                letter_probability=_interval(letters.probability),
                letter_accuracy=_interval([float(c) for c in letters.correct]),
            )
        same = arms[name].key() == base_key
        methods.append(row if same else compared(row, result, base, settings.tolerance))
    methods = adjusted(methods, ("p", "nll_p", "letter_p"))
    return Boost(
        search={name: curve(s, _interval) for name, s in tried.items()},
        # What is the fine-tuned model has no tests: their keys are absent, and read as None.
        methods=tuple(methods),  # type: ignore[arg-type]
        power=power(arms, tested, greedy),
        floor=_floor(settings, base),
    )


def compared(method: Method, result: Tried, base: Tried, tolerance: float) -> ComparedMethod:
    """``method`` against another one on the same questions: differences, tests, the verdict.

    ``p``: exact McNemar, which a gain or harm needs beside the interval; of scores between 0 and 1
    paired t.  ``nll_p``: paired t (null where all differences are equal).  ``won`` and ``lost``
    count the questions on which one of the two scores higher: that it alone answers rightly.  What
    is about NLL is null where that is withheld.
    """
    new, old = ([float(c) for c in arm.correct] for arm in (result, base))
    difference, scored = paired_interval(new, old), bool(result.nll and base.nll)
    won = sum(a > b for a, b in zip(new, old, strict=True))
    lost = sum(a < b for a, b in zip(new, old, strict=True))
    p = paired_p(new, old)
    changed = {
        "difference": difference,
        "nll_difference": paired_interval(result.nll, base.nll) if scored else None,
        "verdict": verdict(difference, tolerance=tolerance, p=p),
        **_letters(result, base),
    }
    return ComparedMethod(
        **(vars(method) | changed),
        won=won,
        lost=lost,
        p=p,
        nll_p=paired_t(result.nll, base.nll) if scored else None,
        questions_for_a_point=needed(new, old),
    )


def _spread(result: Tried, base: Tried) -> float:
    """Mean square of the differences: where scores are 0 or 1, the share of answers that differ."""
    pairs = zip(result.correct, base.correct, strict=True)
    return sum((a - b) ** 2 for a, b in pairs) / len(base.correct)


def _letters(result: Tried, base: Tried) -> dict[str, Any]:
    """Fields of the letters' differences, where both arms have them."""
    if result.letters is None or base.letters is None:
        return {}
    likely = result.letters.probability, base.letters.probability
    right = [[float(c) for c in arm.correct] for arm in (result.letters, base.letters)]
    return {
        "letter_difference": paired_interval(*likely),
        "letter_p": paired_t(*likely),
        "letter_accuracy_difference": paired_interval(*right),
    }


def adjusted(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The rows with ``<name>_holm``: Holm over all p-values under ``names`` in all rows.

    One family: whoever reads the table looks for any difference at all.
    """
    tests = [
        (i, name, p)
        for i, row in enumerate(rows)
        for name in names
        if (p := getattr(row, name, None)) is not None
    ]
    changes: dict[int, dict[str, Any]] = {}
    for (i, name, _), value in zip(tests, holm([p for *_, p in tests]), strict=True):
        changes.setdefault(i, {})[f"{name}_holm"] = value
    return [replace(row, **changes.get(i, {})) for i, row in enumerate(rows)]


def _floor(settings: BoostSettings, base: Tried) -> str | None:
    """A remark where accuracy is too low, or no better than guessing, to show a difference."""
    instead = "; read the NLL of the reference solutions" if base.nll else ""
    if base.accuracy < FLOOR:
        return (
            f"the fine-tuned model answers {100 * base.accuracy:.1f} % right: accuracy is at the "
            f"floor and can hardly move{instead}"
        )
    if settings.metric == "choice" and base.accuracy < 0.3:
        return (
            f"the fine-tuned model answers {100 * base.accuracy:.1f} % right, near what guessing "
            f"gives on four choices{instead}"
        )
    return None


_WORDS = {
    "gain": "a gain",
    "harm": "harm",
    "no gain": "no gain",
    "undecided": "undecided",
    "same": "nothing to gain",
}


def judge(
    settings: BoostSettings,
    analysis: Boost,
    written: str = "EpiCoDe",
    kept: bool = False,
    why: str | None = None,
) -> Verdict:
    """Label and sentences; the label is that of the method that is written: EpiCoDe, or the plain
    model in its place.  ``why``: a sentence for where the fine-tuned model is kept."""
    rows = {row.method: row for row in analysis.methods or ()}
    ep = rows[written]
    label = "no gain" if kept else str(ep.verdict)
    if kept:
        text = (
            "Validation chose mu = 0 and lambda = 0: the fine-tuned model is kept as it is, since "
            "neither extrapolation nor contrast was seen to help it."
        )
        text += f" {why}" if why else ""
    else:
        what = f"EpiCoDe (mu {ep.mu:g}, lambda {ep.lam:g})"
        if analysis.run is not None and written != "EpiCoDe":
            what = f"The best of the run ({analysis.run.chosen})"
        elif written != "EpiCoDe":
            what = f"Extrapolation alone (mu {ep.mu:g})"
        text = f"{what} against the fine-tuned model: {_WORDS[label]}. {_compared(ep)}"
        if analysis.equal_step is not None:
            text += f" {analysis.equal_step.text}"
    if analysis.power is not None and label == "undecided":
        text += f" {analysis.power.text}"
    if why := (analysis.nll_withheld or {}).get("test"):
        text += f" NLL is withheld: {why}."
    if analysis.floor:
        text += f" Note: {analysis.floor}."
    parts = [
        Part(f"{name} against fine-tuned?", str(row.verdict), _compared(row))
        for name, row in rows.items()
        if name != "fine-tuned"
    ]
    return Verdict(label, text, tuple(parts))


def _compared(row: Method) -> str:
    """Accuracy and NLL against the fine-tuned model's; NLL only where it is not withheld."""
    d, nll = row.difference, row.nll_difference
    if not isinstance(row, ComparedMethod) or d is None:
        return "The same model, by choice of the validation set."
    bounds = "" if d.bounds is None else f" (95 % interval {_points(d.low)} to {_points(d.high)})"
    tested = "" if row.p_holm is None else f"; p {row.p_holm:.2g} after Holm over the table"
    text = f"Accuracy {_points(d.mean)} points{bounds} on {d.n} test questions{tested}."
    text += too_few(str(row.verdict), d, row.p)
    if nll is None:
        return text
    bounds = "" if nll.bounds is None else f" ({nll.low:+.4f} to {nll.high:+.4f})"
    return (
        f"{text} NLL of the reference solutions {nll.mean:+.4f} nats/token{bounds}; "
        "lower is better."
    )


def too_few(word: str, difference: Interval, p: float | None) -> str:
    """A sentence where the interval alone would say gain or harm, and the exact test does not."""
    if word in ("gain", "harm") or p is None or difference.bounds is None:
        return ""
    low, high = difference.bounds
    if low <= 0 <= high:
        return ""
    return f" Too few answers differ to be sure: exact McNemar test p {p:.2g}."


def _points(share: float | None) -> str:
    return "" if share is None else f"{100 * share:+.1f}"
