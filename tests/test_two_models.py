"""A boost holds at most two models, and what they are is right whatever came before."""

from __future__ import annotations

import gc
import json
import random
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from boost_pair import save_pair
from springback.errors import ModelError
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
from springback.models import checkpoint_pair, loading
from springback.models.checkpoint_pair import CheckpointPair
from springback.models.loading import load_model, resolve
from springback.models.placement import Placement
from springback.weights import extrapolate

MUS = (0.4, -0.6, 0.0, 1.7)


class Alive:
    """The most models that were alive whenever one more was loaded, or was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models: list[weakref.ref[PreTrainedModel]] = []
        self.most = self.loads = 0
        real = loading.load_model

        def load(*args: Any, **named: Any) -> PreTrainedModel:
            self.count(1)
            model = real(*args, **named)
            self.models.append(weakref.ref(model))
            self.loads += 1
            return model

        monkeypatch.setattr(checkpoint_pair, "load_model", load)

    def count(self, more: int = 0) -> int:
        gc.collect()
        now = sum(model() is not None for model in self.models) + more
        self.most = max(self.most, now)
        return now


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Alive:
    return Alive(monkeypatch)


def bits(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    whole = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
    return {n: p.detach().view(whole[p.dtype]).clone() for n, p in model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("computed", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_any_order_gives_the_bytes_that_extrapolate_writes(
    tiny_llama: Path, tmp_path: Path, alive: Alive, stored: torch.dtype, computed: torch.dtype
) -> None:
    folders = save_pair(tiny_llama, tmp_path, stored)
    place = Placement(computed, torch.device("cpu"))
    expected: dict[Any, dict[str, torch.Tensor]] = {}
    for mu in MUS:
        extrapolate(*folders, mu, tmp_path / f"out{mu}")
        expected[mu] = bits(load_model(resolve(tmp_path / f"out{mu}"), place))
    expected["early"], expected["ft"] = (bits(load_model(resolve(f), place)) for f in folders)
    assert same(expected[0.0], expected["ft"])
    pair = CheckpointPair(*map(resolve, folders), place=place)
    rng = random.Random(5)
    for _ in range(12):
        mu, weak = rng.choice(MUS), rng.choice(("early", "ft"))
        assert same(bits(pair.at(mu)), expected[mu])
        assert same(bits(pair.weak(weak)), expected[weak])  # type: ignore[arg-type]
        assert same(bits(pair.at(pair.mu)), expected[mu])
    if stored != computed:  # else a weak model is mapped from its file as it is
        assert alive.loads == 2
    assert alive.most == 2


def stored_otherwise(folder: Path, kind: str) -> None:
    """The tiny model's file under names, or with tensors, that are not its parameters'."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    if kind == "prefix":
        tensors = {n.removeprefix("model."): t for n, t in tensors.items()}
    elif kind == "tied head":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", ["prefix", "tied head"])
def test_names_that_differ_from_the_models_are_brought_together(
    tiny_llama: Path, tmp_path: Path, alive: Alive, kind: str
) -> None:
    folders = save_pair(tiny_llama, tmp_path, torch.bfloat16)
    for folder in folders:
        stored_otherwise(folder, kind)
    extrapolate(*folders, 0.4, tmp_path / "out")
    expected = bits(load_model(resolve(tmp_path / "out")))
    pair = CheckpointPair(*map(resolve, folders))
    pair.at(1.7)
    assert same(bits(pair.at(0.4)), expected)
    assert same(bits(pair.weak("early")), bits(load_model(resolve(folders[0]))))
    assert alive.loads == 2, "in place"


def test_where_it_cannot_be_done_in_place_the_expert_is_written_and_loaded(
    tiny_llama: Path, tmp_path: Path, alive: Alive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with tensors that Transformers merges, or that accelerate offloads."""
    from springback.models.stored_line import StoredLine

    monkeypatch.setattr(StoredLine, "places", lambda self, model: None)
    folders = save_pair(tiny_llama, tmp_path, torch.bfloat16)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    pair = CheckpointPair(*map(resolve, folders), scratch=scratch)
    for mu, weak in ((0.4, "ft"), (0.0, "early"), (-0.6, "early"), (0.4, "ft")):
        extrapolate(*folders, mu, tmp_path / f"out{mu}")
        expected = bits(load_model(resolve(tmp_path / f"out{mu}")))
        assert same(bits(pair.at(mu)), expected)
        beside = folders[weak == "ft"]
        assert same(bits(pair.weak(weak)), bits(load_model(resolve(beside))))  # type: ignore[arg-type]
        assert len(list(scratch.iterdir())) <= 1
    assert alive.most == 2
    del pair
    gc.collect()
    assert not list(scratch.iterdir()), "nothing is left behind"


def test_experts_of_merged_experts_are_right(tmp_path: Path, tiny_llama: Path) -> None:
    """Mixtral's experts lie in its file one by one, and in the model as one tensor."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=3,
    )  # fmt: skip
    folders = tmp_path / "early", tmp_path / "ft"
    for seed, folder in enumerate(folders):
        shutil.copytree(tiny_llama, folder)
        (folder / "model.safetensors").unlink()
        torch.manual_seed(seed)
        MixtralForCausalLM(config).save_pretrained(folder)
    extrapolate(*folders, 0.4, tmp_path / "out")
    expected = bits(load_model(resolve(tmp_path / "out")))
    pair = CheckpointPair(*map(resolve, folders))
    assert same(bits(pair.at(0.4)), expected)
    assert same(bits(pair.weak("early")), bits(load_model(resolve(folders[0]))))


def test_an_early_model_of_another_config_is_loaded_as_itself(
    tiny_llama: Path, tmp_path: Path, alive: Alive
) -> None:
    folders = save_pair(tiny_llama, tmp_path, torch.float32)
    file = folders[0] / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    pair = CheckpointPair(*map(resolve, folders))
    pair.at(0.4)
    assert pair.weak("early").config.rms_norm_eps == 0.5
    assert pair.weak("ft").config.rms_norm_eps != 0.5
    assert alive.most == 2


def test_a_boost_of_every_weak_model_holds_two(
    tiny_llama: Path, tmp_path: Path, alive: Alive
) -> None:
    """Early, the model before fine-tuning, another one, a gate, and a reference of logit errors."""
    early, ft = save_pair(tiny_llama, tmp_path, torch.float32)
    others = tmp_path / "others"
    others.mkdir()
    weak, reference = save_pair(tiny_llama, others, torch.bfloat16)
    weak = weak.rename(others / "weak")
    settings = BoostSettings(
        early=str(early),
        ft=str(ft),
        model=str(tiny_llama),
        weak=str(weak),
        reference=str(reference),
        ablate_weak=("early", "init"),
        gate="top:0.9",
        validation="problems",
        test="problems",
        validation_rows=2,
        test_rows=2,
        mu=(0.5,),
        lam=(0.5,),
        lam_cd=(0.5,),
        positive=True,
        max_new_tokens=3,
        write_model=False,
    )
    data = boost(settings, tmp_path / "out").data
    methods = {row["method"] for row in data["analysis"]["methods"]}
    further = ("weak early", "weak init", "weak weak", "gated")
    assert {f"EpiCoDe, {name}" for name in further} <= methods
    assert len(data["analysis"]["diagnostics"]["pairs"]) == 2
    assert alive.most == 2
    assert alive.loads >= 5
    loads = alive.loads
    assert boost(settings, tmp_path / "out").data["analysis"] == data["analysis"]
    assert alive.loads == loads, "what is finished needs no model"


def test_what_is_not_finite_is_refused_and_the_pair_goes_on(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folders = save_pair(tiny_llama, tmp_path, torch.float16)
    pair = CheckpointPair(*map(resolve, folders))
    with pytest.raises(ModelError, match="overflows at mu 1e\\+07"):
        pair.at(1e7)
    assert same(bits(pair.at(0.0)), bits(load_model(resolve(folders[1]))))
