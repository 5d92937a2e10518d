"""One engine for a whole boost: weights set in place are those of a fresh folder, nothing stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

import torch

from boosted_fixture import checkpoints
from springback.inference import Loaded
from springback.integrations.vllm.boost_worker import Engine
from springback.integrations.vllm.client import Weights
from springback.models.checkpoint_pair import CheckpointPair
from springback.models.encoding import Encoded
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.probes import Precision, nll, pair_nll
from springback.weights import extrapolate
from vllm_fixture import Answers, told_by

LENGTH = 24
ALPHA = 0.05
PLACES = ((0.5, (0.0, 0.5, 2.0)), (1.5, (0.0, 1.0)))


@pytest.fixture(scope="module")
def pair(wide_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return checkpoints(wide_llama, tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def engine(start: Callable[..., Any], pair: tuple[Path, Path]) -> Iterator[Engine]:
    engine = Engine(lambda message: None)
    engine.open(str(pair[1]), [], "float32", 16, ALPHA, block_size=32, num_gpu_blocks_override=256)
    yield engine
    engine.llm.llm_engine.engine_core.shutdown()


def place(engine: Engine, strong: Weights, weak: Weights | None = None) -> None:
    engine.place(asdict(strong), None if weak is None else asdict(weak))


def along(pair: tuple[Path, Path], mu: float) -> Weights:
    return Weights(tuple(map(str, pair)), (mu,))


def decoded(engine: Engine, prompts: Sequence[list[int]], *lams: float) -> list[list[list[int]]]:
    return told_by(engine, prompts, lams or (0.0,), ALPHA, LENGTH, [])


def written(pair: tuple[Path, Path], mu: float, folder: Path) -> Answers:
    """The plain loop on the expert as ``extrapolate`` writes it, beside the fine-tuned model."""
    extrapolate(*pair, mu, folder)
    expert, ft = load_model(resolve(folder)), load_model(resolve(pair[1]))
    return Answers(Loaded(expert, ft, load_tokenizer(resolve(folder)), 0.0, ALPHA))


def test_tokens_at_every_mu_and_lambda_are_the_plain_loops(
    engine: Engine, pair: tuple[Path, Path], prompts: Sequence[list[int]], tmp_path: Path
) -> None:
    """The engine goes from one mu to another and back, with and without a weak model."""
    asked, near = prompts[:8], 0
    for mu, lams in (*PLACES, PLACES[0]):
        ours = written(pair, mu, tmp_path / f"{mu}-{near}-{len(list(tmp_path.iterdir()))}")
        place(engine, along(pair, mu), Weights((str(pair[1]),)))
        for lam, answers in zip(lams, decoded(engine, asked, *lams), strict=True):
            ours.check(asked, answers, lam)
        place(engine, along(pair, mu))
        ours.check(asked, decoded(engine, asked)[0], 0.0)
        near += ours.near
    assert near <= 2


def test_what_is_cached_of_prefixes_is_forgotten(
    engine: Engine,
    pair: tuple[Path, Path],
    prompts: Sequence[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it the keys and values of another mu answer: the test of the test."""
    asked = [prompt for prompt in prompts if len(prompt) > 64][:4]

    def answers(mu: float) -> list[list[int]]:
        place(engine, along(pair, mu))
        return decoded(engine, asked)[0]

    fresh = answers(3.0)
    far = answers(-3.0)
    assert far != fresh
    assert answers(3.0) == fresh
    monkeypatch.setattr(engine, "forget", lambda: None)
    assert answers(-3.0) != far
    monkeypatch.undo()
    place(engine, along(pair, 0.0))


def test_texts_are_scored_without_the_mask(
    engine: Engine, pair: tuple[Path, Path], prompts: Sequence[list[int]]
) -> None:
    texts = [Encoded(tuple(p), max(1, len(p) // 2), 0) for p in prompts[:6]]
    asked = [(list(text.ids), text.start) for text in texts]
    both = CheckpointPair(*(resolve(folder) for folder in pair))
    exact, float32 = both.at(0.5), Precision("float32")
    place(engine, along(pair, 0.5))
    wanted = [s.nats for s in nll(exact, texts, both.tokenizer, float32)]
    assert engine.score(asked, 0.0) == pytest.approx(wanted, abs=2e-3)
    place(engine, along(pair, 0.5), Weights((str(pair[0]),)))
    by_lam = pair_nll(exact, both.weak("early"), texts, both.tokenizer, (0.5, 2.0), float32)
    for lam, scores in by_lam.items():
        assert engine.score(asked, lam) == pytest.approx([s.nats for s in scores], abs=5e-3)
    assert torch.tensor(wanted).isfinite().all()


def test_an_end_token_ends_an_answer_and_is_left_out(
    engine: Engine, pair: tuple[Path, Path], prompts: Sequence[list[int]]
) -> None:
    place(engine, along(pair, 0.5))
    (whole,) = decoded(engine, prompts[:1])[0]
    end = whole[3]
    answer = told_by(engine, prompts[:1], [0.0], ALPHA, LENGTH, [end])[0][0]
    assert answer == whole[: whole.index(end)]
