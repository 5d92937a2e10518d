"""Probes take as much at once as memory allows on a GPU, and what they always took on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from springback.jobs.audit.settings import AuditSettings
from springback.models.loading import resolve
from springback.models.memory import Architecture, read_architecture
from springback.models.memory_parts import Scored, decoding_parts, scoring_parts, total
from springback.models.placement import Placement
from springback.probes import batches
from springback.probes.batches import MOST_ROWS, MOST_TOKENS, ProbeBatches, fitting, probe_batches


@pytest.fixture
def shape(tiny_llama: Path) -> Architecture:
    return read_architecture(tiny_llama)


def test_on_a_cpu_batches_never_change(tiny_llama: Path) -> None:
    settings, model = AuditSettings(model=str(tiny_llama)), resolve(str(tiny_llama))
    place = Placement(torch.float32, torch.device("cpu"))
    assert probe_batches(settings, model, place) == ProbeBatches(1024, 32)


@pytest.mark.parametrize("free", [0, 3_000_000, 10_000_000, 50_000_000, 200_000_000])
def test_batches_fit_and_twice_as_much_would_not(shape: Architecture, free: int) -> None:
    found = fitting(shape, "bfloat16", free, 100)

    def scoring(tokens: int) -> int:
        return total(scoring_parts(shape, "bfloat16", 2, Scored(tokens, batch=tokens)))

    def sampling(rows: int) -> int:
        return total(decoding_parts(shape, "bfloat16", rows, 100, 1))

    assert scoring(found.tokens) <= free or found.tokens == 1024
    assert scoring(2 * found.tokens) > free or found.tokens == MOST_TOKENS
    assert sampling(found.rows) <= free or found.rows == 32
    assert sampling(2 * found.rows) > free or found.rows == MOST_ROWS


def test_more_memory_never_means_smaller_batches(shape: Architecture) -> None:
    tried = [fitting(shape, "float32", free << 20, 64) for free in range(0, 400, 20)]
    assert tried == sorted(tried, key=lambda b: (b.tokens, b.rows))
    assert {b.tokens for b in tried} > {1024, 2048}


@pytest.mark.parametrize(("gigabytes", "more"), [(0, False), (40, True)])
def test_of_a_gpu_what_training_leaves_counts(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, gigabytes: float, more: bool
) -> None:
    """The sums alone: nothing is put on the GPU, which need not be there."""
    asked: list[str] = []

    def free(device: str) -> int:
        asked.append(device)
        return int(gigabytes * 1e9)

    monkeypatch.setattr(batches, "available_bytes", free)
    settings = AuditSettings(model=str(tiny_llama), align="reviews", lora_rank=4)
    place = Placement(torch.bfloat16, torch.device("cuda:1"))
    assert (probe_batches(settings, resolve(str(tiny_llama)), place) != ProbeBatches()) is more
    assert asked == ["cuda:1"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU's memory is asked")
def test_a_gpu_with_room_takes_more(tiny_llama: Path) -> None:
    settings, model = AuditSettings(model=str(tiny_llama)), resolve(str(tiny_llama))
    place = Placement(torch.float32, torch.device("cuda"))
    assert probe_batches(settings, model, place).tokens > 1024
