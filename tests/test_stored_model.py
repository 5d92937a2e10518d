"""Models that a process knows by their files alone: read, moved and handed on, never held."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from springback.core import Checkpoint
from springback.errors import ModelError, SpringbackError
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.settings import AuditSettings
from springback.models.loading import (
    WEIGHTS_FILE,
    Model,
    count_parameters,
    load_model,
    load_weights,
    resolve,
    save_weights,
)
from springback.models.placement import Placement
from springback.models.sharded import can_be_sharded
from springback.models.stored_model import StoredModel, in_memory, parameters_to_read
from springback.models.task_vector import add_direction
from springback.probes.geometry import stored_weights, way_back, weight_change
from test_finetune_apart import FSDP

pytest.importorskip("accelerate", reason="accelerate is not installed (extra train)")


def loaded(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> Model:
    return load_model(checkpoint, Placement(dtype, torch.device("cpu")))


def moved(checkpoint: Checkpoint, folder: Path, seed: int) -> Path:
    """Weights near the model's, as a run leaves them."""
    model = loaded(checkpoint)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_weights(model, folder)
    return folder


def untied(tiny_llama: Path, folder: Path) -> Path:
    """In two files, the tied weights under their other name."""
    shutil.copytree(tiny_llama, folder)
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    names = sorted(tensors)
    file.unlink()
    index: dict[str, str] = {}
    for number, part in enumerate((names[:3], names[3:]), 1):
        name = f"model-{number:05}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, folder / name, {"format": "pt"})
        index |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("form", ["one file", "two files", "others beside"])
def test_it_has_the_tensors_of_the_loaded_model(
    form: str, dtype: torch.dtype, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = tiny_llama if form == "one file" else untied(tiny_llama, tmp_path / "untied")
    weights = count_parameters(resolve(folder))
    if form == "others beside":  # a shard of an earlier save, and another format's copy
        first = load_file(folder / "model-00001-of-00002.safetensors")
        for name in ("model-00003-of-00003", "model.fp16", "consolidated"):
            save_file({n: 2 * x for n, x in first.items()}, folder / f"{name}.safetensors")
    checkpoint = resolve(folder)
    assert count_parameters(checkpoint) == weights
    assert can_be_sharded(checkpoint), "tied weights, under whichever name"
    model, stored = loaded(checkpoint, dtype), StoredModel(checkpoint, dtype)
    with stored.tensors() as tensors:
        assert list(tensors) == [name for name, _ in model.named_parameters()]
        for name, parameter in model.named_parameters():
            assert tensors[name].dtype == dtype
            assert torch.equal(tensors[name], parameter), name
        with pytest.raises(KeyError):
            tensors["lm_head.weight"]


@pytest.mark.parametrize("rank", [None, 2])
def test_it_is_moved_as_a_model_in_memory(
    rank: int | None, tiny_llama: Path, tmp_path: Path
) -> None:
    """To the bit, with the files that it begins with left alone; lengths are the same too."""
    checkpoint = resolve(tiny_llama)
    aligned, other = (
        moved(checkpoint, tmp_path / name, seed) for name, seed in (("a", 1), ("b", 2))
    )
    before = (other / WEIGHTS_FILE).read_bytes()
    start, model = loaded(checkpoint), loaded(checkpoint)
    load_weights(model, other)
    (tmp_path / "files").mkdir()
    begin = StoredModel(checkpoint, torch.float32)
    stored = replace(begin, folder=tmp_path / "files", file=other / WEIGHTS_FILE)
    with stored_weights(aligned) as ahead:
        one = add_direction(model, ahead, start, 0.7, rank)
        two = add_direction(stored, ahead, begin, 0.7, rank)
    assert one == two
    with parameters_to_read(stored) as tensors:
        for name, parameter in model.named_parameters():
            assert torch.equal(tensors[name], parameter), name
    assert (other / WEIGHTS_FILE).read_bytes() == before
    with stored.tensors() as here, begin.tensors() as first, stored_weights(aligned) as branch:
        assert weight_change(here, first) == weight_change(model, start)
        assert way_back(here, branch, first) == way_back(model, branch, start)
    with (
        stored_weights(aligned) as ahead,
        pytest.raises(ModelError, match="not finite"),
    ):
        add_direction(stored, ahead, begin, 1e300)
    with parameters_to_read(stored) as tensors:
        assert all(torch.equal(tensors[n], p) for n, p in model.named_parameters()), "as it was"


def test_what_is_kept_of_it_stays_as_it_was(tiny_llama: Path, tmp_path: Path) -> None:
    """However often the model itself goes on: files are handed on by name, and never written to."""
    checkpoint = resolve(tiny_llama)
    (tmp_path / "files").mkdir()
    stored = StoredModel(checkpoint, torch.float32, tmp_path / "files")
    start = stored.content_hash()
    first, second = (moved(checkpoint, tmp_path / f"run-{seed}", seed) for seed in (1, 2))
    stored.take(first / WEIGHTS_FILE)
    one = stored.content_hash()
    stored.keep(tmp_path / "kept")
    shutil.rmtree(first)
    stored.take(second / WEIGHTS_FILE)
    stored.take(second / WEIGHTS_FILE)
    assert len({start, one, stored.content_hash()}) == 3
    stored.file = tmp_path / "kept" / WEIGHTS_FILE
    assert stored.content_hash() == one


def test_what_needs_the_model_in_memory_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    stored = StoredModel(resolve(tiny_llama), torch.float32)
    with pytest.raises(SpringbackError, match=r"runs a model or reads its weights.*--accelerate"):
        in_memory(stored)
    config = tmp_path / "two.yaml"
    config.write_text(FSDP)
    settings: Any = AuditSettings(
        model=str(tiny_llama), accelerate=str(config), attackers=("ablation",)
    )
    with pytest.raises(SpringbackError, match=r"ablation with --accelerate .*FSDP.*leave one"):
        check_settings(settings)
