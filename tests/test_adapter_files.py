"""Adapters as trainers leave them: names, saved embeddings, tied heads; and where their base is."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from springback.cli.app import main
from springback.errors import ModelError, StoreError
from springback.models.hub import base_of, local_folder
from springback.models.names import require_model
from springback.weights import (
    AdapterExtrapolation,
    Extrapolation,
    extrapolate_adapters,
    hash_weights,
    materialise_adapters,
)
from weights_adapters import load_base, save_adapter, save_base

How = AdapterExtrapolation
State = dict[str, Tensor]


def resized(base: Path, rows: int) -> Any:
    """The base with rows for new tokens, the same ones each time."""
    model: Any = load_base(base)
    if rows:
        torch.manual_seed(3)
        model.resize_token_embeddings(rows, mean_resizing=False)
    return model


def two(root: Path, *, rows: int = 0, tied: bool = False, **lora: Any) -> tuple[Path, list[Path]]:
    base = save_base(root / "base", tied=tied)
    folders = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed, name in enumerate(("early", "ft")):
            model = resized(base, rows)
            torch.manual_seed(seed)
            how = {"task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"], **lora}
            model = get_peft_model(model, LoraConfig(**how))
            with torch.no_grad():
                for weight in model.parameters():
                    if weight.requires_grad:
                        weight.add_(0.2 * torch.randn_like(weight))
            model.save_pretrained(str(root / name))
            folders.append(root / name)
    return base, folders


def merged(base: Path, adapter: Path, rows: int = 0) -> State:
    """The dense weights that PEFT makes of an adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = PeftModel.from_pretrained(resized(base, rows), str(adapter))
        return {n: t.double() for n, t in model.merge_and_unload().state_dict().items()}


def wanted(base: Path, folders: list[Path], rows: int = 0) -> State:
    a, b = (merged(base, folder, rows) for folder in folders)
    return {name: b[name] + 0.5 * (b[name] - a[name]) for name in b}


def close(got: State, want: State) -> None:
    assert set(got) == set(want)
    for name, tensor in want.items():
        torch.testing.assert_close(got[name].double(), tensor, rtol=0, atol=2e-6)


def rewrite(folder: Path, change: Callable[[State], State]) -> None:
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def renamed(*pairs: tuple[str, str]) -> Callable[[State], State]:
    def change(state: State) -> State:
        new = {}
        for name, tensor in state.items():
            for old, other in pairs:
                name = name.replace(old, other)
            new[name] = tensor.clone()
        return new

    return change


@pytest.mark.parametrize(
    "pairs",
    [
        [(".lora_A.", ".lora_A.default."), (".lora_B.", ".lora_B.default.")],
        [(".lora_A.", ".lora_A.mine-2."), (".lora_B.", ".lora_B.mine-2.")],
        [("base_model.model.", "base_model.model._orig_mod.")],
        [("base_model.", "_orig_mod.base_model.")],
        [("base_model.", "module.base_model.")],
        [("layers.0.", "layers.0._checkpoint_wrapped_module.")],
        [("lm_head.", "lm_head.modules_to_save.default.")],
        [("lm_head.", "lm_head.modules_to_save.")],
        [("embed_tokens.lora_embedding_A", "embed_tokens.lora_embedding_A.default")],
    ],
)
def test_names_are_read_with_what_training_code_puts_into_them(
    tmp_path: Path, pairs: list[tuple[str, str]]
) -> None:
    lora: dict[str, Any] = {"target_modules": ["q_proj", "embed_tokens"]}
    lora["modules_to_save"] = ["lm_head"]
    base, folders = two(tmp_path, **lora)
    want = wanted(base, folders)
    for folder in folders:
        rewrite(folder, renamed(*pairs))
    extrapolate_adapters(folders, How(0.5), tmp_path / "out")
    close(merged(base, tmp_path / "out"), want)
    materialise_adapters(folders, base, Extrapolation(0.5), tmp_path / "full")
    close(load_base(tmp_path / "full").state_dict(), want)


def test_two_adapters_in_one_file_are_refused(tmp_path: Path) -> None:
    _, folders = two(tmp_path)
    rewrite(folders[1], lambda s: {**s, **renamed(("lora_A.", "lora_A.other."))(s)})
    with pytest.raises(ModelError, match="are two adapters"):
        extrapolate_adapters(folders, How(0.5), tmp_path / "out")


EMBEDDINGS: dict[str, dict[str, Any]] = {
    "both saved": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "embedding saved": {"modules_to_save": ["embed_tokens"]},
    "head saved": {"modules_to_save": ["lm_head"]},
    "none saved": {},
    "kept tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}


@pytest.mark.parametrize("rows", [0, 50, 64])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("case", EMBEDDINGS)
def test_saved_embeddings_on_raw_and_resized_bases(
    tmp_path: Path, case: str, tied: bool, rows: int
) -> None:
    base, folders = two(tmp_path, rows=rows, tied=tied, **EMBEDDINGS[case])
    want = wanted(base, folders, rows)
    extrapolate_adapters(folders, How(0.5), tmp_path / "out")
    close(merged(base, tmp_path / "out", rows), want)
    resized(base, rows).save_pretrained(tmp_path / "resized")
    for name in ("base", "resized"):
        out = tmp_path / f"full-{name}"
        report = materialise_adapters(folders, tmp_path / name, Extrapolation(0.5), out)
        close(load_base(out).state_dict(), want)
        config = json.loads((out / "config.json").read_text())
        assert config["vocab_size"] == (rows or 48)
        one = torch.equal(want["lm_head.weight"], want["model.embed_tokens.weight"])
        assert config["tie_word_embeddings"] is (tied and one)
        again = materialise_adapters(folders, tmp_path / name, Extrapolation(0.5), out)
        assert again == report


def test_lora_on_resized_embeddings(tmp_path: Path) -> None:
    targets = ["q_proj", "embed_tokens", "lm_head"]
    base, folders = two(tmp_path, rows=50, target_modules=targets)
    want = wanted(base, folders, 50)
    materialise_adapters(folders, base, Extrapolation(0.5), tmp_path / "full")
    close(load_base(tmp_path / "full").state_dict(), want)


def test_rows_that_one_adapter_alone_has_are_refused(tmp_path: Path) -> None:
    base, folders = two(tmp_path, rows=50)
    rewrite(folders[0], lambda s: {n: t for n, t in s.items() if "lora_" in n})
    with pytest.raises(ModelError, match="resize the base first"):
        materialise_adapters(folders, base, Extrapolation(0.5), tmp_path / "full")
    rewrite(folders[1], lambda s: {n: t for n, t in s.items() if "embed_tokens" not in n})
    rewrite(folders[0], lambda _: load_file(folders[1] / "adapter_model.safetensors"))
    with pytest.raises(ModelError, match=r"embed_tokens.weight does not; resize the base first"):
        materialise_adapters(folders, base, Extrapolation(0.5), tmp_path / "full")
    assert not (tmp_path / "full").exists()


def test_equal_and_empty_adapters_are_refused(tmp_path: Path) -> None:
    base, folders = two(tmp_path)
    for adapters in ([folders[1]] * 2, [folders[1]] * 3):
        with pytest.raises(ModelError, match="hold the same weights"):
            extrapolate_adapters(adapters, How(0.5), tmp_path / "out")
        with pytest.raises(ModelError, match="hold the same weights"):
            materialise_adapters(adapters, base, Extrapolation(0.5), tmp_path / "out")
    rewrite(folders[0], lambda state: {name: torch.zeros(0) for name in state})
    with pytest.raises(ModelError, match=r"is empty, shape \[0\].*ZeRO-3"):
        extrapolate_adapters(folders, How(0.5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_under_two_names_is_settled_by_naming_it(tmp_path: Path) -> None:
    base, folders = two(tmp_path)
    want = wanted(base, folders)
    edit(folders[0], base_model_name_or_path="org/base")
    edit(folders[1], base_model_name_or_path="/moved/base")
    with pytest.raises(ModelError, match=r"different base models.*--base"):
        extrapolate_adapters(folders, How(0.5), tmp_path / "out")
    report = extrapolate_adapters(folders, How(0.5, base=base), tmp_path / "out")
    assert any("is taken for both" in warning for warning in report.warnings)
    close(merged(base, tmp_path / "out"), want)
    for folder, seed in zip(folders, (1, 2), strict=True):  # two bases that are here and differ
        edit(folder, base_model_name_or_path=str(save_base(tmp_path / f"b{seed}", seed=seed)))
    with pytest.raises(ModelError, match="different base models"):
        extrapolate_adapters(folders, How(0.5, base=base), tmp_path / "no")


@pytest.mark.parametrize("ending", ["-bnb-4bit", "-unsloth-bnb-4bit", "-4bit", "-bnb-8bit"])
def test_a_quantised_base_is_answered_with_what_to_name(tmp_path: Path, ending: str) -> None:
    base, folders = two(tmp_path)
    for folder in folders:
        edit(folder, base_model_name_or_path=f"unsloth/Qwen3-4B{ending}")
    with pytest.raises(ModelError, match=r"quantised.*in full, unsloth/Qwen3-4B; name it with"):
        base_of(folders)
    assert base_of(folders, base) == base
    config = json.loads((base / "config.json").read_text())
    quantised = {**config, "quantization_config": {"quant_method": "bitsandbytes"}}
    (base / "config.json").write_text(json.dumps(quantised))
    with pytest.raises(ModelError, match=r"quantised.*that it was made of; name it with"):
        base_of(folders, base)


def springback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["springback", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_commands_read_the_base_from_the_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, folders = two(tmp_path)
    want = wanted(base, folders)
    words = ["extrapolate", *folders, "--mu", "0.5", "--materialise", "--out", tmp_path / "full"]
    code, _, err = springback(monkeypatch, capsys, *words)
    assert code == 0, err
    close(load_base(tmp_path / "full").state_dict(), want)
    code, out, err = springback(monkeypatch, capsys, "extrapolate", *folders, "--check")
    assert (code, "update 1: norm" in out) == (0, True), err
    edit(folders[1], base_model_name_or_path=None)
    edit(folders[0], base_model_name_or_path=None)
    code, _, err = springback(monkeypatch, capsys, *words[:-1], tmp_path / "other")
    assert (code, "does not say which base it is for; name it with --base" in err) == (2, True)


def test_built_in_names_are_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, folders = two(tmp_path)
    monkeypatch.setattr("springback.models.builtin.fetch_builtin", lambda name: base)
    for folder in folders:
        edit(folder, base_model_name_or_path="smollm2-135m")
    assert base_of(folders) == local_folder("smollm2-135m") == base


def test_a_base_that_moved_is_answered_with_how_to_name_it(tmp_path: Path) -> None:
    _, folders = two(tmp_path)
    for folder in folders:
        edit(folder, base_model_name_or_path="/data/gone")
    with pytest.raises(ModelError, match=r"base of .*/ft: no model at '/data/gone'.*--base"):
        base_of(folders)


def test_an_adapter_counts_where_its_merged_model_lies_beside_it(tmp_path: Path) -> None:
    base, folders = two(tmp_path)
    want = wanted(base, folders)
    before = [hash_weights(folder) for folder in folders]
    for folder in folders:
        for name in ("model.safetensors", "config.json"):
            shutil.copy(base / name, folder)
    assert [hash_weights(folder) for folder in folders] == before
    report = extrapolate_adapters(folders, How(0.5), tmp_path / "out")
    assert not report.warnings
    close(merged(base, tmp_path / "out"), want)
    rewrite(folders[0], lambda state: {name: 2 * t for name, t in state.items()})
    with pytest.raises(StoreError, match="is not the result of these inputs"):
        extrapolate_adapters(folders, How(0.5), tmp_path / "out")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_which_way_weights_lie_is_read_off_the_base(tmp_path: Path, kind: str) -> None:
    """As PEFT does; of a square matrix the shape does not tell."""
    base, square = save_base(tmp_path / "llama"), "q_proj"
    if kind == "gpt2":
        config = GPT2Config(vocab_size=48, n_embd=16, n_layer=1, n_head=2, n_positions=32)
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(base := tmp_path / "gpt2")
        square = "attn.c_proj"
    folders = []
    for seed, name in enumerate(("early", "ft")):
        how = {"target_modules": [square], "fan_in_fan_out": kind == "gpt2"}
        folders.append(save_adapter(tmp_path / name, base, seed, **how))
        edit(folders[-1], fan_in_fan_out=kind != "gpt2")
    materialise_adapters(folders, base, Extrapolation(0.5), tmp_path / "out")
    close(load_base(tmp_path / "out").state_dict(), wanted(base, folders))


def test_the_folder_of_a_run_of_adapters_and_one_without_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (early, ft) = two(tmp_path)
    shutil.copytree(ft, tmp_path / "run/checkpoint-1000")
    words = [early, tmp_path / "run", "--mu", "0.5", "--out", tmp_path / "out"]
    code, _, err = springback(monkeypatch, capsys, "extrapolate", *words)
    assert (code, "/run/checkpoint-1000, which has some" in err) == (2, True), err
    (ft / "adapter_config.json").unlink()
    words[1] = ft
    code, _, err = springback(monkeypatch, capsys, "extrapolate", *words)
    assert (code, "needs its adapter_config.json beside it" in err) == (2, True), err
    assert not (tmp_path / "out").exists()


def test_an_adapter_in_the_place_of_a_model_is_told_so(tmp_path: Path) -> None:
    _, folders = two(tmp_path)
    with pytest.raises(ModelError, match=r"is an adapter; allowed: a full model; merge it"):
        require_model(folders[0])


def test_dora_without_its_magnitudes_is_refused(tmp_path: Path) -> None:
    base, folders = two(tmp_path)
    for folder in folders:
        edit(folder, use_dora=True)
    with pytest.raises(ModelError, match=r"use_dora is true and .*q_proj has no magnitude"):
        materialise_adapters(folders, base, Extrapolation(0.5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_lora_on_position_embeddings_leaves_tied_ones_alone(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=48, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(base := tmp_path / "gpt2")
    folders = [
        save_adapter(tmp_path / name, base, seed, target_modules=["wpe"])
        for seed, name in enumerate(("early", "ft"))
    ]
    materialise_adapters(folders, base, Extrapolation(0.5), tmp_path / "out")
    close(load_base(tmp_path / "out").state_dict(), wanted(base, folders))
