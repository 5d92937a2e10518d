"""Both halves compiled: same shapes, other layers, so neither may run what the other's made."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

from test_engine import decoded, greedy

from vllm_fixture import Answers


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile with")
def test_tokens_are_the_plain_loops_when_compiled(
    start: Callable[..., Any], folder: Path, prompts: Sequence[list[int]], reference: Answers
) -> None:
    engine = start(folder, enforce_eager=False, max_num_seqs=8)
    assert engine.llm_engine.vllm_config.compilation_config.mode != 0
    reference.check(prompts[:8], decoded(engine, prompts[:8], greedy()))
