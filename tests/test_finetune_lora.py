"""LoRA: only the adapter is trained and saved; the base comes back to the bit."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from finetune_runs import interrupted, log_p, pairs_for, recipe, same, weights
from springback.core import Recipe
from springback.decoding import DecodeSettings, decode
from springback.errors import SpringbackError
from springback.models.loading import (
    Model,
    Tokenizer,
    load_model,
    load_tokenizer,
    load_weights,
    resolve,
    save_weights,
)
from springback.training import (
    Examples,
    Marks,
    Prompt,
    Trained,
    add_lora,
    drop_lora,
    finetune,
    has_lora,
    merge_lora,
    reset_lora,
)

DPO = recipe("dpo", lora_rank=4, learning_rate=1e-2)
IDS = torch.tensor([[5, 9, 12, 40, 7]])


@pytest.fixture
def start(tiny_llama: Path) -> Model:
    return load_model(resolve(tiny_llama))


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


def logits(model: Model) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS).logits
    return found


def test_only_adapters_are_trained_and_the_base_comes_back_to_the_bit(
    start: Model, tokenizer: Tokenizer
) -> None:
    before, first = weights(start), logits(start)
    lora = add_lora(start, DPO)
    assert torch.equal(logits(start), first)  # a fresh adapter changes nothing
    finetune(start, tokenizer, pairs_for(8), DPO)
    trained = {n: p for n, p in start.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    assert len(trained) == 2 * 2 * 7  # A and B of two layers' seven projections, not the head
    after = {n.replace(".base_layer", ""): w for n, w in weights(start).items()}
    assert all(torch.equal(after[n], w) for n, w in before.items())
    assert not torch.equal(logits(start), first)
    with lora.disable_adapter():
        assert torch.equal(logits(start), first)
    plain = drop_lora(lora)
    assert plain is start
    assert same(before, weights(start))
    assert all(p.requires_grad for p in start.parameters())
    assert torch.equal(logits(start), first)


def test_reset_starts_again_as_a_new_adapter(start: Model, tokenizer: Tokenizer) -> None:
    again, rows = copy.deepcopy(start), pairs_for(8)
    lora = add_lora(start, DPO)
    first = finetune(start, tokenizer, rows, DPO)
    reset_lora(lora, DPO.seed)
    second = finetune(start, tokenizer, rows, DPO)
    add_lora(again, DPO)
    assert first == second == finetune(again, tokenizer, rows, DPO)
    assert same(weights(start), weights(again))


def test_merged_weights_answer_as_base_and_adapter(start: Model, tokenizer: Tokenizer) -> None:
    names = set(weights(start))
    lora = add_lora(start, DPO)
    finetune(start, tokenizer, pairs_for(8), DPO)
    expected = logits(start)
    plain = merge_lora(lora)
    assert not has_lora(plain)
    assert set(weights(plain)) == names
    assert torch.allclose(logits(plain), expected, atol=1e-4)


def test_the_reference_of_a_fresh_adapter_is_the_base_without_it(
    start: Model, tokenizer: Tokenizer
) -> None:
    frozen, rows, losses = copy.deepcopy(start), pairs_for(8), []
    add_lora(start, DPO)

    def loss(examples: int, model: Model) -> None:
        gaps = [
            (log_p(model, p.prompt, p.chosen) - log_p(frozen, p.prompt, p.chosen))
            - (log_p(model, p.prompt, p.rejected) - log_p(frozen, p.prompt, p.rejected))
            for p in rows[examples : examples + 4]
        ]
        losses.append(float(torch.stack([torch.log1p((-0.1 * g).exp()) for g in gaps]).mean()))

    done = finetune(start, tokenizer, rows, DPO, Marks((0, 4), loss))
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert done.losses == pytest.approx(losses, rel=1e-5)
    assert losses[1] != pytest.approx(math.log(2), abs=1e-4)


def test_a_mark_generates_with_the_adapter(start: Model, tokenizer: Tokenizer) -> None:
    seen: dict[int, Any] = {}
    settings = DecodeSettings(max_new_tokens=4, pad_id=tokenizer.pad_token_id)

    def at(examples: int, model: Model) -> None:
        seen[examples] = (logits(model), decode(model, [[5, 6, 7]], settings))

    lora = add_lora(start, DPO)
    finetune(start, tokenizer, pairs_for(8), DPO, Marks((0, 8), at))
    assert not torch.equal(seen[0][0], seen[8][0])
    assert torch.equal(seen[8][0], logits(start))
    assert seen[8][1] == decode(start, [[5, 6, 7]], settings)
    with lora.disable_adapter():
        assert seen[0][1] == decode(start, [[5, 6, 7]], settings)


@pytest.mark.parametrize("algorithm", ["sft", "dpo"])
def test_resume_keeps_the_adapter_alone_and_ends_in_the_same_weights(
    start: Model, tokenizer: Tokenizer, tmp_path: Path, algorithm: str
) -> None:
    from springback.models.encoding import Encoded

    pairs = pairs_for(12)
    rows = [Encoded((*p.prompt, *p.chosen), 1, 0) for p in pairs] if algorithm == "sft" else pairs
    r = recipe(algorithm, lora_rank=4)
    add_lora(start, r)

    def run(model: Model, **how: Any) -> Trained:
        return finetune(model, tokenizer, rows, r, **how)

    (expected, whole), (done, again) = interrupted(start, run, tmp_path)
    assert done == expected
    assert same(weights(whole), weights(again))
    (file,) = (tmp_path / "state").glob("step-*/weights.safetensors")
    with safe_open(file, "pt") as saved:
        assert all(".lora_" in name for name in saved.keys())  # noqa: SIM118


def test_a_branch_point_is_the_adapter(start: Model, tokenizer: Tokenizer, tmp_path: Path) -> None:
    lora = add_lora(start, DPO)
    finetune(start, tokenizer, pairs_for(8), DPO)
    expected = logits(start)
    save_weights(start, tmp_path / "branch")
    reset_lora(lora, 5)
    assert not torch.equal(logits(start), expected)
    load_weights(start, tmp_path / "branch")
    assert torch.equal(logits(start), expected)


def test_online_training_with_an_adapter(start: Model, tokenizer: Tokenizer) -> None:
    r = recipe("rloo", lora_rank=4, new_tokens=4, generations=2, batch_size=2)
    before, prompts = weights(start), [Prompt((5, 6, n), "") for n in range(7, 11)]
    lora = add_lora(start, r)
    examples = Examples(prompts, reward=lambda _, texts: [float(len(t)) for t in texts])
    done = finetune(start, tokenizer, examples, r)
    assert len(done.rewards) == 2
    assert same(before, weights(drop_lora(lora)))


def test_recipe_and_model_must_agree(start: Model, tokenizer: Tokenizer) -> None:
    full = recipe("dpo")
    with pytest.raises(SpringbackError, match="no LoRA rank"):
        add_lora(start, full)
    assert Recipe(lora_rank=0) == Recipe(lora_rank=None)
    lora = add_lora(start, DPO)
    with pytest.raises(SpringbackError, match="handle"):
        finetune(lora, tokenizer, pairs_for(4), DPO)
    with pytest.raises(SpringbackError, match="has an adapter"):
        finetune(start, tokenizer, pairs_for(4), full)
    with pytest.raises(SpringbackError, match="already"):
        add_lora(start, DPO)


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of the products whose result is of so many columns."""

    def __init__(self, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.columns = columns
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if "mm" in func.__name__ and made.shape[-1] == self.columns:
            self.names.add(func.__name__)
        return made


def test_the_head_of_a_frozen_model_is_one_product_for_all_rows(start: Model) -> None:
    """In bf16 a product for each row copies the weight: gigabytes, and 50 times slower."""
    start.requires_grad_(False)
    whole = logits(start)
    with torch.no_grad(), _Products(whole.shape[-1]) as products:
        last = start(input_ids=IDS.repeat(6, 1), logits_to_keep=2).logits
    assert torch.allclose(last, whole[:, -2:].expand(6, -1, -1), atol=1e-5)
    assert products.names == {"mm.default"}
