"""The model in memory at mu is the model that extrapolate writes, to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from springback import probes
from springback.core import Row
from springback.errors import ModelError
from springback.models.checkpoint_pair import CheckpointPair, stored_dtypes
from springback.models.encoding import encode_rows
from springback.models.loading import load_model, resolve
from springback.probes.along_mu import nll_along_mu
from springback.weights import extrapolate


def save_pair(tiny_llama: Path, root: Path, dtype: torch.dtype) -> tuple[Path, Path]:
    """The tiny model and a neighbour, in ``dtype``."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    torch.manual_seed(3)
    folders = root / "early", root / "ft"
    for folder in folders:
        shutil.copytree(tiny_llama, folder)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.03 * torch.randn_like(weight))
        # A copy, so that the next checkpoint does not begin from rounded weights.
        state = {name: weight.to(dtype) for name, weight in model.state_dict().items()}
        copy = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=dtype)
        copy.load_state_dict(state)
        copy.save_pretrained(folder)
    return folders


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sweep_is_bit_for_bit_what_extrapolate_writes(
    tiny_llama: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    folders = save_pair(tiny_llama, tmp_path, dtype)
    sweep = CheckpointPair(*(resolve(folder) for folder in folders))
    assert set(sweep.stored.values()) == {dtype}
    for mu in (0.3, -0.7, 0.0, 1.9):
        extrapolate(*folders, mu, tmp_path / f"out{mu}")
        written = dict(load_model(resolve(tmp_path / f"out{mu}")).named_parameters())
        for name, weight in sweep.at(mu).named_parameters():
            assert torch.equal(weight.view(torch.int32), written[name].view(torch.int32)), name


def test_a_parameter_stored_under_another_name_takes_the_only_dtype(
    tiny_llama: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    model = load_model(resolve(tiny_llama))
    file = tmp_path / "model.safetensors"
    tensors = {n: t.to(torch.bfloat16) for n, t in load_file(tiny_llama / file.name).items()}
    norm = tensors.pop("model.norm.weight")
    save_file({**tensors, "other.name": norm}, file)
    assert set(stored_dtypes(str(tmp_path), model).values()) == {torch.bfloat16}
    save_file({**tensors, "other.name": norm.float()}, file)
    with pytest.raises(ModelError, match=r"stores no tensor model\.norm\.weight"):
        stored_dtypes(str(tmp_path), model)


def test_nll_along_mu_is_the_nll_of_each_extrapolated_model(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folders = save_pair(tiny_llama, tmp_path, torch.float32)
    sweep = CheckpointPair(*(resolve(folder) for folder in folders))
    texts = [Row("text", "", text) for text in ("the thing in her hand", "a hero")]
    rows = encode_rows(sweep.tokenizer, texts, 32)
    sweep.at(0.3)
    found = nll_along_mu(sweep, rows, (1.0, -0.5))
    assert list(found) == [-0.5, 0.0, 1.0]
    assert sweep.mu == 0.3  # put back
    early, ft = (probes.nll(model, rows, sweep.tokenizer) for model in (sweep.early, sweep.ft))
    assert found[0.0] == [score.per_token for score in ft]
    extrapolate(*folders, 1.0, tmp_path / "out")
    beyond = probes.nll(load_model(resolve(tmp_path / "out")), rows, sweep.tokenizer)
    assert found[1.0] == [score.per_token for score in beyond]
    assert found[0.0] != [score.per_token for score in early]
