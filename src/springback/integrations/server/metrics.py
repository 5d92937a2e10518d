"""Counts and times, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_HELP = {
    "requests_total": "Answered requests, by route and status.",
    "prompt_tokens_total": "Tokens of prompts taken in.",
    "completion_tokens_total": "Tokens of answers, stop tokens aside.",
    "batches_total": "Batches that the decoder ran.",
    "expert_calls_total": "Forward passes of the expert.",
    "amateur_calls_total": "Forward passes of the amateur.",
    "request_seconds": "From taking a request to its last token.",
    "first_token_seconds": "From taking a request to its first token.",
}


class Metrics:
    """Counters and histograms; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._seconds: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter; labels must be words of ours, not of a request."""
        text = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        with self._lock:
            self._counts[name, text] += by

    def took(self, name: str, seconds: float) -> None:
        """Add to a histogram."""
        with self._lock:
            held = self._seconds.setdefault(name, [0] * (len(_BOUNDS) + 1))
            held[sum(seconds > bound for bound in _BOUNDS)] += 1
            self._sums[name] = self._sums.get(name, 0.0) + seconds

    def render(self, gauges: Mapping[str, float]) -> str:
        """Everything, with ``gauges`` as they stand now."""
        lines: list[str] = []
        with self._lock:
            for name in sorted({name for name, _ in self._counts}):
                lines += _head(name, "counter")
                for (counted, labels), number in sorted(self._counts.items()):
                    if counted == name:
                        lines.append(_line(name, labels, number))
            for name, held in sorted(self._seconds.items()):
                lines += _head(name, "histogram")
                total = 0
                for bound, number in zip((*_BOUNDS, "+Inf"), held, strict=True):
                    total += number
                    lines.append(_line(f"{name}_bucket", f'le="{bound}"', total))
                lines.append(_line(f"{name}_sum", "", round(self._sums[name], 6)))
                lines.append(_line(f"{name}_count", "", total))
        for name, value in sorted(gauges.items()):
            lines += [f"# TYPE springback_{name} gauge", _line(name, "", value)]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP springback_{name} {_HELP[name]}", f"# TYPE springback_{name} {kind}"]


def _line(name: str, labels: str, value: float) -> str:
    return f"springback_{name}{{{labels}}} {value}" if labels else f"springback_{name} {value}"
