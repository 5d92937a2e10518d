"""Small Llama-style models from scratch: for series over pre-training volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from springback.models import Model, Tokenizer
from springback.quiet import quiet
from springback.store import whole_folder


@dataclass(frozen=True)
class Shape:
    """Width, depth and attention heads; the vocabulary is the tokenizer's."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4


def fresh_model(tokenizer: Tokenizer, shape: Shape, seed: int) -> Model:
    """An untrained fp32 Llama with tied embeddings, its weights drawn by ``seed``."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=4 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Model = LlamaForCausalLM(config)
    model.train(False)
    return model


def bare_llama(vocabulary: int, shape: Shape, seed: int, positions: int) -> Model:
    """An untrained fp32 Llama without a tokenizer or special tokens, its weights drawn by ``seed``.

    Embeddings are not tied: with a handful of symbols, tied ones leave a model of this width 100
    times further from its optimum after as many steps.
    """
    config = LlamaConfig(  # type: ignore[call-arg]  # see the last argument
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=4 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        # The one that torch can run for a stack of models at once (torch.func.vmap).
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Model = LlamaForCausalLM(config)
    model.train(False)
    return model


def save_model(model: Model, tokenizer: Tokenizer, folder: Path) -> None:
    """A plain Transformers folder, whole or not at all."""
    with whole_folder(folder) as tmp, quiet():
        model.save_pretrained(tmp)
        tokenizer.save_pretrained(tmp)
