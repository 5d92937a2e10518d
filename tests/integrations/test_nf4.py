"""Adapters on a base in 4 bit (bitsandbytes): trained, measured, boosted, decoded; on a CPU."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra nf4)")

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import springback
from finetune_runs import pairs_for, recipe, rows_for
from springback.core import Checkpoint
from springback.decoding.adapter_pair import AdapterPair
from springback.decoding.lora_pair import LoraLinear
from springback.errors import ModelError, SpringbackError
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.checks import refuse
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
from springback.models.encoding import Encoded
from springback.models.loading import (
    Model,
    load_model,
    load_tokenizer,
    resolve,
)
from springback.models.memory import held_bytes, read_architecture
from springback.models.placement import Placement, placement
from springback.models.quantized import is_quantized, load_arguments
from springback.models.views import view_of
from springback.settings import ComputeSettings
from springback.training import Examples, Marks, Prompt, add_lora, finetune
from springback.training.memory.activations import checkpointed_activations
from weights_adapters import save_adapter

IDS = torch.tensor([[5, 9, 12, 40, 7, 8]])
CPU = torch.device("cpu")
NF4 = Placement(torch.float32, CPU, quantize="nf4")


def unpacked(base: Path, quantized: Model) -> Model:
    """The plain model with the values that the 4 bits stand for."""
    from bitsandbytes.functional import dequantize_4bit

    plain = load_model(resolve(base), Placement(torch.float32, CPU))
    with torch.no_grad():
        for name, layer in quantized.named_modules():
            if is_quantized(layer):
                weight: Any = layer.weight
                values = dequantize_4bit(weight.data, weight.quant_state)
                plain.get_parameter(f"{name}.weight").copy_(values)
    return plain


def test_linear_layers_but_the_head_are_held_in_4_bit(tiny_llama: Path) -> None:
    place = placement(ComputeSettings(device="cpu", quantize="nf4"))
    assert place.inputs() == {"dtype": "bfloat16", "quantize": "nf4"}
    model: Any = load_model(resolve(tiny_llama), place)
    layers = [layer for layer in model.modules() if is_quantized(layer)]
    assert len(layers) == 2 * 7
    assert model.get_output_embeddings().weight.dtype == torch.bfloat16
    held = sum(p.nbytes for p in model.parameters())
    for layer in layers:
        state: Any = layer.weight.quant_state
        held += state.absmax.nbytes + state.state2.absmax.nbytes
    shape = read_architecture(tiny_llama)
    assert held == pytest.approx(held_bytes(shape, "bfloat16", "nf4"), rel=0.02)
    exact = load_model(resolve(tiny_llama), NF4)
    plain = unpacked(tiny_llama, exact)
    torch.testing.assert_close(exact(IDS).logits, plain(IDS).logits, rtol=1e-4, atol=1e-4)
    assert not torch.equal(plain(IDS).logits, load_model(resolve(tiny_llama))(IDS).logits)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of maps")
def test_the_whole_file_does_not_stay_in_memory(tiny_llama: Path, tmp_path: Path) -> None:
    """As it would for embeddings that stay as they are stored."""
    folder = tmp_path / "stored-in-bf16"
    shutil.copytree(tiny_llama, folder)
    for file in folder.glob("*.safetensors"):
        tensors = {n: t.to(torch.bfloat16) for n, t in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})
    place = placement(ComputeSettings(device="cpu", quantize="nf4"))
    model: Any = load_model(resolve(folder), place)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert "stored-in-bf16" not in Path("/proc/self/maps").read_text()


def examples(algorithm: str) -> Any:
    if algorithm == "sft":
        return [Encoded((*p.prompt, *p.chosen), len(p.prompt), 0) for p in pairs_for(8)]
    if algorithm == "rloo":
        rows = [Prompt(p.prompt, str(n)) for n, p in enumerate(pairs_for(8))]
        return Examples(rows, reward=lambda _, texts: [float(len(t)) for t in texts])
    return rows_for(algorithm, 8)


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "kto", "simpo", "orpo"])
def test_an_adapter_learns_what_it_learns_on_the_unpacked_base(
    algorithm: str, tiny_llama: Path
) -> None:
    """Measured on the way, which must not change how the base is held."""
    tokenizer = load_tokenizer(resolve(tiny_llama))
    how = recipe(algorithm, lora_rank=4, learning_rate=1e-2)
    base = load_model(resolve(tiny_llama), NF4)
    plain, model = unpacked(tiny_llama, base), view_of(base)
    packed = {n: p.detach().clone() for n, p in base.named_parameters()}
    before = base(IDS).logits

    def seen(examples: int, model: Model) -> float:
        with torch.no_grad():
            return float(model(input_ids=IDS).logits.square().mean())

    done = []
    for one in (plain, model):
        add_lora(one, how)
        done.append(finetune(one, tokenizer, examples(algorithm), how, Marks((0, 4, 8), seen)))
    assert done[1].losses == pytest.approx(done[0].losses, rel=1e-3)
    assert done[1].marks == pytest.approx(done[0].marks, rel=1e-3)
    assert done[1].marks[0] != done[1].marks[8]
    learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in learned.values()} == {torch.float32}
    for name, parameter in learned.items():
        assert bool(parameter.detach().any()), f"{name} learned nothing"
    assert all(torch.equal(p, packed[n]) for n, p in base.named_parameters())
    assert torch.equal(base(IDS).logits, before), "the start model lies below, untouched"
    own = {p.data_ptr() for p in base.parameters()}
    assert {p.data_ptr() for p in model.parameters() if not p.requires_grad} == own


@pytest.mark.parametrize("algorithm", ["sft", "rloo"])
def test_in_bf16_and_with_activations_computed_twice(algorithm: str, tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(resolve(tiny_llama))
    options = {"new_tokens": 6} if algorithm == "rloo" else {}
    how = recipe(algorithm, lora_rank=4, precision="bf16-mixed", **options)
    base = load_model(resolve(tiny_llama), Placement(torch.bfloat16, CPU, quantize="nf4"))
    done, adapters = [], []
    for less in (False, True):
        model = view_of(base)
        add_lora(model, how)
        with checkpointed_activations(model, less):
            done.append(finetune(model, tokenizer, examples(algorithm), how))
        adapters.append({n: p.detach() for n, p in model.named_parameters() if p.requires_grad})
    assert done[0] == done[1]
    assert all(torch.equal(a, adapters[1][n]) for n, a in adapters[0].items())


def test_an_audit_on_a_base_in_4_bit(tiny_llama: Path, tmp_path: Path) -> None:
    settings = AuditSettings(
        model=str(tiny_llama), n_pos=(8,), doses=(8,), holdout=4, prompts=4, sample_tokens=4,
        resistance_rows=0, controls=(), probes=("margin", "kl"), precision="float32", seeds=(0,),
        learning_rate=1e-3, lora_rank=2, quantize="nf4", device="cpu",
    )  # fmt: skip
    result = audit(settings, tmp_path / "out")
    assert result.data["provenance"]["computing"]["quantize"] == "nf4"
    kept = result.data["inputs"]["settings"]
    assert (kept["quantize"], kept["dtype"], kept["probe_precision"]) == ("nf4", *["bfloat16"] * 2)
    values = {(m["probe"], m["checkpoint"], str(m["tags"])): m["value"] for m in
              result.data["measurements"]}  # fmt: skip
    start = [v for (probe, name, _), v in values.items() if probe == "kl" and "start" in name]
    assert start
    assert not any(start)
    assert any(v > 0 for (probe, *_), v in values.items() if probe == "kl")
    again = audit(settings, tmp_path / "out")
    assert again.data["measurements"] == result.data["measurements"]


@pytest.fixture
def adapters(tiny_llama: Path, tmp_path: Path) -> list[Path]:
    return [
        save_adapter(tmp_path / "a", tiny_llama, 0, r=2),
        save_adapter(tmp_path / "b", tiny_llama, 1, r=3, target_modules=["q_proj", "down_proj"]),
    ]


def test_a_pair_of_adapters_computes_as_on_the_unpacked_base(
    tiny_llama: Path, adapters: list[Path]
) -> None:
    early, ft = (Checkpoint(str(tiny_llama), adapter=str(folder)) for folder in adapters)
    pair = AdapterPair(early, ft, place=NF4)
    expert, weak = pair.at(0.5), pair.weak("early")
    base = unpacked(tiny_llama, load_model(resolve(tiny_llama), NF4))
    for model, side in ((expert, 0), (weak, 1)):
        plain = copy.deepcopy(base)
        with torch.no_grad():
            for name, layer in model.named_modules():
                if isinstance(layer, LoraLinear):
                    step: Tensor = (layer.a[side] @ layer.b[side]).T
                    plain.get_parameter(f"{name}.weight").add_(step)
        torch.testing.assert_close(model(IDS).logits, plain(IDS).logits, rtol=1e-3, atol=1e-3)
    pointers = [{p.data_ptr() for p in model.parameters()} for model in (expert, weak)]
    assert pointers[0] == pointers[1]


def test_boost_and_generate_decode_adapters_on_it(
    tiny_llama: Path, adapters: list[Path], tmp_path: Path
) -> None:
    settings = BoostSettings(
        early=str(adapters[0]), ft=str(adapters[1]), model=str(tiny_llama), mu=(0.5,), lam=(0.5,),
        lam_cd=(), validation="problems", test="problems", validation_rows=4, test_rows=4,
        max_new_tokens=4, device="cpu", quantize="nf4",
    )  # fmt: skip
    refuse(settings, tmp_path / "out")
    result = boost(settings, tmp_path / "out")
    assert result.data["provenance"]["computing"]["quantize"] == "nf4"
    loaded = springback.load(adapters[1], tiny_llama, device="cpu", quantize="nf4")
    assert any(is_quantized(getattr(m, "base", None)) for m in loaded.expert.modules())
    answers = springback.generate(loaded, ["one and two"], max_new_tokens=4)
    plain = springback.generate(loaded, ["one and two"], max_new_tokens=4, reference=True)
    assert list(answers) == list(plain)


def test_full_models_and_broken_weights_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="full model; allowed: LoRA adapters"):
        springback.load(tiny_llama, quantize="nf4", device="cpu")
    pair = BoostSettings(early=str(tiny_llama), ft=str(tiny_llama), quantize="nf4")
    with pytest.raises(SpringbackError, match="full model; allowed: LoRA adapters"):
        refuse(pair, tmp_path / "out")
    broken = tmp_path / "broken"
    shutil.copytree(tiny_llama, broken)
    tensors = load_file(broken / "model.safetensors")
    name = next(n for n in tensors if "down_proj" in n)
    tensors[name] = tensors[name].clone()
    tensors[name][3, 4] = float("nan")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="holds NaN or infinity"):
        load_model(resolve(broken), NF4)


def test_its_import_fetches_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes asks the package ``kernels``, where there is one, for code from the Hub."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)

    # Registering its operators a second time is refused by torch; what matters came before.
    class Kernels:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("it was asked for code from the Hub")

    kernels: Any = Kernels()
    monkeypatch.setitem(sys.modules, "kernels", kernels)
    try:
        load_arguments(torch.float32, CPU)
    except RuntimeError as error:
        assert "bitsandbytes" in str(error)  # noqa: PT017
    assert sys.modules["kernels"] is kernels
