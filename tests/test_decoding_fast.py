"""The fast decoder draws the plain loop's tokens, without exception, in fp64 on tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Mamba2ForCausalLM,
    MambaForCausalLM,
)

from decode_fixture import amateur, expert, prompts, tiny
from springback.decoding import DecodeSettings, Hooks, Speculation, Work, decode, decode_fast
from springback.decoding.contrast import combine
from springback.decoding.drafts import NgramIndex, Pace
from springback.errors import SpringbackError

STOPS = (7, 19, 23)
PROMPTS = prompts(16)
BASE = DecodeSettings(max_new_tokens=10, stop_ids=STOPS, keyed_noise=True, seed=11)


@cache
def truth(settings: DecodeSettings) -> tuple[tuple[int, ...], ...]:
    found = decode(expert(), PROMPTS, replace(settings, batch_size=16), amateur())
    return tuple(map(tuple, found))


def fast(
    settings: DecodeSettings, prompts: Sequence[Sequence[int]] = PROMPTS, **speculation: Any
) -> tuple[tuple[tuple[int, ...], ...], Work]:
    found = decode_fast(
        expert(), prompts, settings, amateur(), speculation=Speculation(**speculation)
    )
    return tuple(map(tuple, found.answers)), found.work


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(("lam", "alpha"), list(product((0.25, 1.0, 4.0), (0.01, 0.1, 0.5))))
def test_tokens_are_those_of_the_plain_loop(lam: float, alpha: float, temperature: float) -> None:
    settings = replace(BASE, lam=lam, alpha=alpha, temperature=temperature)
    expected = truth(settings)
    assert len({len(a) for a in expected}) > 1, "rows must end at different times"
    for batch, count in ((1, 1), (4, 4), (16, 16)):
        for draft, length in (("none", 0), ("ngram", 3), ("amateur", 3)):
            held = replace(settings, batch_size=batch)
            got, _ = fast(held, PROMPTS[:count], draft=draft, length=length)
            assert got == expected[:count], (batch, draft)


def test_tokens_are_those_of_the_plain_loop_with_penalties_and_filters() -> None:
    """Everything at once, also without contrast, by every kind of draft and adaptive length."""
    settings = replace(
        BASE,
        temperature=0.9,
        top_k=6,
        top_p=0.9,
        min_p=0.02,
        repetition_penalty=1.3,
        forbidden_ids=(3, 4),
    )
    for lam in (0.0, 1.0):
        held = replace(settings, lam=lam, batch_size=3)
        expected = truth(held)[:4]
        assert expected != truth(replace(held, repetition_penalty=1.0))[:4]
        small = tiny(0.3)
        for speculation in (
            Speculation("ngram"),
            Speculation("amateur", 2),
            Speculation("model", 2, small),
        ):
            got = decode_fast(expert(), PROMPTS[:4], held, amateur(), speculation=speculation)
            assert tuple(map(tuple, got.answers)) == expected


def test_the_pair_is_contested_as_often_as_real_ones() -> None:
    """The tests above mean something: 20 to 40 % of positions are contested, some drafts hold."""
    settings = replace(BASE, lam=1.0, batch_size=16, max_new_tokens=24, stop_ids=())
    _, lazy = fast(settings, draft="none")
    assert 0.2 < lazy.contested / lazy.tokens < 0.4
    _, look_up = fast(settings, draft="ngram", length=3)
    assert 0 < look_up.accepted < look_up.drafted
    _, by_amateur = fast(settings, draft="amateur", length=3)
    assert 0.4 * by_amateur.drafted < by_amateur.accepted < by_amateur.drafted
    assert by_amateur.expert_calls < 0.8 * lazy.expert_calls


def test_positions_are_deferred_and_the_amateur_may_overrule_them() -> None:
    """The amateur is asked less often than at once; some guesses do not stand."""
    settings = replace(BASE, lam=0.25, alpha=0.01, max_new_tokens=40, stop_ids=())
    for temperature in (0.0, 0.8):
        held = replace(settings, temperature=temperature)
        at_once, lazy = fast(held, draft="ngram", length=2, defer=0)
        later, work = fast(held, draft="ngram", length=2, defer=8)
        assert later == at_once == truth(held)
        assert lazy.deferred == 0
        assert 0 < work.overruled < 0.3 * work.deferred
        assert work.amateur_rows < 0.8 * lazy.amateur_rows


def counted(model: Any, rows: list[int]) -> Any:
    """Hook that notes how many rows each call of ``model`` has."""

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        rows.append(len(given["input_ids"]))

    return model.register_forward_pre_hook(note, with_kwargs=True)


def test_only_contested_rows_are_sent_to_the_amateur() -> None:
    rows: list[int] = []
    settings = replace(BASE, lam=1.0, batch_size=16, stop_ids=())
    hook = counted(amateur(), rows)
    try:
        _, work = fast(settings, draft="none", defer=0)
        at_once = list(rows)
        rows.clear()
        _, later = fast(settings, draft="none")
    finally:
        hook.remove()
    # One position a round without drafts, so a row is sent as often as it is contested.
    assert sum(at_once) == work.contested == work.amateur_rows < 0.4 * work.tokens
    assert len(at_once) == work.amateur_calls
    # Several positions of a row may wait, and rows wait for each other.
    assert sum(rows) == later.amateur_rows < work.amateur_rows
    assert len(rows) == later.amateur_calls < work.amateur_calls


def test_the_amateur_never_runs_where_one_token_is_plausible() -> None:
    rows: list[int] = []
    hook = counted(amateur(), rows)
    try:
        got, _ = fast(replace(BASE, lam=1.0, alpha=1.0, batch_size=16))
    finally:
        hook.remove()
    assert rows == []
    assert got == truth(replace(BASE, lam=0.0)), "alpha = 1 is the expert's greedy choice"


def test_speculation_needs_fewer_calls_on_a_text_that_repeats_itself() -> None:
    """An expert that repeats its prompt (a bias on the next token) takes whole drafts."""
    cycle = [5, 9, 14, 22, 31]

    def follow(ids: Tensor, scores: Tensor) -> Tensor:
        scores[0, cycle[(cycle.index(int(ids[0, -1])) + 1) % 5]] += 1e6
        return scores

    settings = DecodeSettings(max_new_tokens=20)
    hooks = Hooks(processors=(follow,))
    found = decode_fast(
        expert(), [cycle * 2], settings, hooks=hooks, speculation=Speculation("ngram", 4)
    )
    assert found.answers == [cycle * 4]
    # One call for the prompt, which gives 1 token; 19 more at 5 a call.
    assert found.work.expert_calls == 1 + 4


def test_processors_see_each_token_once_in_order_and_may_forbid_the_plausible() -> None:
    """Called as in the plain loop; the expert's order decides where no plausible token is left."""
    settings = replace(BASE, lam=1.0, batch_size=4, max_new_tokens=8)
    runs = []
    for decoder in (decode, decode_fast):
        seen: list[tuple[int, ...]] = []

        def odd_only(ids: Tensor, scores: Tensor, seen: Any = seen) -> Tensor:
            seen.append(tuple(ids[0].tolist()))
            scores[:, ::2] = -torch.inf
            return scores

        found: Any = decoder(
            expert(), PROMPTS[:4], settings, amateur(), hooks=Hooks(processors=(odd_only,))
        )
        runs.append((getattr(found, "answers", found), sorted(seen)))
    assert runs[0] == runs[1]
    answers, seen = runs[0]
    assert all(token % 2 for answer in answers for token in answer)
    assert len(seen) == len(set(seen)), "each position once"


def test_stop_strings_and_callbacks_are_those_of_the_plain_loop() -> None:
    """Token t is the text ``<t>``; the third answer token of the first row, with its end, stops."""
    settings = replace(BASE, lam=1.0, stop_ids=())
    first = truth(settings)[0]
    held = replace(settings, stop_strings=(f"{first[2]}>",))
    results = []
    for decoder in (decode, decode_fast):
        heard: list[tuple[int, int]] = []
        hooks = Hooks(
            on_token=lambda row, token, heard=heard: heard.append((row, token)),  # type: ignore[misc]
            text_of=lambda ids: "".join(f"<{i}>" for i in ids),
        )
        found: Any = decoder(expert(), PROMPTS[:4], held, amateur(), hooks=hooks)
        answers = getattr(found, "answers", found)
        assert [[t for r, t in heard if r == row] for row in range(4)] == answers
        results.append(answers)
    assert results[0] == results[1]
    cut = first.index(first[2])
    assert results[0][0] == list(first[: cut + 1])


def test_a_cache_that_cannot_be_cropped_is_decoded_the_plain_way_and_says_so_once() -> None:
    config = Gemma3TextConfig(
        vocab_size=48,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    pair: list[Any] = [Gemma3ForCausalLM(config).double() for _ in range(2)]
    settings = replace(BASE, lam=1.0, stop_ids=(), max_new_tokens=8)
    expected = decode(pair[0], PROMPTS[:3], settings, pair[1])
    with pytest.warns(UserWarning, match="plain way"):
        found = decode_fast(pair[0], PROMPTS[:3], settings, pair[1])
    assert found.answers == expected
    assert found.plain
    # Both models at each of the 8 steps; 3 rows are asked each time.
    assert (found.work.expert_calls, found.work.amateur_rows, found.work.tokens) == (8, 24, 24)
    # Beyond the window, against the model without any cache.
    ids = torch.tensor([PROMPTS[0] + expected[0][:-1]])
    with torch.no_grad():
        strong, weak = (m(input_ids=ids, use_cache=False).logits[0, -1] for m in pair)
    assert int(combine(strong, weak, 1.0, 0.1).argmax()) == expected[0][-1]
    decode_fast(pair[0], PROMPTS[:1], settings, pair[1])  # a second warning would be an error


@pytest.mark.parametrize("kind", [Mamba2ForCausalLM, MambaForCausalLM])
def test_a_state_space_model_is_decoded_the_plain_way(kind: Any) -> None:
    """Its state is used and its padding masked: the tokens are those without any cache."""
    sizes = {"num_heads": 4, "head_dim": 8, "n_groups": 1} if kind is Mamba2ForCausalLM else {}
    config = kind.config_class(
        vocab_size=48, hidden_size=16, state_size=4, num_hidden_layers=2, **sizes
    )
    config.initializer_range = 0.5
    torch.manual_seed(0)
    pair: list[Any] = [kind(config).double().eval() for _ in range(2)]
    settings = replace(BASE, lam=1.0, max_new_tokens=8, batch_size=4)
    with pytest.warns(UserWarning, match="plain way"):
        found = decode_fast(pair[0], PROMPTS[:4], settings, pair[1])
    assert len({len(p) for p in PROMPTS[:4]}) > 1
    expected = []
    for prompt in PROMPTS[:4]:
        ids = list(prompt)
        while len(ids) < len(prompt) + 8:
            with torch.no_grad():
                strong, weak = (
                    m(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1] for m in pair
                )
            token = int(combine(strong, weak, 1.0, 0.1).argmax())
            if token in STOPS:
                break
            ids.append(token)
        expected.append(ids[len(prompt) :])
    assert found.answers == expected


def test_sampling_by_a_stream_is_refused() -> None:
    with pytest.raises(SpringbackError, match="keyed_noise"):
        decode_fast(expert(), PROMPTS, DecodeSettings(temperature=1.0))


def test_unknown_drafts_are_refused() -> None:
    with pytest.raises(SpringbackError, match="allowed: none, ngram"):
        decode_fast(expert(), PROMPTS, BASE, speculation=Speculation("guess"))


def test_look_up_finds_the_longest_latest_match() -> None:
    """1 2 3 9 2 3 7 1 2 3: the 3-gram 1 2 3 was followed by 9, the later 2-gram 2 3 by 7."""
    index = NgramIndex()
    assert index.propose([1, 2, 3, 9, 2, 3, 7, 1, 2, 3], 3) == [9, 2, 3]
    assert index.propose([1, 2, 3, 9, 2, 3, 7, 1, 2, 3, 8, 2, 3], 2) == [8, 2]
    assert index.propose([1, 2, 3, 9, 2, 3, 7, 1, 2, 3, 8, 2, 3, 40], 2) == []


def test_draft_length_follows_costs_and_acceptance() -> None:
    """Free drafts that are always taken: as many as allowed.  Never taken and dear: none."""

    def settled(slope: float, hit: bool) -> int:
        pace = Pace(None)
        for _ in range(80):
            m = pace.length()
            pace.ran(m, 1.0 + slope * m)
            if m:
                pace.judged(m if hit else 0, not hit)
        return pace.length()

    assert settled(0.0, True) == 10
    assert settled(0.5, False) <= 1
    assert settled(5.0, True) == 0
    assert Pace(3).length() == 3


def test_an_index_that_read_overruled_guesses_proposes_from_what_is_left() -> None:
    """1 2 3 4 was read with 9 1 2 behind it; what was guessed after 4 is then taken back.

    "1 2" was last seen at the end of the longer text, behind the end of the shorter one.
    """
    index = NgramIndex()
    index.propose([1, 2, 3, 4, 9, 1, 2, 3], 2)  # "1 2" is now known at place 7
    assert index.propose([5, 1, 2], 2) == []
