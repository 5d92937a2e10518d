"""Adapters written into their base give the weights that PEFT's own merge and plain sums give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from springback.errors import ModelError
from springback.weights import Extrapolation, hash_weights, materialise_adapters
from weights_adapters import dense_logits, load_base, logits, merged, save_adapter, save_base

How = Extrapolation
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "DoRA": ({"r": 2, "use_dora": True}, {"r": 3, "use_dora": True, "lora_alpha": 5}),
    "DoRA and plain": ({"r": 2}, {"r": 3, "use_dora": True, "target_modules": ["up_proj"]}),
    "saved modules": ({"r": 2}, {"r": 2, "bias": "all", "modules_to_save": ["lm_head", "norm"]}),
    "embedding": (
        {"r": 2, "target_modules": ["embed_tokens", "lm_head"]},
        {"r": 3, "target_modules": ["embed_tokens", "q_proj"]},
    ),
    "lora bias": (
        {"r": 2, "target_modules": ["q_proj"], "lora_bias": True},
        {"r": 3, "target_modules": ["q_proj"]},
    ),
    "saved and adapted": ({"target_modules": ["lm_head"]}, {"modules_to_save": ["lm_head"]}),
}


def both(
    root: Path, early: dict[str, Any] | None = None, ft: dict[str, Any] | None = None, **base: Any
) -> tuple[Path, list[Path]]:
    where = save_base(root / "base", **base)
    return where, [
        save_adapter(root / "early", where, 1, **(early or {"r": 3})),
        save_adapter(root / "ft", where, 2, **(ft or {"r": 3})),
    ]


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_dense_extrapolation(tmp_path: Path, case: str) -> None:
    base, adapters = both(tmp_path, *CASES[case])
    materialise_adapters(adapters, base, How(0.4), tmp_path / "out")
    got = load_base(tmp_path / "out")
    expected = dense_logits(base, adapters[0], adapters[1], 0.4)
    assert torch.linalg.norm(expected - logits(load_base(base))) > 1
    torch.testing.assert_close(logits(got), expected, rtol=0, atol=3e-5)


def test_weights_stored_the_other_way_round_and_many_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from springback.weights.io import stream

    monkeypatch.setattr(stream, "PIECE", 100)  # a few rows at a time
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1
    )
    base = tmp_path / "base"
    GPT2LMHeadModel(config).save_pretrained(base)
    lora = {"r": 2, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
    adapters = [save_adapter(tmp_path / f"a{seed}", base, seed, **lora) for seed in (1, 2)]
    materialise_adapters(adapters, base, How(0.4), tmp_path / "out")
    early, ft = (merged(base, adapter) for adapter in adapters)
    for name, weight in load_base(tmp_path / "out").named_parameters():
        expected = ft[name] + 0.4 * (ft[name] - early[name])
        torch.testing.assert_close(weight.double(), expected, rtol=0, atol=2e-6)


def test_the_folder_has_the_bases_form_and_says_what_went_in(tmp_path: Path) -> None:
    base, adapters = both(tmp_path)
    (adapters[1] / "chat_template.jinja").write_text("ft's")
    report = materialise_adapters(adapters, base, How(0.4, dtype="bfloat16"), tmp_path / "out")
    out = tmp_path / "out"
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert (out / "chat_template.jinja").read_text() == "ft's"
    assert not (out / "adapter_config.json").exists()
    assert report.dtypes == {"bfloat16": len(load_base(base).state_dict())}
    # Two of the matrices change; biases, norms and the rest are the base's.
    sizes = {n: p.numel() for n, p in load_base(base).named_parameters()}
    touched = sum(size for n, size in sizes.items() if "q_proj.weight" in n or "down_proj" in n)
    assert 0.9 * touched < report.changed_share * report.parameters <= touched
    record = json.loads((out / "springback.json").read_text())
    for label, folder in (("early", adapters[0]), ("ft", adapters[1]), ("base", base)):
        assert record[label] == {"name": folder.name, "content_hash": hash_weights(folder)}
    again = materialise_adapters(adapters, base, How(0.4, dtype="bfloat16"), out)
    assert again == report


def test_mu_zero_is_the_fine_tuned_model_and_untouched_tensors_keep_their_bits(
    tmp_path: Path,
) -> None:
    base, adapters = both(tmp_path, None, {"r": 2, "use_dora": True})
    materialise_adapters(adapters, base, How(0), tmp_path / "out")
    expected, start = merged(base, adapters[1]), dict(load_base(base).named_parameters())
    for name, weight in load_base(tmp_path / "out").named_parameters():
        torch.testing.assert_close(weight.double(), expected[name], rtol=0, atol=1e-6)
        if "q_proj.weight" not in name and "down_proj" not in name:
            assert torch.equal(weight, start[name])


def test_tied_layers_and_a_base_that_does_not_fit_are_refused(tmp_path: Path) -> None:
    base, adapters = both(tmp_path, {"target_modules": ["embed_tokens"]}, tied=True)
    with pytest.raises(ModelError, match="which the base ties to its other embedding"):
        materialise_adapters(adapters, base, How(0.4), tmp_path / "out")
    heads = [save_adapter(tmp_path / f"h{i}", base, i, target_modules=["lm_head"]) for i in (1, 2)]
    with pytest.raises(ModelError, match=r"has no tensor lm_head\.weight"):
        materialise_adapters(heads, base, How(0.4), tmp_path / "out")
    with pytest.raises(ModelError, match="use --svd-rank"):
        materialise_adapters(adapters, base, How(0.4, low_rank=2), tmp_path / "out")
    assert not (tmp_path / "out").exists()
