"""Is a tail a Pareto law?  After Clauset, Shalizi and Newman (2009), on distinct values and counts.

Exponent by maximum likelihood above the xmin of least Kolmogorov-Smirnov distance; goodness of
fit by a semi-parametric bootstrap that repeats the whole search; against the exponential by
Vuong's likelihood ratio test, and against the log-normal, whose limit the power law is, by the
likelihood ratio test at that boundary, on the same tail.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from springback.errors import DataError, describe
from springback.theory.laws import (
    Law,
    Tail,
    exponential,
    log_normal,
    power_law,
    power_survival,
)

Floats = NDArray[np.float64]
#: Fewer leaves than this above xmin say nothing about a tail.
LEAST_TAIL = 50
#: Below this the power law is ruled out as the whole story (the authors' own threshold).
RULED_OUT = 0.1
#: Discrete samples are drawn exactly up to this multiple of xmin, rounded from the real law above.
_EXACT = 10_000


@dataclass(frozen=True)
class Rival:
    """Another law on the same tail.

    ``ratio``: log likelihood of the power law minus the rival's; above 0 the power law fits
    better.  ``p``: two-sided, of Vuong's test that neither is nearer to the truth; for the
    log-normal, that its additional parameter is not needed (half a chi^2 with one degree).
    """

    law: str
    parameters: dict[str, float]
    ratio: float
    p: float


@dataclass(frozen=True)
class TailFit:
    """A tail's fit.

    ``alpha``: exponent of the density, with its standard error ``alpha_se``; Zipf's exponent is
    1 / (alpha - 1).  ``distance``: Kolmogorov-Smirnov.  ``p``: share of samples of the fitted
    law that lie further off (NaN without a bootstrap); small rules the power law out.  ``n`` of
    all values, ``n_tail`` of those above ``xmin``, which hold ``mass_tail`` of the total mass
    (share of 1).
    """

    alpha: float
    alpha_se: float
    xmin: float
    distance: float
    p: float
    n: int
    n_tail: int
    mass_tail: float
    rivals: tuple[Rival, ...]

    @property
    def zipf(self) -> float:
        """Exponent of mass against rank."""
        return 1 / (self.alpha - 1)

    @property
    def label(self) -> str:
        """The finding in words."""
        worse = [r.law for r in self.rivals if r.p < RULED_OUT and r.ratio < 0]
        equal = [r.law for r in self.rivals if not r.p < RULED_OUT]
        if self.p < RULED_OUT:
            better = f", {' and '.join(worse)} better" if worse else ", rivals no better"
            return f"not a power law{better}"
        if worse:
            return f"{' and '.join(worse)} better"
        return f"power law, or {' or '.join(equal)}" if equal else "power law"


def histogram(values: Iterable[float] | ArrayLike) -> tuple[Floats, Floats]:
    """Distinct values ascending, and their counts.  Raises :class:`DataError` for one below 0."""
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    if not distinct.size or not np.isfinite(distinct).all() or distinct[0] <= 0:
        raise DataError(
            describe("values that are none, not finite, or 0 or below", "above 0", "mend them")
        )
    return distinct, counts.astype(np.float64)


def ks_distance(tail: Tail, alpha: float) -> float:
    """Largest gap between the tail's share >= x and the power law's, at any x from xmin up."""

    def law(x: Floats) -> Floats:
        return power_survival(x, alpha, tail.xmin, tail.discrete)

    above = np.cumsum(tail.counts[::-1])[::-1] / tail.n  # share >= each value
    beyond = np.append(above[1:], 0.0)  # share > it, up to and at the next value
    just_after = tail.values + (1.0 if tail.discrete else 0.0)
    gaps = np.abs(above - law(tail.values))
    return float(max(gaps.max(), np.abs(beyond - law(just_after)).max()))


def _best_tail(
    values: Floats, counts: Floats, discrete: bool, candidates: int
) -> tuple[Tail, Law, float]:
    """The tail of least distance, its power law and the distance."""
    # Counts of the tail from each value up: enough of them, and two values to tell a slope from.
    left = np.cumsum(counts[::-1])[::-1]
    usable = np.flatnonzero(left >= LEAST_TAIL)
    usable = usable[usable < len(values) - 1]
    if not usable.size:
        raise DataError(
            describe(
                f"{int(counts.sum())} values, {len(values)} different",
                f"{LEAST_TAIL} or more in the tail, of two different values at least",
                "give more data",
            )
        )
    if len(usable) > candidates:
        # Evenly by the logarithm of how much they keep: the fits change by ratios.
        wanted = np.geomspace(left[usable[0]], left[usable[-1]], candidates)
        near = np.searchsorted(-left[usable], -wanted).clip(0, len(usable) - 1)
        usable = usable[np.unique(near)]
    best: tuple[Tail, Law, float] | None = None
    for start in usable:
        tail = Tail(values[start:], counts[start:], float(values[start]), discrete)
        law = power_law(tail)
        distance = ks_distance(tail, law.parameters["alpha"])
        if best is None or distance < best[2]:
            best = tail, law, distance
    assert best is not None  # usable is not empty
    return best


def vuong(tail: Tail, law: Law, other: Law) -> tuple[float, float]:
    """Log likelihood ratio of ``law`` over ``other``, and its two-sided p (Vuong 1989)."""
    gaps = law.log_density(tail.values) - other.log_density(tail.values)
    ratio = float((tail.counts * gaps).sum())
    variance = tail.mean((gaps - ratio / tail.n) ** 2)
    if variance <= 1e-24:  # equal everywhere: nothing to tell apart
        return ratio, 1.0
    return ratio, math.erfc(abs(ratio) / math.sqrt(2 * tail.n * variance))


def _sample_tail(
    tail: Tail, alpha: float, n: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Distinct values and counts of ``n`` draws of the power law from ``xmin`` up."""
    xmin = tail.xmin
    if not tail.discrete:
        return histogram(xmin * (1 - rng.random(n)) ** (-1 / (alpha - 1)))
    edge = xmin * _EXACT if xmin < 10 else xmin * 100
    cells = np.arange(xmin, edge)
    shares = cells**-alpha / special.zeta(alpha, xmin)
    drawn = rng.multinomial(n, np.append(shares, max(1 - shares.sum(), 0.0)))
    beyond_edge = int(drawn[-1])
    beyond = np.floor((edge - 0.5) * (1 - rng.random(beyond_edge)) ** (-1 / (alpha - 1)) + 0.5)
    further, more = np.unique(beyond, return_counts=True)
    seen = np.flatnonzero(drawn[:-1])
    return np.append(cells[seen], further), np.append(drawn[seen], more).astype(np.float64)


def _goodness(
    values: Floats,
    counts: Floats,
    fit: tuple[Tail, Law, float],
    samples: int,
    candidates: int,
    rng: np.random.Generator,
) -> float:
    tail, law, distance = fit
    n, body = int(counts.sum()), values < tail.xmin
    further = 0
    for _ in range(samples):
        # Each value comes from the tail's law with the tail's share, else from the body as it is.
        in_tail = int(rng.binomial(n, tail.n / n))
        low, low_counts = values[body], counts[body]
        if low.size:
            low_counts = rng.multinomial(n - in_tail, low_counts / low_counts.sum()).astype(float)
        top, top_counts = _sample_tail(tail, law.parameters["alpha"], in_tail, rng)
        kept = low_counts > 0
        drawn = np.append(low[kept], top), np.append(low_counts[kept], top_counts)
        try:
            further += _best_tail(*drawn, tail.discrete, candidates)[2] >= distance
        except DataError:  # a draw without two different values in its tail fits perfectly
            continue
    return further / samples


def fit_tail(
    values: Iterable[float] | ArrayLike,
    *,
    discrete: bool = True,
    counts: ArrayLike | None = None,
    samples: int = 100,
    candidates: int = 40,
    seed: int = 0,
) -> TailFit:
    """Fit and test the tail of ``values`` (with ``counts``: distinct values, ascending).

    ``samples`` of the bootstrap, 0 leaves ``p`` NaN; ``candidates`` are how many xmin are tried.
    Raises :class:`DataError` where fewer than 50 values, or a single one, are left for a tail.
    """
    if counts is None:
        xs, ns = histogram(values)
    else:
        xs = np.asarray(values, dtype=np.float64)
        ns = np.asarray(counts, dtype=np.float64)
    fit = _best_tail(xs, ns, discrete, candidates)
    tail, law, distance = fit
    alpha = law.parameters["alpha"]
    rng = np.random.default_rng(seed)
    p = _goodness(xs, ns, fit, samples, candidates, rng) if samples else math.nan
    wider, thinner = log_normal(tail), exponential(tail)
    ratio, _ = vuong(tail, law, wider)
    nested = 0.5 * float(special.chdtrc(1, 2 * max(-ratio, 0.0)))
    rivals = (
        Rival(wider.name, wider.parameters, ratio, nested),
        Rival(thinner.name, thinner.parameters, *vuong(tail, law, thinner)),
    )
    return TailFit(
        alpha=alpha,
        alpha_se=_standard_error(tail, alpha),
        xmin=tail.xmin,
        distance=distance,
        p=p,
        n=int(ns.sum()),
        n_tail=int(tail.n),
        mass_tail=float((tail.values * tail.counts).sum() / (xs * ns).sum()),
        rivals=rivals,
    )


def _standard_error(tail: Tail, alpha: float) -> float:
    """From the curvature of the log likelihood (the variance of log x under the law)."""
    if not tail.discrete:
        return (alpha - 1) / math.sqrt(tail.n)
    step = 1e-3
    logs = [math.log(float(special.zeta(alpha + d, tail.xmin))) for d in (-step, 0.0, step)]
    curvature = (logs[0] - 2 * logs[1] + logs[2]) / step**2
    return 1 / math.sqrt(tail.n * curvature) if curvature > 0 else math.inf
