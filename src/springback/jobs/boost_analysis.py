"""What a boost's numbers say: the method table with paired intervals, and the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from springback.jobs.search import Searched, Tried, curve
from springback.jobs.settings import BoostSettings
from springback.stats import Interval, bootstrap_interval, paired_interval, verdict

#: Accuracy of the fine-tuned model below which a gain in accuracy can hardly show.
FLOOR = 0.05


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
    correct = [float(c) for c in base.correct]
    methods = []
    for name, result in tested.items():
        row: dict[str, Any] = {
            "method": name,
            "mu": arms[name].mu,
            "lambda": arms[name].lam,
            "accuracy": _interval([float(c) for c in result.correct]).to_dict(),
            "nll": _interval(result.nll).to_dict(),
            "difference": None,
            "nll_difference": None,
            "verdict": "same",
        }
        if arms[name].key() != base_key:
            difference = paired_interval([float(c) for c in result.correct], correct)
            row["difference"] = difference.to_dict()
            row["nll_difference"] = paired_interval(result.nll, base.nll).to_dict()
            row["verdict"] = verdict(difference, tolerance=settings.tolerance)
        methods.append(row)
    return {
        "search": {name: curve(s.points, s.chosen, _interval) for name, s in tried.items()},
        "methods": methods,
        "floor": _floor(settings, base),
    }


def _floor(settings: BoostSettings, base: Tried) -> str | None:
    """A remark where accuracy is too low, or no better than guessing, to show a difference."""
    if base.accuracy < FLOOR:
        return (
            f"the fine-tuned model answers {100 * base.accuracy:.1f} % right: accuracy is at the "
            "floor and can hardly move; read the NLL of the reference solutions"
        )
    if settings.metric == "choice" and base.accuracy < 0.3:
        return (
            f"the fine-tuned model answers {100 * base.accuracy:.1f} % right, near what guessing "
            "gives on four choices; read the NLL of the reference solutions"
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
            f"{_WORDS[label]}. {_accuracy(ep)} {_nll(ep)}"
        )
    if analysis["floor"]:
        text += f" Note: {analysis['floor']}."
    parts = [
        {
            "question": f"{name} against fine-tuned?",
            "label": row["verdict"],
            "text": "The same model, by choice of the validation set."
            if row["verdict"] == "same"
            else f"{_accuracy(row)} {_nll(row)}",
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
    return f"Accuracy {_points(d['mean'])} points{bounds} on {d['n']} test questions."


def _nll(row: Mapping[str, Any]) -> str:
    d = row["nll_difference"]
    bounds = "" if d["low"] is None else f" ({d['low']:+.4f} to {d['high']:+.4f})"
    return f"NLL of the reference solutions {d['mean']:+.4f} nats/token{bounds}; lower is better."


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
