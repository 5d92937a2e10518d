"""Three laws of a tail x >= xmin, for counts (discrete) and real values: fits and densities.

Counts get exact normalisations: the zeta law, the log-normal rounded to whole numbers, and the
geometric law, which is the exponential rounded.  All work on distinct values with their counts,
so a million n-grams cost as much as their few thousand distinct frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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

    Searched over sigma and the slope (log xmin - mu) / sigma^2 that the density has at xmin
    beyond -1: a power law is the limit of a fixed slope and sigma to infinity, so it is near a
    start.  Sigma ends at 20, which is a power law for practical purposes.
    """
    logs = np.log(tail.values)
    low = math.log(tail.xmin)
    centre = tail.mean(logs)
    spread = max(tail.mean((logs - centre) ** 2), 1e-6)

    def law(at: Sequence[float] | Floats) -> Law:
        sigma = math.exp(float(at[1]))
        return log_normal_at(low - float(at[0]) * sigma**2, sigma, tail)

    def loss(at: Floats) -> float:
        found = -tail.mean(law(at).log_density(tail.values))
        return found if math.isfinite(found) else 1e9

    alpha = power_law(tail).parameters["alpha"]
    starts = [
        ((low - centre) / spread, 0.5 * math.log(spread)),
        (alpha - 1, math.log(10)),
        (0.5 * (alpha - 1), math.log(2)),
    ]
    bounds = [(-1e4, EXPONENTS[1]), (math.log(1e-3), math.log(20))]
    fits = [
        optimize.minimize(
            loss, np.clip(start, *zip(*bounds, strict=True)), method="Nelder-Mead", bounds=bounds
        )
        for start in starts
    ]
    return law(min(fits, key=lambda fit: float(fit.fun)).x)


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
