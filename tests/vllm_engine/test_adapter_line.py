"""A line of adapters in one engine of a boost: every request brings the weights of its rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

from test_engine import counted

from springback.core import Checkpoint
from springback.decoding.adapter_pair import AdapterPair
from springback.inference import Loaded
from springback.integrations.vllm.boost_worker import Engine
from springback.models.checkpoint_pair import At
from springback.models.encoding import Encoded
from springback.probes import Precision, nll, pair_nll
from springback.weights.span import on_line, shares_of
from vllm_fixture import Answers, told_by
from weights_adapters import save_adapter

LENGTH = 24
ALPHA = 0.05
#: Shares of the line's adapters in a weak model.
FT, EARLY, BASE = [0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]


@dataclass(frozen=True)
class Arm:
    """A point of the line, alone or beside a weak model of it."""

    at: At
    lam: float = 0.0
    weak: tuple[str, list[float]] | None = None

    @property
    def place(self) -> dict[str, Any]:
        point = self.at if isinstance(self.at, tuple) else on_line(self.at, 3)
        return {"strong": list(shares_of(point)), "weak": self.weak and self.weak[1]}


ARMS = (
    Arm(0.0),
    Arm(1.5),
    Arm((1.0, -0.5)),  # by all three
    Arm(0.5, 0.5, ("ft", FT)),
    Arm(0.5, 2.0, ("ft", FT)),
    Arm(1.5, 1.0, ("ft", FT)),
    Arm(0.0, 0.5, ("early", EARLY)),
    Arm(0.5, 1.0, ("base", BASE)),
)


@pytest.fixture(scope="module")
def line(wide_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three adapters whose ranks and modules differ, on fused and plain layers."""
    root = tmp_path_factory.mktemp("line")
    some = ["q_proj", "v_proj", "up_proj", "down_proj"]
    kinds = ((["k_proj", "gate_proj"], 4), (some, 2), ([*some, "o_proj"], 3))
    return [
        str(save_adapter(root / str(i), wide_llama, i + 1, r=rank, target_modules=modules))
        for i, (modules, rank) in enumerate(kinds)
    ]


@pytest.fixture(scope="module")
def pair(wide_llama: Path, line: Sequence[str]) -> AdapterPair:
    before, early, ft = (Checkpoint(str(wide_llama), adapter=folder) for folder in line)
    return AdapterPair(early, ft, before=(before,))


@pytest.fixture(scope="module")
def engine(start: Callable[..., Any], wide_llama: Path, line: Sequence[str]) -> Iterator[Engine]:
    """8 requests at once in batches of 64 tokens, so that prompts come in chunks, over a cache that
    8 long requests do not fit into."""
    engine = Engine(lambda message: None)
    engine.open(
        str(wide_llama),
        line,
        "float32",
        8,
        ALPHA,
        max_num_batched_tokens=64,
        enable_chunked_prefill=True,
        block_size=32,
        num_gpu_blocks_override=16,
        disable_log_stats=False,
    )
    yield engine
    engine.llm.llm_engine.engine_core.shutdown()


def decoded(engine: Engine, prompts: Sequence[list[int]], *arms: Arm) -> list[list[list[int]]]:
    lams, places = [arm.lam for arm in arms], [arm.place for arm in arms]
    return told_by(engine, prompts, lams, ALPHA, LENGTH, [], places)


def models(pair: AdapterPair, arm: Arm, base: Path) -> Loaded:
    """Strong and weak model by Transformers, each adapter put in its place."""
    weak = None
    if arm.weak is not None:
        weak = pair.weak(pair.base if arm.weak[0] == "base" else arm.weak[0])  # type: ignore[arg-type]
    return Loaded(pair.at(arm.at), weak, pair.tokenizer, 0.0, ALPHA)


def test_any_points_of_the_line_are_one_batch(
    engine: Engine, pair: AdapterPair, prompts: Sequence[list[int]], wide_llama: Path
) -> None:
    """Rows move as requests end, are preempted and come again; each keeps its own weights."""
    asked, near = prompts[:8], 0
    answers = decoded(engine, asked, *ARMS)
    for arm, found in zip(ARMS, answers, strict=True):
        ours = Answers(models(pair, arm, wide_llama))
        ours.check(asked, found, arm.lam)
        near += ours.near
    assert near <= 2
    assert len({str(found) for found in answers}) == len(ARMS), "arms differ"
    assert counted(engine.llm, "vllm:num_preemptions") > 0


@pytest.mark.parametrize("salt", [(), ("strong",)])
def test_what_is_cached_of_prompts_is_of_one_place(
    engine: Engine,
    prompts: Sequence[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    salt: tuple[str, ...],
) -> None:
    """Keys and values of other models would answer where requests did not name theirs."""
    asked = [prompt for prompt in prompts if len(prompt) > 64][:3]
    engine.forget()
    hits = counted(engine.llm, "vllm:prefix_cache_hits")
    other, arm = Arm(-3.0 if not salt else 3.0), Arm(3.0, 2.0, ("ft", FT))
    decoded(engine, asked, other)
    between = counted(engine.llm, "vllm:prefix_cache_hits")
    assert between - hits == 2 * 64, "their common beginning"
    fresh = decoded(engine, asked, arm)[0]
    assert counted(engine.llm, "vllm:prefix_cache_hits") - between == 2 * 64, "and no more"

    def named(place: dict[str, Any]) -> dict[str, str]:
        return {"cache_salt": json.dumps([place[side] for side in salt])} if salt else {}

    monkeypatch.setattr(engine, "shared_with", named)
    engine.forget()
    decoded(engine, asked, other)
    assert decoded(engine, asked, arm)[0] != fresh
    monkeypatch.undo()
    engine.forget()


def test_an_arm_is_told_when_it_is_whole(engine: Engine, prompts: Sequence[list[int]]) -> None:
    """So that a boost that is killed keeps what was finished before."""
    messages: list[dict[str, Any]] = []
    engine.tell = messages.append
    places = [arm.place for arm in (ARMS[1], ARMS[0], ARMS[1])]
    engine.decode(prompts[:8], [0.0] * 3, ALPHA, LENGTH, [], places)
    arms = [message["part"][0] for message in messages if "part" in message]
    assert sorted(arms) == [0, 1, 2]
    assert arms[-1] == 1, "those of one place come together"
    first = next(i for i, message in enumerate(messages) if "part" in message)
    assert sum(message.get("done", 0) for message in messages) == 3 * 8
    assert sum(message.get("done", 0) for message in messages[:first]) < 3 * 8


def test_arms_that_contrast_run_after_all_others(
    engine: Engine, prompts: Sequence[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside one that does, requests that do not would run their weak model for nothing."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(engine, "tell", messages.append)
    arms = (ARMS[3], ARMS[1], ARMS[6], ARMS[0])
    lams, places = [arm.lam for arm in arms], [arm.place for arm in arms]
    engine.decode(prompts[:8], lams, ALPHA, LENGTH, [], places)
    told = [message["part"][0] for message in messages if "part" in message]
    assert (set(told[:2]), set(told[2:])) == ({1, 3}, {0, 2})
    whole = next(i for i, m in enumerate(messages) if m.get("part", [None])[0] == told[1])
    finished = sum(message.get("done", 0) for message in messages[:whole])
    assert finished <= 2 * 8, "no answer of an arm that contrasts before they are whole"


def test_texts_are_scored_as_by_adapters_in_their_place(
    engine: Engine, pair: AdapterPair, prompts: Sequence[list[int]], wide_llama: Path
) -> None:
    texts = [Encoded(tuple(p), max(1, len(p) // 2), 0) for p in prompts[:4]]
    asked = [(list(text.ids), text.start) for text in texts]
    float32 = Precision("float32")
    for arm in (ARMS[1], ARMS[2], ARMS[3], ARMS[7]):
        loaded = models(pair, arm, wide_llama)
        engine.place(**arm.place)
        if loaded.amateur is None:
            wanted = nll(loaded.expert, texts, pair.tokenizer, float32)
        else:
            both = loaded.expert, loaded.amateur
            wanted = pair_nll(*both, texts, pair.tokenizer, [arm.lam], float32)[arm.lam]
        assert engine.score(asked, arm.lam) == pytest.approx([s.nats for s in wanted], abs=5e-3)
