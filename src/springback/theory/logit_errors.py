"""Paper B's theory of contrast: logit errors of a strong and a weak model, and what lambda does.

The error of a model is its logits minus those of a better one, L(theta) - L(theta*).  The strong
model's has standard deviation eps, the weak one's k * eps, and their correlation is rho.
Contrasted logits (1 + lambda) L_s - lambda L_w then have an error of variance

    eps^2 * [(1 + lambda)^2 - 2 rho k lambda (1 + lambda) + lambda^2 k^2],

whose slope at lambda = 0 is 2 (1 - rho k): contrast helps iff rho k > 1, most at
lambda = (rho k - 1) / (1 - 2 rho k + k^2).  The paper's two cases are rho = 1, with an error of
(1 - lambda (k - 1)) eps, and rho = 0, with sqrt((1 + lambda)^2 + lambda^2 k^2) eps.

Logits are known up to a constant a position, so errors are centred over the plausible tokens of
each, and one of m tokens counts m - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from springback.errors import DataError, describe
from springback.stats import Interval
from springback.stats.values import Floats


def variance_factor(lam: float, k: float, rho: float) -> float:
    """Error variance of the contrasted logits over eps^2; 1 at lambda = 0."""
    _check(k, rho)
    return (1 + lam) ** 2 - 2 * rho * k * lam * (1 + lam) + lam**2 * k**2


def best_lambda(k: float, rho: float) -> float | None:
    """The lambda of the least error, 0 where contrast does not help.

    None where the two errors are one and the same (k = 1, rho = 1): then no lambda changes
    anything.
    """
    _check(k, rho)
    apart = 1 - 2 * rho * k + k**2  # variance of the difference of the two errors over eps^2
    if apart <= 1e-12:
        return None
    return max(0.0, (rho * k - 1) / apart)


def _check(k: float, rho: float) -> None:
    if not (k >= 0 and math.isfinite(k) and -1 <= rho <= 1):
        raise DataError(
            describe(f"k {k}, rho {rho}", "k from 0 up, rho from -1 to 1", "pass a correlation")
        )


@dataclass(frozen=True)
class TextErrors:
    """Sums over the positions of one text: centred errors of the strong and the weak model.

    ``strong``, ``weak``: of squares; ``cross``: of products; over plausible tokens.  ``freedom``:
    plausible tokens less one, summed.  ``contested`` of ``positions`` have more than one.
    """

    strong: float
    weak: float
    cross: float
    freedom: int
    positions: int
    contested: int


@dataclass(frozen=True)
class Errors:
    """What texts say of the two errors, each with a 95 % interval by bootstrap over the texts.

    ``eps`` in nats (logits); ``rho_k`` above 1: contrast helps.  ``contested``: share of positions
    with more than one plausible token, the only ones where contrast can change anything.  None
    where the strong model has no error at all.
    """

    eps: Interval
    k: Interval | None
    rho: Interval | None
    rho_k: Interval | None
    best_lambda: Interval | None
    contested: Interval
    texts: int

    @property
    def helps(self) -> bool | None:
        """Whether contrast helps; None where the interval of rho k holds 1."""
        if self.rho_k is None or self.rho_k.bounds is None:
            return None
        low, high = self.rho_k.bounds
        return True if low > 1 else (False if high < 1 else None)

    def factors(self, lambdas: Sequence[float]) -> list[float] | None:
        """Predicted error variance at each lambda over that at 0."""
        if self.k is None or self.rho is None:
            return None
        return [variance_factor(lam, self.k.mean, self.rho.mean) for lam in lambdas]


def estimate(texts: Sequence[TextErrors], *, resamples: int = 2000, seed: int = 0) -> Errors:
    """eps, k and rho of both models' errors over ``texts``.

    A ratio of sums over the texts, so long texts count more; intervals by percentile bootstrap of
    whole texts, since positions of one text depend on each other.  With one text there are none.
    The reference's own error counts in both: it raises rho and brings k nearer to 1.

    Raises :class:`~springback.errors.DataError` without any contested position.
    """
    sums = np.array(
        [[t.strong, t.weak, t.cross, t.freedom, t.positions, t.contested] for t in texts],
        dtype=np.float64,
    ).reshape(-1, 6)  # (texts, 6)
    if not sums.size or sums[:, 3].sum() == 0:
        raise DataError(
            f"{len(texts)} texts without a position where two tokens are plausible; allowed: one "
            "or more; give more texts or a smaller --alpha"
        )
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(texts), [1 / len(texts)] * len(texts), resamples)
    drawn = _quantities(weights @ sums)  # (resamples, 6)
    estimates = _quantities(sums.sum(axis=0, keepdims=True))[0]
    usable = drawn[np.isfinite(drawn[:, 0])]
    eps, k, rho, rho_k, best, contested = (
        _interval(estimates[i], usable[:, i], len(texts)) for i in range(6)
    )
    assert eps is not None
    assert contested is not None
    return Errors(eps, k, rho, rho_k, best, contested, len(texts))


def _quantities(sums: Floats) -> Floats:
    """Rows of sums (n, 6) as eps, k, rho, rho k, best lambda, contested share (n, 6)."""
    strong, weak, cross, freedom, positions, contested = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        eps = np.sqrt(strong / freedom)
        k = np.sqrt(weak / strong)
        rho = cross / np.sqrt(strong * weak)
        rho_k = cross / strong
        apart = (strong - 2 * cross + weak) / strong
        best = np.where(apart > 1e-12, np.maximum(0.0, (rho_k - 1) / apart), np.nan)
        share = contested / positions
    # Rounding may carry a perfect correlation past 1.
    return np.stack([eps, k, np.clip(rho, -1, 1), rho_k, best, share], axis=1)


def _interval(value: float, drawn: Floats, texts: int) -> Interval | None:
    if not math.isfinite(value):
        return None
    known = drawn[np.isfinite(drawn)]
    if texts < 2 or known.size < 2:
        return Interval(float(value), None, None, texts, "one text, no interval")
    low, high = np.quantile(known, (0.025, 0.975))
    method = "percentile bootstrap over texts"
    return Interval(float(value), float(low), float(high), texts, method)
