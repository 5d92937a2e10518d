"""LoRA on a frozen base in bfloat16: PEFT's adapter in fp32, AdamW by hand, the base to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune_runs import pairs_for, recipe
from springback.core import Recipe
from springback.models.encoding import Encoded, pad_batch
from springback.models.loading import Model, Tokenizer, load_model, load_tokenizer, resolve
from springback.models.placement import Placement
from springback.models.quiet import old_names_allowed
from springback.training import Marks, add_lora, finetune, plan_batches
from springback.training import run as running
from springback.training.trainer import State

BF16 = Placement(torch.bfloat16, torch.device("cpu"))
ROWS = [Encoded((*p.prompt, *p.chosen), len(p.prompt), 0) for p in pairs_for(10)]


@pytest.fixture
def checkpoint(tiny_llama: Path) -> Any:
    return resolve(tiny_llama)


@pytest.fixture
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


def reference(model: Model, how: Recipe) -> tuple[list[float], dict[str, Tensor]]:
    """PEFT's own adapter on ``model``, trained by a loop of its own; losses and adapter."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    config = LoraConfig(
        r=how.lora_rank or 0, lora_alpha=how.lora_alpha, target_modules="all-linear",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with old_names_allowed():
        peft: Any = get_peft_model(model, config, autocast_adapter_dtype=True)
    with torch.random.fork_rng():
        torch.manual_seed(how.seed)
        layers: list[Any] = [m for m in peft.modules() if isinstance(m, LoraLayer)]
        for layer in layers:
            layer.reset_lora_parameters("default", True)
    learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
    moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in learned.items()}
    losses = []
    model.train(True)
    for step, index in enumerate(plan_batches(len(ROWS), how), start=1):
        batch = pad_batch(ROWS, index, 3)
        with torch.autocast("cpu", torch.bfloat16, enabled=how.precision == "bf16-mixed"):
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        targets = batch.labels[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets)
        losses.append(float(loss.detach()))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(learned.values(), how.max_grad_norm)
        with torch.no_grad():
            for name, p in learned.items():
                assert p.grad is not None
                first, second = moments[name]
                first.lerp_(p.grad, 1 - how.beta1)
                second.mul_(how.beta2).addcmul_(p.grad, p.grad, value=1 - how.beta2)
                size = (second / (1 - how.beta2**step)).sqrt() + 1e-8
                p.sub_(how.learning_rate * first / (1 - how.beta1**step) / size)
                p.grad = None
    model.train(False)
    return losses, {n: p.detach() for n, p in learned.items()}


@pytest.mark.parametrize("precision", ["float32", "bf16-mixed"])
def test_an_adapter_on_a_bf16_base_is_a_plain_loops(
    precision: str, checkpoint: Any, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses agree to 1e-5, the adapter to 1e-4 of how far it went: sums are taken in chunks."""
    how = recipe("sft", lora_rank=4, precision=precision, epochs=2)
    plain, ours = load_model(checkpoint, BF16), load_model(checkpoint, BF16)
    base = {n: p.detach().clone() for n, p in ours.named_parameters()}
    losses, adapter = reference(plain, how)
    states: list[State] = []

    def spy(*given: Any) -> State:
        states.append(State(*given))
        return states[0]

    monkeypatch.setattr(running, "State", spy)
    add_lora(ours, how)
    begun = {n: p.detach().clone() for n, p in ours.named_parameters() if p.requires_grad}
    done = finetune(ours, tokenizer, ROWS, how)
    assert done.losses == pytest.approx(losses, rel=1e-5)
    learned = {n: p for n, p in ours.named_parameters() if p.requires_grad}
    assert learned.keys() == adapter.keys()
    off = went = 0.0
    for name, parameter in learned.items():
        assert parameter.dtype == torch.float32, name
        moments = states[0].optimizer.state[parameter]
        assert moments["exp_avg"].dtype == moments["exp_avg_sq"].dtype == torch.float32
        assert bool(moments["exp_avg_sq"].any()), name
        off += float((parameter - adapter[name]).detach().square().sum())
        went += float((parameter - begun[name]).detach().square().sum())
    assert (off / went) ** 0.5 < 1e-4
    after = {n.replace(".base_layer", ""): p for n, p in ours.named_parameters()}
    for name, held in base.items():
        assert after[name].dtype == torch.bfloat16, name
        assert torch.equal(after[name], held), name


@pytest.mark.parametrize("algorithm", ["sft", "dpo"])
def test_updates_smaller_than_bf16_add_up(
    algorithm: str, checkpoint: Any, tokenizer: Tokenizer
) -> None:
    """An adapter in bf16 would lose a step of 1e-6 of a weight near 0.1; in fp32 none is lost."""
    how = recipe(algorithm, lora_rank=4, learning_rate=1e-6)
    model = load_model(checkpoint, BF16)
    add_lora(model, how)
    seen: dict[int, dict[str, Tensor]] = {}

    def keep(examples: int, model: Model) -> None:
        seen[examples] = {n: p.detach().clone() for n, p in model.named_parameters()}

    rows: Any = ROWS if algorithm == "sft" else pairs_for(10)
    finetune(model, tokenizer, rows, how, Marks((0, 4, 8, 10), keep))
    name = next(n for n in seen[0] if ".lora_B." in n)
    for a, b in ((0, 4), (4, 8), (8, 10)):
        step = float((seen[b][name] - seen[a][name]).abs().max())
        assert 1e-8 < step < 3e-6
