"""Settings of ``springback theory``, each once with default and help.  Light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from springback.jobs.settings import _fields, setting


@dataclass(frozen=True)
class TheoremSettings:
    """The elasticity theorem in numbers.  Volumes in units of |D2|: k = |D1|, l = |D3|."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    depth: int = setting(12, "Depth of the full binary token trees: 2^depth leaves.")
    exponent: float = setting(1.0, "Zipf exponent of the leaf masses outside the map.")
    k: tuple[float, ...] = setting(
        (1e1, 1e2, 1e3, 1e4, 1e5, 1e6), "Volumes of pre-training, in alignment sets."
    )
    doses: tuple[float, ...] = setting(
        (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3), "Volumes l of perturbation.", "l"
    )
    exponents: tuple[float, ...] = setting((0.6, 0.8, 1.0, 1.2, 1.5), "Zipf exponents of the map.")
    overlaps: tuple[float, ...] = setting(
        (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0),
        "Overlaps of D3 with D2 in the map: 1 same ranks, 0 independent, -1 opposite ranks.",
    )
    depths: tuple[int, ...] = setting((4, 6, 8, 10, 12), "Pruning depths of the map.")
    draws: int = setting(50, "Random arrangements of the leaves for each cell.")
    seed: int = setting(0, "Of the arrangements.")


@dataclass(frozen=True)
class ParetoSettings:
    """Is the Pareto assumption true of real data?"""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    data: tuple[str, ...] = setting((), "Data: files, hub ids or built-in names.")
    fields: Mapping[str, str] = _fields()
    rows: int = setting(0, "At most so many rows of each, drawn by the seed; 0 is all.")
    ngrams: tuple[int, ...] = setting((1, 2, 3), "Lengths of n-grams, in words.")
    depths: tuple[int, ...] = setting(
        (1, 2, 3, 4, 6, 8), "Depths, in words, that the tree of responses is pruned to."
    )
    samples: int = setting(100, "Bootstrap samples behind each goodness of fit.")
    seed: int = setting(0, "Of rows and bootstrap.")
