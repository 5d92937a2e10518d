"""``springback.generate``: fast by default, the plain loop on request, the same text either way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import springback
from springback.cli.app import app
from springback.decoding import DecodeSettings, decode, decode_fast
from springback.errors import SpringbackError
from springback.inference import Loaded
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.models.placement import Placement

PROMPTS = ["the thing", "a", "in the thing in the"]


@pytest.fixture(scope="module")
def loaded(tiny_llama: Path) -> Loaded:
    checkpoint = resolve(tiny_llama)
    expert, amateur = (load_model(checkpoint, Placement(torch.float64)) for _ in range(2))
    torch.manual_seed(3)
    with torch.no_grad():
        for p in amateur.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return Loaded(expert, amateur, load_tokenizer(checkpoint), lam=1.5, alpha=0.05)


def test_the_reference_gives_the_same_text(loaded: Loaded) -> None:
    for options in (
        {},
        {"temperature": 0.9, "seed": 4, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
        {"repetition_penalty": 1.5, "stop": ("e", "1"), "raw": True},
        {"draft": "amateur"},
        {"draft": "model", "draft_model": loaded.amateur},
    ):
        held: dict[str, Any] = {"max_new_tokens": 12, **options}
        fast = springback.generate(loaded, PROMPTS, **held)
        assert fast == springback.generate(loaded, PROMPTS, **held, reference=True), options


def test_an_answer_ends_before_the_stop_string(loaded: Loaded) -> None:
    whole = springback.generate(loaded, PROMPTS[:1], max_new_tokens=20, raw=True)[0]
    stop = whole[5:8]
    cut = springback.generate(loaded, PROMPTS[:1], max_new_tokens=20, raw=True, stop=stop)[0]
    assert cut == whole[: whole.index(stop)]


def test_streamed_pieces_make_up_the_answers(loaded: Loaded) -> None:
    for stop in ((), ("e",)):
        pieces: dict[int, str] = {}
        count = 0

        def hear(row: int, piece: str, pieces: dict[int, str] = pieces) -> None:
            nonlocal count
            count += 1
            pieces[row] = pieces.get(row, "") + piece

        answers = springback.generate(
            loaded, PROMPTS, max_new_tokens=16, raw=True, stop=stop, on_text=hear
        )
        assert [pieces.get(row, "") for row in range(3)] == answers
        assert count > 3, "in pieces, not at the end"


def test_the_result_says_what_the_run_took(loaded: Loaded) -> None:
    """3 answers of 12 tokens at most; the plain loop calls both models once a token."""
    pair = replace(loaded, alpha=0.8)  # few tokens come this close to the likeliest
    fast = springback.generate(pair, PROMPTS, max_new_tokens=12)
    slow = springback.generate(pair, PROMPTS, max_new_tokens=12, reference=True)
    for found in (fast, slow):
        assert 3 <= found.work.tokens <= 36
        assert 0 < found.work.contested_share < 1
        assert found.work.tokens_per_second > 0
    assert fast.work.contested == slow.work.contested
    assert slow.work.expert_calls == slow.work.amateur_calls <= 12
    assert fast.work.amateur_rows < slow.work.amateur_rows
    text = fast.work.summary()
    for part in ("a second", "contested", "calls a token: expert", "amateur"):
        assert part in text


def test_stats_go_to_standard_error(tiny_llama: Path) -> None:
    words = ["generate", str(tiny_llama), "the thing", "--max-new-tokens", "4"]
    bare = CliRunner().invoke(app, words)
    for extra in ([], ["--stream"]):
        done = CliRunner().invoke(app, [*words, "--stats", *extra])
        assert done.stdout == bare.stdout
        assert "calls a token: expert" in done.stderr


def test_an_end_token_among_several_ends_an_answer(loaded: Loaded) -> None:
    """Every token that may end an answer does, in both decoders."""
    prompts = [[10, 20, 30], [40, 50, 60, 70]]
    whole = decode(loaded.expert, prompts, DecodeSettings(8))
    ends = (whole[0][3], whole[1][5])
    held = DecodeSettings(8, stop_ids=ends)
    found = decode(loaded.expert, prompts, held)
    for answer, full in zip(found, whole, strict=True):
        assert answer == full[: min(full.index(e) for e in ends if e in full)]
    assert decode_fast(loaded.expert, prompts, held).answers == found


def test_a_draft_model_is_named_on_the_command_line(tiny_llama: Path) -> None:
    words = ["generate", str(tiny_llama), "the thing", "--max-new-tokens", "4", "--stats"]
    bare = CliRunner().invoke(app, words)
    done = CliRunner().invoke(app, [*words, "--draft", "model", "--draft-model", str(tiny_llama)])
    assert done.stdout == bare.stdout
    assert "draft model" in done.stderr


def test_an_unknown_keyword_is_refused(loaded: Loaded) -> None:
    with pytest.raises(SpringbackError, match="given: topk; allowed: max_new_tokens"):
        springback.generate(loaded, ["a"], topk=3)


def test_the_command_line_has_the_same_settings(tiny_llama: Path) -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 6,
        "temperature": 0.8,
        "top_k": 9,
        "repetition_penalty": 1.2,
    }
    flags = [x for k, v in options.items() for x in (f"--{k.replace('_', '-')}", str(v))]
    expected = springback.generate(tiny_llama, ["the thing"], **options)[0]
    for extra in ([], ["--stream"], ["--reference"]):
        done = CliRunner().invoke(app, ["generate", str(tiny_llama), "the thing", *flags, *extra])
        assert done.output == expected + "\n"


def test_end_tokens_of_the_generation_config_and_of_the_caller_end_an_answer(
    loaded: Loaded,
) -> None:
    """The model lists two ends, of which the first to come counts; then one of the caller's."""
    how: dict[str, Any] = {"raw": True, "max_new_tokens": 8}
    [ids] = decode(
        loaded.expert,
        [loaded.tokenizer("the thing")["input_ids"]],
        DecodeSettings(8, lam=loaded.lam, alpha=loaded.alpha),
        loaded.amateur,
    )
    config: Any = loaded.expert.generation_config
    before = config.eos_token_id
    config.eos_token_id = [ids[5], ids[3]]
    try:
        for reference in (False, True):
            found = springback.generate(loaded, ["the thing"], reference=reference, **how)
            cut = min(ids.index(ids[5]), ids.index(ids[3]))
            assert found.work.tokens == cut
            found = springback.generate(loaded, ["the thing"], stop_ids=(ids[1],), **how)
            assert found.work.tokens == min(cut, ids.index(ids[1]))
    finally:
        config.eos_token_id = before


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_static_cache_gives_the_same_answers(loaded: Loaded, temperature: float) -> None:
    how: dict[str, Any] = {"max_new_tokens": 8, "temperature": temperature}
    expected = springback.generate(loaded, ["the thing", "a"], **how)
    assert springback.generate(loaded, ["the thing", "a"], cache="static", **how) == expected


def test_scores_are_unmasked_unless_asked_for(loaded: Loaded) -> None:
    """Against ContrastModel's loss; masked, tokens that cannot be decoded are left out."""
    text = "the thing is the thing"
    [found] = springback.score(loaded, [text])
    ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
    assert loaded.amateur is not None
    pair = springback.ContrastModel.from_pair(
        loaded.expert, loaded.amateur, loaded.lam, loaded.alpha
    )
    with torch.no_grad():
        loss = float(pair(ids, labels=ids).loss)
    assert found.per_token == pytest.approx(loss, rel=1e-4)
    assert (found.tokens, found.masked_share) == (ids.shape[1] - 1, 0)
    [masked] = springback.score(loaded, [text], masked=True)
    assert masked.tokens + masked.masked == found.tokens
    assert masked.nats < found.nats
    [answer] = springback.score(loaded, ["the thing"], ["a"])
    assert answer.tokens == len(
        loaded.tokenizer("the thing", add_special_tokens=False)["input_ids"]
    )
    with pytest.raises(SpringbackError, match="2 prompts for 1 texts"):
        springback.score(loaded, ["the"], ["a", "b"])
