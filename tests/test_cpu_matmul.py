"""Products of a few rows the other way round: the same numbers, and models left as they were."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from decode_fixture import amateur, expert, prompts
from springback.decoding import DecodeSettings, Speculation, cpu_matmul, decode, decode_fast
from springback.decoding.cpu_matmul import ROWS, Product, fast_products, faster_rows

EVERY = frozenset(ROWS)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 3), (8, 1), (3, 4)])
def test_the_product_is_that_of_linear(shape: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 80, bias=bias))
    x = torch.randn(*shape, 48)
    plain = model(x)
    with torch.inference_mode(), fast_products([model], EVERY):
        found = model(x)
    assert found.shape == plain.shape
    assert found.is_contiguous()
    torch.testing.assert_close(found, plain.detach(), rtol=1e-5, atol=1e-6)


def test_models_are_left_as_they_were_even_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    wrong = torch.ones(1, 9)
    with pytest.raises(RuntimeError), fast_products([model, None, model], EVERY):
        model(wrong)
    assert not any("forward" in vars(layer) for layer in model)
    with fast_products([model], EVERY):
        assert all("forward" in vars(layer) for layer in model)
    assert not any("forward" in vars(layer) for layer in model)


def test_other_precisions_own_hooks_and_subclasses_are_not_touched() -> None:
    class Other(nn.Linear):
        pass

    hooked = nn.Linear(8, 8)
    mine = hooked.forward
    hooked.forward = mine  # type: ignore[method-assign]
    model = nn.ModuleList([nn.Linear(8, 8).bfloat16(), nn.Linear(8, 8).double(), Other(8, 8)])
    with fast_products([model, hooked], EVERY):
        assert not any("forward" in vars(layer) for layer in model)
        assert vars(hooked)["forward"] is mine
    assert vars(hooked)["forward"] is mine


def test_small_models_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(weights: object) -> frozenset[int]:
        raise AssertionError("timed")

    monkeypatch.setattr(cpu_matmul, "faster_rows", fail)
    model = nn.Linear(64, 64)
    with fast_products([model]):
        assert "forward" not in vars(model)


def test_the_way_round_that_took_clearly_less_time_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By hand: linear takes 1 s; thin 0.5 s for one row, 0.95 s for two, 0.9 for four, 2 for eight.

    At most 0.9 of linear's time is a gain, so one and four rows."""
    took = {1: 0.5, 2: 0.95, 4: 0.9, 8: 2.0}

    def seconds(product: Product, weights: list[Tensor], inputs: dict[int, Tensor]) -> float:
        return took[len(inputs[48])] if product is cpu_matmul.transposed_product else 1.0

    monkeypatch.setattr(cpu_matmul, "_seconds", seconds)
    assert faster_rows([torch.randn(64, 48)]) == {1, 4}


def test_timing_names_rows_that_it_tried_and_happens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [torch.randn(64, 48), torch.randn(32, 48)]
    assert faster_rows(weights) <= EVERY

    calls = []

    def every(weights: list[Tensor]) -> frozenset[int]:
        calls.append(len(weights))
        return EVERY

    monkeypatch.setattr(cpu_matmul, "_MEASURED", {})
    monkeypatch.setattr(cpu_matmul, "SAMPLE", 1000)
    monkeypatch.setattr(cpu_matmul, "faster_rows", every)
    model = nn.Linear(48, 64)
    for _ in range(2):
        with fast_products([model]):
            assert "forward" in vars(model)
    assert calls == [1]


@pytest.mark.parametrize("draft", ["none", "ngram", "amateur"])
def test_tokens_are_those_of_the_plain_loop(draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [copy.deepcopy(model).float() for model in (expert(), amateur())]
    seen = []
    real = cpu_matmul.transposed_product

    def counted(x: Tensor, weight: Tensor) -> Tensor:
        seen.append(len(x))
        return real(x, weight)

    monkeypatch.setattr(cpu_matmul, "_measured", lambda layers: EVERY)
    monkeypatch.setattr(cpu_matmul, "transposed_product", counted)
    settings = DecodeSettings(lam=1.0, alpha=0.1, max_new_tokens=12, keyed_noise=True)
    asked = prompts(4)
    truth = decode(pair[0], asked, settings, pair[1])
    assert not seen  # the plain loop stays as Transformers has it
    found = decode_fast(pair[0], asked, settings, pair[1], speculation=Speculation(draft))
    assert found.answers == truth
    assert {1} <= set(seen) <= set(range(1, 9))
