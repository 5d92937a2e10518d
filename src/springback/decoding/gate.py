"""When contrast is let in, by name.  Light: settings are checked by it before torch is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from springback.errors import SpringbackError, describe


@dataclass(frozen=True)
class Gate:
    """Contrast only where the expert is uncertain; elsewhere the expert alone decides.

    ``top``: its largest probability is at most ``threshold``.  ``entropy``: the entropy of its
    distribution is at least ``threshold``, in nats.  Both over the full vocabulary, temperature 1.
    """

    measure: str
    threshold: float

    def __str__(self) -> str:
        return f"{self.measure}:{self.threshold:g}"


def parse_gate(text: str) -> Gate:
    """The gate that ``top:P`` (0 < P <= 1) or ``entropy:NATS`` (above 0) names."""
    measure, _, value = text.partition(":")
    try:
        threshold = float(value)
    except ValueError:
        threshold = math.nan
    fine = threshold > 0 and (threshold <= 1 if measure == "top" else math.isfinite(threshold))
    if measure not in ("top", "entropy") or not fine:
        raise SpringbackError(
            "--gate: "
            + describe(
                repr(text),
                "top:P with P above 0 and at most 1, or entropy:NATS above 0",
                "write for example top:0.9 or entropy:0.5",
            )
        )
    return Gate(measure, threshold)
