"""An audit's adapter is trained on the start model's own weights, which are held once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from springback.core import Recipe
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.loading import Model, load_model, resolve, trainable
from springback.models.placement import Placement
from springback.models.stored_model import in_memory
from springback.models.views import view_of
from springback.training import add_lora
from test_audit_dtype import SMALL, values

RECIPE = Recipe(
    learning_rate=1e-3,
    batch_size=4,
    max_tokens=24,
    precision="float32",
    lora_rank=4,
    lora_alpha=8,
)


def held(model: Model) -> dict[int, Tensor]:
    return {id(p): p for p in (*model.parameters(), *model.buffers())}


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
    work, start = in_memory(kept[0].work), in_memory(kept[0].start)
    assert {k for k, p in held(work).items() if not p.requires_grad} == set(held(start))
    assert next(iter(start.parameters())).dtype == getattr(torch, dtype)
    monkeypatch.setattr("springback.jobs.audit.study.view_of", copy.deepcopy)
    twice = audit(settings, tmp_path / "twice")
    assert not set(held(in_memory(kept[0].work))) & set(held(in_memory(kept[0].start)))
    assert values(once) == values(twice)
    kl = [m for m in once.data["measurements"] if m["probe"] == "kl" and m["tags"].get("seed") == 0]
    assert any(m["value"] > 0 for m in kl), "the start has no adapter while the other has one"
