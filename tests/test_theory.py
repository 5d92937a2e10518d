"""Token trees, Huffman codes, leaf masses and the elasticity theorem's balance."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from springback import theory
from springback.errors import DataError
from springback.jobs.papers.theory.theorem import law_of, pruned_trees
from springback.theory import END, Sets, TokenTree

WEIGHTS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40)
BITS = st.lists(st.lists(st.integers(0, 1), max_size=5).map(tuple), min_size=1, max_size=12)


def test_a_tree_by_hand() -> None:
    # Four responses, "01" twice: leaves 0-1-end 1/2, 0-end 1/4, the empty one 1/4.
    tree = TokenTree.from_responses([(0, 1), (0, 1), (0,), ()])
    assert tree.leaves == {(0, 1, END): 0.5, (0, END): 0.25, (END,): 0.25}
    assert tree.weight((0,)) == 0.75
    assert tree.weight((1,)) == 0
    assert tree.mean_depth() == 0.5 * 3 + 0.25 * 2 + 0.25 * 1


def test_pruning_gives_a_node_the_weight_of_what_hung_on_it() -> None:
    tree = TokenTree.from_responses([(0, 1), (0, 1), (0,), ()]).prune(1)
    assert tree.leaves == {(0,): 0.75, (END,): 0.25}


def test_responses_have_weights() -> None:
    tree = TokenTree.from_responses(["a", "b", "c"], [3, 1, 0])
    assert tree.leaves == {("a", END): 0.75, ("b", END): 0.25}


@given(BITS, BITS, st.integers(1, 5), st.floats(0.01, 100))
def test_joining_and_pruning_commute_and_keep_the_mass(
    a: list[tuple[int, ...]], b: list[tuple[int, ...]], depth: int, volume: float
) -> None:
    trees = [TokenTree.from_responses(rows) for rows in (a, b)]
    one = theory.joint(trees, (volume, 1)).prune(depth)
    two = theory.joint([t.prune(depth) for t in trees], (volume, 1))
    assert one.leaves == pytest.approx(dict(two.leaves), rel=1e-12)
    assert one.weight() == pytest.approx(1, rel=1e-12)


def test_volume_is_weight() -> None:
    trees = [TokenTree.from_responses([row]) for row in ("a", "b")]
    assert theory.joint(trees, (3, 1)).leaves == {("a", END): 0.75, ("b", END): 0.25}
    weights, depths = theory.aligned(trees)
    assert weights.tolist() == [[1, 0], [0, 1]]
    assert depths.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TokenTree.from_responses([]), "at least one"),
        (lambda: TokenTree.from_responses(["a"], [-1]), "0 or more"),
        (lambda: TokenTree.from_responses(["a"], [1, 2]), "one each"),
        (lambda: TokenTree.from_responses([(END,)]), "any other symbol"),
        (lambda: TokenTree.from_responses(["a"]).prune(0), "1 or more"),
        (lambda: theory.joint([TokenTree.from_responses(["a"])], [0]), "above 0"),
        (
            lambda: theory.joint(
                [TokenTree.from_responses(["ab"]), TokenTree.from_responses(["ab"]).prune(1)],
                [1, 1],
            ),
            "one depth",
        ),
        (lambda: theory.huffman_lengths([1, 0]), "above 0"),
        (lambda: theory.rate([1], [1], 0), "depth 0"),
        (lambda: theory.response_bits(0, [1], [1], 2), "symbols 0"),
        (lambda: theory.leaf_masses("cauchy", 4), "pareto"),
        (lambda: theory.pruned(np.ones(3) / 3, 1), "power of two"),
        (lambda: Sets(np.ones(2), np.ones(2) / 2, np.ones(2) / 2), "p1"),
        (
            lambda: theory.slopes(Sets(np.ones(2) / 2, np.ones(2) / 2, np.ones(2) / 2), 0, 0),
            "k above 0",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        make()  # type: ignore[operator]


def test_huffman_by_hand() -> None:
    # Merge 1+1 -> 2, 2+2 -> 4, 4+4 -> 8: depths 1, 2, 3, 3.
    assert theory.huffman_lengths([4, 2, 1, 1]).tolist() == [1, 2, 3, 3]
    assert theory.huffman_lengths([7]).tolist() == [0]


@given(WEIGHTS)
def test_huffman_is_complete_and_within_a_bit_of_the_entropy(weights: list[float]) -> None:
    lengths = theory.huffman_lengths(weights)
    assert theory.kraft_sum(lengths) == 1  # powers of two: exact
    mean, entropy = theory.mean_length(weights, lengths), theory.entropy(weights)
    assert entropy - 1e-9 <= mean < entropy + 1
    assert theory.mean_length(weights, theory.ideal_lengths(weights)) == pytest.approx(entropy)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=5))
def test_no_prefix_code_is_shorter_than_huffmans(weights: list[int]) -> None:
    # Every tuple of lengths that meets Kraft's inequality is that of some prefix code.
    n = len(weights)
    best = min(
        sum(w * length for w, length in zip(weights, lengths, strict=True))
        for lengths in itertools.product(range(1, n), repeat=n)
        if sum(Fraction(1, 2**length) for length in lengths) <= 1
    )
    found = theory.huffman_lengths(weights)
    assert sum(w * int(length) for w, length in zip(weights, found, strict=True)) == best


def test_rates_by_hand() -> None:
    # Weights 1/2, 1/4, 1/4 of a tree pruned to depth 2: 1.5 bits over 2 symbols.
    weights = [0.5, 0.25, 0.25]
    lengths = theory.huffman_lengths(weights)
    assert theory.rate(weights, lengths, 2) == 0.75
    assert theory.normalised_rate(weights, lengths, 2) == 0.75 - math.log2(3)
    # A set that has only the first leaf, in the same code: 1 bit, over the depth of all trees and
    # not its own, one leaf.
    assert theory.normalised_rate([1, 0, 0], lengths, 2) == 0.5


@pytest.mark.parametrize(("symbols", "pieces"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_response_is_coded_in_pieces_of_the_depth(symbols: int, pieces: int) -> None:
    weights = [0.5, 0.25, 0.25]
    lengths = theory.huffman_lengths(weights)
    bits = theory.response_bits(symbols, weights, lengths, 2)
    assert bits == 1.5 * pieces
    if symbols % 2 == 0:
        assert bits / symbols == theory.rate(weights, lengths, 2)


def test_masses_follow_their_law() -> None:
    assert theory.leaf_masses("pareto", 3, 1.0) == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert theory.leaf_masses("uniform", 4).tolist() == [0.25] * 4
    # Quantiles at 1/4 and 3/4: ln 4 and ln 4/3.
    one, two = math.log(4), math.log(4 / 3)
    assert theory.leaf_masses("exponential", 2) == pytest.approx(
        [one / (one + two), two / (one + two)]
    )
    # The log-normal's quantiles at 1/4 and 3/4 are exp(+-0.67449 sigma).
    found = theory.leaf_masses("lognormal", 2, 2.0)
    assert found[0] / found[1] == pytest.approx(math.exp(4 * 0.6744897501960817))


def test_overlap_is_what_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    masses = theory.leaf_masses("pareto", 512)
    other = theory.permuted(masses, rng)
    assert theory.overlapping(other, masses, 1.0, rng).tolist() == other.tolist()
    against = theory.overlapping(other, masses, -1.0, rng)
    assert np.argsort(against).tolist() == np.argsort(-other, kind="stable").tolist()
    found = [theory.overlap(other, theory.overlapping(other, masses, w, rng)) for w in (0, 0.5, 1)]
    assert found == sorted(found)
    assert found[2] == pytest.approx(1)
    one, two = theory.opposed(masses, 0.3, rng)
    assert theory.overlap(one, two) == 0
    assert one.sum() == pytest.approx(1)
    assert two.sum() == pytest.approx(1)


def test_pruning_masses_is_pruning_the_tree() -> None:
    masses = theory.leaf_masses("pareto", 8)
    paths = list(itertools.product((0, 1), repeat=3))
    tree = TokenTree.from_responses(paths, masses.tolist()).prune(2)
    assert theory.pruned(masses, 2).tolist() == pytest.approx(list(tree.leaves.values()))


COUNTS = st.lists(st.tuples(*[st.integers(0, 20)] * 3), min_size=2, max_size=12).filter(
    lambda rows: all(sum(row[i] for row in rows) for i in range(3))
)


def sets_of(rows: list[tuple[int, int, int]], depth: float = 1) -> Sets:
    p = [np.array(column, dtype=float) / sum(column) for column in zip(*rows, strict=True)]
    return Sets(p[0], p[1], p[2], depth)


@given(COUNTS, st.floats(1, 1e6), st.floats(1, 20))
def test_the_volume_weighted_slopes_cancel_at_zero(
    rows: list[tuple[int, int, int]], k: float, depth: float
) -> None:
    kept = [(a, b, c if a or b else 0) for a, b, c in rows]  # D3 supported on D1 and D2
    if not any(c for _, _, c in kept):
        return
    found = theory.slopes(sets_of(kept, depth), k, 0)
    assert abs(found.balance) <= 1e-12
    assert found.escaped == 0


@settings(max_examples=50)
@given(COUNTS, st.integers(1, 10**6), st.fractions(0, 2, max_denominator=50))
def test_the_balance_is_exact_in_fractions_and_the_floats_agree(
    rows: list[tuple[int, int, int]],
    k: int,
    l: Fraction,  # noqa: E741
) -> None:
    sums = [sum(row[i] for row in rows) for i in range(3)]
    p = [[Fraction(row[i], sums[i]) for row in rows] for i in range(3)]
    volume = k + 1 + l
    joint = [(k * a + b + l * c) / volume for a, b, c in zip(*p, strict=True)]
    held = [i for i, q in enumerate(joint) if q]
    falls = [1 - sum(own[i] * p[2][i] / joint[i] for i in held) for own in p[:2]]
    escaped = sum(p[2][i] for i in range(len(rows)) if not p[0][i] and not p[1][i])
    chi2 = sum(p[2][i] ** 2 / joint[i] for i in held) - 1
    right = l * chi2 if l else volume * escaped
    assert k * falls[0] + falls[1] == right  # the balance, without rounding
    found = theory.slopes(sets_of(rows), float(k), float(l))
    assert found.balance == pytest.approx(float(right / volume) / math.log(2), abs=1e-12)
    assert found.rate2 == pytest.approx(float(falls[1] / volume) / math.log(2), abs=1e-12)


@given(COUNTS, st.floats(1, 1e5), st.sampled_from([0.0, 0.01, 0.1, 1.0]))
def test_the_closed_form_is_the_derivative(
    rows: list[tuple[int, int, int]],
    k: float,
    l: float,  # noqa: E741
) -> None:
    sets = sets_of(rows)
    found = theory.slopes(sets, k, l)
    near = theory.difference(sets, k, l, 1e-7)
    for slope, ratio in zip((found.rate1, found.rate2), near, strict=True):
        # Terms of the size of 1 / V cancel; one-sided at 0, so to first order in the step.
        assert ratio == pytest.approx(slope, rel=1e-4, abs=1e-4 / (k + 1))
    # And it is that of the rates themselves, where these can be told apart.
    if k < 100:
        before, after = theory.rates(sets, k, l), theory.rates(sets, k, l + 1e-5)
        assert (after[1] - before[1]) / 1e-5 == pytest.approx(found.rate2, rel=1e-2, abs=1e-3)


def test_the_ratio_by_hand() -> None:
    # D1 even on two leaves, D2 = (3/4, 1/4), D3 = (1/4, 3/4), k = 1, l = 0: p = (5/8, 3/8).
    # 1 - sum p2 p3 / p = 1 - 3/16 (8/5 + 8/3) = 1/5; for D1: 1 - (1/5 + 1) = -1/5.
    sets = Sets(np.array([0.5, 0.5]), np.array([0.75, 0.25]), np.array([0.25, 0.75]))
    found = theory.slopes(sets, 1, 0)
    assert found.cov2 == pytest.approx(-0.2)
    assert found.rate2 == pytest.approx(0.2 / (math.log(2) * 2))
    assert found.ratio == pytest.approx(-1)
    assert found.kept == pytest.approx(1)
    # chi^2 = (1/16) / (5/8) + (9/16) / (3/8) - 1 = 3/5, so b = -1/3: a pole at l near 1/3.
    assert found.chi2 == pytest.approx(0.6)
    assert found.scale == pytest.approx(-1 / 3)


@pytest.mark.parametrize("law", theory.LAWS[:3])
@pytest.mark.parametrize("k", [10.0, 1e3, 1e5])
def test_the_ratio_needs_no_law_at_zero_and_departs_by_one_number(law: str, k: float) -> None:
    rng = np.random.default_rng(1)
    masses = theory.leaf_masses(law, 256)
    p1, p2 = theory.permuted(masses, rng), theory.permuted(masses, rng)
    sets = Sets(p1, p2, theory.overlapping(p2, masses, 0.3, rng), 8.0)
    assert theory.slopes(sets, k, 0).ratio == pytest.approx(-k, rel=1e-6)
    for l in (0.01, 0.1, 1.0):  # noqa: E741
        found = theory.slopes(sets, k, l)
        assert found.kept == pytest.approx(1 / (1 + l / found.scale), rel=1e-6)


def test_the_premises_are_three_parts_of_one_size_that_share_no_leaf() -> None:
    masses = theory.leaf_masses("pareto", 5)
    whole, second, third = theory.three_parts(masses, np.random.default_rng(0))
    first = 3 * whole - second - third
    for part in (first, second, third):
        assert sorted(part)[-5:] == pytest.approx(sorted(masses))
        assert np.count_nonzero(part > 1e-12) == 5
    held = [set(np.flatnonzero(part > 1e-12)) for part in (first, second, third)]
    assert len(set.union(*held)) == 15


def test_under_the_premises_the_ratio_by_hand() -> None:
    # k = 3, l = 1/4, one leaf a part: joint weights 1, 2, 5/4 of V = 17/4.
    sets = Sets(np.ones(3) / 3, np.array([0, 1.0, 0]), np.array([0, 0, 1.0]), 2.0)
    found = theory.slopes(sets, 3, 0.25)
    # D2's leaf loses weight as 1 / V does; of D1 the third leaf gains (1/3) / (5/4) = 4/15 ...
    assert found.rate2 == pytest.approx(4 / 17 / (2 * math.log(2)))
    assert found.rate1 == pytest.approx((4 / 17 - 4 / 15) / (2 * math.log(2)))
    # ... so the ratio is -3 (1 + 1/4) / (1 - 1/2).
    assert found.ratio == pytest.approx(-7.5)
    assert theory.kept_by_premises(3, 0.25) == pytest.approx(2.5)


@pytest.mark.parametrize("law", theory.LAWS)
@pytest.mark.parametrize("k", [10.0, 1e3, 1e6])
@pytest.mark.parametrize("cut", [3, 6])
def test_trees_under_the_premises_follow_the_closed_form_whatever_the_law(
    law: str, k: float, cut: int
) -> None:
    sets = pruned_trees(law_of(law, 1.0), 6, cut, np.random.default_rng(3))
    for l in (0.0, 0.05, 0.1, 0.3, 0.45, 0.55, 0.8, 2.0):  # noqa: E741
        found, closed = theory.slopes(sets, k, l), theory.kept_by_premises(k, l)
        assert closed == pytest.approx((1 + 3 * l / k) / (1 - 2 * l))
        assert found.kept == pytest.approx(closed, rel=1e-7)
        one, two = theory.difference(sets, k, l, 1e-8)
        assert -two / one / k == pytest.approx(closed, rel=1e-5)
        # The signs are part of the statement: up to l = 1/2 and no further.
        assert found.as_stated == (l < 0.5)
        assert found.rate2 > 0
    assert theory.kept_by_premises(1e9, 0.1) == pytest.approx(1.25)
    assert theory.kept_by_premises(1e9, 0.45) == pytest.approx(10.0)
    assert theory.kept_by_premises(k, 0.5) == math.inf


def test_rates_of_joined_and_pruned_trees_have_the_slopes_of_the_closed_form() -> None:
    """Nothing but trees: join them by volume, prune, code, divide by the depth."""
    parts = [
        TokenTree.from_responses([start + end for end in itertools.product((0, 1), repeat=3)], w)
        for start, w in zip(
            ((0, 0), (0, 1), (1, 0)),
            ([8, 4, 2, 1, 1, 1, 1, 1], [1] * 8, [5, 5, 3, 3, 2, 2, 1, 1]),
            strict=True,
        )
    ]
    whole, k, l, step, depth = theory.joint(parts, (1, 1, 1)), 5.0, 0.3, 1e-5, 4  # noqa: E741

    def rates(volume: float) -> list[float]:
        mixed = theory.joint([whole, parts[1], parts[2]], (k, 1.0, volume)).prune(depth)
        weights, _ = theory.aligned([mixed, whole.prune(depth), parts[1].prune(depth)])
        code = theory.ideal_lengths(weights[0])
        return [theory.rate(own, code, depth) for own in weights[1:]]

    (one, two), (later, after) = rates(l - step), rates(l + step)
    assert later < one
    assert after > two
    ratio = (after - two) / (later - one)
    assert ratio == pytest.approx(-k * (1 + 3 * l / k) / (1 - 2 * l), rel=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_only_the_share_of_d3s_part_counts(share: float) -> None:
    """Two opposed kinds are the premises but for the sizes; the pole is at share / (1 - share)."""
    p1 = theory.permuted(theory.leaf_masses("pareto", 64), np.random.default_rng(0))
    p2, p3 = theory.opposed(p1, share, np.random.default_rng(1))
    exact = float(p1[p3 > 0].sum())
    for l in (0.01, 0.05, 3.0):  # noqa: E741
        found = theory.slopes(Sets(p1, p2, p3), 100.0, l)
        assert found.kept == pytest.approx(theory.kept_by_premises(100.0, l, exact), rel=1e-9)
    with pytest.raises(DataError, match="share"):
        theory.kept_by_premises(100.0, 0.1, 1.0)


def test_the_sign_follows_the_overlap() -> None:
    rng = np.random.default_rng(2)
    p1 = theory.permuted(theory.leaf_masses("pareto", 512), rng)
    p2 = theory.permuted(theory.leaf_masses("pareto", 512), rng)
    shared = theory.slopes(Sets(p1, p2, p2), 1e3, 0)
    assert shared.rate2 < 0 < shared.rate1
    kinds = theory.slopes(Sets(p1, *theory.opposed(p1, 0.1, rng)), 1e3, 0)
    assert kinds.rate1 < 0 < kinds.rate2
    # D3 = D2: Cov(p2/p, p3/p) = Var(p3/p), so b = 1.
    assert shared.scale == pytest.approx(1)


def test_escaped_mass_undoes_the_ratio() -> None:
    # A tenth of D3 on a leaf of its own: the balance is 0.1 / ln 2 at l = 0, not 0.
    sets = Sets(np.array([0.5, 0.5, 0]), np.array([0.75, 0.25, 0]), np.array([0.225, 0.675, 0.1]))
    found = theory.slopes(sets, 1e4, 0)
    assert found.escaped == 0.1
    assert found.balance == pytest.approx(0.1 / math.log(2))
    assert found.chi2 == math.inf
    assert abs(found.kept) < 0.01
    assert found.rate1 > 0
    assert theory.difference(sets, 1e4, 0, 1e-9)[0] == pytest.approx(found.rate1, rel=1e-4)
