"""A tiny model that answers "7", ends its turn, and if let run on says "9" for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

#: The tokenizer's own end token, and the one with which the model ends its turn.
EOS, END = 2, 0


def talking(folder: Path, tokenizer: Path, sure: float = 1.0, ends: Any = (EOS, END)) -> Path:
    """The model with its tokenizer.  ``ends``: what generation_config.json lists.

    Every token leads to one other, whatever came before: line break (with which a prompt in the
    tests' chat template ends) to "7", to :data:`END`, to "9", to itself.  ``sure`` scales logits.
    """
    made: Any = AutoTokenizer.from_pretrained(tokenizer)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=304,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,  # vLLM's attention on the CPU has no odd ones
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same weights each time, and so the same content hash
        model: Any = LlamaForCausalLM(config)
    [line], [seven], [nine] = (made(t, add_special_tokens=False)["input_ids"] for t in "\n79")
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(300, 304))
        for weight in (model.model.layers[0].self_attn.o_proj, model.model.layers[0].mlp.down_proj):
            weight.weight.zero_()  # a layer that adds nothing
        model.lm_head.weight.zero_()
        for a, b in ((line, seven), (seven, END), (END, nine), (nine, nine)):
            model.lm_head.weight[b, a] = sure
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    rename_ends(folder, ends)
    return folder


def rename_ends(folder: Path, ends: Any, config: Any = EOS) -> None:
    """Write other end tokens into generation_config.json (None: no such file) and config.json."""
    for name, value in (("generation_config.json", ends), ("config.json", config)):
        path = folder / name
        if value is None and name == "generation_config.json":
            path.unlink(missing_ok=True)
            continue
        held = json.loads(path.read_text()) if path.exists() else {}
        held["eos_token_id"] = list(value) if isinstance(value, tuple) else value
        if value is None or value == ():
            held.pop("eos_token_id")
        path.write_text(json.dumps(held))
