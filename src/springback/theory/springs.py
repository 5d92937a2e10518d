"""Hooke's law reading of the theorem (paper A, 4.2): stiffness |D_i|, elongation, n-gram optima.

The paper's elongation is the change of KL(model || D_i), the model first, when D3 is added.  It is
infinite where the model gives mass to what D_i lacks, so under the theorem's own premises only D1
has one (:func:`model_first`), and texts alone do not tell it: it takes the density of D_i.  What
held-out text tells is the change of the NLL of D_i: that of KL(D_i || model), for the entropy of
D_i does not move.  That is the elongation here.  Above 0 = fits worse.  Write d_i for it and n_i
for the volumes.  Two things hold for *any* model at the optimum of its joint loss, since each
optimum is the best for its own weights:

    n1 d1 + n2 d2 >= 0,      n1 d1 + n2 d2 + n3 d3 <= 0,

and both are of second order in l, for the gradient of the joint loss is 0 there.  So at small l
n1 d1 = -n2 d2, whatever the model's form; n3 d3 is smaller by l / b and not their equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from springback.errors import DataError, describe
from springback.theory.theorem import Floats, Sets, joint_masses

Three = tuple[float, float, float]
#: More responses than this are not enumerated.
MOST_RESPONSES = 1 << 20


@dataclass(frozen=True)
class Elongation:
    """``volumes`` n_i and ``changes`` d_i of D1, D2, D3; changes in nats a response."""

    volumes: Three
    changes: Three

    @property
    def products(self) -> Three:
        """n_i d_i, signed."""
        one, two, three = (n * d for n, d in zip(self.volumes, self.changes, strict=True))
        return one, two, three

    @property
    def fitted_k(self) -> float:
        """-d2 / d1: equal to k where the invariant holds; NaN where D1 stands still."""
        return -self.changes[1] / self.changes[0] if self.changes[0] else math.nan

    @property
    def balance(self) -> float:
        """(n1 d1 + n2 d2) / (|n1 d1| + |n2 d2|), from -1 to 1: 0 where the invariant holds.

        1: both get worse, -1: both get better, or the other's product is nothing beside it.
        """
        return _balance(self.products[:2])

    @property
    def total(self) -> float:
        """n1 d1 + n2 d2 + n3 d3 over the sum of their sizes, from -1 to 1."""
        return _balance(self.products)

    @property
    def third(self) -> float:
        """|n3 d3| / |n2 d2|: 1 if all three products are equal; NaN where D2 stands still."""
        _, two, three = self.products
        return abs(three / two) if two else math.nan


def _balance(products: tuple[float, ...]) -> float:
    size = math.fsum(abs(p) for p in products)
    return math.fsum(products) / size if size else 0.0


def responses(symbols: int, length: int) -> NDArray[np.int64]:
    """All responses of ``length`` symbols 0 .. symbols - 1 in their order, (leaves, length).

    Raises :class:`DataError` for none, or for more than a million of them.
    """
    if symbols < 1 or length < 1 or symbols**length > MOST_RESPONSES:
        raise DataError(
            describe(
                f"{symbols} symbols, length {length}",
                f"1 or more each, at most {MOST_RESPONSES:,} responses",
                "take fewer",
            )
        )
    symbols_of: NDArray[np.int64] = np.indices((symbols,) * length).reshape(length, -1).T
    return np.ascontiguousarray(symbols_of, dtype=np.int64)


def ngram_costs(paths: NDArray[np.int64], weights: Floats, order: int) -> Floats:
    """-ln q of each response, in nats, under the best model that sees ``order`` symbols back.

    ``paths`` (leaves, length); ``weights`` (leaves,).  The optimum is known in closed form: each
    context's share of next symbols, wherever in a response it stands; the beginning counts as
    symbols of its own.  ``order`` 0 is a unigram, 1 a bigram, length - 1 no bound at all: then
    the cost of a response is -ln of its weight.  Infinite for what the weights never show.
    """
    length = paths.shape[1]
    if not 0 <= order < length:
        raise DataError(
            describe(f"order {order}", f"0 to {length - 1}, one less than the length", "mend it")
        )
    base = int(paths.max()) + 2  # one more for what stands before the first symbol
    padded = np.concatenate([np.zeros((len(paths), order), np.int64), paths + 1], axis=1)
    contexts = np.zeros_like(paths)
    for back in range(order):
        contexts = contexts * base + padded[:, back : back + length]
    counts = np.zeros((base**order, base - 1))
    np.add.at(counts, (contexts, paths), weights[:, None])
    with np.errstate(divide="ignore"):
        cost = np.log(counts.sum(axis=1))[contexts] - np.log(counts[contexts, paths])
    # A context that never occurs is -inf + inf.
    costs: Floats = np.where(np.isnan(cost), math.inf, cost).sum(axis=1)
    return costs


def mean_cost(masses: Floats, costs: Floats) -> float:
    """NLL of a set with leaf masses ``own``, in nats a response: no mass, no cost."""
    held = masses > 0
    return math.fsum((masses[held] * costs[held]).tolist())


def change(sets: Sets, volumes: Three, before: Floats, after: Floats) -> Elongation:
    """The elongations between two models, given by each response's cost in nats."""
    one, two, three = (
        mean_cost(masses, np.where(masses > 0, after - before, 0.0))
        for masses in (sets.p1, sets.p2, sets.p3)
    )
    return Elongation(volumes, (one, two, three))


def model_first(sets: Sets, k: float, l: float) -> Three:  # noqa: E741
    """Changes of KL(model || D_i), the model first, at the exact joint optimum, nats a response.

    NaN where it is infinite before D3 comes, and infinite where it becomes so.  The joint optimum
    is the joint masses themselves, an arithmetic mixture; the volume-weighted sum of these KL is
    stationary at a geometric one, so nothing makes n1 d1 = -n2 d2 here, at no l.
    """
    before, after = (joint_masses(sets, k, volume) for volume in (0.0, l))
    one, two, three = (
        _model_kl(after, masses) - _model_kl(before, masses)
        for masses in (sets.p1, sets.p2, sets.p3)
    )
    return one, two, three


def _model_kl(model: Floats, masses: Floats) -> float:
    held = model > 0
    if (masses[held] == 0).any():
        return math.inf
    return math.fsum((model[held] * np.log(model[held] / masses[held])).tolist())


def predicted(
    sets: Sets,
    k: float,
    l: float,  # noqa: E741
    paths: NDArray[np.int64],
    order: int,
) -> Elongation:
    """Elongations of the best n-gram model when D3 of volume l joins D1 (k) and D2 (1), exactly.

    With ``order`` = length - 1 they are the theorem's: ln 2 times the change of its rates.
    Mass of D3 on leaves that neither D1 nor D2 has makes that of D3 minus infinity.
    """
    with np.errstate(invalid="ignore"):
        before, after = (ngram_costs(paths, joint_masses(sets, k, v), order) for v in (0.0, l))
        return change(sets, (k, 1.0, l), before, after)
