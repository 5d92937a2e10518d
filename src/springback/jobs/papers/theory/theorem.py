"""The numbers of the theorem's study: plain tables, medians and quartiles over arrangements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from springback import theory
from springback.jobs.papers.theory.settings import TheoremSettings
from springback.progress import Progress
from springback.results.theory_schema import (
    Departure,
    Huffman,
    Identity,
    PremisesCell,
    Quartiles,
    ReadAt,
    Secant,
    Theorem,
    TheoremCell,
)
from springback.theory import Sets, Slopes, TokenTree

#: The arrangement of the theorem's premises: all others lie outside them.
PREMISES = "three parts"
#: How D2 and D3 lie on the leaves.  "opposed": two kinds of D1's leaves, a tenth of its mass.  The
#: place of a name seeds its draws, so new ones come last.
ARRANGEMENTS = (
    "independent",
    "half shared",
    "same ranks",
    "opposite ranks",
    "opposed kinds",
    PREMISES,
)
_OVERLAPS = {"independent": 0.0, "half shared": 0.5, "same ranks": 1.0, "opposite ranks": -1.0}
OPPOSED_SHARE = 0.1
MIDDLE_K = 1e3
#: The dose at which the tables and the map are read.
READ_AT = 0.1
ESCAPES = (0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1)
STEP = 1e-10
HUFFMAN_K, HUFFMAN_DEPTH, HUFFMAN_EXPONENT = 10.0, 8, 1.0
#: Doses that the Huffman codes are made at: the largest l, and how many from 0 on.
HUFFMAN_LARGEST, HUFFMAN_POINTS = 1.0, 201
#: Where the closed form of the premises is held against trees: k, l (its pole is at 1/2), depth.
PREMISES_K = (10.0, 1e3, 1e6)
PREMISES_L = (0.0, 0.01, 0.1, 0.2, 0.3, 0.4, 0.45, 0.55, 0.6, 0.8, 1.0)
PREMISES_DEPTH = 8
T = TypeVar("T")
Floats = theory.masses.Floats
#: Leaf masses of so many leaves, heaviest first.
Law = Callable[[int], Floats]


def arranged(
    law: Law,
    leaves: int,
    arrangement: str,
    rng: np.random.Generator,
    share: float = OPPOSED_SHARE,
) -> Sets:
    """Three sets of this law; D1 and D2 are independent but for opposed kinds and three parts.

    ``share``: of D1's mass that is of D3's kind, where kinds are opposed.  Three parts have a third
    of the leaves each, and of D1's mass; up to two leaves are left over, which no set has.
    """
    if arrangement == PREMISES:
        parts = theory.three_parts(law(leaves // 3), rng)
        one, two, three = (np.append(p, np.zeros(leaves % 3)) for p in parts)
        return Sets(one, two, three)
    masses = law(leaves)
    p1 = theory.permuted(masses, rng)
    if arrangement == "opposed kinds":
        return Sets(p1, *theory.opposed(p1, share, rng))
    p2 = theory.permuted(masses, rng)
    return Sets(p1, p2, theory.overlapping(p2, masses, _OVERLAPS[arrangement], rng))


def quartiles(values: Iterable[float]) -> Quartiles:
    """Median and quartiles of the finite values, and how many there are."""
    finite = np.array([v for v in values if math.isfinite(v)])
    if not finite.size:
        return Quartiles(None, None, None, 0)
    low, median, high = np.quantile(finite, (0.25, 0.5, 0.75))
    return Quartiles(float(median), float(low), float(high), int(finite.size))


def _generators(s: TheoremSettings, cell: int) -> list[np.random.Generator]:
    """One random generator for each draw of a cell."""
    return [np.random.default_rng((s.seed, cell, draw)) for draw in range(s.draws)]


def law_of(name: str, exponent: float) -> Law:
    """The law of this name and exponent, for any number of leaves."""
    return lambda leaves: theory.leaf_masses(name, leaves, exponent)


def _draws(s: TheoremSettings, arrangement: str, law: str = "pareto") -> list[Sets]:
    """Sets of a law's masses in this arrangement, one triple for each draw."""
    generators = _generators(s, ARRANGEMENTS.index(arrangement))
    masses = law_of(law, s.exponent)
    return [arranged(masses, 1 << s.depth, arrangement, rng) for rng in generators]


def premises(s: TheoremSettings) -> tuple[PremisesCell, ...]:
    """The theorem's ratio under its premises, by the closed form and by trees of every law.

    The trees are binary, the three parts begin differently, and pruning merges their leaves.
    """
    rows = []
    for number, law in enumerate(theory.LAWS):
        rng = np.random.default_rng((s.seed, number))
        sets = pruned_trees(law_of(law, s.exponent), PREMISES_DEPTH, min(6, s.depth), rng)
        for k in PREMISES_K:
            for l in PREMISES_L:  # noqa: E741
                slopes = theory.slopes(sets, k, l)
                one, two = theory.difference(sets, k, l, STEP)
                rows.append(
                    PremisesCell(
                        law=law,
                        k=k,
                        l=l,
                        inside=l < 0.5,
                        closed=theory.kept_by_premises(k, l),
                        trees=slopes.kept,
                        differences=-two / one / k,
                        rate1=slopes.rate1,
                        rate2=slopes.rate2,
                        as_stated=slopes.as_stated,
                    )
                )
    return tuple(rows)


def pruned_trees(law: Law, depth: int, cut: int, rng: np.random.Generator) -> Sets:
    """The premises' three sets as token trees of ``depth`` bits, pruned to ``cut`` (2 or more).

    A part's responses begin with 00, 01 or 10.  Raises :class:`DataError` as the trees do.
    """
    parts = []
    for start in ((0, 0), (0, 1), (1, 0)):
        rest = list(itertools.product((0, 1), repeat=depth - 2))
        masses = theory.permuted(law(len(rest)), rng)
        parts.append(TokenTree.from_responses([start + bits for bits in rest], masses.tolist()))
    whole = theory.joint(parts, (1.0, 1.0, 1.0))
    weights, _ = theory.aligned([tree.prune(cut) for tree in (whole, *parts[1:])])
    one, two, three = weights
    return Sets(one, two, three, float(cut))


def identity(s: TheoremSettings) -> Identity:
    """Over laws, arrangements and k: the residue of the balance and of finite differences.

    ``residue_at_zero``: largest |k rate1' + rate2'| in bits; ``residue`` the same against
    l chi^2 / (ln 2 V) at every l.  ``difference``: largest error of the closed form against
    finite differences, relative to the larger of the slope and its cancelling parts.
    """
    zero = largest = gap = 0.0
    cells = 0
    for law in theory.LAWS:
        masses = law_of(law, s.exponent)
        for number, arrangement in enumerate(ARRANGEMENTS):
            rng = np.random.default_rng((s.seed, number))
            sets = arranged(masses, 1 << s.depth, arrangement, rng)
            for k in s.k:
                for l in s.doses:  # noqa: E741
                    slopes = theory.slopes(sets, k, l)
                    expected = l * slopes.chi2 / (math.log(2) * (k + 1 + l)) if l else 0.0
                    residue = abs(slopes.balance - expected)
                    zero, largest = max(zero, residue * (l == 0)), max(largest, residue)
                    cells += 1
                    if l == 0:
                        near = theory.difference(sets, k, l, STEP)
                        gap = max(gap, *_errors(slopes, near, k))
    return Identity(zero, largest, gap, cells)


def _errors(slopes: Slopes, near: tuple[float, float], k: float) -> tuple[float, float]:
    """Errors of both rates' slopes against finite differences ``near``, relative."""
    # A slope is a difference of two terms of size 1 / (ln 2 V); below that is rounding.
    floor = 1e-6 / (math.log(2) * (k + 1))
    pairs = ((slopes.rate1, near[0]), (slopes.rate2, near[1]))
    one, two = (abs(a - b) / max(abs(a), floor) for a, b in pairs)
    return one, two


def by_k_and_l(
    s: TheoremSettings, kept_k: Sequence[float], doses: Sequence[float]
) -> tuple[TheoremCell, ...]:
    """``kept`` (ratio over -k), sign and the balance's parts for every arrangement, k and l."""
    rows = []
    for arrangement in ARRANGEMENTS:
        drawn = _draws(s, arrangement)
        for k in kept_k:
            for l in doses:  # noqa: E741
                cell = replace(_cell(drawn, k, l), arrangement=arrangement, k=k, l=l)
                rows.append(replace(cell, premises=inside_premises(arrangement, l)))
    return tuple(rows)


def inside_premises(arrangement: str, l: float, mass: float = 0.0) -> bool:  # noqa: E741
    """Whether a row lies within the theorem's premises; ``mass``: of D3 on leaves of its own."""
    return arrangement == PREMISES and l < 0.5 and not mass


def _cell(drawn: Sequence[Sets], k: float, l: float) -> TheoremCell:  # noqa: E741
    """Quartiles over draws, and shares of draws in which D2's rate rises, or the two part."""
    every = [theory.slopes(sets, k, l) for sets in drawn]
    return TheoremCell(
        kept=quartiles(f.kept for f in every),
        scale=quartiles(f.scale for f in every),
        chi2=quartiles(f.chi2 for f in every),
        worse=sum(f.rate2 > 0 for f in every) / len(every),
        opposite=sum(f.ratio < 0 for f in every) / len(every),
        as_stated=sum(f.as_stated for f in every) / len(every),
        overlap=float(np.mean([theory.overlap(x.p2, x.p3) for x in drawn])),
    )


def by_law(s: TheoremSettings) -> tuple[TheoremCell, ...]:
    """The same at k = 1000, at l = 0 and 0.1, for every law of the leaf masses."""
    rows = []
    for law in theory.LAWS:
        for arrangement in ARRANGEMENTS:
            drawn = _draws(s, arrangement, law)
            for l in (0.0, READ_AT):  # noqa: E741
                cell = replace(_cell(drawn, MIDDLE_K, l), premises=inside_premises(arrangement, l))
                rows.append(replace(cell, law=law, arrangement=arrangement, k=MIDDLE_K, l=l))
    return tuple(rows)


def departures(s: TheoremSettings) -> tuple[Departure, ...]:
    """Single draws: l chi^2, l / b and ``kept``, for the two charts that lay them side by side."""
    rows = []
    for arrangement in ARRANGEMENTS:
        for sets in _draws(s, arrangement)[:8]:
            for l in s.doses:  # noqa: E741
                if l:
                    f = theory.slopes(sets, MIDDLE_K, l)
                    rows.append(Departure(arrangement, l, l * f.chi2, l / f.scale, f.kept))
    return tuple(rows)


def escaped(s: TheoremSettings) -> tuple[TheoremCell, ...]:
    """``kept`` at l = 0 where a share of D3 lies on leaves that D1 and D2 do not have."""
    rows = []
    for arrangement in ("independent", "same ranks", "opposed kinds", PREMISES):
        drawn = _draws(s, arrangement)
        for k in s.k:
            for mass in ESCAPES:
                moved = [_with_escape(sets, mass) for sets in drawn[:20]]
                inside = inside_premises(arrangement, 0.0, mass)
                cell = replace(_cell(moved, k, 0.0), premises=inside)
                rows.append(replace(cell, arrangement=arrangement, k=k, l=0.0, mass=mass))
    return tuple(rows)


def _with_escape(sets: Sets, mass: float) -> Sets:
    """One more leaf, which only D3 has, with this mass."""
    p1, p2 = (np.append(p, 0.0) for p in (sets.p1, sets.p2))
    return Sets(p1, p2, np.append((1 - mass) * sets.p3, mass))


def mapped(s: TheoremSettings, progress: Progress) -> tuple[TheoremCell, ...]:
    """Over tail exponent, overlap and depth: the cell at k = 1000 and l = 0.1.

    A depth is pruning: the deepest tree's leaves summed, so one draw is the same at all depths.
    """
    rows = []
    progress.stage("map over exponent, overlap and depth", len(s.exponents) * len(s.overlaps))
    for exponent in s.exponents:
        masses = theory.leaf_masses("pareto", 1 << s.depth, exponent)
        for cell_number, share in enumerate(s.overlaps):
            drawn = [_shared(masses, share, rng) for rng in _generators(s, cell_number)]
            for depth in s.depths:
                cut = [_pruned(sets, depth) for sets in drawn]
                cell = _cell(cut, MIDDLE_K, READ_AT)
                cell = replace(cell, exponent=exponent, overlap_set=share, depth=depth)
                rows.append(replace(cell, premises=False))
            progress.advance()
    return tuple(rows)


def _shared(masses: Floats, share: float, rng: np.random.Generator) -> Sets:
    p1, p2 = theory.permuted(masses, rng), theory.permuted(masses, rng)
    return Sets(p1, p2, theory.overlapping(p2, masses, share, rng))


def _pruned(sets: Sets, depth: int) -> Sets:
    one, two, three = (theory.pruned(p, depth) for p in (sets.p1, sets.p2, sets.p3))
    return Sets(one, two, three, float(depth))


def huffman(s: TheoremSettings) -> Huffman:
    """Rates of D1 and D2 along l with a Huffman code of the joint tree, beside ideal lengths.

    In bits a symbol.  ``codes``: how many different codes were met; ``redundancy``: smallest and
    largest mean length minus entropy of the joint tree, in bits a leaf, which must lie in [0, 1).
    ``secant``: change of rate 2 over change of rate 1 from 0 to the largest l, over -k.
    """
    k, depth = HUFFMAN_K, HUFFMAN_DEPTH
    rng = np.random.default_rng(s.seed)
    sets = arranged(law_of("pareto", HUFFMAN_EXPONENT), 1 << depth, "same ranks", rng)
    doses = np.linspace(0, HUFFMAN_LARGEST, HUFFMAN_POINTS)
    ideal: list[list[float]] = [[], []]
    coded: list[list[float]] = [[], []]
    redundancy, codes = [], set()
    for l in doses:  # noqa: E741
        joint = theory.joint_masses(sets, k, float(l))
        lengths = theory.huffman_lengths(joint)
        codes.add(lengths.tobytes())
        redundancy.append(theory.mean_length(joint, lengths) - theory.entropy(joint))
        for i, p in enumerate((sets.p1, sets.p2)):
            coded[i].append(theory.rate(p, lengths, depth))
            ideal[i].append(theory.rate(p, theory.ideal_lengths(joint), depth))
    return Huffman(
        k=k,
        depth=depth,
        exponent=HUFFMAN_EXPONENT,
        largest=HUFFMAN_LARGEST,
        points=HUFFMAN_POINTS,
        l=tuple(doses.tolist()),
        ideal=(tuple(ideal[0]), tuple(ideal[1])),
        huffman=(tuple(coded[0]), tuple(coded[1])),
        codes=len(codes),
        redundancy=(min(redundancy), max(redundancy)),
        secant=Secant(_secant(ideal, k), _secant(coded, k)),
    )


def _secant(rates: Sequence[Sequence[float]], k: float) -> float | None:
    one, two = (rate[-1] - rate[0] for rate in rates)
    return -two / one / k if one else None


def analyse(s: TheoremSettings, progress: Progress) -> Theorem:
    """All tables, under ``theorem`` of a result file's analysis."""

    def done(part: T) -> T:
        progress.advance()
        return part

    progress.stage("theorem: premises, identity, ratio, escape, Huffman codes", 8)
    return Theorem(
        at=ReadAt(MIDDLE_K, READ_AT),
        premises=done(premises(s)),
        identity=done(identity(s)),
        by_k=done(by_k_and_l(s, s.k, (0.0, READ_AT))),
        by_l=done(by_k_and_l(s, (MIDDLE_K,), s.doses)),
        laws=done(by_law(s)),
        departures=done(departures(s)),
        escaped=done(escaped(s)),
        huffman=done(huffman(s)),
        map=mapped(s, progress),
    )
