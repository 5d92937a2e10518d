"""Three laws of a tail x >= xmin, for counts (discrete) and real values: fits and densities.

For counts each law has a probability proportional to its density at whole numbers: the zeta law,
the geometric law, and the log-normal summed exactly.  All work on distinct values with their
counts, so a million n-grams cost as much as their few thousand distinct frequencies.
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
#: Beyond this a log-normal is a power law for practical purposes.
_WIDEST = 20.0
#: Terms of a log-normal's sum that are taken singly; the rest is an integral.
_TERMS = 200


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
    """A fitted law and its log density, or log probability for counts."""

    name: str
    parameters: dict[str, float]
    log_density: Callable[[Floats], Floats] = field(repr=False)


def power_law(tail: Tail) -> Law:
    """Maximum likelihood: p(x) ~ x^-alpha (Clauset, Shalizi and Newman 2009, 3.1)."""
    logs = tail.mean(np.log(tail.values / tail.xmin))
    if not tail.discrete:
        alpha = min(1 + 1 / logs, EXPONENTS[1]) if logs > 0 else EXPONENTS[1]
        return Law(
            "power law",
            {"alpha": alpha},
            lambda x: math.log((alpha - 1) / tail.xmin) - alpha * np.log(x / tail.xmin),
        )
    offset = math.log(tail.xmin)

    def loss(a: float) -> float:  # mean negative log likelihood
        return math.log(float(special.zeta(a, tail.xmin))) + a * (logs + offset)

    best = float(optimize.minimize_scalar(loss, bounds=EXPONENTS, method="bounded").x)
    whole = math.log(float(special.zeta(best, tail.xmin)))
    return Law("power law", {"alpha": best}, lambda x: -best * np.log(x) - whole)


def power_survival(x: Floats, alpha: float, xmin: float, discrete: bool) -> Floats:
    """P(X >= x) of the power law from ``xmin`` up."""
    if discrete:
        return np.asarray(special.zeta(alpha, x) / special.zeta(alpha, xmin), dtype=np.float64)
    return np.asarray((x / xmin) ** (1 - alpha), dtype=np.float64)


def exponential(tail: Tail) -> Law:
    """Maximum likelihood in closed form; geometric for counts."""
    excess = tail.mean(tail.values) - tail.xmin
    if tail.discrete:
        decay = math.log1p(1 / excess) if excess > 0 else 50.0
        top = math.log(-math.expm1(-decay))
    else:
        decay = 1 / excess if excess > 0 else 1e12
        top = math.log(decay)
    return Law("exponential", {"rate": decay}, lambda x: top - decay * (x - tail.xmin))


def log_normal(tail: Tail) -> Law:
    """Maximum likelihood of the log-normal cut off below ``xmin``.

    Searched over sigma and :func:`log_normal_at`'s slope: a power law is the limit of a fixed
    slope and sigma to infinity, so one start lies near it, and the fit is never much worse.
    """
    logs = np.log(tail.values)
    centre = tail.mean(logs)
    spread = max(tail.mean((logs - centre) ** 2), 1e-6)

    def loss(point: Floats) -> float:
        law = log_normal_at(float(point[0]), math.exp(float(point[1])), tail)
        value = -tail.mean(law.log_density(tail.values))
        return value if math.isfinite(value) else 1e9

    alpha = power_law(tail).parameters["alpha"]
    starts = [
        ((math.log(tail.xmin) - centre) / spread, 0.5 * math.log(spread)),
        (alpha - 1, math.log(_WIDEST / 2)),
        (0.5 * (alpha - 1), math.log(2)),
    ]
    bounds = [(-1e4, EXPONENTS[1]), (math.log(1e-3), math.log(_WIDEST))]
    lows, highs = zip(*bounds, strict=True)
    fits = [
        optimize.minimize(loss, np.clip(point, lows, highs), method="Nelder-Mead", bounds=bounds)
        for point in starts
    ]
    best = min(fits, key=lambda fit: float(fit.fun)).x
    return log_normal_at(float(best[0]), math.exp(float(best[1])), tail)


def log_normal_at(slope: float, sigma: float, tail: Tail) -> Law:
    """The log-normal cut off below the tail's ``xmin``, by slope and standard deviation of log x.

    ``slope`` is (log xmin - mu) / sigma^2: at xmin the density falls as x^-(1 + slope).
    """
    low = math.log(tail.xmin)

    def kernel(x: Floats) -> Floats:  # log density relative to that at xmin
        u = np.log(x) - low
        return np.asarray(-u * (1 + slope + u / (2 * sigma**2)), dtype=np.float64)

    def log_integral(start: float) -> float:  # of exp(kernel) from there on
        z = slope * sigma + (math.log(start) - low) / sigma
        inner = float(special.log_ndtr(-z)) + 0.5 * (slope * sigma) ** 2
        return low + math.log(sigma) + 0.5 * math.log(2 * math.pi) + inner

    if tail.discrete:
        # Euler and Maclaurin: the sum from M on is the integral + f(M) / 2 - f'(M) / 12.
        x = np.arange(tail.xmin, tail.xmin + _TERMS)
        end = tail.xmin + _TERMS
        rest = float(kernel(np.array([end]))[0])
        steep = -(1 + slope + (math.log(end) - low) / sigma**2) / end
        edge = rest + math.log(max(0.5 - steep / 12, 1e-300))
        whole = float(special.logsumexp(np.append(kernel(x), [edge, log_integral(end)])))
    else:
        whole = log_integral(tail.xmin)
    mu = low - slope * sigma**2
    return Law("log-normal", {"mu": mu, "sigma": sigma}, lambda x: kernel(x) - whole)
