"""Settings of ``springback theory``, each once with default and help.  Light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from springback.settings import Settings, columns_setting, setting


@dataclass(frozen=True)
class TheoremSettings(Settings):
    """The elasticity theorem in numbers.  Volumes in units of |D2|: k = |D1|, l = |D3|."""

    depth: int = setting(12, "Depth of the full binary token trees: 2^depth leaves.")
    exponent: float = setting(1.0, "Zipf exponent of the leaf masses outside the map.")
    k: tuple[float, ...] = setting(
        (1e1, 1e2, 1e3, 1e4, 1e5, 1e6), "Volumes of pre-training, in alignment sets."
    )
    doses: tuple[float, ...] = setting(
        (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3), "Volumes l of perturbation.", flag="l"
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
class ParetoSettings(Settings):
    """Is the Pareto assumption true of real data?"""

    data: tuple[str, ...] = setting((), "Data: files, hub ids or built-in names.")
    fields: Mapping[str, str] = columns_setting()
    rows: int = setting(0, "At most so many rows of each, drawn by the seed; 0 is all.")
    ngrams: tuple[int, ...] = setting((1, 2, 3), "Lengths of n-grams, in words.")
    depths: tuple[int, ...] = setting(
        (1, 2, 3, 4, 6, 8), "Depths, in words, that the tree of responses is pruned to."
    )
    samples: int = setting(100, "Bootstrap samples behind each goodness of fit.")
    seed: int = setting(0, "Of rows and bootstrap.")


@dataclass(frozen=True)
class SpringsSettings(Settings):
    """Do data sets pull like springs?  Real trainings of tiny Llamas, in two arms.

    Volumes in units of |D2|: k = |D1|, l = |D3|.
    """

    arrangements: tuple[str, ...] = setting(
        ("opposed kinds", "independent", "three parts"),
        "How D2 and D3 lie on the leaves: three parts (the theorem's premises), opposed kinds, "
        "independent, half shared, same ranks, opposite ranks.",
    )
    symbols: int = setting(6, "Symbols of a response.")
    length: int = setting(3, "Length of a response: symbols^length leaves.")
    exponent: float = setting(1.0, "Zipf exponent of the leaf masses.")
    share: float = setting(0.5, "Share of D1's mass that is of D3's kind (opposed kinds).")
    k: tuple[float, ...] = setting(
        (1.0, 3.0, 10.0, 30.0, 100.0), "Volumes of pre-training, in alignment sets."
    )
    doses: tuple[float, ...] = setting((0.125, 0.5, 1.0), "Volumes l of perturbation.", flag="l")
    seeds: tuple[int, ...] = setting((0, 1, 2, 3, 4), "Seeds of sets, weights and order.")
    hidden: int = setting(32, "Width of the Llamas.")
    layers: int = setting(2, "Their layers.")
    heads: int = setting(2, "Their attention heads.")
    steps: int = setting(600, "Steps of a joint training (full batches, cosine to 0).")
    joint_rate: float = setting(5e-3, "Its learning rate.")
    aligning: int = setting(512, "Responses in D2 when trained one after the other.")
    batch_size: int = setting(32, "Responses a step of aligning and perturbing.")
    pretraining_batch: int = setting(64, "Responses a step of pre-training.")
    learning_rate: float = setting(1e-3, "Constant, of training one after the other.")
