"""The model and tokenizer that other tests lean on."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def test_tokenizer_gives_back_any_text(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    for text in ("the thing", "  two spaces\n\ttab", "naïve 漢字 🙂", ""):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_merges_by_hand(tiny_llama: Path) -> None:
    # "in" + "g" follow from the merges; "th" has none of its own, only after a space.
    tokens = AutoTokenizer.from_pretrained(tiny_llama).tokenize("thing the")
    assert tokens == ["t", "h", "ing", "Ġthe"]


def test_chat_template_ends_each_turn(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    turns = [{"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == 1
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.pad_token_id not in ids


def test_model_predicts_unevenly_over_a_padded_vocabulary(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    ids = tokenizer("the thing", return_tensors="pt")["input_ids"]  # (1, tokens)
    with torch.no_grad():
        logits = model(ids).logits[0, -1]  # (vocabulary,)
    assert logits.shape == (300,)
    assert len(tokenizer) == 4 + 256 + 8
    # Even odds would give each token 1/300.
    assert logits.softmax(-1).max().item() > 5 / 300
