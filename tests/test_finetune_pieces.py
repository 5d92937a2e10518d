"""A batch that goes through the model in pieces gives the gradient of the whole batch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune_runs import recipe, rows_for
from springback.models.loading import Model, Tokenizer, load_model, load_tokenizer, resolve
from springback.training import Example, Examples, Prompt, finetune
from springback.training.memory import microbatches as in_pieces
from springback.training.memory.malloc import Heap
from springback.training.memory.microbatches import groups


@pytest.fixture
def start(tiny_llama: Path) -> Model:
    return load_model(resolve(tiny_llama))


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


def examples(algorithm: str) -> Examples:
    if algorithm != "rloo":
        rows: list[Example] = [*rows_for(algorithm, 6)]
        return Examples(rows)
    prompts = [Prompt((5, 40 + n, *range(60, 60 + n % 4)), f"{n}") for n in range(3)]
    return Examples(prompts, reward=lambda _, texts: [float(len(t) % 7) for t in texts])


def gradient_of_one_step(
    model: Model, tokenizer: Tokenizer, algorithm: str
) -> tuple[float, dict[str, Tensor], int]:
    """Its loss, its gradient by parameter, and how often the head's was added to."""
    found: dict[str, Tensor] = {}
    times = [0]

    def keep(name: str, p: Tensor) -> None:
        assert p.grad is not None
        found[name] = p.grad.clone()
        times[0] += name.endswith("embed_tokens.weight")

    parameters: list[tuple[str, Any]] = [*model.named_parameters()]
    for name, p in parameters:
        p.register_post_accumulate_grad_hook(lambda p, name=name: keep(name, p))
    more = {"generations": 4, "new_tokens": 5, "beta": 0.0} if algorithm == "rloo" else {}
    # A second step would start from other weights; the clipping must not hide a wrong scale.
    r = recipe(algorithm, batch_size=6, max_grad_norm=1e9, **more)
    done = finetune(model, tokenizer, examples(algorithm), r)
    return done.losses[0], found, times[0]


@pytest.mark.parametrize("algorithm", ["dpo", "kto", "simpo", "orpo", "rloo"])
def test_pieces_give_the_loss_and_the_gradient_of_the_whole_batch(
    start: Model, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    loss, expected, once = gradient_of_one_step(copy.deepcopy(start), tokenizer, algorithm)
    monkeypatch.setattr(in_pieces, "AT_ONCE", 20)
    pieced, found, times = gradient_of_one_step(copy.deepcopy(start), tokenizer, algorithm)
    assert once == 1
    assert times >= 3
    assert pieced == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert set(found) == set(expected)
    size = torch.cat([g.flatten() for g in expected.values()]).norm()
    assert size > 1e-3
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < 1e-4 * size, name


def test_groups_hold_rows_of_similar_length_and_no_more_than_asked() -> None:
    lengths = torch.tensor([9, 5, 23, 12, 5])
    assert groups(lengths, None) == [[0, 1, 2, 3, 4]]
    assert groups(lengths, 5 * 23) == [[0, 1, 2, 3, 4]]
    # Two of 5 take 10, with the 9 it would be 27; 9 and 12 take 24; 23 is alone.
    assert groups(lengths, 24) == [[1, 4], [0, 3], [2]]
    # As pairs twice that: two of 5 take 20; 9 alone 18, with the 12 it would be 48.
    assert groups(lengths, 24, each=2) == [[1, 4], [0], [3], [2]]


def test_free_memory_is_given_back_when_it_is_more_than_a_piece_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bytes idle at start, after each piece, and after the trim that the third one calls for."""
    idle = iter([100, 1100, 1200, 1500, 150, 1000, 1300])

    class Glibc:
        @staticmethod
        def malloc_trim(pad: int) -> int:
            return 1

    monkeypatch.setattr(Heap, "_idle", lambda self: next(idle))
    heap = Heap()
    heap._libc = Glibc()
    if heap._base == 0:  # not on glibc: as if it were
        heap._base = next(idle)
    heap.settle()  # 1,000 more: what a piece needs
    heap.settle()  # 1,100, under 1.15 times that
    assert heap.trims == 0
    heap.settle()  # 1,400
    assert heap.trims == 1
    heap.settle()  # from 150 on 850: the largest need stays 1,000
    heap.settle()  # 1,150 is not more than 1.15 times 1,000
    assert heap.trims == 1
