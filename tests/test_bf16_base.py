"""LoRA on a frozen base in bf16: what PEFT and a plain loop find, and the base held once."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from springback.core import Recipe, Row
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.encoding import encode_rows, pad_batch
from springback.models.loading import Model, load_model, load_tokenizer, resolve, trainable
from springback.models.placement import Placement
from springback.models.quiet import old_names_allowed
from springback.models.views import view_of
from springback.training import add_lora, finetune
from test_audit_dtype import SMALL, values

RECIPE = Recipe(
    learning_rate=1e-3,
    batch_size=4,
    max_tokens=24,
    precision="float32",
    lora_rank=4,
    lora_alpha=8,
)


@pytest.fixture
def rows(tiny_llama: Path) -> Any:
    tokenizer = load_tokenizer(resolve(tiny_llama))
    texts = [Row("text", "", f"the thing number {i} {'and more ' * (i % 4)}") for i in range(12)]
    return tokenizer, encode_rows(tokenizer, texts, 24)


def held(model: Model) -> dict[int, Tensor]:
    return {id(p): p for p in (*model.parameters(), *model.buffers())}


def plain_loop(model: Any, rows: Any, pad: int, mixed: bool) -> list[float]:
    """A loop over a model of PEFT's, as its documentation has it; the losses before each step."""
    learning = [p for p in model.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 for p in learning)
    optimizer = torch.optim.AdamW(learning, lr=RECIPE.learning_rate, weight_decay=0.0)
    losses = []
    for first in range(0, len(rows), 4):
        batch = pad_batch(rows, list(range(first, first + 4)), pad)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), batch.labels[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, RECIPE.max_grad_norm)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("precision", ["float32", "bf16-mixed"])
def test_an_adapter_on_a_bf16_base_learns_as_peft_in_a_plain_loop(
    precision: str, rows: Any, tiny_llama: Path
) -> None:
    """Losses to a bf16 rounding of the logits' gradients, which the chunked head takes once."""
    from peft import LoraConfig, get_peft_model

    tokenizer, encoded = rows
    place = Placement(torch.bfloat16, torch.device("cpu"))
    ours, theirs = (load_model(resolve(tiny_llama), place) for _ in range(2))
    recipe = replace(RECIPE, precision=precision)
    add_lora(ours, recipe)
    config = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with old_names_allowed():
        reference = get_peft_model(theirs, config)
    mine = dict(ours.named_parameters())
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            assert parameter.dtype == mine[name].dtype, name
            parameter.copy_(mine[name])
    base = {n: p.detach().clone() for n, p in ours.named_parameters() if not p.requires_grad}
    found = finetune(ours, tokenizer, encoded, recipe).losses
    expected = plain_loop(reference, encoded, tokenizer.pad_token_id, precision == "bf16-mixed")
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found == pytest.approx(expected, rel=1e-3)
    assert found[-1] < found[0]
    for name, parameter in base.items():
        assert torch.equal(parameter, ours.get_parameter(name)), name
        assert parameter.dtype == torch.bfloat16
    moved = [
        float((p - q).detach().norm() / q.detach().norm())
        for (n, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True)
        if p.requires_grad
    ]
    assert max(moved) < 0.15, "steps of AdamW are signs at first, so a gradient near 0 may turn"
    assert sum(moved) / len(moved) < 0.03


def test_a_view_shares_every_tensor_and_an_adapter_is_in_one_of_both(tiny_llama: Path) -> None:
    start = load_model(resolve(tiny_llama), Placement(torch.bfloat16, torch.device("cpu")))
    ids = torch.tensor([[5, 9, 12, 40, 7]])
    with torch.no_grad():
        first = start(input_ids=ids).logits
        work = view_of(start)
        assert held(work) == held(start)
        add_lora(work, RECIPE)
        assert {k for k, p in held(work).items() if not p.requires_grad} == set(held(start))
        for name, parameter in trainable(work).items():
            if ".lora_B." in name:
                parameter.fill_(0.5)
        assert not torch.equal(work(input_ids=ids).logits, first)
        assert torch.equal(start(input_ids=ids).logits, first)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_audit_by_lora_holds_its_base_once(
    dtype: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And finds to the bit what one with the base held twice finds."""
    kept: list[Study] = []
    plain = Study.measure

    def measure(study: Study, model: Model, aligned: Path | None = None) -> Any:
        kept[:] = [study]
        return plain(study, model, aligned)

    monkeypatch.setattr(Study, "measure", measure)
    settings = AuditSettings(model=str(tiny_llama), lora_rank=2, dtype=dtype, **SMALL)
    once = audit(settings, tmp_path / "once")
    work, start = kept[0].work, kept[0].start
    assert {k for k, p in held(work).items() if not p.requires_grad} == set(held(start))
    assert next(iter(start.parameters())).dtype == getattr(torch, dtype)
    monkeypatch.setattr("springback.jobs.audit.study.view_of", copy.deepcopy)
    twice = audit(settings, tmp_path / "twice")
    assert not set(held(kept[0].work)) & set(held(kept[0].start))
    assert values(once) == values(twice)
    kl = [m for m in once.data["measurements"] if m["probe"] == "kl" and m["tags"].get("seed") == 0]
    assert any(m["value"] > 0 for m in kl), "the start has no adapter while the other has one"
