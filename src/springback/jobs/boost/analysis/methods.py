"""What a boost's numbers say: the method table with paired intervals, and the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from springback.jobs.boost.search import Searched, Tried, curve
from springback.jobs.boost.settings import BoostSettings
from springback.stats import (
    Interval,
    bootstrap_interval,
    holm,
    mcnemar_exact,
    paired_interval,
    paired_t,
    power_effect,
    power_questions,
    verdict,
)

#: Accuracy of the fine-tuned model below which a gain in accuracy can hardly show.
FLOOR = 0.05
#: One point of accuracy: the gain that power is told for.
POINT = 0.01


class ArmLike(Protocol):
    """An arm as this module needs it: its strengths, and what decides its tokens."""

    @property
    def mu(self) -> float: ...
    @property
    def lam(self) -> float: ...
    def key(self) -> dict[str, Any]: ...


def _interval(values: Sequence[float]) -> Interval:
    return bootstrap_interval(values, resamples=4000)


def analyse(
    settings: BoostSettings,
    arms: Mapping[str, ArmLike],
    tried: Mapping[str, Searched],
    tested: Mapping[str, Tried],
) -> dict[str, Any]:
    """Search curves, the method table (against fine-tuned, paired by question), a floor remark."""
    base, base_key = tested["fine-tuned"], arms["fine-tuned"].key()
    methods = []
    for name, result in tested.items():
        row: dict[str, Any] = {
            "method": name,
            "mu": arms[name].mu,
            "lambda": arms[name].lam,
            "accuracy": _interval([float(c) for c in result.correct]).to_dict(),
            "nll": _interval(result.nll).to_dict() if result.nll else None,
            "difference": None,
            "nll_difference": None,
            "verdict": "same",
            "cut": result.cut_share,
        }
        if arms[name].key() != base_key:
            row |= compared(result, base, settings.tolerance)
        methods.append(row)
    adjust(methods, ("p", "nll_p"))
    return {
        "search": {name: curve(s.points, s.chosen, _interval) for name, s in tried.items()},
        "methods": methods,
        "power": power(methods, len(base.correct)),
        "floor": _floor(settings, base),
    }


def compared(result: Tried, base: Tried, tolerance: float) -> dict[str, Any]:
    """One method against another on the same questions: differences, tests, the verdict.

    ``p``: exact McNemar, which a gain or harm needs beside the interval.  ``nll_p``: paired t (null
    where all differences are equal).  ``won`` and ``lost`` count the questions that only one of the
    two answers rightly.  What is about NLL is null where that is withheld.
    """
    new, old = ([float(c) for c in arm.correct] for arm in (result, base))
    difference = paired_interval(new, old)
    won = sum(a > b for a, b in zip(new, old, strict=True))
    lost = sum(a < b for a, b in zip(new, old, strict=True))
    p = mcnemar_exact(new, old)
    return {
        "difference": difference.to_dict(),
        "nll_difference": paired_interval(result.nll, base.nll).to_dict() if base.nll else None,
        "verdict": verdict(difference, tolerance=tolerance, p=p),
        "won": won,
        "lost": lost,
        "p": p,
        "nll_p": paired_t(result.nll, base.nll) if base.nll else None,
        "questions_for_a_point": questions_for((won + lost) / len(new)),
    }


def adjust(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Add ``<name>_holm`` to the rows: Holm over all p-values under ``names`` in all rows.

    One family: whoever reads the table looks for any difference at all.
    """
    found = [(row, name) for row in rows for name in names if row.get(name) is not None]
    adjusted = holm([row[name] for row, name in found])
    for (row, name), value in zip(found, adjusted, strict=True):
        row[f"{name}_holm"] = value


def questions_for(discordance: float, effect: float = POINT) -> int:
    """Questions that show ``effect`` with 80 % chance where so large a share of answers differs.

    Where fewer differ than the effect itself, as many as the effect needs: no fewer could.
    """
    return power_questions(effect, max(discordance, effect))


def power(rows: Sequence[Mapping[str, Any]], questions: int) -> dict[str, Any] | None:
    """What this test could see, from EpiCoDe's differing answers; None where it is fine-tuned."""
    row = next((r for r in rows if r["method"] == "EpiCoDe" and r["difference"]), None)
    if row is None:
        return None
    discordance = (row["won"] + row["lost"]) / questions
    needed = row["questions_for_a_point"]
    # None differing says "few", not "none": one question each way, as the interval assumes.
    seen = power_effect(questions, max(discordance, 2 / (questions + 2)))
    can = (
        f"these {questions} show a gain of {100 * seen:.1f} points or more"
        if math.isfinite(seen)
        else f"so few differ that these {questions} cannot show any gain reliably"
    )
    text = (
        f"EpiCoDe and the fine-tuned model differ on {100 * discordance:.1f} % of the test "
        f"questions. To see a gain of 1 point with 80 % chance takes {needed:,} questions; {can}."
    )
    return {
        "effect": POINT,
        "chance": 0.8,
        "method": "EpiCoDe",
        "discordance": discordance,
        "questions": questions,
        "needed": needed,
        "seen": seen if math.isfinite(seen) else None,
        "text": text,
    }


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


def judge(settings: BoostSettings, analysis: Mapping[str, Any], kept: bool) -> dict[str, Any]:
    """Label and sentences; the label is EpiCoDe's."""
    rows = {row["method"]: row for row in analysis["methods"]}
    ep = rows["EpiCoDe"]
    label = "no gain" if kept else str(ep["verdict"])
    if kept:
        text = (
            "Validation chose mu = 0 and lambda = 0: extrapolation and contrast do not help this "
            "pair, the fine-tuned model is kept as it is."
        )
    else:
        text = (
            f"EpiCoDe (mu {ep['mu']:g}, lambda {ep['lambda']:g}) against the fine-tuned model: "
            f"{_WORDS[label]}. {_accuracy(ep)}{_nll(ep)}"
        )
    if analysis.get("power") and label == "undecided":
        text += f" {analysis['power']['text']}"
    if why := (analysis.get("nll_withheld") or {}).get("test"):
        text += f" NLL is withheld: {why}."
    if analysis["floor"]:
        text += f" Note: {analysis['floor']}."
    parts = [
        {
            "question": f"{name} against fine-tuned?",
            "label": row["verdict"],
            "text": "The same model, by choice of the validation set."
            if row["verdict"] == "same"
            else f"{_accuracy(row)}{_nll(row)}",
        }
        for name, row in rows.items()
        if name != "fine-tuned"
    ]
    return {"label": label, "text": text, "parts": parts}


def _accuracy(row: Mapping[str, Any]) -> str:
    d = row["difference"]
    bounds = (
        "" if d["low"] is None else f" (95 % interval {_points(d['low'])} to {_points(d['high'])})"
    )
    adjusted = row.get("p_holm")
    tested = "" if adjusted is None else f"; p {adjusted:.2g} after Holm over the table"
    text = f"Accuracy {_points(d['mean'])} points{bounds} on {d['n']} test questions{tested}."
    return text + too_few(row["verdict"], d, row.get("p"))


def too_few(word: str, difference: Mapping[str, Any], p: float | None) -> str:
    """A sentence where the interval alone would say gain or harm, and the exact test does not."""
    low, high = difference["low"], difference["high"]
    if word in ("gain", "harm") or p is None or low is None or low <= 0 <= high:
        return ""
    return f" Too few answers differ to be sure: exact McNemar test p {p:.2g}."


def _nll(row: Mapping[str, Any]) -> str:
    d = row["nll_difference"]
    if d is None:
        return ""
    bounds = "" if d["low"] is None else f" ({d['low']:+.4f} to {d['high']:+.4f})"
    return f" NLL of the reference solutions {d['mean']:+.4f} nats/token{bounds}; lower is better."


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
