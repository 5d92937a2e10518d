"""Any dtype and device: what is asked for is had, refused in one line, or changes no token."""

from __future__ import annotations

import gc
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM
from typer.testing import CliRunner

import springback
from springback.cli.app import app
from springback.decoding import ContrastModel, DecodeSettings, Speculation, decode, decode_fast
from springback.decoding.contrast import contest
from springback.decoding.lambda_grid import decode_variants
from springback.errors import ModelError, SpringbackError
from springback.inference import Loaded, load_at
from springback.models.loading import load_model, resolve
from springback.models.placement import (
    Placement,
    dtype_name,
    is_spread,
    placement,
    running_device,
    wide_device,
)
from springback.models.weight_step import move_
from springback.settings import ComputeSettings
from springback.weights import AdapterExtrapolation, Contrast, write_adapter_pair
from weights_adapters import save_adapter

PROMPTS = ["the thing", "a", "in the thing in the"]
TEXTS = [prompt + " the" for prompt in PROMPTS]
#: Embeddings and head in memory, the layers on disk: what a first parameter says is not enough.
LAYERS_AWAY = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu"}
#: The first parameter is on the disk.
EMBEDDING_AWAY = {"model.embed_tokens": "disk", "model.layers": "cpu", "model.norm": "cpu"}
MAPS = {"layers": LAYERS_AWAY, "embedding": EMBEDDING_AWAY}


def spread(name: str) -> dict[str, int | str]:
    return {**MAPS[name], "model.rotary_emb": "cpu", "lm_head": MAPS[name]["model.embed_tokens"]}


@pytest.fixture(scope="module")
def boosted(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A boosted folder: another expert, and the tiny model as the weak one."""
    folder = tmp_path_factory.mktemp("boosted") / "model"
    shutil.copytree(tiny_llama, folder)
    shutil.copytree(tiny_llama, folder / "amateur")
    torch.manual_seed(3)
    file = folder / "model.safetensors"
    weights = {n: w + 0.05 * torch.randn_like(w) for n, w in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    (folder / "springback.json").write_text(
        '{"kind": "boosted", "lambda": 1.5, "alpha": 0.1, "amateur": "amateur"}'
    )
    return folder


@pytest.mark.parametrize("name", MAPS)
def test_a_spread_pair_decodes_and_scores_as_on_one_device(boosted: Path, name: str) -> None:
    whole, parts = springback.load(boosted), springback.load(boosted, device_map=spread(name))
    assert any(p.is_meta for p in parts.expert.parameters())
    assert is_spread(parts.expert)
    assert not is_spread(whole.expert)
    how: dict[str, Any] = {"max_new_tokens": 12}
    expected = springback.generate(whole, PROMPTS, **how)
    assert expected != springback.generate(Loaded(whole.expert, None, whole.tokenizer), PROMPTS)
    for more in ({}, {"draft": "amateur"}, {"draft": "none"}, {"reference": True}):
        assert springback.generate(parts, PROMPTS, **how, **more) == expected, more
    sampled = springback.generate(whole, PROMPTS, temperature=0.9, **how)
    assert springback.generate(parts, PROMPTS, temperature=0.9, **how) == sampled
    for prompts in (None, ["a"] * len(PROMPTS)):
        alone = springback.score(whole, TEXTS, prompts)
        assert springback.score(parts, TEXTS, prompts) == alone


def test_a_spread_model_takes_the_dynamic_cache_for_a_static_one(boosted: Path) -> None:
    whole, parts = springback.load(boosted), springback.load(boosted, device_map=spread("layers"))
    with pytest.warns(UserWarning, match="dynamic cache, not static"):
        answers = springback.generate(parts, PROMPTS, max_new_tokens=6, cache="static")
    assert answers == springback.generate(whole, PROMPTS, max_new_tokens=6)


def test_what_accelerate_keeps_in_memory_decodes_too(boosted: Path) -> None:
    from accelerate import cpu_offload

    whole, parts = springback.load(boosted), springback.load(boosted)
    for model in (parts.expert, parts.amateur):
        cpu_offload(model, torch.device("cpu"))
    assert all(p.is_meta for p in parts.expert.parameters())
    assert running_device(parts.expert) == torch.device("cpu")
    expected = springback.generate(whole, PROMPTS, max_new_tokens=8)
    assert springback.generate(parts, PROMPTS, max_new_tokens=8) == expected
    assert springback.score(parts, TEXTS) == springback.score(whole, TEXTS)


@pytest.fixture(scope="module")
def adapters(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters on one base as a boosted folder."""
    root = tmp_path_factory.mktemp("pair")
    both = [save_adapter(root / n, tiny_llama, i, r=2) for i, n in enumerate(("early", "ft"), 1)]
    write_adapter_pair(both, AdapterExtrapolation(0.5), Contrast(1.5, 0.1), root / "out")
    return root / "out"


@pytest.mark.parametrize("name", MAPS)
def test_two_adapters_on_a_spread_base_decode_as_on_one_device(adapters: Path, name: str) -> None:
    whole, parts = springback.load(adapters), springback.load(adapters, device_map=spread(name))
    assert any(p.is_meta for p in parts.expert.parameters())
    for more in ({}, {"draft": "amateur"}, {"reference": True}):
        how: dict[str, Any] = {"max_new_tokens": 10, **more}
        expected = springback.generate(whole, PROMPTS, **how)
        assert springback.generate(parts, PROMPTS, **how) == expected, more
    assert springback.score(parts, TEXTS) == springback.score(whole, TEXTS)


def test_experts_that_are_saved_in_another_form_are_offloaded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    config = Qwen2MoeConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
    )
    Qwen2MoeForCausalLM(config).save_pretrained(tmp_path / "experts")
    checkpoint, ids = resolve(tmp_path / "experts"), torch.tensor([[1, 2, 3]])
    whole, parts = load_model(checkpoint), load_model(checkpoint, placement(None, spread("layers")))
    assert torch.equal(whole(ids).logits, parts(ids).logits)
    assert len(list(scratch.iterdir())) == 1
    del parts
    gc.collect()
    assert not list(scratch.iterdir())


def test_a_map_worked_out_by_accelerate_decodes_the_same_tokens(boosted: Path) -> None:
    how: dict[str, Any] = {"max_new_tokens": 6}
    expected = springback.generate(boosted, PROMPTS, **how)
    assert springback.generate(boosted, PROMPTS, device_map="auto", **how) == expected
    words = ["generate", str(boosted), "a", "--max-new-tokens", "6"]
    plain, mapped = (
        CliRunner().invoke(app, [*words, *more]) for more in ([], ["--device-map", "auto"])
    )
    assert plain.exit_code == mapped.exit_code == 0, mapped.output
    assert plain.stdout == mapped.stdout


@torch.no_grad()
def near_ties(loaded: Loaded, prompts: Any, answers: Any, expected: Any) -> bool:
    """Whether answers are equal up to where two tokens' scores are within the rounding."""
    for prompt, a, b in zip(prompts, answers, expected, strict=True):
        same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        if same is None:
            continue
        ids = torch.tensor([prompt + b[:same]])
        strong, weak = (m(ids).logits[0, -1] for m in (loaded.expert, loaded.amateur))  # type: ignore[misc]
        scores = contest(strong, weak, 1.5)
        if abs(float(scores[a[same]] - scores[b[same]])) > 0.3:
            return False
    return True


@pytest.mark.parametrize("name", [None, "layers"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_decode_by_every_way(boosted: Path, dtype: str, name: str | None) -> None:
    """Blocks of other lengths round otherwise, which may tip near-ties and nothing else."""
    where = {} if name is None else {"device_map": spread(name)}
    loaded = springback.load(boosted, dtype=dtype, **where)  # type: ignore[arg-type]
    for model in (loaded.expert, loaded.amateur):
        assert dtype_name(model.dtype) == dtype  # type: ignore[union-attr]
    ids = [[10, 20, 30, 10, 20], [40, 41, 42]]
    settings = DecodeSettings(6, lam=1.5, alpha=0.1, keyed_noise=True)
    expected = decode(loaded.expert, ids, settings, loaded.amateur)
    for draft in ("ngram", "none", "amateur"):
        fast = decode_fast(
            loaded.expert, ids, settings, loaded.amateur, speculation=Speculation(draft)
        )
        assert near_ties(loaded, ids, fast.answers, expected), draft
    by_lam, _ = decode_variants((loaded.expert, loaded.amateur), ids, settings, [1.5])
    assert near_ties(loaded, ids, by_lam[1.5], expected)
    if name is None:
        static = Speculation(cache="static")
        fast = decode_fast(loaded.expert, ids, settings, loaded.amateur, speculation=static)
        assert near_ties(loaded, ids, fast.answers, expected)
        pair = ContrastModel.from_pair(loaded.expert, loaded.amateur, 1.5)  # type: ignore[arg-type]
        assert pair(torch.tensor(ids[:1])).logits.dtype == torch.float32
    near = springback.score(springback.load(boosted), TEXTS)
    for rounded, exact in zip(springback.score(loaded, TEXTS), near, strict=True):
        assert rounded.per_token == pytest.approx(exact.per_token, abs=0.2)
        assert rounded.per_token != exact.per_token


def test_two_adapters_in_sixteen_bits_share_their_base(adapters: Path) -> None:
    loaded = springback.load(adapters, dtype="bfloat16")
    assert {p.dtype for p in loaded.expert.parameters()} == {torch.bfloat16}
    ids, settings = [[10, 20, 30, 10], [40, 41]], DecodeSettings(6, lam=1.5, keyed_noise=True)
    expected = decode(loaded.expert, ids, settings, loaded.amateur)
    fast = decode_fast(loaded.expert, ids, settings, loaded.amateur).answers
    assert near_ties(loaded, ids, fast, expected)


def test_auto_is_float32_on_a_cpu_and_changes_no_run(boosted: Path) -> None:
    place = placement(ComputeSettings(device="cpu"))
    assert place.dtype == torch.float32
    assert place.inputs() == {}
    bf16 = placement(ComputeSettings(dtype="bfloat16", device="cpu"))
    assert bf16.inputs() == {"dtype": "bfloat16"}
    assert bf16.describe() == {"dtype": "bfloat16", "device": "cpu", "device_map": None}
    assert Placement(None).inputs("float16") == {"dtype": "float16"}
    assert {p.dtype for p in load_at(boosted, place).expert.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--dtype", "float64"], "--dtype float64; allowed: auto, float32, bfloat16, float16"),
        (["--device", "tpu"], "--device tpu"),
        (["--device", "cuda:99"], "--device cuda:99 on a machine that has"),
        (["--device-map", "balanced"], "--device-map balanced"),
        (["--device", "cpu", "--device-map", "auto"], "--device cpu with --device-map"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(boosted: Path, flags: list[str], says: str) -> None:
    ran = CliRunner().invoke(app, ["generate", str(boosted), "a", *flags])
    assert isinstance(ran.exception, SpringbackError)
    assert says in str(ran.exception)


def test_a_loaded_model_stays_where_it_is(boosted: Path) -> None:
    loaded = springback.load(boosted)
    with pytest.raises(SpringbackError, match=r"springback\.load"):
        springback.generate(loaded, ["a"], dtype="bfloat16")
    with pytest.raises(SpringbackError, match=r"springback\.load"):
        springback.score(loaded, ["the thing"], device="cpu")


def test_weights_that_are_no_numbers_are_refused_on_disk_too(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    place = placement(device_map=spread("layers"))
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN"):
        load_model(resolve(folder), place)


def test_float64_is_computed_where_there_is_some() -> None:
    assert wide_device(torch.device("mps")) == torch.device("cpu")
    assert wide_device(torch.device("cuda:1")) == torch.device("cuda:1")
    held = torch.zeros(3, dtype=torch.bfloat16)
    move_(held, torch.full((3,), 2.0), torch.full((3,), 1.0), 0.5)
    assert held.tolist() == [0.5] * 3
