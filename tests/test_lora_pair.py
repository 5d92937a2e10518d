"""Two adapters on one base: one set of weights, both rows in one batch, the same tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import springback
from springback.cli.app import app
from springback.decoding import (
    ContrastModel,
    DecodeSettings,
    Speculation,
    cpu_matmul,
    decode,
    decode_fast,
)
from springback.decoding.contrast import combine
from springback.decoding.lora_pair import load_twin, twin_of
from springback.errors import ModelError, SpringbackError
from springback.inference import Loaded
from springback.models.loading import Model, load_model, resolve
from springback.weights import AdapterExtrapolation, Contrast, write_adapter_pair
from weights_adapters import IDS, load_base, merged, save_adapter, save_base

PROMPTS = [[10, 20, 30, 10, 20], [40, 1, 6, 7, 8, 9, 40], [12, 13], [5]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base, an early and a fine-tuned adapter of other rank and modules."""
    root = tmp_path_factory.mktemp("adapters")
    base = save_base(root / "base")
    early = save_adapter(root / "early", base, 1, r=2, lora_alpha=4)
    modules = ["q_proj", "v_proj", "down_proj"]
    ft = save_adapter(root / "ft", base, 2, r=3, lora_alpha=6, target_modules=modules)
    return base, early, ft


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path, Path]) -> tuple[Model, Model]:
    base, early, ft = folders
    return load_twin(load_base(base).double(), ft, early)


def answers(pair: tuple[Model, Model], settings: DecodeSettings, draft: str = "ngram") -> Any:
    return decode_fast(pair[0], PROMPTS, settings, pair[1], speculation=Speculation(draft, 2))


def test_each_half_computes_what_its_merged_weights_do(
    folders: tuple[Path, Path, Path], pair: tuple[Model, Model]
) -> None:
    base, early, ft = folders
    for model, adapter in zip(pair, (ft, early), strict=True):
        dense: Any = load_base(base).double()
        weights = merged(base, adapter)  # merged in fp32, so equal to about 1e-6
        with torch.no_grad():
            for name, weight in dense.named_parameters():
                weight.copy_(weights[name])
            torch.testing.assert_close(model(IDS).logits, dense(IDS).logits, atol=1e-5, rtol=1e-5)


def test_weights_of_the_base_are_there_once(
    folders: tuple[Path, Path, Path], pair: tuple[Model, Model]
) -> None:
    both = twin_of(*pair)
    assert both is not None
    storages = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
        for model in (*pair, both)
        for p in model.parameters()
    }
    alone = sum(p.untyped_storage().nbytes() for p in load_base(folders[0]).double().parameters())
    # Rank 3 for both: q 16 + 16, v 16 + 16, down 24 + 16 values a rank, 8 bytes each.
    assert sum(storages.values()) == alone + 2 * 3 * (32 + 32 + 40) * 8


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_fast_decoder_draws_the_plain_loops_tokens(
    pair: tuple[Model, Model], batch_size: int, temperature: float
) -> None:
    settings = DecodeSettings(
        12, 1.5, 0.05, batch_size, (7, 19), temperature=temperature, keyed_noise=True
    )
    expected = decode(pair[0], PROMPTS, settings, pair[1])
    assert expected != decode(pair[0], PROMPTS, DecodeSettings(12, stop_ids=(7, 19)))
    for draft in ("none", "ngram", "amateur"):
        assert answers(pair, settings, draft).answers == expected, draft


def test_both_run_in_one_batch(pair: tuple[Model, Model]) -> None:
    """Without drafts: one pass for each of the 12 tokens, with 2 rows for each prompt."""
    rows: list[int] = []
    both: Any = twin_of(*pair)

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        rows.append(len(given["input_ids"]))

    hook = both.register_forward_pre_hook(note, with_kwargs=True)
    try:
        found = answers(pair, DecodeSettings(12, 1.5, 0.05, batch_size=4), "none")
    finally:
        hook.remove()
    assert rows == [8] * 12
    assert found.work.expert_calls == found.work.amateur_calls == found.work.joint_calls == 12


def test_their_base_takes_the_quick_way_round(
    folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows of one prompt, by the layers below the adapters; the tokens stay."""
    base, early, ft = folders
    pair = load_twin(load_base(base), ft, early)
    rows: list[int] = []
    real = cpu_matmul.transposed_product

    def counted(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return real(x, weight)

    monkeypatch.setattr(cpu_matmul, "transposed_product", counted)
    monkeypatch.setattr(cpu_matmul, "_measured", lambda layers: frozenset({2}))
    settings = DecodeSettings(12, 1.5, 0.05, batch_size=1)
    found = answers(pair, settings, "none").answers
    assert set(rows) == {2}
    assert len(rows) > 12 * 7 * 2  # 7 layers in each of two blocks, and the head
    rows.clear()
    assert found == decode(pair[0], PROMPTS, settings, pair[1])
    assert not rows


def generate(model: Any, prompts: Sequence[list[int]], **options: Any) -> list[list[int]]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    options = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, **options}
    out = model.generate(ids, attention_mask=mask, pad_token_id=0, **options)
    found: list[list[int]] = out[:, longest:].tolist()
    return found


def test_contrast_model_is_one_stack_with_both_rows_in_a_batch(pair: tuple[Model, Model]) -> None:
    model = ContrastModel.from_pair(*pair, 1.5, 0.05)
    with torch.no_grad():
        strong, weak = (half(IDS).logits for half in pair)
        best = combine(strong, weak, 1.5, 0.05).argmax(-1)
        assert torch.equal(model(IDS).logits.argmax(-1), best)
    expected = decode(pair[0], PROMPTS, DecodeSettings(10, 1.5, 0.05), pair[1])
    assert generate(model, PROMPTS) == expected
    assert generate(model, PROMPTS, use_cache=False) == expected
    static = {"cache_implementation": "static", "disable_compile": True}
    assert generate(model, PROMPTS[:1], **static) == expected[:1]
    assert generate(model, PROMPTS[:1], prompt_lookup_num_tokens=3) == expected[:1]
    assert generate(model, PROMPTS[:1], assistant_model=model.amateur) == expected[:1]
    beams = {"num_beams": 3, "max_new_tokens": 6}
    assert generate(model, PROMPTS, **beams) == generate(model, PROMPTS, **beams, use_cache=False)


def test_contrast_model_is_saved_once_and_loaded(pair: tuple[Model, Model], tmp_path: Path) -> None:
    model = ContrastModel.from_pair(*pair, 1.5, 0.05)
    model.save_pretrained(tmp_path / "pair")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "pair", dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert twin_of(loaded.expert, loaded.amateur) is loaded.both
    expected = decode(pair[0], PROMPTS, DecodeSettings(10, 1.5, 0.05), pair[1])
    settings = DecodeSettings(10, 1.5, 0.05)
    assert decode_fast(loaded.expert, PROMPTS, settings, loaded.amateur).answers == expected


def test_extrapolate_writes_a_pair_that_springback_loads(tiny_llama: Path, tmp_path: Path) -> None:
    early = save_adapter(tmp_path / "early", tiny_llama, 1, r=2)
    ft = save_adapter(tmp_path / "ft", tiny_llama, 2, r=2)
    words = ["extrapolate", early, ft, "--mu", "0.3", "--lam", "1.5", "--out", tmp_path / "pair"]
    for _ in range(2):  # the second time all is there
        done = CliRunner().invoke(app, [str(w) for w in words])
        assert done.exit_code == 0, done.output
    facts = json.loads((tmp_path / "pair" / "springback.json").read_text())
    assert (facts["lambda"], facts["alpha"], facts["amateur"]) == (1.5, 0.1, "amateur")
    loaded = springback.load(tmp_path / "pair")
    assert (loaded.lam, loaded.alpha) == (1.5, 0.1)
    assert twin_of(loaded.expert, loaded.amateur) is not None
    found = springback.generate(loaded, ["the thing", "a"], max_new_tokens=8)
    # Merged into full weights, each on its own, the pair says the same.
    expert = _dense(tiny_llama, tmp_path / "pair")
    amateur = _dense(tiny_llama, ft)
    dense = Loaded(expert, amateur, loaded.tokenizer, 1.5, 0.1)
    assert found == springback.generate(dense, ["the thing", "a"], max_new_tokens=8, reference=True)
    assert found.work.joint_calls > 0


def _dense(base: Path, adapter: Path) -> Model:
    model: Any = load_model(resolve(base))
    weights = merged(base, adapter)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights[name])
    found: Model = model
    return found


def test_a_lone_adapter_is_loaded_on_its_base_or_on_a_named_one(
    tiny_llama: Path, tmp_path: Path
) -> None:
    ft = save_adapter(tmp_path / "ft", tiny_llama, 2, r=2)
    said = springback.generate(springback.load(ft), ["the thing"], max_new_tokens=6)
    assert said != springback.generate(tiny_llama, ["the thing"], max_new_tokens=6)
    config = json.loads((ft / "adapter_config.json").read_text())
    (ft / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": ""}))
    with pytest.raises(ModelError, match="which base"):
        springback.load(ft)
    named = springback.load(ft, base=tiny_llama)
    assert springback.generate(named, ["the thing"], max_new_tokens=6) == said
    with pytest.raises(ModelError, match="for an adapter"):
        springback.load(tiny_llama, base=tiny_llama)


def test_what_cannot_share_a_base_is_refused_with_the_reason(
    folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    base, early, ft = folders
    saved = save_adapter(tmp_path / "saved", base, 3, r=2, modules_to_save=["lm_head"])
    with pytest.raises(ModelError, match=r"more than LoRA matrices .*materialise"):
        load_twin(load_base(base), saved, early)
    how = AdapterExtrapolation(0.1, base=base)
    with pytest.raises(ModelError, match=r"saved holds more than LoRA matrices"):
        write_adapter_pair([early, saved], how, Contrast(0.5), tmp_path / "pair")
    assert not (tmp_path / "pair").exists()
    dora = save_adapter(tmp_path / "dora", base, 3, use_dora=True)
    with pytest.raises(ModelError, match=r"dora holds more .*; merge it into its base"):
        load_twin(load_base(base), dora, None)
    other = save_base(tmp_path / "other", seed=5)
    foreign = save_adapter(tmp_path / "foreign", other, 3, r=2)
    with pytest.raises(ModelError, match="different base models"):
        load_twin(load_base(base), ft, foreign)
    with pytest.raises(SpringbackError, match="lambda 0"):
        write_adapter_pair([early, ft], AdapterExtrapolation(0.1), Contrast(0.0), tmp_path / "x")
