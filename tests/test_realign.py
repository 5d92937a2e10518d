"""A second alignment is called faster only when it gains more per example, seed by seed."""

from __future__ import annotations

import math

import pytest

from springback.elasticity import realignment
from springback.errors import DataError

COUNTS = (0, 10, 20)


def test_gains_per_example_are_paired_by_seed() -> None:
    # First: 0.1 an example throughout.  Second: 0.1 + 0.01, 0.02, 0.03 an example more.
    first = {s: [s, s + 1.0, s + 2.0] for s in range(3)}
    second = {s: [s, s + 10 * r, s + 20 * r] for s, r in enumerate((0.11, 0.12, 0.13))}
    found = realignment(COUNTS, first, second)
    # mean 0.02, sd 0.01: half width 2.484138 * 0.01
    assert found.difference.mean == pytest.approx(0.02)
    assert found.difference.bounds == pytest.approx((-0.00484138, 0.04484138), abs=1e-7)
    assert found.label == "undecided"
    assert [at.count for at in found.counts] == [10, 20]
    assert found.counts[1].first.mean == pytest.approx(0.1)
    assert found.counts[1].difference.mean == pytest.approx(0.02)


def test_the_order_of_seeds_does_not_count() -> None:
    first = {0: [0.0, 1.0, 2.0], 1: [5.0, 6.0, 7.0]}
    second = {1: [5.0, 6.5, 8.0], 0: [0.0, 1.4, 2.8]}
    found = realignment(COUNTS, first, second)
    # 0.05 and 0.04 an example more
    assert found.difference.mean == pytest.approx(0.045)
    assert found.begins.mean == 0.0
    assert found.label == "undecided"  # t with one degree of freedom: 0.045 +- 0.0635


def test_a_lower_beginning_is_told_apart_from_speed() -> None:
    # Both follow 1 - exp(-n / 10) upward from where they begin; the second begins at -1: it gains
    # twice as much an example, and from height 0 on it is the same curve 10 ln 2 examples later.
    counts = tuple(float(n) for n in range(41))
    first, second = {}, {}
    for seed in range(3):
        scale = 1 + 0.1 * seed
        first[seed] = [scale * (1 - math.exp(-n / 10)) for n in counts]
        second[seed] = [scale * (1 - 2 * math.exp(-n / 10)) for n in counts]
    found = realignment(counts, first, second)
    assert found.label == "faster"
    assert found.begins.mean == pytest.approx(-1.1)
    assert found.examples is not None
    assert found.examples.mean == pytest.approx(0.0, abs=0.1)
    assert "It begins 1.1 nats a token lower" in found.sentence


def test_examples_between_equal_heights_by_hand() -> None:
    # First: 0 to 2 in 20 examples.  Second: from 0.5 to 2 in 5 examples, flat after.  Heights in
    # common 0.5 to 2: first 5 to 20, 15 examples; second 5.  Difference -10.
    first = {0: [0.0, 1.0, 2.0], 1: [0.0, 1.0, 2.0]}
    second = {0: [0.5, 3.5, 3.5], 1: [0.5, 3.5, 3.5]}
    found = realignment(COUNTS, first, second)
    assert found.examples is not None
    assert found.examples.mean == pytest.approx(-10)
    assert found.height_label == "undecided"  # both seeds alike: no spread, no interval


def test_faster_from_equal_height_too() -> None:
    first = {s: [0.0, 1.0, 2.0] for s in range(3)}
    second = {s: [0.0, 2.0 + 0.1 * s, 4.0] for s in range(3)}
    found = realignment(COUNTS, first, second)
    assert (found.label, found.height_label) == ("faster", "faster")
    slow = realignment(COUNTS, second, first)
    assert (slow.label, slow.height_label) == ("slower", "slower")


def test_one_seed_and_no_common_height() -> None:
    found = realignment(COUNTS, {0: [0.0, 0.5, 1.0]}, {0: [2.0, 2.5, 3.0]})
    assert found.label == "one seed, no interval"
    assert (found.examples, found.height_label) == (None, None)
    assert found.sentence.endswith("between equal heights: no heights in common.")


@pytest.mark.parametrize(
    ("counts", "first", "second"),
    [
        ((0, 10), {0: [0.0, 1.0]}, {1: [0.0, 1.0]}),
        ((0, 10), {}, {}),
        ((0,), {0: [0.0]}, {0: [0.0]}),
        ((10, 20), {0: [0.0, 1.0]}, {0: [0.0, 1.0]}),
        ((0, 10), {0: [0.0, math.nan]}, {0: [0.0, 1.0]}),
        ((0, 10), {0: [0.0, 1.0]}, {0: [0.0]}),
    ],
)
def test_alignments_that_do_not_match_up_are_refused(
    counts: tuple[float, ...], first: dict[int, list[float]], second: dict[int, list[float]]
) -> None:
    with pytest.raises(DataError, match="same seeds"):
        realignment(counts, first, second)
