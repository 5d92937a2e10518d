"""Rows of very different lengths: passes of their own, and the same logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import pytest
import torch

from decode_fixture import expert, prompts
from springback.decode.rows import Half, by_length


def paid(groups: Sequence[Sequence[int]], lengths: Sequence[int], fixed: int) -> int:
    return sum(len(g) * max(lengths[i] for i in g) + fixed for g in groups)


def partitions(places: list[int]) -> list[list[list[int]]]:
    """All ways to cut ``places`` into runs."""
    found = []
    for count in range(len(places)):
        for cuts in combinations(range(1, len(places)), count):
            ends = (0, *cuts, len(places))
            found.append([places[a:b] for a, b in pairwise(ends)])
    return found


@pytest.mark.parametrize("fixed", [0, 5, 50])
def test_no_partition_of_the_rows_costs_less(fixed: int) -> None:
    lengths = [9, 30, 1, 12, 31, 1, 8, 90]
    groups = by_length(lengths, fixed)
    assert sorted(i for g in groups for i in g) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    least = min(paid(way, lengths, fixed) for way in partitions(order))
    assert paid(groups, lengths, fixed) == least


def test_rows_of_one_length_are_one_group() -> None:
    assert by_length([4, 4, 4], 1) == [[0, 1, 2]]
    assert by_length([7], 50) == [[0]]


@pytest.mark.parametrize("keep", [1, 3, [-1], [-6, -2, -1]])
@torch.inference_mode()
def test_several_passes_give_the_logits_of_one(keep: int | list[int]) -> None:
    """fp64; blocks of 1 to 17 tokens, twice, so that the second are fed after what rows hold."""
    first, second = prompts(5), [p[: n + 1] for n, p in enumerate(prompts(10)[5:])]
    whole, split = Half(expert(), 5), Half(expert(), 5)
    whole._tokens_of_a_pass, split._tokens_of_a_pass = 10**6, 1
    for blocks in (first, second):
        expected, got = whole.run(range(5), blocks, keep), split.run(range(5), blocks, keep)
        columns = range(-keep, 0) if isinstance(keep, int) else keep
        for row, block in enumerate(blocks):
            for i, column in enumerate(columns):
                if column >= -len(block):
                    torch.testing.assert_close(got[row, i], expected[row, i])
    assert whole.calls == 2 < split.calls
    assert whole.lengths == split.lengths
