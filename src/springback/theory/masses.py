"""Leaf masses by law, and sets of leaves that overlap as much as wanted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from springback.errors import DataError, describe

Floats = NDArray[np.float64]
LAWS = ("pareto", "lognormal", "exponential", "uniform")


def leaf_masses(law: str, leaves: int, exponent: float = 1.0) -> Floats:
    """Masses of ``leaves`` leaves, heaviest first, sum 1.

    They are the quantiles of the law at (i - 1/2) / leaves, so nothing is drawn.  ``exponent``:

    - ``pareto``: Zipf's, mass of rank r proportional to r^-exponent (Pareto with tail index
      1 / exponent; the power law of masses has alpha = 1 + 1 / exponent);
    - ``lognormal``: standard deviation of the log of the mass;
    - ``exponential``, ``uniform``: not used.

    Raises :class:`DataError` for another law, no leaf, or an exponent of 0 or below.
    """
    if law not in LAWS:
        raise DataError(describe(f"the law {law!r}", ", ".join(LAWS), "choose one"))
    if leaves < 1 or not exponent > 0:
        raise DataError(
            describe(
                f"{leaves} leaves, exponent {exponent}", "1 or more, above 0", "mend the settings"
            )
        )
    places = (np.arange(leaves) + 0.5) / leaves  # upper tail probability, heaviest first
    if law == "pareto":
        raw = np.arange(1, leaves + 1, dtype=np.float64) ** -exponent
    elif law == "lognormal":
        raw = np.exp(exponent * stats.norm.isf(places))
    elif law == "exponential":
        raw = -np.log(places)
    else:
        raw = np.ones(leaves)
    masses: Floats = raw / raw.sum()
    return masses


def permuted(masses: Floats, rng: np.random.Generator) -> Floats:
    """The masses on leaves in random order: independent of any other set."""
    return masses[rng.permutation(len(masses))]


def overlapping(other: Floats, masses: Floats, share: float, rng: np.random.Generator) -> Floats:
    """``masses`` (heaviest first) placed so that a share of them ranks as in ``other``.

    ``share`` 1: rank for rank on the leaves of ``other``; 0: independent; -1: in the opposite
    order (heavy where the other is light).  Between them a random share of the ranks is bound and
    the rest permuted.  Shape (leaves,).  Raises :class:`DataError` outside [-1, 1].
    """
    if not -1 <= share <= 1:
        raise DataError(describe(f"overlap {share}", "-1 to 1", "choose one"))
    places = np.argsort(-other, kind="stable")  # leaf of each rank of the other set
    if share < 0:
        places = places[::-1]
    free = np.flatnonzero(rng.random(len(masses)) >= abs(share))
    target = places.copy()
    target[free] = places[rng.permutation(free)]
    placed = np.empty_like(masses)
    placed[target] = masses
    return placed


def opposed(base: Floats, share: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Two kinds of leaves out of ``base``, as safe and unsafe answers are: no leaf in both.

    A random set of leaves with about ``share`` of the mass is the second kind.  Returns the base
    restricted to the first and to the second kind, each with sum 1.  Raises :class:`DataError`
    unless the share lies inside (0, 1) and both kinds get a leaf.
    """
    order = rng.permutation(len(base))
    running = np.cumsum(base[order])
    taken = int(np.searchsorted(running, share)) + 1
    if not 0 < share < 1 or taken >= len(base):
        raise DataError(
            describe(f"share {share} of {len(base)} leaves", "inside (0, 1)", "take another")
        )
    second = np.zeros(len(base), dtype=bool)
    second[order[:taken]] = True
    one, two = np.where(second, 0.0, base), np.where(second, base, 0.0)
    return one / one.sum(), two / two.sum()


def three_parts(masses: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """The theorem's premises: a set of three parts of one size, which share no leaf.

    Each part has ``masses``, on leaves of its own in random order.  Returns the whole set
    (pre-training), its second part (alignment) and its third (perturbation), each with sum 1 over
    3 * len(masses) leaves.
    """
    places = rng.permutation(3 * len(masses)).reshape(3, -1)
    parts = np.zeros((3, places.size))
    for part, place in zip(parts, places, strict=True):
        part[place] = masses
    return parts.sum(axis=0) / 3, parts[1], parts[2]


def overlap(one: Floats, two: Floats) -> float:
    """Shared mass, sum of the smaller weight leaf by leaf: 0 = no leaf in common, 1 = equal."""
    return float(np.minimum(one, two).sum())


def pruned(masses: Floats, depth: int) -> Floats:
    """A full binary tree's leaf masses after pruning to ``depth``: neighbours summed.

    Shape (2^depth,).  The same as :meth:`TokenTree.prune` on paths of bits without their ends.
    Raises :class:`DataError` unless the masses are those of a full binary tree at least as deep.
    """
    leaves = len(masses)
    if leaves & (leaves - 1) or not 1 <= 1 << depth <= leaves:
        raise DataError(
            describe(
                f"{leaves} leaves pruned to depth {depth}",
                "a power of two, depth up to its logarithm",
                "mend the settings",
            )
        )
    sums: Floats = masses.reshape(1 << depth, -1).sum(axis=1)
    return sums
