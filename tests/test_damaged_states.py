"""A state to resume training from that is damaged is passed over, said, and changes nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from finetune_runs import Killer, Stop, recipe, same, weights
from springback.core import Checkpoint
from springback.errors import SpringbackWarning
from springback.models.encoding import Encoded
from springback.models.loading import load_tokenizer
from springback.training import Resume, Trained, finetune


def _json(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "state.json"
        facts = json.loads(path.read_text())
        path.write_text(json.dumps(change(facts)))

    return damage


def _tensors(file: str, change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / file)
        change(tensors)
        save_file(tensors, folder / file)

    return damage


def _cut(file: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = (folder / file).read_bytes()
        (folder / file).write_bytes(raw[: len(raw) // 2])

    return damage


def _narrow(tensors: dict[str, Tensor]) -> None:
    """The last of the tensors that have rows loses one."""
    name = [n for n, t in sorted(tensors.items()) if t.dim() == 2][-1]
    tensors[name] = tensors[name][1:].contiguous()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no state.json": lambda folder: (folder / "state.json").unlink(),
    "half a state.json": _cut("state.json"),
    "a list": _json(lambda facts: [facts]),
    "no losses": _json(lambda facts: {k: v for k, v in facts.items() if k != "losses"}),
    "losses that are words": _json(lambda facts: {**facts, "losses": ["low"]}),
    "another step": _json(lambda facts: {**facts, "step": -1}),
    "a step without end": _json(lambda facts: {**facts, "step": float("inf")}),
    "marks that are no pairs": _json(lambda facts: {**facts, "marks": [1]}),
    "no weights": lambda folder: (folder / "weights.safetensors").unlink(),
    "half the weights": _cut("weights.safetensors"),
    "one weight less": _tensors("weights.safetensors", lambda tensors: tensors.popitem()),
    "one weight narrower": _tensors("weights.safetensors", _narrow),
    "half the moments": _cut("optimizer.safetensors"),
    "no moments": _tensors("optimizer.safetensors", lambda tensors: tensors.popitem()),
    "moments narrower": _tensors("optimizer.safetensors", _narrow),
    "no random numbers": _tensors("optimizer.safetensors", lambda t: t.pop("random/cpu")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_is_said_and_the_run_begins_anew(
    damage: Callable[[Path], None], tiny_llama: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=300, n_positions=64, n_embd=8, n_layer=1, n_head=2)
    start = GPT2LMHeadModel(shape)
    tokenizer = load_tokenizer(Checkpoint(str(tiny_llama)))
    rows = [Encoded(tuple(range(10 + n, 16 + n)), 2, 4) for n in range(12)]

    def run(model: GPT2LMHeadModel, **how: Any) -> Trained:
        return finetune(model, tokenizer, rows, recipe("sft"), **how)

    whole, killed, again = (copy.deepcopy(start) for _ in range(3))
    expected = run(whole)
    resume = Resume(tmp_path / "state", save_every=0.0)
    with pytest.raises(Stop):
        run(killed, resume=resume, progress=Killer(2))
    (state,) = (tmp_path / "state").glob("step-*")
    damage(state)
    with pytest.warns(SpringbackWarning, match=f"{state.name} is damaged"):
        done = run(again, resume=resume)
    assert done == expected
    assert same(weights(whole), weights(again))
