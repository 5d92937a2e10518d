"""Text is handed out in whole characters, without stop strings; questions are framed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("pydantic")

from springback.inference import Loaded
from springback.integrations.server.metrics import Metrics
from springback.integrations.server.protocol import ChatRequest
from springback.integrations.server.text import Pieces
from springback.models.loading import load_tokenizer, resolve


def decode(ids: Sequence[int]) -> str:
    """Ids are bytes."""
    return bytes(ids).decode("utf-8", errors="replace")


def told(text: str, *stop: str) -> tuple[list[str], Pieces]:
    pieces = Pieces(decode, stop)
    found = [pieces.add(byte) for byte in text.encode()]
    return [*found, pieces.finish()], pieces


def test_a_character_comes_when_all_its_bytes_are_there() -> None:
    assert told("aé€b")[0] == ["a", "", "é", "", "", "€", "b", ""]


def test_bytes_that_never_become_a_character_come_at_the_end() -> None:
    pieces = Pieces(decode)
    assert [pieces.add(0x61), pieces.add(0xE2), pieces.finish()] == ["a", "", "\ufffd"]


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    found, pieces = told("one end.", "end.")
    assert "".join(found) == "one "
    assert found[3] == "o" if found[3] else True
    assert pieces.stopped
    found, pieces = told("one en", "end.")
    assert "".join(found) == "one en"
    assert not pieces.stopped
    assert found[-1] == " en", "three characters wait: one less than the stop string has"


def test_the_first_of_several_stop_strings_counts() -> None:
    assert "".join(told("abcdef", "ef", "cd")[0]) == "ab"


def test_only_the_last_tokens_are_decoded_again() -> None:
    longest = 0

    def watched(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    pieces = Pieces(watched)
    assert "".join(pieces.add(b) for b in b"x" * 1000) == "x" * 1000
    assert longest == 2


def test_metrics_add_up() -> None:
    metrics = Metrics()
    metrics.count("requests_total", route="/a", status="200")
    metrics.count("requests_total", 2, route="/a", status="200")
    for seconds in (0.05, 0.06, 1000.0):
        metrics.took("request_seconds", seconds)
    lines = metrics.render({"rows_waiting": 3}).splitlines()
    assert 'springback_requests_total{route="/a",status="200"} 3' in lines
    # 0.05 is within its own bound; 0.06 under 0.1; 1000 only under infinity
    assert 'springback_request_seconds_bucket{le="0.05"} 1' in lines
    assert 'springback_request_seconds_bucket{le="0.1"} 2' in lines
    assert 'springback_request_seconds_bucket{le="300.0"} 2' in lines
    assert 'springback_request_seconds_bucket{le="+Inf"} 3' in lines
    assert "springback_request_seconds_sum 1000.11" in lines
    assert "springback_rows_waiting 3" in lines


def test_a_question_alone_is_framed_as_the_boosted_folder_was_measured(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(resolve(tiny_llama))
    loaded = Loaded(
        SimpleNamespace(),  # type: ignore[arg-type]  # the model is not asked
        None,
        tokenizer,
        template="Think. {question}",
        asks=True,
    )

    def read(*turns: tuple[str, str]) -> str:
        messages = [{"role": role, "content": text} for role, text in turns]
        asked = ChatRequest.model_validate({"model": "m", "messages": messages})
        return str(tokenizer.decode(asked.prompts(loaded)[0]))

    assert "Think. the thing" in read(("user", "the thing"))
    assert "Think. the thing" in read(("system", "the"), ("user", "the thing"))
    follow_up = read(("user", "the"), ("assistant", "thing"), ("user", "the thing"))
    assert "Think." not in follow_up
    # without a chat template it is a question, as in the test, and a talk is not
    tokenizer.chat_template = None
    assert read(("user", "the thing")).endswith("Question: Think. the thing\nAnswer:")
    assert "Question" not in read(("user", "a"), ("assistant", "b"), ("user", "the thing"))
