"""The loss in chunks and pieces against the plain one: value, gradients, and what is held."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune_runs import weights
from springback.core import Recipe
from springback.models.encoding import Encoded, pad_batch
from springback.models.loading import Model, load_model, load_tokenizer, resolve
from springback.training import finetune
from springback.training.memory import chunked_loss
from springback.training.memory import microbatches as in_pieces
from springback.training.memory.chunked_loss import ChunkedLoss
from springback.training.memory.microbatches import pieces


def rows_of(lengths: list[int], start: int = 1) -> list[Encoded]:
    draw = torch.Generator().manual_seed(len(lengths))
    return [
        Encoded(tuple(torch.randint(5, 250, (n,), generator=draw).tolist()), start, n)
        for n in lengths
    ]


def batch_of(rows: list[Encoded]) -> dict[str, Tensor]:
    batch = pad_batch(rows, range(len(rows)), 3)
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "labels": batch.labels,
    }


def gradients(model: Model) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def untied(**changes: Any) -> Model:
    """A GPT-J: its head has weights of its own, and a bias."""
    from transformers import GPTJConfig, GPTJForCausalLM

    config = GPTJConfig(
        vocab_size=300,
        n_positions=64,
        n_embd=16,
        n_layer=1,
        n_head=2,
        rotary_dim=4,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        tie_word_embeddings=False,
        **changes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPTJForCausalLM(config)


def capped() -> Model:
    """A Gemma 2: its logits are capped behind the head."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    make: Any = Gemma2Config
    config = make(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.1,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Gemma2ForCausalLM(config)


def both(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor], Any]:
    """Loss and gradients of the model's own loss, and of the chunked one."""
    plain = model(**inputs, use_cache=False).loss
    plain.backward()
    expected = gradients(model)
    model.zero_grad()
    loss: Any = ChunkedLoss(model)
    found = loss(model, inputs, 1 / int((inputs["labels"][:, 1:] != -100).sum()))
    found.backward()
    assert set(expected) == set(gradients(model))
    return plain, found, expected, loss


@pytest.mark.parametrize("chunk", [1, 7, 512])
@pytest.mark.parametrize("start", [1, 4])  # bare texts; prompts that do not count
@pytest.mark.parametrize("kind", ["tied", "untied, with a bias"])
def test_loss_and_gradients_are_the_plain_ones(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, start: int, kind: str
) -> None:
    monkeypatch.setattr(chunked_loss, "CHUNK", chunk)
    model = load_model(resolve(tiny_llama)) if kind == "tied" else untied()
    inputs = batch_of(rows_of([9, 5, 23, 12], start))
    plain, found, expected, loss = both(model, inputs)
    assert loss.plain is False
    torch.testing.assert_close(found, plain)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6)


def test_under_autocast_they_agree_as_far_as_bf16_goes(tiny_llama: Path) -> None:
    model = load_model(resolve(tiny_llama))
    inputs = batch_of(rows_of([9, 5, 23, 12]))
    with torch.autocast("cpu", torch.bfloat16):
        plain, found, expected, _ = both(model, inputs)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=0)
    for name, gradient in gradients(model).items():
        assert gradient.dtype == torch.float32
        error = (gradient - expected[name]).norm() / expected[name].norm()
        assert error < 0.01, name  # bf16 has 8 bits: 0.4 % a rounding


def test_a_frozen_head_passes_its_gradient_on(tiny_llama: Path) -> None:
    model: Any = untied()
    model.get_output_embeddings().requires_grad_(False)  # as with LoRA
    _, _, expected, _ = both(model, batch_of(rows_of([9, 5])))
    assert not any(name.startswith("lm_head") for name in expected)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6)


def test_a_model_that_changes_its_heads_output_keeps_its_own_loss() -> None:
    model = capped()
    inputs = batch_of(rows_of([9, 5, 23]))
    plain, found, expected, loss = both(model, inputs)
    assert loss.plain is True
    assert float(plain.detach()) == float(found.detach())
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=0)


def test_only_a_chunk_of_logits_exists_at_a_time(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest float tensor that any operation makes, in numbers."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
        found = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            for made in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(made, Tensor) and made.is_floating_point():
                    self.found = max(self.found, made.numel())
            return out

    monkeypatch.setattr(chunked_loss, "CHUNK", 8)
    model: Any = load_model(resolve(tiny_llama))
    inputs = batch_of(rows_of([64, 64, 64, 64]))
    loss: Any = ChunkedLoss(model)
    with Largest() as mode:  # type: ignore[no-untyped-call]
        found = loss(model, inputs, 1 / 252)
        found.backward()
    # The middle of an MLP has 4 x 64 x 128 numbers; all logits would be 4 x 64 x 300.
    assert mode.found == 4 * 64 * 128
    assert vars(model.get_output_embeddings()).get("forward") is None  # nothing stays patched


def test_pieces_hold_every_row_once_and_no_more_than_asked() -> None:
    inputs = batch_of(rows_of([9, 5, 23, 12, 5]))
    found = list(pieces(inputs, 24))
    # By length 5, 5, 9, 12, 23: two of 5 take 10, with the 9 it would be 27; 9 and 12 take 24.
    assert [tuple(p["input_ids"].shape) for p in found] == [(2, 5), (2, 12), (1, 23)]
    kept = [
        tuple(row[mask.bool()].tolist())
        for p in found
        for row, mask in zip(p["input_ids"], p["attention_mask"], strict=True)
    ]
    assert sorted(kept) == sorted(r.ids for r in rows_of([9, 5, 23, 12, 5]))
    whole = list(pieces(inputs, None))
    assert len(whole) == 1
    assert torch.equal(whole[0]["labels"], inputs["labels"])


def test_a_run_in_pieces_is_the_run_in_whole_batches(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = resolve(tiny_llama)
    tokenizer, start = load_tokenizer(checkpoint), load_model(checkpoint)
    rows, recipe = rows_of([9, 5, 23, 12] * 3), Recipe(batch_size=4, precision="float32")
    whole, pieced = copy.deepcopy(start), copy.deepcopy(start)
    expected = finetune(whole, tokenizer, rows, recipe)
    monkeypatch.setattr(in_pieces, "AT_ONCE", 24)  # a batch of four rows is three pieces
    found = finetune(pieced, tokenizer, rows, recipe)
    assert found.tokens == expected.tokens == 3 * (8 + 4 + 22 + 11)
    assert found.losses == pytest.approx(expected.losses, rel=1e-6)
    for name, value in weights(pieced).items():
        # AdamW's first steps are of one size whatever the gradient's, so rounding shows there.
        assert (value - weights(whole)[name]).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["tied", "untied, with a bias", "capped"])
def test_gradients_that_autograd_adds_are_those_added_in_place(tiny_llama: Path, kind: str) -> None:
    """As processes need them, which communicate when autograd adds a gradient."""
    makes = {"untied, with a bias": untied, "capped": capped}
    model = makes.get(kind, lambda: load_model(resolve(tiny_llama)))()
    inputs = batch_of(rows_of([9, 5, 23, 12], 4))
    ChunkedLoss(model)(model, inputs, 0.5).backward()  # type: ignore[no-untyped-call]
    expected = gradients(model)
    model.zero_grad()
    ChunkedLoss(model, in_place=False)(model, inputs, 0.5).backward()  # type: ignore[no-untyped-call]
    assert set(gradients(model)) == set(expected)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name])


@pytest.mark.parametrize("make", [untied, capped])
def test_a_batch_that_counts_nothing_has_a_loss_and_gradients_of_zero(make: Any) -> None:
    """A process without a row of its own takes part in the communication all the same."""
    model = make()
    inputs = batch_of(rows_of([9]))
    inputs["labels"].fill_(-100)
    loss = ChunkedLoss(model, in_place=False)(model, inputs, 0.5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert {float(g.abs().max()) for g in gradients(model).values()} == {0.0}
