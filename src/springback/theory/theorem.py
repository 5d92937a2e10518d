"""The elasticity theorem (paper A, 4.2) in numbers.

Three data sets over the same leaves: D1 (pre-training, volume k), D2 (alignment, volume 1), D3
(perturbation, volume l); the joint weights are p(l) = (k p1 + p2 + l p3) / V, V = k + 1 + l, and

    rate_i(l) = -sum_leaf p_i log2 p(l) / E_i[depth]            bits a symbol, ideal lengths.

Its derivative is, with covariances over leaves under p,

    rate_i'(l) = (1 - sum p_i p3 / p) / (ln 2 E_i V) = -Cov_p(p_i/p, p3/p) / (ln 2 E_i V).

k p1/p + p2/p + l p3/p = V is constant, so its covariance with anything is 0:

    k E_1 rate_1' + E_2 rate_2' = l chi^2(p3 || p) / (ln 2 V),   chi^2 = Var_p(p3/p).     (balance)

At l = 0 the right side is 0: rate_2' / rate_1' = -k E_1 / E_2 for *any* leaf masses.  Away from 0

    (rate_2' E_2) / (rate_1' E_1) = -k / (1 + l / b),    b = Cov_p(p2/p, p3/p) / Var_p(p3/p).

Mass of D3 on leaves that neither D1 nor D2 has ("escaped") keeps the right side of the balance
at mass / ln 2 when l goes to 0.
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
    """p1, p2, p3: leaf masses, each of shape (leaves,), sum 1; E_1 and E_2: mean depths.

    Raises :class:`DataError` for other shapes, a mass below 0 or a sum that is not 1.
    """

    p1: Floats
    p2: Floats
    p3: Floats
    depth1: float = 1.0
    depth2: float = 1.0

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
        if not (self.depth1 > 0 and self.depth2 > 0):
            raise DataError(
                describe(f"depths {self.depth1}, {self.depth2}", "above 0", "mend them")
            )


@dataclass(frozen=True)
class Slopes:
    """Derivatives of both rates at one k and l, and what they are made of.

    ``rate1``, ``rate2`` in bits a symbol for each unit of l; above 0 = compressed worse.
    ``ratio``: rate2 / rate1 (NaN where D1's rate stands still).  ``kept``: ratio over -k E1/E2,
    from the two rates; 1 = as the theorem says, below 0 = both rates move the same way.
    ``cov2``: the covariance whose sign is opposite to that of rate2.  ``chi2``: chi^2(p3 || p),
    infinite where mass escapes at l = 0.  ``scale``: b, the l at which ``kept`` is halved (b > 0)
    or infinite (l = -b).  ``escaped``: mass of D3 outside D1 and D2.  ``balance``:
    k E1 rate1' + E2 rate2'.
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


def _check(k: float, l: float) -> None:  # noqa: E741  (the paper's letter)
    if not (k > 0 and l >= 0 and math.isfinite(k) and math.isfinite(l)):
        raise DataError(describe(f"k = {k}, l = {l}", "k above 0, l 0 or more", "mend them"))


def joint_masses(sets: Sets, k: float, l: float) -> Floats:  # noqa: E741
    """p(l), shape (leaves,)."""
    _check(k, l)
    masses: Floats = (k * sets.p1 + sets.p2 + l * sets.p3) / (k + 1 + l)
    return masses


def rates(sets: Sets, k: float, l: float) -> tuple[float, float]:  # noqa: E741
    """rate_1 and rate_2 with ideal lengths, bits a symbol."""
    p = joint_masses(sets, k, l)

    def one(masses: Floats, depth: float) -> float:
        held = masses > 0
        return -math.fsum((masses[held] * np.log2(p[held])).tolist()) / depth

    return one(sets.p1, sets.depth1), one(sets.p2, sets.depth2)


def slopes(sets: Sets, k: float, l: float) -> Slopes:  # noqa: E741
    """d rate_i / dl in closed form (from the right at l = 0), and the parts of its balance."""
    p = joint_masses(sets, k, l)
    volume = k + 1 + l
    known = (sets.p1 > 0) | (sets.p2 > 0)
    escaped = math.fsum(sets.p3[~known].tolist())

    def fall(masses: Floats) -> float:
        # 1 - sum own p3 / p, summed as own (p - p3) / p: no loss where the sum is close to 1.
        held = masses > 0
        value = math.fsum((masses[held] * (p[held] - sets.p3[held]) / p[held]).tolist())
        return value if abs(value) > _ROUNDING else 0.0

    fall1, fall2 = fall(sets.p1), fall(sets.p2)
    held = p > 0
    square = math.fsum((sets.p3[held] * (sets.p3[held] / p[held])).tolist())
    chi2 = math.inf if escaped and l == 0 else square - 1
    rate1 = fall1 / (LN2 * sets.depth1 * volume)
    rate2 = fall2 / (LN2 * sets.depth2 * volume)
    return Slopes(
        rate1=rate1,
        rate2=rate2,
        ratio=rate2 / rate1 if rate1 else math.nan,
        kept=-fall2 / (k * fall1) if fall1 else math.nan,
        cov2=-fall2,
        chi2=chi2,
        scale=-fall2 / chi2 if chi2 > _ROUNDING else math.nan,
        escaped=escaped,
        balance=k * sets.depth1 * rate1 + sets.depth2 * rate2,
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

    def one(masses: Floats, depth: float) -> float:
        held = (masses > 0) & (before > 0) & (after > 0)
        bits = np.log1p(moved[held] / before[held]) / LN2
        return -math.fsum((masses[held] * bits).tolist()) / (depth * (high - low))

    return one(sets.p1, sets.depth1), one(sets.p2, sets.depth2)
