"""Tails of real data: frequencies of n-grams, and leaf masses of the pruned tree of responses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from springback import theory
from springback.core import Slice
from springback.errors import DataError
from springback.jobs.papers.theory.settings import ParetoSettings
from springback.results.theory_schema import Rival, Survival, Tail, TailFit
from springback.theory import TokenTree

_WORD = re.compile(r"\w+|[^\w\s]")
#: Points of a survival curve kept for the chart.
_POINTS = 60
Counts = NDArray[np.int64]


def words(part: Slice) -> list[list[int]]:
    """Each row's response (or text) as numbers of its words and signs, lower case."""
    known: dict[str, int] = {}
    return [
        [known.setdefault(word, len(known)) for word in _WORD.findall(row.response.lower())]
        for row in part.rows
    ]


def ngram_counts(rows: Sequence[Sequence[int]], n: int) -> Counts:
    """How often each n-gram that occurs does so; none reaches over the end of a row."""
    symbols = np.array([symbol for row in rows for symbol in row], dtype=np.int64)
    owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    if len(symbols) < n:
        return np.zeros(0, dtype=np.int64)
    base = int(symbols.max()) + 1
    codes = symbols
    for extra in range(1, n):
        # Renumbered before each step, so that a code never outgrows 64 bits.
        codes = np.unique(codes[:-1], return_inverse=True)[1] * base + symbols[extra:]
    whole = owner[: len(codes)] == owner[len(owner) - len(codes) :]
    return np.asarray(np.unique(codes[whole], return_counts=True)[1], dtype=np.int64)


def leaf_counts(tree: TokenTree, responses: int, depth: int | None) -> Counts:
    """Responses on each leaf of the tree pruned to ``depth`` (None: not pruned)."""
    cut = tree if depth is None else tree.prune(depth)
    return np.array([round(weight * responses) for weight in cut.leaves.values()], dtype=np.int64)


def tails(part: Slice, s: ParetoSettings) -> list[Tail]:
    """One record for each kind of leaf: its fit, or the reason that there is none."""
    rows = words(part)
    tree = TokenTree.from_responses(rows)
    kinds: list[tuple[str, str, int | None]] = [
        *(("n-grams", f"{n}-grams", n) for n in s.ngrams),
        *(("tree", f"depth {d}", d) for d in s.depths),
        ("tree", "whole responses", None),
    ]
    records = []
    for family, leaves, size in kinds:
        if family == "n-grams" and size is not None:
            counts = ngram_counts(rows, size)
        else:
            counts = leaf_counts(tree, len(rows), size)
        records.append(_measured(Tail(family, leaves, size, 0, 0), counts, s))
    return records


def _measured(tail: Tail, counts: Counts, s: ParetoSettings) -> Tail:
    """``tail`` with what its counts say."""
    if not counts.size:
        return replace(tail, reason="no response is that long")
    values, times = np.unique(counts, return_counts=True)
    tail = replace(
        tail,
        different=int(counts.size),
        total=int(counts.sum()),
        once=float((counts == 1).mean()),
        top_mass=float(counts.max() / counts.sum()),
        survival=_survival(values, times),
    )
    try:
        fit = theory.fit_tail(values, counts=times, samples=s.samples, seed=s.seed)
    except DataError as error:
        return replace(tail, reason=str(error))
    rivals = tuple(Rival(**vars(rival)) for rival in fit.rivals)
    return replace(
        tail, fit=TailFit(**{**vars(fit), "rivals": rivals}, zipf=fit.zipf, label=fit.label)
    )


def _survival(values: Counts, times: Counts) -> Survival:
    """Share of leaves with at least so many occurrences, at up to 60 places."""
    above = np.cumsum(times[::-1])[::-1] / times.sum()
    wanted = np.geomspace(values[0], values[-1], _POINTS)
    places = np.unique(np.searchsorted(values, wanted).clip(0, len(values) - 1))
    return Survival(tuple(values[places].tolist()), tuple(above[places].tolist()))
