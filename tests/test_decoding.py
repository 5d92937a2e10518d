"""Decoding equals the plain loop that recomputes everything at every token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from springback.decoding import DecodeSettings, decode
from springback.decoding.contrast import combine
from springback.errors import SpringbackError
from springback.models.loading import Model, load_model, load_tokenizer, resolve
from springback.models.placement import Placement

PROMPTS = [[10, 20, 30], [40, 50, 60, 70, 80, 90], [11], [12, 13, 14, 15]]
STOPS = tuple(range(0, 300, 12))  # with many stops, rows end at different times


@pytest.fixture(scope="module")
def pair(tiny_llama: Path) -> tuple[Model, Model]:
    expert = load_model(resolve(tiny_llama), Placement(torch.float64))
    amateur = load_model(resolve(tiny_llama), Placement(torch.float64))
    torch.manual_seed(3)
    with torch.no_grad():
        for p in amateur.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return expert, amateur


@torch.no_grad()
def plain_loop(
    models: list[Model], prompt: list[int], lam: float, alpha: float, n: int
) -> list[int]:
    """One prompt, no cache, no padding: obviously right."""
    ids, answer = list(prompt), []
    for _ in range(n):
        logits = [m(input_ids=torch.tensor([ids])).logits[0, -1].float() for m in models]
        scores = combine(logits[0], logits[1], lam, alpha) if len(models) == 2 else logits[0]
        token = int(scores.argmax())
        if token in STOPS:
            break
        answer.append(token)
        ids.append(token)
    return answer


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize(("lam", "alpha"), [(0.0, 0.1), (0.5, 0.1), (2.0, 0.01)])
def test_tokens_equal_the_plain_loop(
    pair: tuple[Model, Model], batch_size: int, lam: float, alpha: float
) -> None:
    settings = DecodeSettings(
        max_new_tokens=12, lam=lam, alpha=alpha, batch_size=batch_size, stop_ids=STOPS
    )
    models = list(pair) if lam else [pair[0]]
    expected = [plain_loop(models, p, lam, alpha, 12) for p in PROMPTS]
    assert decode(pair[0], PROMPTS, settings, pair[1]) == expected
    lengths = {len(answer) for answer in expected}
    assert len(lengths) > 1, "rows must end at different times for this to test batching"


def test_contrast_changes_some_token(pair: tuple[Model, Model]) -> None:
    plain = decode(pair[0], PROMPTS, DecodeSettings(max_new_tokens=12), pair[1])
    contrasted = decode(pair[0], PROMPTS, DecodeSettings(max_new_tokens=12, lam=2.0), pair[1])
    assert plain != contrasted


def test_samples_do_not_depend_on_the_batch(pair: tuple[Model, Model]) -> None:
    alone = DecodeSettings(max_new_tokens=8, temperature=1.0, seed=5, batch_size=1)
    together = DecodeSettings(max_new_tokens=8, temperature=1.0, seed=5, batch_size=4)
    other = DecodeSettings(max_new_tokens=8, temperature=1.0, seed=6, batch_size=4)
    first = decode(pair[0], PROMPTS, alone)
    assert first == decode(pair[0], PROMPTS, together)
    assert first != decode(pair[0], PROMPTS, other)


def test_sampled_frequencies_follow_the_model(pair: tuple[Model, Model]) -> None:
    """400 first tokens: the share of the likeliest lies within 5 standard errors of its p."""
    n = 400
    drawn = decode(pair[0], [PROMPTS[0]] * n, DecodeSettings(1, temperature=1.0, batch_size=n))
    with torch.no_grad():
        p = pair[0](input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    top, chance = int(p.argmax()), float(p.max())
    share = sum(d == [top] for d in drawn) / n
    assert abs(share - chance) < 5 * (chance * (1 - chance) / n) ** 0.5


def test_forbidden_tokens_never_come(pair: tuple[Model, Model]) -> None:
    free = decode(pair[0], PROMPTS, DecodeSettings(max_new_tokens=6))
    banned = tuple({a[0] for a in free})
    held = decode(pair[0], PROMPTS, DecodeSettings(max_new_tokens=6, forbidden_ids=banned))
    assert not {t for a in held for t in a} & set(banned)


def test_lambda_without_a_second_model_is_refused(pair: tuple[Model, Model]) -> None:
    with pytest.raises(SpringbackError, match="no second model"):
        decode(pair[0], PROMPTS, DecodeSettings(lam=1.0))


def test_an_empty_prompt_is_refused(pair: tuple[Model, Model]) -> None:
    with pytest.raises(SpringbackError, match="empty"):
        decode(pair[0], [[1], []], DecodeSettings())


def test_generate_speaks_for_plain_models(tiny_llama: Path) -> None:
    from springback import generate

    tokenizer = load_tokenizer(resolve(tiny_llama))
    answers = generate(tiny_llama, ["the thing", "a"], max_new_tokens=5)
    assert len(answers) == 2
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}], add_generation_prompt=True, tokenize=False
    )
    model: Any = load_model(resolve(tiny_llama))
    prompt = torch.tensor([tokenizer(ids, add_special_tokens=False)["input_ids"]])
    out = model.generate(
        prompt, max_new_tokens=5, do_sample=False, attention_mask=torch.ones_like(prompt)
    )
    text = tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)
    assert answers[1] == text
