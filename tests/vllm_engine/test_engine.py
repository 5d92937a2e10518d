"""Tokens of a boosted folder in vLLM are those of the plain loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError

from springback.integrations.vllm.folder import PROCESSOR
from vllm_fixture import Answers

LENGTH = 48
Start = Callable[..., Any]


def greedy(**options: Any) -> Any:
    return SamplingParams(temperature=0.0, max_tokens=LENGTH, ignore_eos=True, **options)


def decoded(engine: Any, prompts: Sequence[list[int]], how: Any) -> list[list[int]]:
    asked = [{"prompt_token_ids": prompt} for prompt in prompts]
    return [list(o.outputs[0].token_ids) for o in engine.generate(asked, how, use_tqdm=False)]


def counted(engine: Any, name: str) -> int:
    """The sum of a counter of vLLM's metrics."""
    return sum(int(m.value) for m in engine.get_metrics() if m.name == name)


@pytest.fixture(scope="module")
def engine(start: Start, folder: Path) -> Any:
    """8 requests at once in batches of 64 tokens, so that prompts come in chunks, over a cache of
    24 blocks of 32 tokens, which 8 requests of up to 250 tokens do not fit into."""
    return start(
        folder,
        logits_processors=[PROCESSOR],
        max_num_seqs=8,
        max_num_batched_tokens=64,
        enable_chunked_prefill=True,
        enable_prefix_caching=True,
        block_size=32,
        num_gpu_blocks_override=24,
    )


def test_tokens_are_the_plain_loops_whatever_the_scheduler_does(
    engine: Any, prompts: Sequence[list[int]], reference: Answers
) -> None:
    """Continuous batching, chunked prefill, preemption and prefix caching, all at work."""
    reference.check(prompts, decoded(engine, prompts, greedy()))
    assert counted(engine, "vllm:num_preemptions") > 0
    assert counted(engine, "vllm:prefix_cache_hits") >= 64
    assert reference.of(prompts, LENGTH) != reference.of(prompts, LENGTH, 0.0), "contrast matters"
    assert reference.near <= 2


def test_each_request_may_have_its_own_strengths(
    engine: Any, prompts: Sequence[list[int]], reference: Answers
) -> None:
    """In one batch, in which rows move as requests end, are preempted and come again."""
    lams = [(0.0, 0.5, 3.0, None)[i % 4] for i in range(len(prompts))]
    how = [greedy(extra_args=None if lam is None else {"lambda": lam}) for lam in lams]
    found = decoded(engine, prompts, how)
    for lam in set(lams):
        rows = [i for i, own in enumerate(lams) if own == lam]
        reference.check([prompts[i] for i in rows], [found[i] for i in rows], lam)
    assert found != reference.of(prompts, LENGTH)


def test_alpha_by_request(engine: Any, prompts: Sequence[list[int]], reference: Answers) -> None:
    """Alpha 1 leaves the expert's top token alone: the expert's own greedy answer."""
    how = greedy(extra_args={"alpha": 1.0})
    reference.check(prompts[:4], decoded(engine, prompts[:4], how), 0.0)


@pytest.mark.parametrize(
    ("extra", "told"),
    [({"lambda": -1}, "lambda -1"), ({"alpha": 0}, "alpha 0"), ({"alpha": "much"}, "alpha 'much'")],
)
def test_strengths_out_of_range_are_refused(engine: Any, extra: Any, told: str) -> None:
    with pytest.raises(VLLMValidationError, match=told):
        engine.generate([{"prompt_token_ids": [5]}], greedy(extra_args=extra), use_tqdm=False)


def test_logprobs_are_the_combined_ones(
    engine: Any, prompts: Sequence[list[int]], reference: Answers
) -> None:
    for lam, extra in ((None, None), (0.5, {"lambda": 0.5})):
        how = SamplingParams(temperature=0.0, max_tokens=1, logprobs=5, extra_args=extra)
        (told,) = engine.generate([{"prompt_token_ids": prompts[0]}], how, use_tqdm=False)
        ours = reference.scores(prompts[0], lam).log_softmax(-1)
        first = told.outputs[0].logprobs[0]
        assert len(first) == 5
        for token, held in first.items():
            assert held.logprob == pytest.approx(float(ours[token]), abs=1e-3)
            assert math.isfinite(held.logprob), "JSON knows no infinity"


def test_prompts_are_scored_with_the_folders_strengths(
    engine: Any, reference: Answers, prompts: Sequence[list[int]]
) -> None:
    """Beside a request with its own, whose row must not be mistaken for the prompt's."""
    asked = [{"prompt_token_ids": p} for p in ([9, 8, 7, 6], prompts[0])]
    how = [SamplingParams(max_tokens=2, prompt_logprobs=0), greedy(extra_args={"lambda": 3.0})]
    told = engine.generate(asked, how, use_tqdm=False)[0].prompt_logprobs
    for at, token in enumerate((8, 7, 6), 1):
        ours = reference.scores([9, 8, 7, 6][:at]).log_softmax(-1)
        assert told[at][token].logprob == pytest.approx(float(ours[token]), abs=2e-3)
    both = SamplingParams(prompt_logprobs=0, extra_args={"lambda": 3.0})
    with pytest.raises(VLLMValidationError, match="prompt_logprobs"):
        engine.generate([{"prompt_token_ids": [5]}], both, use_tqdm=False)


def test_allowed_tokens_that_are_implausible_keep_the_experts_order(
    engine: Any, prompts: Sequence[list[int]], reference: Answers
) -> None:
    """The mask comes before a request's own lambda is known to the sampler, and must last."""
    for extra, lam in ((None, None), ({"lambda": 3.0}, 3.0)):
        scores = reference.scores(prompts[0], lam)
        lowest = [int(t) for t in scores.argsort()[:40]]
        how = SamplingParams(
            temperature=0.0, max_tokens=1, allowed_token_ids=lowest, extra_args=extra
        )
        (found,) = decoded(engine, prompts[:1], how)
        assert found[0] in lowest
        best = max(float(scores[t]) for t in lowest)
        assert float(scores[found[0]]) == pytest.approx(best, abs=2e-3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"logits_processors": [PROCESSOR]}, "lambda by request together with speculation"),
        ({"pipeline_parallel_size": 2, "speculative_config": None}, "pipeline parallelism over 2"),
        ({"load_format": "sharded_state", "speculative_config": None}, "load format sharded_state"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(
    start: Start, folder: Path, options: dict[str, Any], told: str
) -> None:
    drafts = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}
    with pytest.raises(ValueError, match=told):
        start(folder, **{"speculative_config": drafts, **options})


def test_a_plain_folder_is_vllms_own(
    start: Start, wide_llama: Path, prompts: Sequence[list[int]]
) -> None:
    from springback.inference import load

    found = decoded(start(wide_llama, max_num_seqs=8), prompts[:4], greedy())
    Answers(load(wide_llama)).check(prompts[:4], found)


def test_the_plugin_is_registered_more_than_once() -> None:
    from vllm import ModelRegistry

    from springback.integrations.vllm.plugin import register

    register()
    register()
    assert {"SpringbackPair", "SpringbackTwin"} <= set(ModelRegistry.get_supported_archs())
    assert torch.get_num_threads() >= 1
