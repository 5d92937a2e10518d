"""Result files as the jobs write them, made up but of realistic size, for the report's tests.

Pages of these tests differ in a few words, and drawing is most of what a page takes: with this
module a chart of the same description is drawn once (:data:`CHARTS`).
"""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Callable
from typing import Any

from springback.report import figure

#: Charts by what was asked for; a test that must see them drawn anew clears it.
CHARTS: dict[bytes, Any] = {}


def _once(draw: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(draw)
    def drawn(*asked: Any, **named: Any) -> Any:
        key = pickle.dumps((draw.__name__, asked, named))
        if key not in CHARTS:
            if len(CHARTS) >= 100:  # a figure takes a megabyte
                CHARTS.clear()
            CHARTS[key] = draw(*asked, **named)
        return CHARTS[key]

    return drawn


for _name in ("lines", "points", "rows"):
    setattr(figure, _name, _once(getattr(figure, _name)))

DOSES = [0, 16, 32, 64, 128, 256]
SIZES = [64, 128, 256]


def interval(mean: float, half: float | None = None, n: int = 3) -> dict[str, Any]:
    """``mean`` and, unless ``half`` is None, an interval of that half width."""
    if half is None:
        return {"mean": mean, "low": None, "high": None, "n": 1}
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def _margin(size: int, dose: float) -> float:
    gain = 0.035 * math.log2(size / 16)
    lost = (0.45 + 0.03 * math.log2(size / 64)) * (1 - math.exp(-dose / 45))
    return -0.021 + gain * (1 - lost - 0.0006 * dose)


def _probe(title: str, unit: str, direction: str, start: float, at: Any, half: Any) -> Any:
    def line(size: int) -> dict[str, Any]:
        means = [at(size, dose) for dose in DOSES]
        low = high = None
        if half is not None:
            low = [m - half * (0.5 + d / 256) for m, d in zip(means, DOSES, strict=True)]
            high = [m + half * (0.5 + d / 256) for m, d in zip(means, DOSES, strict=True)]
        return {"n_pos": size, "dose": list(DOSES), "mean": means, "low": low, "high": high}

    return {
        "title": title,
        "unit": unit,
        "direction": direction,
        "start": interval(start, half and half / 4),
        "aligned": [{"n_pos": s, **interval(at(s, 0), half and half / 2)} for s in SIZES],
        "curves": [line(s) for s in SIZES],
    }


def rebound(seeds: int = 3) -> dict[str, Any]:
    """The audit's rebound section; with one seed there are no intervals."""
    wide = 1.0 if seeds > 1 else None

    def sized(at: Any, half: float) -> list[dict[str, Any]]:
        return [{"n_pos": s, **interval(at(s), wide and half)} for s in SIZES]

    def fall(size: int) -> float:
        return _margin(size, 0) - _margin(size, 256)

    return {
        "n_pos": list(SIZES),
        "doses": list(DOSES),
        "seeds": list(range(seeds)),
        "probes": {
            "margin": _probe(
                "Margin", "nats/token", "higher = more aligned", -0.021, _margin, wide and 0.012
            ),
            "kl": _probe(
                "KL to the start model",
                "nats/token",
                "higher = further from the start",
                0.0,
                lambda s, d: 0.02 * math.log2(s / 16) * math.exp(-d / 120) + 0.0002 * d,
                wide and 0.004,
            ),
            "bits_per_byte": _probe(
                "Bits per byte",
                "bits/byte",
                "lower = better compressed",
                1.183,
                lambda s, d: 1.183 - 0.03 * math.log2(s / 16) - 0.0002 * d,
                wide and 0.01,
            ),
            "sentiment": _probe(
                "Sentiment of samples",
                "share positive",
                "higher = more aligned",
                0.52,
                lambda s, d: 0.52 + 0.07 * math.log2(s / 16) * math.exp(-d / 90),
                wide and 0.06,
            ),
        },
        "gain": sized(lambda s: _margin(s, 0) + 0.021, 0.008),
        "fall": sized(fall, 0.009),
        "share_lost": sized(lambda s: fall(s) / (_margin(s, 0) + 0.021), 0.06),
        "half_dose": [
            {"n_pos": 64, "value": None, "censored": True},
            {"n_pos": 128, "value": 121.0, "censored": False},
            {"n_pos": 256, "value": 88.0, "censored": False},
        ],
        "slope": {
            "fall_per_log2": interval(0.0214, wide and 0.0061),
            "share_per_log2": interval(0.031, wide and 0.02),
        },
    }


def _provenance(command: list[str]) -> dict[str, Any]:
    return {
        "springback": "0.1.0",
        "git": "5a799ae1c0ffee",
        "python": "3.11.9",
        "platform": "Linux-6.1-x86_64",
        "cpu": "a processor with a long trade name @ 2.70GHz",
        "threads": 2,
        "packages": {"torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.3.1"},
        "command": command,
        "started": "2025-03-14T09:26:53+00:00",
        "finished": "2025-03-14T09:35:05+00:00",
        "seconds": 492.3,
    }


def _file(kind: str, inputs: Any, analysis: Any, verdict: Any, rows: int) -> dict[str, Any]:
    row = {"probe": "margin", "checkpoint": "a", "slice": "b", "value": 0.1, "unit": "nats/token"}
    return {
        "schema_version": 1,
        "kind": kind,
        "provenance": _provenance(["springback", kind, "--out", "a folder"]),
        "inputs": inputs,
        "measurements": [{**row, "tags": {"seed": i}} for i in range(rows)],
        "analysis": analysis,
        "verdict": verdict,
    }


def _audit_inputs() -> dict[str, Any]:
    rows = {"rows": 256, "seed": 0, "content_hash": "9f2c" * 16}
    return {
        "model": {
            "path": "smollm2-135m",
            "revision": None,
            "adapter": None,
            "content_hash": "5b1d" * 16,
        },
        "align": {"name": "reviews-positive", "source": "built in", **rows},
        "perturb": {"name": "reviews-negative", "source": "built in", **rows},
        "settings": {
            "doses": list(DOSES),
            "n_pos": list(SIZES),
            "recipe": {"learning_rate": 1e-5, "seed": 0},
        },
    }


def _audit_verdict() -> dict[str, Any]:
    return {
        "label": "springs back",
        "text": "The further the model was aligned, the more it fell when trained on the "
        "opposite, and the fall grew faster than the height it fell from.",
        "parts": [
            {
                "question": "Does more alignment fall further?",
                "label": "yes",
                "text": "Each doubling adds 0.021 nats/token to the fall; the interval is above 0.",
            },
            {
                "question": "Is that more than proportional?",
                "label": "yes",
                "text": "The share lost rises by 3.1 points a doubling.",
            },
            {
                "question": "Is going back easier than going on?",
                "label": "undecided",
                "text": "The inverse loss is lower in 2 of 3 pairs, within the noise in one.",
            },
        ],
    }


def audit_analysis(seeds: int = 3) -> dict[str, Any]:
    half = 0.02 if seeds > 1 else None

    def pair(name: str, forward: float, inverse: float) -> dict[str, Any]:
        return {
            "pair": name,
            "forward": interval(forward, half),
            "inverse": interval(inverse, half),
            "ratio": interval(inverse / forward, half),
            "excess_forward": interval(forward - 2.28, half),
            "excess_inverse": interval(inverse - 2.25, half),
        }

    return {
        "rebound": rebound(seeds),
        "resistance": {
            "pairs": [pair("1-2", 2.41, 2.31), pair("2-3", 2.39, 2.40), pair("1-3", 2.44, 2.30)]
        },
        "noise_floor": {"margin": 0.0007, "kl": 2.1e-05},
    }


def audit_result(seeds: int = 3) -> dict[str, Any]:
    return _file("audit", _audit_inputs(), audit_analysis(seeds), _audit_verdict(), 216)


def boost_analysis() -> dict[str, Any]:
    def candidates(values: list[float], best: float, slope: float) -> list[dict[str, Any]]:
        return [
            {
                "value": v,
                "accuracy": interval(0.43 + slope * v - 0.24 * v * v, 0.041, 200),
                "nll": interval(0.912 - 0.05 * v + 0.16 * v * v, 0.021, 200),
                "chosen": v == best,
            }
            for v in values
        ]

    def method(name: str, mu: float, lam: float, accuracy: float, verdict: str) -> dict[str, Any]:
        same = name == "fine-tuned"
        return {
            "method": name,
            "mu": mu,
            "lambda": lam,
            "accuracy": interval(accuracy, 0.034, 400),
            "nll": interval(0.93 - 0.2 * (accuracy - 0.43), 0.016, 400),
            "difference": None if same else interval(accuracy - 0.43, 0.018, 400),
            "nll_difference": None if same else interval(-0.2 * (accuracy - 0.43), 0.003, 400),
            "verdict": verdict,
        }

    return {
        "search": {
            "mu": candidates([0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0], 0.2, 0.12),
            "lambda": candidates([0, 0.1, 0.3, 0.5, 1.0], 0.1, 0.03),
            "cd_lambda": candidates([0, 0.1, 0.3, 0.5, 1.0], 0.0, -0.02),
        },
        "methods": [
            method("fine-tuned", 0.0, 0.0, 0.43, "same"),
            method("ME only", 0.2, 0.0, 0.452, "gain"),
            method("CD only", 0.0, 0.0, 0.408, "harm"),
            method("EpiCoDe", 0.2, 0.1, 0.442, "undecided"),
        ],
        "floor": "The fine-tuned model answers 43 % rightly; a guess would get 25 %.",
    }


def _boost_inputs() -> dict[str, Any]:
    rows = {"name": "word-problems", "source": "built in", "seed": 0, "content_hash": "77aa" * 16}
    return {
        "early": {"path": "out/checkpoints/early", "content_hash": "01" * 32},
        "ft": {"path": "out/checkpoints/ft", "content_hash": "02" * 32},
        "validation": {**rows, "rows": 200},
        "test": {**rows, "rows": 400},
        "settings": {"metric": "number", "alpha": 0.1},
    }


def _boost_verdict() -> dict[str, Any]:
    return {
        "label": "undecided",
        "text": "EpiCoDe answered 1.2 points more rightly than the fine-tuned model; the interval "
        "holds both gain and harm.",
        "parts": [],
    }


def boost_result() -> dict[str, Any]:
    return _file("boost", _boost_inputs(), boost_analysis(), _boost_verdict(), 64)


def demo_result() -> dict[str, Any]:
    """One seed for the audit, as the demo runs it."""
    return _file(
        "demo",
        {"audit": _audit_inputs(), "boost": _boost_inputs()},
        {"audit": audit_analysis(seeds=1), "boost": boost_analysis()},
        {
            "label": "it springs back; no gain yet",
            "text": "The aligned model fell back towards its start, the more the further it was "
            "aligned. Extrapolation and contrastive decoding changed the answers too little to "
            "tell.",
            "parts": [
                *_audit_verdict()["parts"][:2],
                {
                    "question": "Does the boost gain?",
                    "label": "undecided",
                    "text": "+1.2 points, 95 % interval from −0.6 to 3.0.",
                },
            ],
        },
        280,
    )
