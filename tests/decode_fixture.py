"""Tiny pairs in fp64, and prompts that repeat themselves."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from springback.decoding.lora_pair import LoraLinear, install, views


def prompts(count: int) -> list[list[int]]:
    """Lengths 3 to 18, each with a repetition, so that look-up finds something."""
    words = random.Random(0)
    halves = [[words.randrange(48) for _ in range(words.randrange(2, 10))] for _ in range(count)]
    return [(half + half)[1:] for half in halves]


def tiny(perturb: float, seed: int = 0) -> Any:
    """A random Llama in fp64; ``perturb`` moves its weights, the same seed the same way."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=48,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            initializer_range=0.7,
        )
        model: Any = LlamaForCausalLM(config).double()
        model.eval()
        torch.manual_seed(seed + 1)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(perturb * torch.randn_like(p))
            model.model.norm.weight.mul_(4)  # uneven odds, as a real model's are
    return model


@cache
def expert() -> Any:
    return tiny(0.0)


@cache
def amateur() -> Any:
    return tiny(0.01)


@cache
def adapters() -> tuple[Any, Any]:
    """Expert and amateur as two random adapters of rank 2 on one base, close to each other."""
    both = tiny(0.0)
    names = [
        f"model.layers.{layer}.{part}"
        for layer in range(2)
        for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    ]
    install(both, names, 2)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        for layer in both.modules():
            if isinstance(layer, LoraLinear):
                layer.a.normal_()
                layer.b[0].normal_(std=0.1)
                layer.a[1] = layer.a[0]
                layer.b[1] = layer.b[0] + 0.02 * torch.randn_like(layer.b[0])
    return views(both)
