"""Tiny LoRA adapters as PEFT saves them, and the dense weights they stand for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

IDS = torch.tensor([[1, 5, 7, 2, 40, 3]])


def save_base(folder: Path, *, tied: bool = False, seed: int = 0) -> Path:
    """A random one-layer Llama with biases in its attention."""
    config = LlamaConfig(
        vocab_size=48,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        attention_bias=True,
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def load_base(base: Path) -> PreTrainedModel:
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    found: PreTrainedModel = model.eval()
    return found


def save_untied(folder: Path, tied: Path) -> Path:
    """The same model with two tensors for its two embeddings."""
    model = load_base(tied)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, seed: int, **settings: Any) -> Path:
    """An adapter on ``base`` with random values everywhere that it can learn."""
    torch.manual_seed(seed)
    settings.setdefault("target_modules", ["q_proj", "down_proj"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT speaks of tied layers and embeddings
        model = get_peft_model(load_base(base), LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(0.2 * torch.randn_like(weight))
        model.save_pretrained(str(folder))
    return folder


def with_adapter(base: Path, adapter: Path) -> PreTrainedModel:
    """The base with an adapter on it, as PEFT runs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = PeftModel.from_pretrained(load_base(base), str(adapter))
    found: PreTrainedModel = model.eval()
    return found


def merged(base: Path, adapter: Path) -> dict[str, Tensor]:
    """The dense weights that an adapter stands for, merged by PEFT."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = PeftModel.from_pretrained(load_base(base), str(adapter)).merge_and_unload()
    return {n: p.detach().double() for n, p in model.named_parameters(remove_duplicate=False)}


def dense_logits(base: Path, early: Path, ft: Path, mu: float) -> Tensor:
    """Logits of theta_ft + mu * (theta_ft - theta_early) on the merged weights."""
    a, b = merged(base, early), merged(base, ft)
    model = load_base(base)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(b[name] + mu * (b[name] - a[name]))
    return logits(model)


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    found: Tensor = model(input_ids=IDS).logits
    return found
