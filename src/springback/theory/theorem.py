"""The elasticity theorem (paper A, 4.2) in numbers.

Three data sets over the same leaves: D1 (pre-training, volume k), D2 (alignment, volume 1), D3
(perturbation, volume l); the joint weights are p(l) = (k p1 + p2 + l p3) / V, V = k + 1 + l, and

    rate_i(l) = -sum_leaf p_i log2 p(l) / d            bits a symbol, ideal lengths,

with d the depth that all trees are pruned to.

*The theorem's premises*: D1 has three parts of one size that share no leaf (our reading of the
paper), D2 is distributed as the second of them, D3 as the third, and l < 1/2.  Then D3's leaves
have the joint weight (k/3 + l) / V times their share, D2's (k/3 + 1) / V, so

    rate_2' = 1 / (ln 2 d V) > 0,      rate_1' = -(1 - 2 l) / (ln 2 d V (k + 3 l)) < 0,
    rate_2' / rate_1' = -k (1 + 3 l / k) / (1 - 2 l),

whatever the masses inside the parts (:func:`kept_by_premises`).

*Any three sets*: the derivative is, with covariances over leaves under p,

    rate_i'(l) = (1 - sum p_i p3 / p) / (ln 2 d V) = -Cov_p(p_i/p, p3/p) / (ln 2 d V).

k p1/p + p2/p + l p3/p = V is constant, so its covariance with anything is 0:

    k rate_1' + rate_2' = l chi^2(p3 || p) / (ln 2 d V),   chi^2 = Var_p(p3/p).     (balance)

At l = 0 the right side is 0: rate_2' / rate_1' = -k for *any* leaf masses.  Away from 0

    rate_2' / rate_1' = -k / (1 + l / b),    b = Cov_p(p2/p, p3/p) / Var_p(p3/p).

Mass of D3 on leaves that neither D1 nor D2 has ("escaped") keeps the right side of the balance
at mass / (ln 2 d) when l goes to 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from springback.errors import DataError, describe

Floats = NDArray[np.float64]
LN2 = math.log(2)
#: A sum of terms of size 1 that is no larger than this is 0 but for rounding.
_ROUNDING = 8 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Sets:
    """p1, p2, p3: leaf masses, each of shape (leaves,), sum 1, of trees pruned to ``depth``.

    Raises :class:`DataError` for other shapes, a mass below 0 or a sum that is not 1.
    """

    p1: Floats
    p2: Floats
    p3: Floats
    depth: float = 1.0

    def __post_init__(self) -> None:
        for name in ("p1", "p2", "p3"):
            p = getattr(self, name)
            fits = p.ndim == 1 and p.shape == self.p1.shape and bool((p >= 0).all())
            if not fits or not math.isclose(math.fsum(p.tolist()), 1.0, abs_tol=1e-9):
                raise DataError(
                    describe(
                        f"{name} of shape {p.shape}",
                        "masses 0 or above with sum 1, one for each leaf of all sets",
                        "normalise them over the same leaves",
                    )
                )
        if not self.depth > 0:
            raise DataError(describe(f"depth {self.depth}", "above 0", "mend it"))


@dataclass(frozen=True)
class Slopes:
    """Derivatives of both rates at one k and l, and what they are made of.

    ``rate1``, ``rate2`` in bits a symbol for each unit of l; above 0 = compressed worse.
    ``ratio``: rate2 / rate1 (NaN where D1's rate stands still).  ``kept``: ratio over -k,
    from the two rates; 1 = as the theorem says, below 0 = both rates move the same way.
    ``cov2``: the covariance whose sign is opposite to that of rate2.  ``chi2``: chi^2(p3 || p),
    infinite where mass escapes at l = 0.  ``scale``: b, the l at which ``kept`` is halved (b > 0)
    or infinite (l = -b).  ``escaped``: mass of D3 outside D1 and D2.  ``balance``:
    k rate1' + rate2'.  ``as_stated``: whether the signs are the theorem's, rate1 < 0 < rate2.
    """

    rate1: float
    rate2: float
    ratio: float
    kept: float
    cov2: float
    chi2: float
    scale: float
    escaped: float
    balance: float

    @property
    def as_stated(self) -> bool:
        return self.rate1 < 0 < self.rate2


def _check(k: float, l: float) -> None:  # noqa: E741  (the paper's letter)
    if not (k > 0 and l >= 0 and math.isfinite(k) and math.isfinite(l)):
        raise DataError(describe(f"k = {k}, l = {l}", "k above 0, l 0 or more", "mend them"))


def kept_by_premises(k: float, l: float, share: float = 1 / 3) -> float:  # noqa: E741
    """Share of the ratio -k under the theorem's premises; infinite where D1's rate stands still.

    (1 + 3 l / k) / (1 - 2 l): above 1 for l < 1/2, where both signs are as stated; below 0 for
    more, where both rates rise.  ``share``: of D1 that is distributed as D3, where it is not a
    third; the rest of D1 only has to share no leaf with D3, and D2 likewise.
    """
    _check(k, l)
    if not 0 < share < 1:
        raise DataError(describe(f"share {share}", "inside (0, 1)", "mend it"))
    left = 1 - l * (1 - share) / share
    return (1 + l / (share * k)) / left if abs(left) > _ROUNDING else math.inf


def joint_masses(sets: Sets, k: float, l: float) -> Floats:  # noqa: E741
    """p(l), shape (leaves,)."""
    _check(k, l)
    masses: Floats = (k * sets.p1 + sets.p2 + l * sets.p3) / (k + 1 + l)
    return masses


def rates(sets: Sets, k: float, l: float) -> tuple[float, float]:  # noqa: E741
    """rate_1 and rate_2 with ideal lengths, bits a symbol."""
    p = joint_masses(sets, k, l)

    def one(masses: Floats) -> float:
        held = masses > 0
        return -math.fsum((masses[held] * np.log2(p[held])).tolist()) / sets.depth

    return one(sets.p1), one(sets.p2)


def slopes(sets: Sets, k: float, l: float) -> Slopes:  # noqa: E741
    """d rate_i / dl in closed form (from the right at l = 0), and the parts of its balance."""
    p = joint_masses(sets, k, l)
    volume = k + 1 + l
    known = (sets.p1 > 0) | (sets.p2 > 0)
    escaped = math.fsum(sets.p3[~known].tolist())

    def fall_of(masses: Floats) -> float:
        # 1 - sum own p3 / p, summed as own (p - p3) / p: no loss where the sum is close to 1.
        held = masses > 0
        value = math.fsum((masses[held] * (p[held] - sets.p3[held]) / p[held]).tolist())
        return value if abs(value) > _ROUNDING else 0.0

    fall1, fall2 = fall_of(sets.p1), fall_of(sets.p2)
    held = p > 0
    square = math.fsum((sets.p3[held] * (sets.p3[held] / p[held])).tolist())
    chi2 = math.inf if escaped and l == 0 else square - 1
    rate1, rate2 = (fall / (LN2 * sets.depth * volume) for fall in (fall1, fall2))
    return Slopes(
        rate1=rate1,
        rate2=rate2,
        ratio=rate2 / rate1 if rate1 else math.nan,
        kept=-fall2 / (k * fall1) if fall1 else math.nan,
        cov2=-fall2,
        chi2=chi2,
        scale=-fall2 / chi2 if chi2 > _ROUNDING else math.nan,
        escaped=escaped,
        balance=k * rate1 + rate2,
    )


def difference(sets: Sets, k: float, l: float, step: float) -> tuple[float, float]:  # noqa: E741
    """Finite differences of both rates: central where l >= step, else from l to l + step.

    Computed from the rates' difference leaf by leaf (log1p), for rates near 10 bits would bury a
    change of 1e-12.
    """
    low = l - step if l >= step else l
    high = l + step
    before, after = joint_masses(sets, k, low), joint_masses(sets, k, high)
    # p(high) - p(low) without cancellation: (high - low) (p3 - p(low)) / V(high).
    moved = (high - low) * (sets.p3 - before) / (k + 1 + high)

    def one(masses: Floats) -> float:
        held = (masses > 0) & (before > 0) & (after > 0)
        bits = np.log1p(moved[held] / before[held]) / LN2
        return -math.fsum((masses[held] * bits).tolist()) / (sets.depth * (high - low))

    return one(sets.p1), one(sets.p2)
