"""``--checkpoint-activations``: the same losses and weights, less kept for the backward pass."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune_runs import pairs_for, recipe, rows_for, same, weights
from springback.errors import ModelError
from springback.jobs.audit.plan import memory_of
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.hardware import architecture
from springback.models.encoding import Encoded
from springback.models.loading import Model, load_model, load_tokenizer, resolve
from springback.models.memory_parts import activation_bytes
from springback.training import Examples, Marks, Prompt, Trained, add_lora, finetune
from springback.training.memory.activations import checkpointed_activations

IDS = torch.tensor([[5, 9, 12, 40, 7, 8, 30, 31]])


@pytest.fixture
def start(tiny_llama: Path) -> Model:
    return load_model(resolve(tiny_llama))


def examples(algorithm: str) -> Any:
    if algorithm == "sft":
        return [Encoded((*p.prompt, *p.chosen), len(p.prompt), 0) for p in pairs_for(8)]
    if algorithm == "rloo":
        rows = [Prompt(p.prompt, str(n)) for n, p in enumerate(pairs_for(8))]
        return Examples(rows, reward=lambda _, texts: [float(len(t)) for t in texts])
    return rows_for(algorithm, 8)


@pytest.mark.parametrize("precision", ["float32", "bf16-mixed"])
@pytest.mark.parametrize("rank", [None, 4], ids=["full", "lora"])
@pytest.mark.parametrize("algorithm", ["sft", "dpo", "kto", "simpo", "rloo"])
def test_losses_marks_and_weights_are_the_same(
    algorithm: str, rank: int | None, precision: str, start: Model, tiny_llama: Path
) -> None:
    tokenizer = load_tokenizer(resolve(tiny_llama))
    options = {"new_tokens": 6} if algorithm == "rloo" else {}
    how = recipe(algorithm, lora_rank=rank, precision=precision, **options)
    recomputed = copy.deepcopy(start)

    def run(model: Model) -> Trained:
        if rank:
            add_lora(model, how)
        marks = Marks((0, 4, 8), lambda n, m: float(m(input_ids=IDS).logits.detach().sum()))
        return finetune(model, tokenizer, examples(algorithm), how, marks)

    expected = run(start)
    with checkpointed_activations(recomputed):
        done = run(recomputed)
    assert done == expected
    assert same(weights(start), weights(recomputed))
    assert not any(getattr(m, "gradient_checkpointing", False) for m in recomputed.modules())


def test_only_states_between_layers_are_kept(start: Model) -> None:
    def kept(model: Model) -> int:
        sizes: dict[int, int] = {}

        def pack(value: Tensor) -> Tensor:
            if not isinstance(value, torch.nn.Parameter):
                sizes[value.data_ptr()] = value.nbytes
            return value

        model.train(True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            model.model(input_ids=IDS, use_cache=False).last_hidden_state.sum()
        model.train(False)
        return sum(sizes.values())

    whole = kept(start)
    with checkpointed_activations(start):
        assert kept(start) < whole / 3
    with checkpointed_activations(start, wanted=False):
        assert kept(start) == whole


def test_a_model_that_cannot_is_refused_by_name(
    start: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(start), "supports_gradient_checkpointing", False)
    words = r"--checkpoint-activations with a LlamaForCausalLM; allowed: .*; leave it out"
    with pytest.raises(ModelError, match=words), checkpointed_activations(start):
        pass


def test_the_plan_counts_one_layers_and_the_states_between() -> None:
    shape = architecture("8B")
    settings = AuditSettings(precision="bf16-mixed", lora_rank=16, dtype="bfloat16")

    def parts_of(on: bool) -> dict[str, int]:
        parts = memory_of(replace(settings, checkpoint_activations=on), shape, False)
        return {part.name: part.bytes for part in parts}

    plain, less = parts_of(False), parts_of(True)
    tokens = settings.batch_size * settings.max_tokens
    assert plain["activations"] == tokens * activation_bytes(shape, True)
    one = activation_bytes(replace(shape, layers=1), True)
    by_hand = tokens * (one + 4 * shape.layers * shape.width)
    # Where so little is kept, what probes take is the larger of the two phases.
    assert less.get("activations", by_hand) == by_hand
    assert sum(less.values()) < sum(plain.values())
