"""Models that refusal ablation cannot take are known by their config, as by their hidden states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from springback.errors import ModelError
from springback.models import ablation
from springback.models.writers import require_plain_writers

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TAKEN = ("llama", "qwen3", "gemma", "olmo", "phi3", "glm", "gpt2")
REFUSED: dict[str, dict[str, Any]] = {
    "gemma2": {},
    "gemma3_text": {},
    "olmo2": {},
    "glm4": {},
    "exaone4": {},
    "bloom": {},
    "lfm2": {},
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "qwen3_moe": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8},
}


@pytest.mark.parametrize("kind", [*TAKEN, *REFUSED])
def test_the_config_says_what_the_hidden_states_say(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    more = {"n_embd": 16, "n_layer": 2, "n_head": 2} if kind == "gpt2" else REFUSED.get(kind, {})
    config = AutoConfig.for_model(kind, **{**SHAPE, **more})
    config.save_pretrained(tmp_path)
    make: Any = AutoModelForCausalLM.from_config
    model = make(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    direction = torch.randn(16, dtype=torch.float64)
    unit = direction / direction.norm()
    if kind in TAKEN:
        require_plain_writers(str(tmp_path))
        ablation.remove_direction(model, unit, [3, 4, 5, 6])
        return
    with pytest.raises(ModelError, match="writes along the direction elsewhere too"):
        require_plain_writers(str(tmp_path))
    with pytest.raises(ModelError, match="writes along the direction elsewhere too"):
        ablation.remove_direction(model, unit, [3, 4, 5, 6])


def test_the_text_part_of_a_config_counts(tmp_path: Path) -> None:
    text = '{"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}'
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"\(gemma3\) writes along"):
        require_plain_writers(str(tmp_path))


def test_what_is_not_here_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRINGBACK_CACHE", str(tmp_path))
    require_plain_writers("org/gemma3")
    require_plain_writers("gemma3-270m")
