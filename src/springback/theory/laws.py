"""Three laws of a tail x >= xmin, for counts (discrete) and real values: fits and densities.

Counts get exact normalisations: the zeta law, the log-normal rounded to whole numbers, and the
geometric law, which is the exponential rounded.  All work on distinct values with their counts,
so a million n-grams cost as much as their few thousand distinct frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]
#: Exponents that are looked at; a fit at the upper end is no heavy tail.
EXPONENTS = (1.0001, 12.0)


@dataclass(frozen=True)
class Tail:
    """Distinct values from ``xmin`` up, ascending, and how often each occurs (both float64)."""

    values: Floats
    counts: Floats
    xmin: float
    discrete: bool

    @property
    def n(self) -> float:
        return float(self.counts.sum())

    def mean(self, of: Floats) -> float:
        return float((self.counts * of).sum() / self.n)


@dataclass(frozen=True)
class Law:
    """A fitted law: log density (or log probability) and survival P(X >= x)."""

    name: str
    parameters: dict[str, float]
    log_density: Callable[[Floats], Floats] = field(repr=False)
    survival: Callable[[Floats], Floats] = field(repr=False)


def power_law(tail: Tail) -> Law:
    """Maximum likelihood: p(x) ~ x^-alpha (Clauset, Shalizi and Newman 2009, 3.1)."""
    logs = tail.mean(np.log(tail.values / tail.xmin))
    if not tail.discrete:
        alpha = 1 + 1 / logs if logs > 0 else EXPONENTS[1]
        return power_law_at(min(alpha, EXPONENTS[1]), tail.xmin, discrete=False)
    offset = math.log(tail.xmin)

    def loss(a: float) -> float:  # mean negative log likelihood
        return math.log(float(special.zeta(a, tail.xmin))) + a * (logs + offset)

    alpha = optimize.minimize_scalar(loss, bounds=EXPONENTS, method="bounded").x
    return power_law_at(float(alpha), tail.xmin, discrete=True)


def power_law_at(alpha: float, xmin: float, discrete: bool) -> Law:
    """The power law with this exponent."""
    if discrete:
        whole = float(special.zeta(alpha, xmin))
        return Law(
            "power law",
            {"alpha": alpha},
            lambda x: -alpha * np.log(x) - math.log(whole),
            lambda x: np.asarray(special.zeta(alpha, x) / whole, dtype=np.float64),
        )
    return Law(
        "power law",
        {"alpha": alpha},
        lambda x: math.log((alpha - 1) / xmin) - alpha * np.log(x / xmin),
        lambda x: np.asarray((x / xmin) ** (1 - alpha), dtype=np.float64),
    )


def exponential(tail: Tail) -> Law:
    """Maximum likelihood in closed form; geometric for counts."""
    excess = tail.mean(tail.values) - tail.xmin
    if tail.discrete:
        decay = math.log1p(1 / excess) if excess > 0 else 50.0
        top = math.log(-math.expm1(-decay))
    else:
        decay = 1 / excess if excess > 0 else 1e12
        top = math.log(decay)
    return Law(
        "exponential",
        {"rate": decay},
        lambda x: top - decay * (x - tail.xmin),
        lambda x: np.asarray(np.exp(-decay * (x - tail.xmin)), dtype=np.float64),
    )


def log_normal(tail: Tail) -> Law:
    """Maximum likelihood of the log-normal cut off below ``xmin``.

    Where the likelihood rises all the way to a power law (mu to minus infinity, sigma to
    infinity), the search ends at sigma = 20; the fit is then a power law for practical purposes.
    """
    logs = np.log(tail.values)
    centre = tail.mean(logs)
    spread = math.sqrt(max(tail.mean((logs - centre) ** 2), 1e-6))

    def loss(at: NDArray[np.float64]) -> float:
        law = log_normal_at(float(at[0]), math.exp(float(at[1])), tail)
        found = -tail.mean(law.log_density(tail.values))
        return found if math.isfinite(found) else 1e9

    starts = [(centre, math.log(spread)), (centre - 3 * spread, math.log(2 * spread))]
    bounds = [(-400.0, float(logs[-1]) + 5), (math.log(1e-3), math.log(20))]
    fits = [
        optimize.minimize(loss, start, method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-4})
        for start in starts
    ]
    best = min(fits, key=lambda fit: float(fit.fun))
    return log_normal_at(float(best.x[0]), math.exp(float(best.x[1])), tail)


def log_normal_at(mu: float, sigma: float, tail: Tail) -> Law:
    """The log-normal with these parameters of log x, cut off below the tail's ``xmin``."""

    def log_upper(x: Floats) -> Floats:  # log P(X >= x), also far out
        return np.asarray(special.log_ndtr((mu - np.log(x)) / sigma), dtype=np.float64)

    shift = 0.5 if tail.discrete else 0.0
    whole = float(log_upper(np.array([tail.xmin - shift]))[0])

    def log_density(x: Floats) -> Floats:
        if tail.discrete:
            above, below = log_upper(x + 0.5), log_upper(x - 0.5)
            with np.errstate(divide="ignore"):  # no mass left in double precision: -inf
                return below + np.log(-np.expm1(above - below)) - whole
        z = (np.log(x) - mu) / sigma
        constant = math.log(sigma) + 0.5 * math.log(2 * math.pi) + whole
        return np.asarray(-0.5 * z**2 - np.log(x) - constant, dtype=np.float64)

    return Law(
        "log-normal",
        {"mu": mu, "sigma": sigma},
        log_density,
        lambda x: np.asarray(np.exp(log_upper(x - shift) - whole), dtype=np.float64),
    )
