"""KL from the model to the start model, against a plain fp64 reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from springback import probes
from springback.models.encoding import Encoded
from springback.models.loading import Model, Tokenizer, load_model, load_tokenizer, resolve
from springback.probes import SampleSettings

PROMPTS = ["the thing", "a heron in the", "other", "ing the heron sings and the thing"]
SETTINGS = SampleSettings(new_tokens=6, seed=3)


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


@pytest.fixture(scope="module")
def models(tiny_llama: Path) -> tuple[Model, Model]:
    """Start model, and one that differs from it."""
    start, other = load_model(resolve(tiny_llama)), load_model(resolve(tiny_llama))
    torch.manual_seed(4)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return start, other


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer(text)["input_ids"] for text in PROMPTS]


@torch.no_grad()
def log_probabilities(model: Model, ids: list[int], first: int) -> torch.Tensor:
    """(tokens from ``first`` on, vocabulary) in fp64, one text at a time."""
    logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    found: torch.Tensor = logits.log_softmax(-1)[first - 1 : -1]
    return found


@torch.no_grad()
def plain_sample(model: Model, tokenizer: Tokenizer, prompts: list[list[int]]) -> list[list[int]]:
    exact = SampleSettings(new_tokens=6, seed=3, exact_length=True)
    return probes.sample(model, tokenizer, prompts, exact)


@pytest.mark.parametrize(("batch_tokens", "chunk"), [(1, 256), (30, 2), (10_000, 5)])
def test_reverse_kl_is_exact_on_texts_of_the_model(
    models: tuple[Model, Model],
    tokenizer: Tokenizer,
    prompts: list[list[int]],
    batch_tokens: int,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("springback.probes.divergence.CHUNK", chunk)
    start, model = models
    precision = probes.Precision("float32", batch_tokens)
    found = probes.reverse_kl(model, start, tokenizer, prompts, SETTINGS, precision)
    for kl, prompt, text in zip(
        found, prompts, plain_sample(model, tokenizer, prompts), strict=True
    ):
        p, q = (log_probabilities(m, prompt + text, len(prompt)) for m in (model, start))
        assert p.shape == (6, 300)
        expected = float((p.exp() * (p - q)).sum(-1).mean())
        forward = float((q.exp() * (q - p)).sum(-1).mean())
        assert abs(expected - forward) > 1e-2 * expected > 1e-4  # the direction shows
        assert kl == pytest.approx(expected, rel=1e-4)


def test_with_the_models_swapped_it_is_the_forward_kl(
    models: tuple[Model, Model], tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    """KL(a || b) on texts of a: what StartDistribution measures if a is the start model."""
    start, model = models
    back = probes.reverse_kl(start, model, tokenizer, prompts, SETTINGS)
    texts = plain_sample(start, tokenizer, prompts)
    rows = [Encoded((*p, *t), len(p), 0) for p, t in zip(prompts, texts, strict=True)]
    forward = probes.StartDistribution(start, rows, tokenizer).kl(model)
    assert back == pytest.approx(forward, rel=1e-5)


def test_reverse_kl_of_a_model_to_itself_is_zero(
    models: tuple[Model, Model], tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    found = probes.reverse_kl(models[1], models[1], tokenizer, prompts, SETTINGS)
    assert found == pytest.approx([0.0] * len(prompts), abs=1e-6)


def test_reverse_kl_repeats_by_seed_and_by_row(
    models: tuple[Model, Model], tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    start, model = models
    once = probes.reverse_kl(model, start, tokenizer, prompts, SETTINGS)
    assert probes.reverse_kl(model, start, tokenizer, prompts, SETTINGS) == once
    fewer = probes.reverse_kl(model, start, tokenizer, prompts[:2], SETTINGS)
    assert fewer == pytest.approx(once[:2], rel=1e-4)
    other = probes.reverse_kl(model, start, tokenizer, prompts, SampleSettings(6, seed=4))
    assert other != once


def test_texts_of_reverse_kl_have_the_exact_length_even_if_the_model_wants_to_end(
    models: tuple[Model, Model],
    tokenizer: Tokenizer,
    prompts: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Settings without exact_length let texts end early; reverse KL overrules them."""
    start, model = models
    lengths: list[int] = []

    def spy(*given: object) -> list[list[int]]:
        texts = probes.sample(*given)  # type: ignore[arg-type]
        lengths.extend(map(len, texts))
        return texts

    monkeypatch.setattr("springback.probes.divergence.sample", spy)
    many = prompts * 40
    long = SampleSettings(new_tokens=12, seed=0)
    ended = [len(t) for t in probes.sample(model, tokenizer, many, long)]
    assert min(ended) < 12  # the model does end texts when it may
    probes.reverse_kl(model, start, tokenizer, many, long)
    assert lengths == [12] * len(many)
