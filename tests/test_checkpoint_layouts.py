"""Checkpoints of one run that were saved differently are read; what no loader takes is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from springback.errors import ModelError
from springback.models.hub import local_folder
from springback.models.loading import load_model, resolve
from springback.weights import Extrapolation, check_line, extrapolate, extrapolate_along
from weights_adapters import load_base, save_base
from weights_files import Tensor, plain, read_model, values, write_model

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Tensors = dict[str, Tensor]


def two(root: Path, *, tied: bool = False) -> tuple[Path, Path]:
    """Two random models of one shape, as Transformers writes them."""
    folders = [save_base(root / name, tied=tied, seed=i) for i, name in enumerate(("early", "ft"))]
    return folders[0], folders[1]


def rewrite(folder: Path, change: Callable[[Tensors], Tensors], shards: int = 1) -> None:
    tensors = list(change(read_model(folder)).items())
    (folder / "model.safetensors").unlink()
    write_model(folder, *(dict(tensors[i::shards]) for i in range(shards)))


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: t for name, t in tensors.items()}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): t for name, t in tensors.items()}


def to_bfloat16(tensors: Tensors) -> Tensors:
    return {
        n: ("BF16", (a.view(np.uint32) >> 16).astype(np.uint16)) for n, (_, a) in tensors.items()
    }


def expected(early: Path, ft: Path, mu: float = 0.5) -> dict[str, Any]:
    a, b = (
        {n: values(t).astype(np.float64) for n, t in read_model(folder).items()}
        for folder in (early, ft)
    )
    return {name: b[name] + mu * (b[name] - a[name]) for name in b}


def require_result(out: Path, want: dict[str, Any], rtol: float = 2.0**-23) -> None:
    """The weights are ``want``, and Transformers loads every one of them from the folder."""
    got = read_model(out)
    assert set(got) == set(want)
    for name, array in want.items():
        np.testing.assert_allclose(values(got[name]), array, rtol=rtol, atol=1e-30)
    state = load_base(out).state_dict()
    for name, tensor in got.items():
        assert torch.equal(state[name], torch.from_numpy(values(tensor).astype(np.float32)))


PREFIXES = [
    *("_orig_mod.", "module.", "module._orig_mod.", "_fsdp_wrapped_module.", "_forward_module."),
    *("policy.", "actor.module.", "language_model.", "pretrained_model."),
]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_all_names_are_taken_off(tmp_path: Path, prefix: str, tied: bool) -> None:
    early, ft = two(tmp_path, tied=tied)
    want = expected(early, ft)
    rewrite(ft, prefixed(prefix), shards=2)
    first = extrapolate(early, ft, 0.5, tmp_path / "one")
    require_result(tmp_path / "one", want)
    assert extrapolate(early, ft, 0.5, tmp_path / "one") == first
    rewrite(early, prefixed(prefix))
    extrapolate(early, ft, 0.5, tmp_path / "both")
    require_result(tmp_path / "both", want)
    index = json.loads((tmp_path / "one/model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(want)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.layers.0.", "model.layers.0._checkpoint_wrapped_module."),
        ("model.", "model._orig_mod."),
        ("model.", "model.language_model."),
        ("model.", "model.model."),
        ("model.", "foo.model."),
    ],
)
def test_wrappers_inside_of_names_are_taken_out(tmp_path: Path, old: str, new: str) -> None:
    early, ft = two(tmp_path, tied=True)
    want = expected(early, ft)
    for folder, out in ((early, "one"), (ft, "both")):
        rewrite(folder, renamed(old, new))
        extrapolate(early, ft, 0.5, tmp_path / out)
        require_result(tmp_path / out, want)


def test_a_language_model_inside_another_is_named_as_in_the_last_checkpoint(tmp_path: Path) -> None:
    """Versions of Transformers differ in where they put it."""
    early, ft = two(tmp_path)
    want = expected(early, ft)
    for folder in (early, ft):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({"text_config": config}))
    rewrite(early, prefixed("language_model."))
    rewrite(ft, renamed("model.", "model.language_model."))
    extrapolate(early, ft, 0.5, tmp_path / "out")
    got = read_model(tmp_path / "out")
    assert set(got) == {name.replace("model.", "model.language_model.") for name in want}
    name = "model.norm.weight"
    moved = values(got["model.language_model.norm.weight"])
    np.testing.assert_allclose(moved, want[name], rtol=2.0**-23)


@pytest.mark.parametrize("side", ["early", "ft"])
def test_a_tied_head_that_one_side_stores_is_no_difference(tmp_path: Path, side: str) -> None:
    early, ft = two(tmp_path, tied=True)
    want = expected(early, ft)
    rewrite(tmp_path / side, lambda tensors: {**tensors, HEAD: tensors[EMBEDDING]})
    extrapolate(early, ft, 0.5, tmp_path / "out")
    if side == "ft":
        want[HEAD] = want[EMBEDDING]
    require_result(tmp_path / "out", want)
    other = {HEAD: plain(np.ones((48, 16), np.float32))}
    rewrite(tmp_path / side, lambda tensors: {**tensors, **other})
    with pytest.raises(ModelError, match=rf"{HEAD} is only in .*/{side}"):
        extrapolate(early, ft, 0.5, tmp_path / "no")


@pytest.mark.parametrize("side", ["early", "ft"])
def test_buffers_of_older_versions_are_no_difference(tmp_path: Path, side: str) -> None:
    early, ft = two(tmp_path)
    want = expected(early, ft)
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": plain(np.ones(4, np.float32))}
    rewrite(tmp_path / side, lambda tensors: {**tensors, **buffer})
    extrapolate(early, ft, 0.5, tmp_path / "out")
    require_result(tmp_path / "out", want)


@pytest.mark.parametrize("narrow", ["early", "ft"])
def test_each_tensor_is_read_by_its_own_dtype(tmp_path: Path, narrow: str) -> None:
    early, ft = two(tmp_path)
    rewrite(tmp_path / narrow, to_bfloat16)
    want = expected(early, ft)
    extrapolate(early, ft, 0.5, tmp_path / "out")
    bits = 7 if narrow == "ft" else 23
    require_result(tmp_path / "out", want, rtol=2.0**-bits)
    extrapolate(early, ft, 0.5, tmp_path / "wide", dtype="float32")
    require_result(tmp_path / "wide", want)
    third = save_base(tmp_path / "third", seed=5)
    how = Extrapolation(0.5, low_rank=2)
    report = extrapolate_along([early, ft, third], how, tmp_path / "slope")
    assert report.energy_kept is not None
    assert check_line([early, ft, third]).r2 is not None


def refuse(early: Path, ft: Path, match: str) -> None:
    """Both the writing and the check refuse, in one line, and leave nothing."""
    before = set(ft.parent.iterdir())
    for call in (
        lambda: extrapolate(early, ft, 0.5, ft.parent / "out"),
        lambda: check_line([early, ft]),
    ):
        with pytest.raises(ModelError, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert set(ft.parent.iterdir()) == before


def test_equal_values_are_refused_whatever_the_layout(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    shutil.rmtree(early)
    rewrite(ft, to_bfloat16)
    shutil.copytree(ft, early)
    wide = {n: plain(values(t)) for n, t in read_model(early).items()}
    rewrite(early, lambda _: prefixed("module.")(wide), shards=2)
    with pytest.raises(ModelError, match="hold the same weights"):
        extrapolate(early, ft, 0.5, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"early", "ft"}
    assert check_line([early, ft]).norms == (0.0,)


@pytest.mark.parametrize("side", ["early", "ft"])
@pytest.mark.parametrize("some", [False, True])
def test_weights_that_zero_3_did_not_gather_are_refused(
    tmp_path: Path, side: str, some: bool
) -> None:
    early, ft = two(tmp_path)
    nothing = plain(np.empty(0, np.float32))
    rewrite(
        tmp_path / side,
        lambda tensors: {n: t if some and "norm" in n else nothing for n, t in tensors.items()},
    )
    refuse(early, ft, r"is empty, shape \[0\].*ZeRO-3.*zero_to_fp32")


def test_added_tokens_are_named_with_what_mends_them(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    model = load_base(ft)
    model.resize_token_embeddings(50)
    model.save_pretrained(ft)
    refuse(
        early,
        ft,
        r"\[48, 16\] in one and float32 \[50, 16\].*early .*resize_token_embeddings\(50\)",
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vocab_size": 47}, r"is \[48, 16\] and config.json says \[47, 16\]"),
        ({"hidden_size": 8}, r"config.json says \[48, 8\]"),
        ({"num_hidden_layers": 2}, "no tensor of layer 1, one of 2 by config.json"),
    ],
)
def test_weights_are_held_against_their_config(
    tmp_path: Path, change: dict[str, int], match: str
) -> None:
    early, ft = two(tmp_path)
    config = json.loads((ft / "config.json").read_text())
    (ft / "config.json").write_text(json.dumps({**config, **change}))
    refuse(early, ft, match)


def test_a_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    rewrite(ft, lambda tensors: {**tensors, **prefixed("_orig_mod.")(tensors)})
    refuse(early, ft, "twice, as .* and as _orig_mod.")


def test_a_shard_with_a_tensor_that_the_index_lacks_is_refused(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    rewrite(ft, lambda tensors: tensors, shards=2)
    index = ft / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    del table["weight_map"]["model.norm.weight"]
    index.write_text(json.dumps(table))
    refuse(early, ft, r"does not list model\.norm\.weight")


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (("global_step500/mp_rank_00_model_states.pt",), "DeepSpeed.*zero_to_fp32.py"),
        (("zero_to_fp32.py",), "DeepSpeed.*zero_to_fp32.py"),
        (("pytorch_model_fsdp_0/__0_0.distcp",), "FSDP.*accelerate merge-weights .*fsdp_0"),
        (("__0_0.distcp", ".metadata"), "FSDP.*accelerate merge-weights"),
        (("checkpoint-500/model.safetensors",), "name .*/checkpoint-500"),
        (("default/adapter_model.safetensors",), "name .*/default"),
    ],
)
def test_folders_of_parts_are_told_what_makes_weights_of_them(
    tmp_path: Path, parts: tuple[str, ...], match: str
) -> None:
    early, ft = two(tmp_path)
    (ft / "model.safetensors").unlink()
    for part in parts:
        (ft / part).parent.mkdir(exist_ok=True)
        (ft / part).write_bytes(b"x")
    refuse(early, ft, f"no weights in .*{match}")


def test_a_config_nested_too_deeply_is_refused_in_one_line(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    (ft / "config.json").write_text("[" * 100_000)
    refuse(early, ft, r"cannot read .*config\.json")


def set_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def without_head(tensors: Tensors) -> Tensors:
    return {name: t for name, t in tensors.items() if name != HEAD}


def test_a_head_that_the_last_checkpoint_has_untied_was_the_embedding(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    rewrite(early, lambda tensors: {**tensors, HEAD: tensors[EMBEDDING]})
    want = expected(early, ft)
    rewrite(early, without_head)
    set_config(early, tie_word_embeddings=True)
    extrapolate(early, ft, 0.5, tmp_path / "out")
    require_result(tmp_path / "out", want)
    refuse(ft, early, f"{HEAD} is only in")  # one tensor cannot be two
    set_config(early, tie_word_embeddings=False)  # it lacks its head
    refuse(early, ft, f"{HEAD} is only in")


@pytest.mark.parametrize("side", ["early", "ft"])
def test_a_tied_embedding_may_be_stored_under_the_name_of_the_head(
    tmp_path: Path, side: str
) -> None:
    early, ft = two(tmp_path, tied=True)
    want = expected(early, ft)
    rewrite(tmp_path / side, renamed(EMBEDDING, HEAD))
    if side == "ft":
        want[HEAD] = want.pop(EMBEDDING)
    extrapolate(early, ft, 0.5, tmp_path / "out")
    require_result(tmp_path / "out", want)


def test_full_weights_under_the_config_of_a_quantised_base_load(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    want = expected(early, ft)
    set_config(ft, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    report = extrapolate(early, ft, 0.5, tmp_path / "out")
    assert any("quantization_config" in warning for warning in report.warnings)
    require_result(tmp_path / "out", want)
    with pytest.raises(ModelError, match=r"quantised by its config\.json \(bitsandbytes\)"):
        load_model(resolve(ft))
    set_config(ft, quantization_config={"quant_method": "bitnet"})  # trained in full, and needed
    extrapolate(early, ft, 0.5, tmp_path / "kept")
    assert "quantization_config" in json.loads((tmp_path / "kept/config.json").read_text())


def test_an_index_without_metadata_is_written_with_some(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    want = expected(early, ft)
    rewrite(ft, lambda tensors: tensors, shards=2)
    index = ft / "model.safetensors.index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "metadata": None}))
    extrapolate(early, ft, 0.5, tmp_path / "out")
    require_result(tmp_path / "out", want)


def test_settings_and_results_of_the_training_stay_behind(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    for name in ("args", "training_args", "all_results", "eval_results", "trainer_state"):
        (ft / f"{name}.json").write_text('{"hub_token": "hf_secret"}')
    for name in ("pytorch_model.bin.index.json", "model.safetensors.index.fp16.json"):
        (ft / name).write_text("{}")
    (ft / "vocab.json").write_text("{}")
    extrapolate(early, ft, 0.5, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    ours = {"README.md", "springback.json", "model.safetensors"}
    assert written == ours | {"config.json", "generation_config.json", "vocab.json"}


@pytest.mark.parametrize("name", ["m-q4_k_m.gguf", "model.fp16.safetensors", "a.safetensors"])
def test_weights_that_no_loader_takes_are_named(tmp_path: Path, name: str) -> None:
    early, ft = two(tmp_path)
    (ft / "model.safetensors").rename(ft / name)
    refuse(early, ft, f"no weights in .*; it holds {name}, which no loader takes")


def test_of_a_run_the_last_checkpoint_is_named(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    for step in (100, 900, 1000):
        (tmp_path / f"run/checkpoint-{step}").mkdir(parents=True)
        shutil.copy(ft / "model.safetensors", tmp_path / f"run/checkpoint-{step}")
    refuse(early, tmp_path / "run", "name .*/checkpoint-1000, which has some")


def test_a_check_compares_what_holds_no_floats(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    for number, folder in enumerate((early, ft)):
        packed = {"model.x.qweight": plain(np.full((2, 4), number, np.int64))}
        write_model(folder, {**read_model(folder), **packed})
    with pytest.raises(ModelError, match=r"model\.x\.qweight holds no floats and differs"):
        check_line([early, ft])


def test_names_of_training_code_are_named_by_what_loads_a_model(tmp_path: Path) -> None:
    _, ft = two(tmp_path)
    rewrite(ft, prefixed("module."))
    with pytest.raises(ModelError, match=r"it has module\.lm_head\.weight, as training code"):
        load_model(resolve(ft))


def test_a_file_is_told_from_a_folder(tmp_path: Path) -> None:
    _, ft = two(tmp_path)
    for find in (local_folder, resolve):
        with pytest.raises(ModelError, match=r"no model at .*, which is a file; allowed: "):
            find(str(ft / "model.safetensors"))


@pytest.mark.parametrize("side", ["early", "ft"])
def test_a_model_with_its_adapter_unmerged_in_it_is_refused(tmp_path: Path, side: str) -> None:
    early, ft = two(tmp_path)
    name = "model.layers.0.self_attn.q_proj"
    a, b = (plain(np.ones(shape, np.float32)) for shape in ((2, 16), (16, 2)))
    beside = {f"{name}.lora_A.default.weight": a, f"{name}.lora_B.default.weight": b}
    rewrite(tmp_path / side, lambda tensors: {**tensors, **beside})
    refuse(early, ft, rf"{side} holds {name}\.lora_A\..*not merged.*merge_and_unload")
    with pytest.raises(ModelError, match="not merged"):  # and not loaded without it
        load_model(resolve(tmp_path / side))
    own = renamed(f"{name}.weight", f"{name}.base_layer.weight")
    rewrite(
        tmp_path / side, lambda tensors: own({n: t for n, t in tensors.items() if n not in beside})
    )
    refuse(early, ft, rf"{side} holds {name}\.base_layer\..*not merged")


def test_a_value_head_around_a_model_is_no_obstacle(tmp_path: Path) -> None:
    early, ft = two(tmp_path)
    want = expected(early, ft)
    head = plain(np.ones((1, 16), np.float32))
    for folder in (early, ft):
        rewrite(folder, prefixed("pretrained_model."))
        rewrite(folder, lambda tensors: {**tensors, "v_head.summary.weight": head})
    extrapolate(early, ft, 0.5, tmp_path / "out")
    assert set(read_model(tmp_path / "out")) == {*want, "v_head.summary.weight"}
    state = load_base(tmp_path / "out").state_dict()
    for name, array in want.items():
        np.testing.assert_allclose(state[name].numpy(), array, rtol=2.0**-22, atol=1e-30)
