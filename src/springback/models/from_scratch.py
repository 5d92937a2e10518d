"""Small Llama-style models from scratch: for series over pre-training volume."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from springback.models.loading import Model, Tokenizer
from springback.models.memory import Architecture
from springback.models.placement import accelerator
from springback.models.quiet import quiet
from springback.results.store import whole_folder

#: What :func:`two_layers` cuts a shape to on a CPU: an optimiser's state stays under a gigabyte.
MOST_WIDTH, MOST_HIDDEN, MOST_TOKENS = 1024, 4096, 16384


@dataclass(frozen=True)
class Shape:
    """Width, depth and attention heads; the vocabulary is the tokenizer's."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4

    @property
    def name(self) -> str:
        return f"{self.hidden}x{self.layers}"

    @property
    def parameters(self) -> int:
        """Weights of the layers, embeddings left out: attention 4 h^2, MLP 12 h^2 a layer."""
        return self.layers * 16 * self.hidden**2


def small_tokenizer(texts: Iterable[str], vocabulary: int, folder: Path) -> None:
    """A byte-level BPE tokenizer of at most ``vocabulary`` tokens trained on ``texts``, with an end
    and a pad token, as a folder; the same texts in the same order make the same one."""
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token="<|end|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
    )
    with whole_folder(folder) as tmp, quiet():
        made.save_pretrained(tmp)


def fresh_model(
    tokenizer: Tokenizer, shape: Shape, seed: int, device: torch.device | None = None
) -> Model:
    """An untrained fp32 Llama with tied embeddings, its weights drawn by ``seed``, on ``device``:
    without one the accelerator if there is one."""
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
    model.to(device or accelerator())  # type: ignore[arg-type]
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


def two_layers(shape: Architecture) -> Model:
    """A Llama of two layers of the shape, cut where it is large; untrained, in fp32."""
    small = shape
    if accelerator().type == "cpu":
        small = replace(
            shape,
            width=min(shape.width, MOST_WIDTH),
            hidden=min(shape.hidden or 4 * shape.width, MOST_HIDDEN),
            vocabulary=min(shape.vocabulary or MOST_TOKENS, MOST_TOKENS),
        )
    # Heads of 64, and the width a multiple of that.
    heads = max(1, small.width // 64)
    shared = max(1, round(heads * shape.key / shape.query)) if shape.query else heads
    while heads % shared:
        shared -= 1
    config = LlamaConfig(
        vocab_size=max(small.vocabulary, 8),
        hidden_size=64 * heads,
        intermediate_size=small.hidden,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Model = LlamaForCausalLM(config)
    model.to(accelerator())  # type: ignore[arg-type]
    model.train(False)
    return model


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Training seeds Python's, NumPy's and torch's numbers; afterwards they go on as before."""
    python, others = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(others)


def save_model(model: Model, tokenizer: Tokenizer, folder: Path) -> None:
    """A plain Transformers folder, whole or not at all."""
    with whole_folder(folder) as tmp, quiet():
        model.save_pretrained(tmp)
        tokenizer.save_pretrained(tmp)
