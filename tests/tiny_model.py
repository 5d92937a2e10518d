"""A tiny random model and its tokenizer, made offline.  Nothing here imports torch until asked."""

from __future__ import annotations

import gc
import importlib
import shutil
from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>")
#: Merges by hand rather than trained: the vocabulary is then the same on every machine, and
#: still has tokens of several bytes, some of which span a space.
MERGES = (
    ("h", "e"),
    ("Ġ", "t"),
    ("Ġt", "he"),
    ("i", "n"),
    ("in", "g"),
    ("Ġ", "a"),
    ("e", "r"),
    ("Ġ", "1"),
)
#: Larger than the tokenizer's: real models pad their vocabulary too.
VOCABULARY = 300


def make_tokenizer(folder: Path) -> Path:
    """A byte-level tokenizer with chat template, eos and pad in ``folder``, which is returned."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())  # the 256 bytes, as characters
    tokens = [*SPECIAL_TOKENS, *symbols, *("".join(pair) for pair in MERGES)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    assert len(vocabulary) == len(tokens) < VOCABULARY
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=list(MERGES)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def make_llama(folder: Path, tokenizer: Path) -> Path:
    """A random two-layer Llama (tied embeddings, about 90,000 weights) and ``tokenizer``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    # A Trainer collects garbage before it starts, which takes longer than training this model:
    # what the imports have made is set aside and not searched each time.
    importlib.import_module("transformers.trainer")
    gc.collect()
    gc.freeze()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        # Ten times the usual: next-token distributions are then uneven, as a real model's are.
        initializer_range=0.2,
        bos_token_id=SPECIAL_TOKENS.index("<|im_start|>"),
        eos_token_id=SPECIAL_TOKENS.index("<|im_end|>"),
        pad_token_id=SPECIAL_TOKENS.index("<pad>"),
    )
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers alone
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder
