"""Result files of several models: cards and comparison of simulated audits."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from elasticity_fixture import audit_result
from springback.core import to_jsonable
from springback.elasticity import compare
from springback.results.cards import card_of_result

#: Name -> gain of each seed, and the share of it that 64 examples take back.
MODELS: Mapping[str, tuple[Sequence[float], float]] = {
    "HuggingFaceTB/SmolLM2-135M": ((0.40, 0.50, 0.60), 0.6),
    "HuggingFaceTB/SmolLM2-360M": ((0.80, 0.91, 0.99), 0.9),
    "HuggingFaceTB/SmolLM2-1.7B": ((1.20, 1.31, 1.43), 0.3),
}
PUBLISHED = {
    "columns": ["base", "safe examples", "KL after alignment", "unsafe examples needed"],
    "rows": [
        ["Llama2-7B", 1000, 0.21, 961],
        ["Llama2-7B", 10000, 0.27, 729],
        ["Gemma-2B", 1000, 0.18, None],
    ],
    "source": "Table 3 of the paper",
}


def studies(most: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "folder": f"models/{i} {name.rpartition('-')[2]}",
            "card": card_of_result(audit_result(name, gains, rate)).to_dict(),
        }
        for i, (name, (gains, rate)) in enumerate(list(MODELS.items())[:most])
    ]


def comparison(most: int = 3) -> dict[str, Any]:
    kept = list(MODELS.items())[:most]
    cards = [card_of_result(audit_result(name, gains, rate)) for name, (gains, rate) in kept]
    found: dict[str, Any] = to_jsonable(compare(cards).to_dict())
    return found


def _file(kind: str, analysis: Any, verdict: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "kind": kind,
        "provenance": {"springback": "0.1.0", "finished": "2025-03-14T09:35:05+00:00"},
        "inputs": {"models": [{"path": name, "revision": None} for name in MODELS]},
        "measurements": [],
        "analysis": analysis,
        "verdict": verdict,
    }


def series_result() -> dict[str, Any]:
    verdict = {
        "label": "larger models gain more",
        "text": "The gain rises with size; the share lost does not.",
        "parts": [{"question": "Does the gain rise?", "label": "yes", "text": "In every step."}],
    }
    return _file("series", {"models": studies(), "comparison": comparison()}, verdict)


def reproduce_result() -> dict[str, Any]:
    analysis = {
        "name": "table3",
        "question": "Do fewer unsafe examples undo the alignment of a further aligned model?",
        "scale": "135M and 360M parameters, three seeds",
        "paper": "the number of unsafe examples falls as the number of safe ones rises",
        "published": copy.deepcopy(PUBLISHED),
        "measured": {
            "columns": ["base", "safe examples", "unsafe examples needed"],
            "rows": [
                ["SmolLM2-135M", 1000, {"mean": 211.5, "low": 180.25, "high": 242.75, "n": 3}],
                ["SmolLM2-360M", 1000, 123.45678],
            ],
        },
        "studies": studies(2),
        "comparison": comparison(2),
    }
    verdict = {"label": "undecided", "text": "The trend has the paper's sign.", "parts": []}
    return _file("reproduce", analysis, verdict)
