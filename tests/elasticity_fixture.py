"""A result file of an audit whose every quantity can be derived by hand."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

DOSES = (0, 16, 32, 64)
N_POS = (100, 200)
START = 1.0


def record(probe: str, value: float, **tags: Any) -> dict[str, Any]:
    unit = "bits/byte" if probe == "bits_per_byte" else "nats/token"
    return {
        "probe": probe,
        "checkpoint": "",
        "slice": "",
        "value": value,
        "unit": unit,
        "tags": tags,
    }


def curve(gain: float, rate: float) -> list[float]:
    """Straight fall: ``gain`` above the start, ``rate`` of it lost for each 64 examples."""
    return [START + gain * (1 - rate * d / 64) for d in DOSES]


def audit_result(
    model: str = "model-a",
    gains: Sequence[float] = (0.4, 0.5, 0.6),
    rate: float = 1.6,
    kl: Sequence[float] = (0.02, 0.016, 0.012, 0.004),
) -> dict[str, Any]:
    """One seed for each of ``gains``, the gain of n_pos 200; n_pos 100 gains half of it.

    Both lose ``rate`` of their gain in 64 examples.  The KL falls alike in all.
    """
    found = [record("margin", START, phase="start"), record("bits_per_byte", 2.0, phase="start")]
    for seed, gain in enumerate(gains):
        for n, height in zip(N_POS, (gain / 2, gain), strict=True):
            margins = curve(height, rate)
            for i, dose in enumerate(DOSES):
                tags = {"phase": "perturb" if dose else "align", "seed": seed}
                tags |= {"n_pos": n, "n_neg": dose}
                found.append(record("margin", margins[i], **tags))
                found.append(record("kl", kl[i], **tags))
                found.append(record("bits_per_byte", 1.6 + 0.1 * seed, **tags))
        for pair, inverse in (("1-2", 1.6 + 0.01 * seed), ("2-3", 1.6 - 0.01 * seed)):
            tags = {"phase": "resistance", "seed": seed, "pair": pair}
            found.append(record("loss_forward", 2.0, **tags))
            found.append(record("loss_inverse", inverse, **tags))
            found.append(record("loss_excess_forward", 0.2, **tags))
            found.append(record("loss_excess_inverse", 0.1 + 0.01 * seed, **tags))
    rows = {name: {"content_hash": name} for name in ("align", "perturb", "wanted", "unwanted")}
    settings = {"model": model, "seeds": list(range(len(gains))), "learning_rate": 1e-5}
    return {
        "schema_version": 1,
        "kind": "audit",
        "inputs": {
            "model": {"path": model, "content_hash": "c0ffee"},
            **rows,
            "settings": settings,
        },
        "measurements": found,
        "analysis": {
            "rebound": {
                "n_pos": list(N_POS),
                "doses": list(DOSES),
                "seeds": list(range(len(gains))),
            },
            "noise_floor": {"margin": 0.001, "margin_se": 0.1},
        },
    }


def as_demo(result: dict[str, Any]) -> dict[str, Any]:
    """The same as the audit's part of a demo."""
    demo = copy.deepcopy(result)
    for found in demo["measurements"]:
        found["tags"]["job"] = "audit"
    other = record("margin", 99.0, phase="start", job="boost")
    return {
        **demo,
        "kind": "demo",
        "inputs": {"audit": demo["inputs"], "boost": {}},
        "measurements": [*demo["measurements"], other],
        "analysis": {"audit": demo["analysis"], "boost": {}},
    }
