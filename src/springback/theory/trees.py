"""Token trees (paper A, section A1): weighted responses as paths from the root to an end leaf."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from springback.errors import DataError, describe

#: The last element of a path that ends where its response ends.
END = None
Symbol = Hashable
Path = tuple[Symbol, ...]


@dataclass(frozen=True)
class TokenTree:
    """A tree by its leaves: path of symbols to weight; the weights sum to 1.

    A path ends in :data:`END` unless pruning cut it off.  No path begins another one.  The end
    counts as one symbol of the depth, so that an empty response has length 1 and not 0.
    """

    leaves: Mapping[Path, float]

    @classmethod
    def from_responses(
        cls, responses: Iterable[Sequence[Symbol]], weights: Iterable[float] | None = None
    ) -> TokenTree:
        """The tree of ``responses``, each of weight 1 unless ``weights`` says otherwise.

        Equal responses share a leaf.  Responses of weight 0 make none.  Raises
        :class:`DataError` for a weight that is negative or not finite, for no weight at all, as
        many weights as responses missing, or a symbol that is :data:`END`.
        """
        rows = [tuple(response) for response in responses]
        given = [1.0] * len(rows) if weights is None else [float(w) for w in weights]
        if len(given) != len(rows):
            raise DataError(
                describe(
                    f"{len(given)} weights for {len(rows)} responses", "one each", "give as many"
                )
            )
        leaves: dict[Path, float] = {}
        for row, weight in zip(rows, given, strict=True):
            if END in row:
                raise DataError(describe("the symbol None", "any other symbol", "rename it"))
            if not (math.isfinite(weight) and weight >= 0):
                raise DataError(
                    describe(f"the weight {weight}", "finite, 0 or more", "mend the weights")
                )
            if weight:
                leaves[(*row, END)] = leaves.get((*row, END), 0.0) + weight
        return cls(_normalised(leaves))

    def weight(self, prefix: Sequence[Symbol] = ()) -> float:
        """The weight of the node at ``prefix``: that of all leaves below it; 0 if there is none."""
        start = tuple(prefix)
        return math.fsum(w for path, w in self.leaves.items() if path[: len(start)] == start)

    def prune(self, depth: int) -> TokenTree:
        """The tree down to ``depth``: a node there becomes a leaf with the weight of what hung on.

        Raises :class:`DataError` for a depth below 1.
        """
        if depth < 1:
            raise DataError(describe(f"depth {depth}", "1 or more", "prune less"))
        leaves: dict[Path, float] = {}
        for path, weight in self.leaves.items():
            leaves[path[:depth]] = leaves.get(path[:depth], 0.0) + weight
        return TokenTree(leaves)

    def mean_depth(self) -> float:
        """E[depth] of the leaves under the tree's own weights, in symbols."""
        return math.fsum(weight * len(path) for path, weight in self.leaves.items())


def _normalised(weights: Mapping[Path, float]) -> dict[Path, float]:
    total = math.fsum(weights.values())
    if not total > 0:
        raise DataError(
            describe("no response with a weight above 0", "at least one", "give responses")
        )
    return {path: weight / total for path, weight in weights.items()}


def joint(trees: Sequence[TokenTree], volumes: Sequence[float]) -> TokenTree:
    """p_l(D) = sum_i p_l(D_i) |D_i| / sum_i |D_i|: data volume is weight (section A1).

    Trees that are to be pruned must be so to one depth, before or after: the two agree.  Raises
    :class:`DataError` unless there is one volume above 0 for each tree, and where the tree of
    one ends a path that another goes on from (trees pruned to different depths).
    """
    if len(trees) != len(volumes) or not trees or any(not v > 0 for v in volumes):
        raise DataError(
            describe(
                f"volumes {list(volumes)} for {len(trees)} trees",
                "one above 0 for each tree",
                "mend the volumes",
            )
        )
    total = math.fsum(volumes)
    leaves: dict[Path, float] = {}
    for tree, volume in zip(trees, volumes, strict=True):
        for path, weight in tree.leaves.items():
            leaves[path] = leaves.get(path, 0.0) + weight * volume / total
    for path in leaves:
        if any(path[:depth] in leaves for depth in range(len(path))):
            raise DataError(
                describe("trees of different depths", "one depth", "prune all of them to one")
            )
    return TokenTree(leaves)


def aligned(trees: Sequence[TokenTree]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Weights on the leaves of all trees together, and the lengths of these leaves' paths.

    Shapes (trees, leaves) and (leaves,); a leaf that a tree lacks has weight 0 there.  Order:
    as first met.
    """
    paths = list(dict.fromkeys(path for tree in trees for path in tree.leaves))
    weights = np.array([[tree.leaves.get(path, 0.0) for path in paths] for tree in trees])
    return weights, np.array([len(path) for path in paths], dtype=np.int64)
