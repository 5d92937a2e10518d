"""Huffman coding and compression rates (paper A, section A1).  Lengths are in bits.

Every tree is pruned to one depth d.  A response longer than that is coded in pieces of d symbols,
each with the code of the pruned tree, so rates of all data sets divide by the same d.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import ArrayLike, NDArray

from springback.errors import DataError, describe

Floats = NDArray[np.float64]


def _weights(weights: ArrayLike) -> Floats:
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 1 or not array.size or not (np.isfinite(array) & (array > 0)).all():
        raise DataError(
            describe(
                "leaf weights that are empty, 0, negative or not finite",
                "one list of numbers above 0",
                "leave out the leaves without weight",
            )
        )
    return array


def huffman_lengths(weights: ArrayLike) -> NDArray[np.int64]:
    """Code lengths in bits of a Huffman code for ``weights`` (any sum), in their order.

    Among equal weights the earlier one, and a single leaf before a merged one, is merged first,
    which also keeps the longest code short.  One leaf alone has length 0.  Raises
    :class:`DataError` for a weight of 0 or below.
    """
    given = _weights(weights)
    n = len(given)
    heap = [(float(weight), i) for i, weight in enumerate(given)]
    heapq.heapify(heap)
    parent = np.zeros(2 * n - 1, dtype=np.int64)
    for node in range(n, 2 * n - 1):
        weight, one = heapq.heappop(heap)
        other_weight, other = heapq.heappop(heap)
        parent[one] = parent[other] = node
        heapq.heappush(heap, (weight + other_weight, node))
    depth = np.zeros(2 * n - 1, dtype=np.int64)
    for node in range(2 * n - 3, -1, -1):  # a parent's number is above its children's
        depth[node] = depth[parent[node]] + 1
    return depth[:n]


def ideal_lengths(weights: ArrayLike) -> Floats:
    """-log2 of each weight's share of the sum, in bits."""
    given = _weights(weights)
    lengths: Floats = -np.log2(given / given.sum())
    return lengths


def entropy(weights: ArrayLike) -> float:
    """Bits a leaf: the least mean code length.  Huffman's lies in [entropy, entropy + 1)."""
    given = _weights(weights)
    shares = given / given.sum()
    return float(-(shares * np.log2(shares)).sum())


def kraft_sum(lengths: ArrayLike) -> float:
    """Sum of 2^-length: at most 1 for a prefix code, exactly 1 for a complete one."""
    return float(np.exp2(-np.asarray(lengths, dtype=np.float64)).sum())


def mean_length(weights: ArrayLike, lengths: ArrayLike) -> float:
    """Bits a leaf of the code ``lengths`` under ``weights``, which may hold zeros."""
    given = np.asarray(weights, dtype=np.float64)
    return float((given * np.asarray(lengths, dtype=np.float64)).sum() / given.sum())


def rate(weights: ArrayLike, lengths: ArrayLike, depth: int) -> float:
    """Compression rate gamma(D_i): bits of code for each of a piece's ``depth`` symbols.

    ``weights`` are p_l(D_i), ``lengths`` those of the code of the joint tree, in one order;
    ``depth`` is the one that all trees are pruned to.  Lower = compressed better.
    """
    return mean_length(weights, lengths) / _at_least_one("depth", depth)


def response_bits(symbols: int, weights: ArrayLike, lengths: ArrayLike, depth: int) -> float:
    """Expected bits of a response of ``symbols`` symbols: ceil(symbols / depth) pieces.

    Over the symbols it is :func:`rate` where ``depth`` divides them.
    """
    pieces = -(-_at_least_one("symbols", symbols) // _at_least_one("depth", depth))
    return pieces * mean_length(weights, lengths)


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise DataError(describe(f"{name} {value}", "1 or more", "mend it"))
    return value


def normalised_rate(weights: ArrayLike, lengths: ArrayLike, depth: int) -> float:
    """gamma(D_i / D) = gamma(D_i) - log2 M, M = leaves of the pruned tree of D_i (section A1).

    The base of the logarithm is our reading.  M does not depend on the other data sets, so this
    has the same derivatives as :func:`rate`.
    """
    leaves = int(np.count_nonzero(np.asarray(weights)))
    return rate(weights, lengths, depth) - float(np.log2(leaves))
