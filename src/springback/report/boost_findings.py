"""What a boost found beside its method table; read from the result file, frozen."""

from __future__ import annotations

from dataclasses import dataclass

from springback.report.node import Node, interval
from springback.report.values import Interval


@dataclass(frozen=True)
class Bin:
    """Questions whose reference solutions are ``low`` to ``high`` long."""

    low: float
    high: float
    questions: int


@dataclass(frozen=True)
class ByDifficulty:
    """One method against fine-tuned: difference in each bin, hardest minus easiest question."""

    method: str
    accuracy: tuple[Interval | None, ...]
    differences: tuple[Interval | None, ...]
    trend: Interval | None
    p_holm: float | None


@dataclass(frozen=True)
class Difficulty:
    unit: str
    bins: tuple[Bin, ...]
    methods: tuple[ByDifficulty, ...]


@dataclass(frozen=True)
class Contrast:
    """Logit errors of a strong and a weak model, and what they predict."""

    method: str
    strong: str
    weak: str
    label: str
    contested: Interval | None
    k: Interval | None
    rho: Interval | None
    rho_k: Interval | None
    best_lambda: Interval | None
    chosen: float | None


@dataclass(frozen=True)
class LambdaPoint:
    """Predicted error variance (1 at lambda 0) and measured changes from lambda 0."""

    lam: float
    error_variance: Interval | None
    nll: Interval | None
    accuracy: Interval | None


def difficulty(node: Node) -> Difficulty:
    return Difficulty(
        node.optional("unit", Node.text) or "",
        node.every("bins", _bin),
        node.every("methods", _by_difficulty),
    )


def _bin(node: Node) -> Bin:
    return Bin(
        node.need("low").number(), node.need("high").number(), node.need("questions").whole()
    )


def _by_difficulty(node: Node) -> ByDifficulty:
    bins = node.need("bins").items()
    return ByDifficulty(
        node.need("method").text(),
        tuple(b.optional("accuracy", interval) for b in bins),
        tuple(b.optional("difference", interval) for b in bins),
        node.optional("trend", interval),
        node.optional("p_holm", Node.finite),
    )


def contrast(node: Node) -> Contrast:
    def text(key: str) -> str:
        return node.optional(key, Node.text) or ""

    return Contrast(
        text("method"),
        text("strong"),
        text("weak"),
        text("label"),
        node.optional("contested", interval),
        node.optional("k", interval),
        node.optional("rho", interval),
        node.optional("rho_k", interval),
        node.optional("best_lambda", interval),
        node.optional("chosen", Node.finite),
    )


def predicted(node: Node) -> tuple[tuple[float, float], ...]:
    """Lambda and error variance, as a pair of a boost holds them."""
    found = node.get("prediction")
    return tuple(
        (p.need("lambda").number(), p.need("error_variance").number())
        for p in (found.items() if found else ())
    )


def lambda_point(node: Node) -> LambdaPoint:
    return LambdaPoint(
        node.need("lambda").number(),
        node.optional("error_variance", interval),
        node.optional("nll_difference", interval),
        node.optional("accuracy_difference", interval),
    )
