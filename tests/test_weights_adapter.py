"""The extrapolated adapter is the dense extrapolation, and PEFT loads it as an ordinary one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open

from springback.errors import ModelError, StoreError
from springback.weights import AdapterExtrapolation, extrapolate_adapters, hash_weights
from springback.weights.adapters.combining import cut_rank, norm_sq
from weights_adapters import (
    dense_logits,
    load_base,
    logits,
    merged,
    save_adapter,
    save_base,
    save_untied,
    with_adapter,
)

How = AdapterExtrapolation
#: Settings of the early and of the fine-tuned adapter.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alike": ({"r": 4, "lora_alpha": 8}, {"r": 4, "lora_alpha": 8}),
    "ranks and alphas": ({"r": 2, "lora_alpha": 3}, {"r": 5, "lora_alpha": 16}),
    "rsLoRA": ({"r": 4, "use_rslora": True}, {"r": 3, "lora_alpha": 6, "use_rslora": False}),
    "patterns": (
        {"r": 2, "rank_pattern": {"q_proj": 5}, "alpha_pattern": {"layers.0.mlp.down_proj": 7}},
        {"r": 3, "rank_pattern": {r".*\.down_proj": 1}, "alpha_pattern": {"q_proj": 1}},
    ),
    "other modules": (
        {"r": 2, "target_modules": ["q_proj", "up_proj"]},
        {"r": 3, "target_modules": ["down_proj", "up_proj"]},
    ),
    "all linear": ({"target_modules": "all-linear"}, {"target_modules": r".*\.(k|v)_proj"}),
    "embedding": (
        {"r": 2, "target_modules": ["embed_tokens", "lm_head"]},
        {"r": 3, "target_modules": ["embed_tokens", "q_proj", "lm_head"]},
    ),
    "lora bias": (
        {"r": 2, "target_modules": ["q_proj"], "lora_bias": True},
        {"r": 3, "target_modules": ["q_proj"]},
    ),
    "biases": ({"r": 2, "bias": "all"}, {"r": 2, "bias": "all", "target_modules": ["v_proj"]}),
    "saved modules": (
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["lm_head"], "lora_dropout": 0.1},
    ),
}


def both(
    root: Path, early: dict[str, Any] | None = None, ft: dict[str, Any] | None = None, **base: Any
) -> tuple[Path, Path, Path]:
    """Base, early and fine-tuned adapter."""
    where = save_base(root / "base", **base)
    return (
        where,
        save_adapter(root / "early", where, 1, **(early or {"r": 3})),
        save_adapter(root / "ft", where, 2, **(ft or {"r": 3})),
    )


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return found


def edit(folder: Path, **settings: Any) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({**config_of(folder), **settings}))
    return folder


@pytest.mark.parametrize(
    ("case", "tied"),
    [*((case, False) for case in CASES), ("embedding", True), ("saved modules", True)],
)
def test_logits_equal_the_dense_extrapolation(tmp_path: Path, case: str, tied: bool) -> None:
    base, early, ft = both(tmp_path, *CASES[case], tied=tied)
    report = extrapolate_adapters([early, ft], How(0.4), tmp_path / "out")
    # PEFT would merge two LoRAs on tied layers into the one tensor, which is not what it computes.
    dense = save_untied(tmp_path / "untied", base) if tied else base
    expected = dense_logits(dense, early, ft, 0.4)
    got = logits(with_adapter(base, tmp_path / "out"))
    assert torch.linalg.norm(expected - logits(load_base(base))) > 1  # something was to be moved
    torch.testing.assert_close(got, expected, rtol=0, atol=3e-5)
    assert report.rounding_error < 1e-6
    assert report.warnings == ()


def test_the_folder_is_an_ordinary_adapter_of_one_rank(tmp_path: Path) -> None:
    base, early, ft = both(
        tmp_path,
        {"r": 2, "lora_alpha": 5, "use_rslora": True},
        {"r": 3, "rank_pattern": {"q_proj": 6}, "layers_to_transform": [0]},
    )
    (ft / "tokenizer.json").write_text("{}")
    report = extrapolate_adapters([early, ft], How(0.4), tmp_path / "out")
    config = config_of(tmp_path / "out")
    assert (config["r"], config["lora_alpha"], report.rank) == (8, 8, 8)  # 2 + 6
    assert set(config) == set(config_of(ft)), "PEFT warns of settings that it does not know"
    assert config["use_rslora"] is False
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert (config["peft_type"], config["base_model_name_or_path"]) == ("LORA", str(base))
    assert set(config["target_modules"]) == {"q_proj", "down_proj"}  # as the user wrote them
    with safe_open(tmp_path / "out/adapter_model.safetensors", framework="numpy") as file:
        shapes = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
    layer = "base_model.model.model.layers.0."
    assert shapes == {
        f"{layer}mlp.down_proj.lora_A.weight": (8, 24),
        f"{layer}mlp.down_proj.lora_B.weight": (16, 8),
        f"{layer}self_attn.q_proj.lora_A.weight": (8, 16),
        f"{layer}self_attn.q_proj.lora_B.weight": (16, 8),
    }
    record = json.loads((tmp_path / "out/springback.json").read_text())
    assert (record["kind"], record["mu"]) == ("extrapolated adapter", 0.4)
    assert record["early"] == {"name": "early", "content_hash": hash_weights(early)}
    assert record["content_hash"] == hash_weights(tmp_path / "out")
    assert str(tmp_path) not in json.dumps(record)
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card.data.library_name == "peft"
    assert hash_weights(ft) in card.text
    assert (tmp_path / "out/tokenizer.json").read_text() == "{}"


def test_modules_of_only_one_side_are_named_in_full(tmp_path: Path) -> None:
    _, early, ft = both(tmp_path, *CASES["other modules"])
    extrapolate_adapters([early, ft], How(0.4), tmp_path / "out")
    assert config_of(tmp_path / "out")["target_modules"] == [
        "model.layers.0.mlp.down_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.0.self_attn.q_proj",
    ]


def test_mu_zero_is_the_fine_tuned_adapter(tmp_path: Path) -> None:
    base, early, ft = both(tmp_path, {"r": 2}, {"r": 3, "lora_alpha": 6})
    report = extrapolate_adapters([early, ft], How(0), tmp_path / "out")
    assert report.rank == 3
    got, expected = (logits(with_adapter(base, f)) for f in (tmp_path / "out", ft))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_three_adapters_move_along_the_slope_and_mu_may_differ_by_group(tmp_path: Path) -> None:
    base, early, ft = both(tmp_path, {"r": 2}, {"r": 3})
    middle = save_adapter(tmp_path / "middle", base, 5, r=1)
    how = How({"attention": 0.5}, steps=(0, 1, 3))
    extrapolate_adapters([early, middle, ft], how, tmp_path / "out")
    a, b, c, got = (merged(base, f) for f in (early, middle, ft, tmp_path / "out"))
    attention = "model.layers.0.self_attn.q_proj.weight"
    for name in got:
        mu = 0.5 if name == attention else 0.0
        expected = c[name] + mu * (4 / 7 * (c[name] - a[name]) + 1 / 7 * (c[name] - b[name]))
        torch.testing.assert_close(got[name], expected, rtol=0, atol=1e-6)


def test_svd_rank_is_the_best_of_that_rank_and_its_error_is_reported(tmp_path: Path) -> None:
    base, early, ft = both(tmp_path, {"r": 3}, {"r": 4})
    report = extrapolate_adapters([early, ft], How(0.4, svd_rank=2), tmp_path / "out")
    assert report.rank == config_of(tmp_path / "out")["r"] == 2
    start, a, b, got = (
        {n: t.numpy() for n, t in w.items()}
        for w in (
            {n: p.detach().double() for n, p in load_base(base).named_parameters()},
            merged(base, early),
            merged(base, ft),
            merged(base, tmp_path / "out"),
        )
    )
    cut = whole = 0.0
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        name = f"model.layers.0.{name}.weight"
        u, s, vt = np.linalg.svd(b[name] + 0.4 * (b[name] - a[name]) - start[name])
        np.testing.assert_allclose(
            got[name] - start[name], (u[:, :2] * s[:2]) @ vt[:2], rtol=0, atol=1e-5
        )
        cut, whole = cut + (s[2:] ** 2).sum(), whole + (s**2).sum()
    assert report.svd_error == pytest.approx(np.sqrt(cut / whole), rel=1e-4)
    assert report.svd_worst is not None
    whole_rank = extrapolate_adapters([early, ft], How(0.4, svd_rank=7), tmp_path / "exact")
    assert whole_rank.svd_error == pytest.approx(0, abs=1e-12)


def test_cut_from_the_factors_is_the_cut_of_the_product() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((30, 6)), rng.standard_normal((6, 20))
    u, s, vt = np.linalg.svd(left @ right)
    new_left, new_right, cut, whole = cut_rank(left, right, 2)
    np.testing.assert_allclose(new_left @ new_right, (u[:, :2] * s[:2]) @ vt[:2], atol=1e-12)
    assert (cut, whole) == pytest.approx(((s[2:] ** 2).sum(), (s**2).sum()))
    assert norm_sq(left, right) == pytest.approx((s**2).sum())


def test_narrow_dtypes_are_reported_and_warned_of(tmp_path: Path) -> None:
    base, early, ft = both(tmp_path)
    report = extrapolate_adapters([early, ft], How(1e-3, dtype="bfloat16"), tmp_path / "out")
    b, a, got = (merged(base, f) for f in (ft, early, tmp_path / "out"))
    names = [n for n in got if not torch.equal(a[n], b[n])]
    error = sum(float(((got[n] - b[n] - 1e-3 * (b[n] - a[n])) ** 2).sum()) for n in names)
    step = sum(float(((1e-3 * (b[n] - a[n])) ** 2).sum()) for n in names)
    assert report.rounding_error == pytest.approx((error / step) ** 0.5, rel=1e-2)
    assert "rounding to bfloat16" in report.warnings[0]


def test_a_second_call_recognises_its_result_and_nothing_else(tmp_path: Path) -> None:
    _, early, ft = both(tmp_path)
    first = extrapolate_adapters([early, ft], How(0.4, svd_rank=2), tmp_path / "out")
    stamp = (tmp_path / "out/adapter_model.safetensors").stat().st_mtime_ns
    assert extrapolate_adapters([early, ft], How(0.4, svd_rank=2), tmp_path / "out") == first
    assert (tmp_path / "out/adapter_model.safetensors").stat().st_mtime_ns == stamp
    for how in (How(0.5, svd_rank=2), How(0.4)):
        with pytest.raises(StoreError, match="not the result of these inputs"):
            extrapolate_adapters([early, ft], how, tmp_path / "out")
    edit(early, lora_alpha=99)
    with pytest.raises(StoreError, match="not the result of these inputs"):
        extrapolate_adapters([early, ft], How(0.4, svd_rank=2), tmp_path / "out")


def test_what_only_one_side_saves_whole_comes_from_the_base(tmp_path: Path) -> None:
    saves = {"r": 2, "bias": "all", "modules_to_save": ["lm_head"]}
    base, early, ft = both(tmp_path, {"r": 2}, saves)
    with pytest.raises(ModelError, match="give the base model's folder with --base"):
        extrapolate_adapters([early, ft], How(0.4), tmp_path / "out")
    extrapolate_adapters([early, ft], How(0.4, base=base), tmp_path / "out")
    got = logits(with_adapter(base, tmp_path / "out"))
    torch.testing.assert_close(got, dense_logits(base, early, ft, 0.4), rtol=0, atol=3e-5)


def test_vllm_gets_lora_matrices_only(tmp_path: Path) -> None:
    base, early, ft = both(tmp_path, {"r": 2}, {"r": 4})
    extrapolate_adapters([early, ft], How(0.4, engine="vllm"), tmp_path / "out")
    saved: list[dict[str, Any]] = [{"bias": "all"}, {"modules_to_save": ["lm_head"]}]
    for number, settings in enumerate(saved):
        folders = [
            save_adapter(tmp_path / f"{side}{number}", base, 3, r=2, **settings) for side in "ab"
        ]
        with pytest.raises(ModelError, match="vLLM loads no biases and no modules_to_save"):
            extrapolate_adapters(folders, How(0.4, engine="vllm"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "use_dora is true.*--materialise"),
    "type": ({"peft_type": "IA3"}, "of type 'IA3'.*LORA"),
    "variant": ({"kasa_config": {"beta": 1}}, "kasa_config"),
    "replication": ({"layer_replication": [[0, 1]]}, "stacks base layers anew"),
    "tokens": ({"trainable_token_indices": [3]}, "rows of the embedding"),
    "start": ({"init_lora_weights": "pissa"}, "'pissa'.*changes the base"),
    "setting of the future": ({"use_magic": True}, "use_magic.*not known"),
    "rank": ({"r": 7}, "where rank is 7"),
    "alpha": ({"lora_alpha": "x"}, "lora_alpha of .* is 'x'"),
    "pattern": ({"rank_pattern": {"(": 3}}, "rank_pattern has"),
    "base": ({"base_model_name_or_path": "org/other"}, "different base models"),
    "transposed": ({"fan_in_fan_out": True}, "fan_in_fan_out differs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_exact_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    _, early, ft = both(tmp_path)
    settings, reason = REFUSED[case]
    edit(early, **settings)
    with pytest.raises(ModelError) as caught:
        extrapolate_adapters([early, ft], How(0.4), tmp_path / "out")
    assert re.search(reason, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_equal_bases_under_two_names_are_taken_and_other_weights_are_not(tmp_path: Path) -> None:
    base, early, ft = both(tmp_path)
    save_base(tmp_path / "copy")
    edit(early, base_model_name_or_path=str(tmp_path / "copy"))
    extrapolate_adapters([early, ft], How(0.4), tmp_path / "out")
    save_base(tmp_path / "copy", seed=9)
    with pytest.raises(ModelError, match="different base models"):
        extrapolate_adapters([early, ft], How(0.4), tmp_path / "other")
    for folder, revision in ((early, "v1"), (ft, "v2")):
        edit(folder, base_model_name_or_path="org/base", revision=revision)
    with pytest.raises(ModelError, match="different base models"):
        extrapolate_adapters([early, ft], How(0.4), tmp_path / "other")
    for folder in (early, ft):
        edit(folder, revision=None, base_model_name_or_path=None)
    report = extrapolate_adapters([early, ft], How(0.4), tmp_path / "other")
    assert report.warnings == ("the adapters do not say which base model they belong to",)
    assert base.is_dir()


def test_pickled_adapters_are_refused_unread(tmp_path: Path) -> None:
    _, early, ft = both(tmp_path)
    (early / "adapter_model.safetensors").rename(early / "adapter_model.bin")
    with pytest.raises(ModelError, match="reading those can run code"):
        extrapolate_adapters([early, ft], How(0.4), tmp_path / "out")


def test_a_module_that_one_side_saves_whole_and_the_other_adapts_is_refused(tmp_path: Path) -> None:
    _, early, ft = both(tmp_path, {"target_modules": ["lm_head"]}, {"modules_to_save": ["lm_head"]})
    with pytest.raises(ModelError, match=r"lm_head has LoRA in one adapter and is saved whole"):
        extrapolate_adapters([early, ft], How(0.4), tmp_path / "out")


def test_nan_in_a_factor_is_named(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    _, early, ft = both(tmp_path)
    tensors = load_file(early / "adapter_model.safetensors")
    name = next(iter(tensors))
    tensors[name] = np.full_like(tensors[name], np.nan)
    save_file(tensors, early / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="holds NaN or infinity in"):
        extrapolate_adapters([early, ft], How(0.4), tmp_path / "out")
    assert not (tmp_path / "out").exists()
