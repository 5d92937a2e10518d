"""Lambda by request and end tokens with both of vLLM's model runners."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.v1.sample.logits_processor import LogitsProcessor as V1
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2
from vllm.v1.worker.gpu.sample.logits_processor import (
    build_custom_logits_processors_params_validator,
)

from springback.integrations.vllm import runners
from springback.integrations.vllm.folder import PROCESSOR
from springback.integrations.vllm.request_lambda import RequestStrengths
from vllm_fixture import Answers

HERE = Path(__file__).parent
SECOND = "SPRINGBACK_VLLM_RUNNER"


@pytest.mark.skipif(SECOND in os.environ, reason="these are the tests that it runs")
def test_the_v2_runner_does_all_that_the_v1_runner_does() -> None:
    """A process of its own: Triton's interpreter is for a whole process, and V1 is to be had
    without it.  Left out: a server starts further processes, without that interpreter."""
    files = ("engine", "adapters", "adapter_line", "ends", "boost_worker")
    names = [f"test_{name}.py" for name in files]
    words = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-k", "not served"]
    done = subprocess.run(
        [*words, *(str(HERE / name) for name in names)],
        env={**os.environ, SECOND: "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="the interpreter cannot run the V2 runner's kernel for n-grams, and has no CUDA graphs",
)
def test_the_v2_runner_on_a_gpu(
    start: Callable[..., Any], folder: Path, prompts: Sequence[list[int]], reference: Answers
) -> None:
    engine = start(folder, logits_processors=[PROCESSOR], enforce_eager=False, max_num_seqs=8)
    assert engine.llm_engine.vllm_config.use_v2_model_runner
    lams = [(0.0, 0.5, 3.0)[i % 3] for i in range(len(prompts))]
    how = [
        SamplingParams(temperature=0.0, max_tokens=48, ignore_eos=True, extra_args={"lambda": lam})
        for lam in lams
    ]
    told = engine.generate([{"prompt_token_ids": p} for p in prompts], how, use_tqdm=False)
    found = [list(o.outputs[0].token_ids) for o in told]
    for lam in set(lams):
        rows = [i for i, asked in enumerate(lams) if asked == lam]
        reference.check([prompts[i] for i in rows], [found[i] for i in rows], lam)


def test_one_processor_is_of_both_kinds() -> None:
    assert set(runners.interfaces().values()) == {V1, V2}
    assert issubclass(RequestStrengths, V1)
    assert issubclass(RequestStrengths, V2)


def test_the_v2_runner_refuses_strengths_out_of_range() -> None:
    check = build_custom_logits_processors_params_validator([PROCESSOR])
    check(SamplingParams(extra_args={"lambda": 0.5, "alpha": 0.2}))
    with pytest.raises(VLLMValidationError, match="lambda -1"):
        check(SamplingParams(extra_args={"lambda": -1}))


class Config(SimpleNamespace):
    """What is asked of vLLM's configuration; a namespace cannot be referred to weakly."""


def test_a_v2_runner_that_asks_no_model_is_refused() -> None:
    """Strengths would be taken and count for nothing."""
    with pytest.raises(RuntimeError, match="VLLM_USE_V2_MODEL_RUNNER=0"):
        RequestStrengths(Config(use_v2_model_runner=True), None)


@pytest.mark.parametrize(
    ("known", "v2", "told"),
    [
        ({1: V1, 2: V2}, False, None),
        ({1: V1, 2: V2}, True, None),
        ({1: V1}, True, "VLLM_USE_V2_MODEL_RUNNER=0"),
        ({2: V2}, False, "VLLM_USE_V2_MODEL_RUNNER=1"),
        ({}, True, "install it"),
        ({}, False, "install it"),
    ],
)
def test_a_runner_that_is_not_known_is_said(
    monkeypatch: pytest.MonkeyPatch, known: Mapping[int, Any], v2: bool, told: str | None
) -> None:
    monkeypatch.setattr(runners, "interfaces", lambda: known)
    wrong = runners.fault(Config(use_v2_model_runner=v2))
    if told is None:
        assert wrong is None
    else:
        assert wrong is not None
        assert told in wrong[2]
        assert f"V{2 if v2 else 1}" in wrong[0]
