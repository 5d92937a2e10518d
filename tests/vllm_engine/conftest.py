"""Real vLLM on the CPU with tiny models of random weights.

Engines take seconds to start, so each is made once, and one server; all in fp32 and eager.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

# Set before vLLM is imported.  One process for each engine would cost seconds each.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

#: Which model runner these tests are run with; test_both_runners.py starts them again with V2.
V2 = os.environ.get("SPRINGBACK_VLLM_RUNNER") == "2"
if V2:
    import v2_on_a_cpu

    v2_on_a_cpu.prepare()

from boosted_fixture import boosted
from vllm_fixture import Answers, tokens_of

#: A system message, which ``springback serve`` puts in.
SYSTEM = "in the thing"


@pytest.fixture(scope="session")
def wide_llama(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """As ``tiny_llama``, with heads of 32: vLLM's attention on the CPU has no smaller ones."""
    import shutil

    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=300,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    folder = tmp_path_factory.mktemp("wide-llama")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copytree(tiny_tokenizer, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def folder(wide_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A boosted folder as ``springback boost`` writes it."""
    return boosted(wide_llama, tmp_path_factory.mktemp("boosted"), system=SYSTEM)


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Any]]:
    """Start an engine in this process; it ends before the next one starts."""
    from vllm import LLM

    from springback.integrations.vllm.folder import open_folder

    held: list[Any] = []

    def make(model: Path, **options: Any) -> Any:
        stop()
        found = open_folder(model)
        defaults: dict[str, Any] = {
            "dtype": "float32",
            "enforce_eager": True,
            "max_model_len": 512,
            "load_format": "safetensors",
            "hf_overrides": found.overrides(),
            "disable_log_stats": False,
        }
        engine = LLM(model=str(found.model), **{**defaults, **options})
        assert not V2 or engine.llm_engine.vllm_config.use_v2_model_runner
        held.append(engine)
        return engine

    def stop() -> None:
        while held:
            held.pop().llm_engine.engine_core.shutdown()
        gc.collect()

    yield make
    stop()


@pytest.fixture(scope="session")
def reference(folder: Path) -> Answers:
    """The plain loop on the boosted folder."""
    import springback

    return Answers(springback.load(folder))


@pytest.fixture(scope="session")
def prompts() -> Sequence[list[int]]:
    """Token ids: 20 prompts of 3 to 200 tokens, half of them with a common beginning."""
    return tokens_of(20)
