"""Rows of very different lengths: passes of their own, and the same logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import pytest
import torch

from decode_fixture import expert, prompts
from springback.decoding.ragged_cache import SHORTEST_START, CachedModel, by_length, shared_start


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
    whole, split = CachedModel(expert(), 5), CachedModel(expert(), 5)
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


def test_the_start_that_rows_share() -> None:
    """Never a whole row, by ``most``; one row shares with nobody, and a few tokens are not worth
    a pass."""
    rows = [(1, 2, 3, 4, 5, 6), [1, 2, 3, 4, 5], [1, 2, 3, 4, 9, 9]]
    assert SHORTEST_START == 4
    assert shared_start(rows, 9) == 4
    assert shared_start(rows[:2], 9) == 5
    assert shared_start(rows[:2], 4) == 4
    assert shared_start(rows, 3) == 0
    assert shared_start(rows[:1], 9) == 0
    assert shared_start([[7], *rows], 9) == 0


@torch.inference_mode()
def test_a_start_read_once_gives_the_logits_of_one_read_by_every_row() -> None:
    """fp64; rows that begin with 9 tokens, or with none."""
    start = prompts(1)[0][:1] * 9
    for begin in (start, []):
        contexts = [[*begin, 11 + i, *p] for i, p in enumerate(prompts(5))]
        half, plain = CachedModel.begun(expert(), contexts), CachedModel(expert(), 5)
        assert half.lengths == [len(begin)] * 5
        rest = [c[len(begin) :] for c in contexts]
        torch.testing.assert_close(half.run(range(5), rest, 1), plain.run(range(5), contexts, 1))
        assert half.lengths == plain.lengths
        more = [[5], [6, 7], [8], [9, 10, 11], [12]]
        torch.testing.assert_close(half.run(range(5), more, 1), plain.run(range(5), more, 1))
