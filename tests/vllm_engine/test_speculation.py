"""N-gram speculation.  The last file of vLLM's, and so the last engine of the process: it loads
Numba, over whose objects the start of another engine stumbles (vLLM 0.32.0)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

from test_engine import counted, decoded, greedy

from springback.integrations.vllm.folder import LAZY_KEY, open_folder
from vllm_fixture import Answers


def test_ngram_speculation_gives_the_same_tokens(
    start: Callable[..., Any], folder: Path, prompts: Sequence[list[int]], reference: Answers
) -> None:
    """Several positions of a request in one batch.  Here the amateur's head reads all of them; in
    the other files it is left out where it cannot change the choice."""
    drafts: dict[str, Any] = {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_max": 3,
    }
    drafts["prompt_lookup_min"] = 1
    every = {**open_folder(folder).overrides(), LAZY_KEY: False}
    engine = start(
        folder,
        hf_overrides=every,
        speculative_config=drafts,
        max_num_seqs=8,
        max_num_batched_tokens=128,
    )
    repeated = [p[-30:] * 3 for p in prompts]
    reference.check(repeated, decoded(engine, repeated, greedy()))
    assert counted(engine, "vllm:spec_decode_num_draft_tokens") > 0
    assert counted(engine, "vllm:spec_decode_num_accepted_tokens") > 0
    assert reference.near <= 3
