"""The top singular directions of a matrix that is read in blocks of rows and never held whole.

Low-rank extrapolation (LoX, Perin et al., arXiv 2506.15606) moves the weights along the top
singular directions of the update only.  With R the top k right singular vectors of an update
D (m, n), its best rank-k approximation is D R R^T, which needs one block of rows of D at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from springback.weights.arithmetic import Floats

#: Directions carried along beside those asked for: what makes the iteration converge.
OVERSAMPLE = 8
#: Up to this many columns the whole of D^T D is taken, which gives exact directions in one pass.
EXACT_COLUMNS = 256
MAX_ROUNDS = 20

#: Rows ``first`` to ``last`` of the matrix, (last - first, n), in float64.
Rows = Callable[[int, int], Floats]


@dataclass(frozen=True)
class Top:
    """``right`` (n, k): orthonormal top right singular vectors.

    ``energy`` is ||D||^2 (Frobenius), ``kept`` is ||D R||^2: what the k directions hold of it.
    """

    right: Floats
    energy: float
    kept: float

    def project(self, rows: Floats) -> Floats:
        """Rows of D R R^T from the same rows of D."""
        product: Floats = (rows @ self.right) @ self.right.T
        return product


def top_directions(
    rows: Rows, shape: tuple[int, int], k: int, *, block: int, tolerance: float = 1e-6
) -> Top:
    """The top ``k`` right singular vectors of a matrix of ``shape`` (m, n), 1 <= k <= n.

    Subspace iteration on D^T D with Rayleigh-Ritz: each round reads D once, ``block`` rows at a
    time, and holds (n, k + 8) float64 four times over.  It ends when a round adds less than
    ``tolerance`` of the energy, or after :data:`MAX_ROUNDS`; ``kept`` is what was truly caught.
    The start is random with a fixed seed, so that equal inputs give equal results.  A matrix that
    is not finite gives an ``energy`` that is not.
    """
    m, n = shape
    width = n if n <= EXACT_COLUMNS else min(k + OVERSAMPLE, n)
    basis = np.eye(n)
    if width < n:
        basis = np.linalg.qr(np.random.default_rng(0).standard_normal((n, width)))[0]
    before = -1.0
    for _ in range(MAX_ROUNDS):
        image, energy = np.zeros((n, width)), 0.0
        for first in range(0, m, block):
            part = rows(first, min(first + block, m))
            energy += float(np.einsum("ij,ij->", part, part))
            image += part.T @ (part @ basis)
        if not np.isfinite(energy):
            return Top(basis[:, :k], energy, energy)
        values, vectors = np.linalg.eigh(basis.T @ image)  # rising
        kept = max(0.0, float(values[-k:].sum()))
        if width == n or kept - before <= tolerance * energy:
            break
        before = kept
        basis = np.linalg.qr(image)[0]
    return Top(basis @ vectors[:, -k:], energy, min(kept, energy))


def memory_needed(shape: tuple[int, int], k: int) -> int:
    """Bytes that :func:`top_directions` and its result hold at most."""
    n = shape[1]
    width = n if n <= EXACT_COLUMNS else min(k + OVERSAMPLE, n)
    return 8 * n * (4 * width + k)
