"""Two adapters on one base in vLLM: the base once, two caches, the plain loop's tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

from test_engine import counted, decoded, greedy

import springback
from springback.errors import ModelError
from springback.integrations.vllm.folder import PROCESSOR, TWIN, open_folder
from springback.weights import AdapterExtrapolation, Contrast, write_adapter_pair
from vllm_fixture import Answers
from weights_adapters import save_adapter


@pytest.fixture(scope="module")
def pair(wide_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of adapters on fused and plain layers, of ranks that differ."""
    root = tmp_path_factory.mktemp("adapters")
    modules = ["q_proj", "v_proj", "up_proj", "down_proj"]
    early = save_adapter(root / "early", wide_llama, 1, r=2, target_modules=modules)
    ft = save_adapter(root / "ft", wide_llama, 2, r=3, target_modules=[*modules, "o_proj"])
    how = AdapterExtrapolation(0.5)
    write_adapter_pair([early, ft], how, Contrast(1.5, 0.05), root / "pair")
    return root / "pair"


@pytest.fixture(scope="module")
def engine(start: Callable[..., Any], pair: Path) -> Any:
    return start(
        pair,
        logits_processors=[PROCESSOR],
        max_num_seqs=8,
        max_num_batched_tokens=64,
        block_size=32,
        num_gpu_blocks_override=24,
    )


def test_tokens_are_the_plain_loops(engine: Any, pair: Path, prompts: Sequence[list[int]]) -> None:
    ours = Answers(springback.load(pair))
    ours.check(prompts, decoded(engine, prompts, greedy()))
    assert ours.of(prompts, 8) != ours.of(prompts, 8, 0.0), "contrast matters"
    assert counted(engine, "vllm:num_preemptions") > 0
    lam = greedy(extra_args={"lambda": 0.4})
    ours.check(prompts[:4], decoded(engine, prompts[:4], lam), 0.4)
    assert ours.near <= 2


def test_weights_by_request_are_a_boosts_alone(
    engine: Any, pair: Path, prompts: Sequence[list[int]]
) -> None:
    how = greedy(extra_args={"springback_sides": "mine"})
    Answers(springback.load(pair)).check(prompts[:2], decoded(engine, prompts[:2], how))


def count_layers(model: Any) -> tuple[int, int]:
    """Linear and attention layers of vLLM's in a model."""
    from vllm.model_executor.layers.attention import Attention
    from vllm.model_executor.layers.linear import LinearBase

    found = list(model.modules())
    linear, attention = (sum(isinstance(m, k) for m in found) for k in (LinearBase, Attention))
    return linear, attention


def test_weights_of_the_base_are_there_once(engine: Any) -> None:
    """Two layers with a fused qkv, an output, a fused gate-up and a down projection: once.  Their
    attention, and so the cache, twice."""
    assert tuple(engine.apply_model(count_layers)[0]) == (2 * 4, 2 * 2)


def test_a_pair_names_its_base(pair: Path, wide_llama: Path, tmp_path: Path) -> None:
    found = open_folder(pair)
    assert (found.architecture, found.model) == (TWIN, wide_llama)
    lost = tmp_path / "lost"
    shutil.copytree(pair, lost)
    config = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": ""}))
    with pytest.raises(ModelError, match="does not say which base"):
        open_folder(lost)
    assert open_folder(lost, base=wide_llama).model == wide_llama


def test_a_pair_is_not_compiled(start: Callable[..., Any], pair: Path) -> None:
    with pytest.raises(ValueError, match="--enforce-eager"):
        start(pair, enforce_eager=False)
