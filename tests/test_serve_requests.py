"""What the built-in server takes, refuses, and does not wait for: any client, through a socket."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import springback
from boosted_fixture import boosted
from springback.integrations.server import connections, gate
from springback.integrations.server.app import Server
from springback.integrations.server.run import config_of
from springback.integrations.server.settings import ServeSettings

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "the thing"}
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
#: Connections that the server takes at most, with the settings below.
MOST = 2 * (4 + 4) + 64


class Running:
    """The server in a thread of this process, so that its time limits can be made short."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        held = ServeSettings(batch=4, queue=4, max_new_tokens=64, **settings)
        self.uvicorn = uvicorn.Server(config_of(Server(springback.load(folder), held, "tiny")))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        run = {"sockets": [self.socket]}
        self.thread = threading.Thread(target=self.uvicorn.run, kwargs=run, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(30)
        self.socket.close()

    def send(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Status and answer, which is JSON whatever was asked."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        held = {"Content-Type": "application/json", **headers}
        try:
            client.request("GET" if body is None else "POST", path, body, held)
            response = client.getresponse()
            return response.status, json.loads(response.read())
        finally:
            client.close()

    def chat(self, *messages: Any, **options: Any) -> tuple[int, Any]:
        """Status, and the answer's text or the reason of the refusal."""
        body = {"max_tokens": 6, "messages": [*messages] or [USER], **options}
        status, answer = self.send(CHAT, json.dumps(body).encode())
        if status != 200:
            return status, answer["error"]["message"]
        return status, answer["choices"][0]["message"]["content"]

    def open(self, sent: bytes) -> socket.socket:
        """A connection on which ``sent`` was sent."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        client.sendall(sent)
        return client


def rest(client: socket.socket) -> bytes:
    """All that still comes until the server closes the connection."""
    got = b""
    with client:
        while piece := client.recv(65536):
            got += piece
    return got


@pytest.fixture(scope="module")
def folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boosted(tiny_llama, tmp_path_factory.mktemp("boosted"))


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    server = Running(folder)
    yield server
    server.close()


@pytest.fixture(scope="module")
def plain(running: Running) -> str:
    status, text = running.chat()
    assert status == 200
    return str(text)


@pytest.mark.parametrize(
    "options",
    [
        dict.fromkeys(("model", "temperature", "top_p", "n", "stop", "stream", "seed"), None),
        dict.fromkeys(("top_k", "min_p", "repetition_penalty", "stream_options"), None),
        dict.fromkeys(("reasoning_effort", "audio", "web_search_options", "unheard_of"), None),
        {"stream_options": {"include_usage": None, "include_obfuscation": False}},
        {"top_k": -1, "num_beams": 1, "best_of": 1, "length_penalty": 1.0},
        {"min_tokens": 0, "ignore_eos": False, "stop_token_ids": [], "skip_special_tokens": True},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "function_call": "none"},
        {"metadata": {"a": "b"}, "user": "me", "prediction": {"type": "content", "content": "x"}},
        {"verbosity": "medium", "logit_bias": {}, "modalities": ["text"], "logprobs": False},
        {"temperature": 1e-320},
    ],
)
def test_what_asks_for_nothing_changes_nothing(
    running: Running, plain: str, options: dict[str, Any]
) -> None:
    assert running.chat(**options) == (200, plain)


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": -2},
        {"num_beams": 2},
        {"min_tokens": 3},
        {"ignore_eos": True},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"reasoning_effort": "low"},
        {"verbosity": "low"},
        {"stream_options": {"include_obfuscation": True}},
        {"unheard_of": 0},
        {"messages": None},
        # In JSON true is not 1, and 0 is not false: of a completion 0 asks for logprobs.
        {"logprobs": 0},
        {"logprobs": 1},
        {"best_of": True},
        {"frequency_penalty": False},
        *({name: True} for name in ("max_tokens", "n", "seed", "temperature", "top_p", "top_k")),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(
    running: Running, options: dict[str, Any]
) -> None:
    status, reason = running.chat(**options)
    assert status == 400
    assert next(iter(options)) in reason


def test_metadata_of_messages_and_their_parts_is_ignored(running: Running, plain: str) -> None:
    extra = {"id": "3", "timestamp": 1, "name": "me", "annotations": [{"type": "x"}]}
    assert running.chat({**USER, **extra}) == (200, plain)
    part = {"type": "text", "text": "the thing", "cache_control": {"type": "ephemeral"}, "x": None}
    assert running.chat({"role": "user", "content": [part]}) == (200, plain)


def test_an_answer_as_the_sdk_dumps_it_is_history(running: Running) -> None:
    answer = {"role": "assistant", "content": "a"}
    empty = dict.fromkeys(("refusal", "tool_calls", "function_call", "audio", "annotations"), None)
    expected = running.chat(USER, answer, USER)
    assert expected[0] == 200
    assert running.chat(USER, {**answer, **empty}, USER) == expected
    assert running.chat(USER, {**answer, "tool_calls": [], "annotations": []}, USER) == expected


@pytest.mark.parametrize("name", ["tool_calls", "function_call", "audio", "refusal", "prefix"])
def test_what_a_message_says_beside_its_text_is_refused(running: Running, name: str) -> None:
    status, reason = running.chat(USER, {"role": "assistant", "content": "a", name: "x"}, USER)
    assert (status, f"{name} of a message" in reason) == (400, True)
    assert running.chat({"role": "user", "content": None})[0] == 400


SURROGATE = b"\\ud83d"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"prompt": "' + SURROGATE + b'"}', "surrogate"),
        (b'{"prompt": ["a", "' + SURROGATE + b'"]}', "surrogate"),
        (b'{"prompt": "\xed\xa0\xbd"}', "surrogate"),
        (b'{"prompt": "a", "stop": "' + SURROGATE + b'"}', "surrogate"),
        (b'{"prompt": "a", "model": "' + SURROGATE + b'"}', "surrogate"),
        (b'{"prompt": "a", "' + SURROGATE + b'": 1}', "surrogate"),
        (b'{"prompt": "a", "user": "' + SURROGATE + b'"}', "surrogate"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "nested too deeply"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
        (b'{"prompt": "a", "user": [-' + b"9" * 5000 + b"]}", "not JSON that can be read"),
        (b"{", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"", "body"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_in_a_line(
    running: Running, body: bytes, reason: str
) -> None:
    status, answer = running.send(TEXT, body)
    assert status == 400
    assert reason in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 400


@pytest.mark.parametrize(
    "prompt",
    [5, {}, [True, False], [5, "a"], ["a", 5], [None], [1.5], [["5"]], [[5], "a"], [[[5]]]],
)
def test_a_prompt_of_another_form_is_refused_with_the_forms_allowed(
    running: Running, prompt: Any
) -> None:
    status, answer = running.send(TEXT, json.dumps({"prompt": prompt, "max_tokens": 1}).encode())
    assert status == 400
    assert answer["error"]["message"].startswith("prompt: allowed: a text, a list of texts")


def test_prompts_as_token_ids_are_answered_one_by_one(running: Running) -> None:
    def texts(prompt: Any) -> list[str]:
        status, answer = running.send(
            TEXT, json.dumps({"prompt": prompt, "max_tokens": 3}).encode()
        )
        assert status == 200
        return [choice["text"] for choice in answer["choices"]]

    assert texts([[5, 6], [7, 8, 9]]) == [*texts([5, 6]), *texts([7, 8, 9])]


def test_a_whole_pair_of_surrogates_is_a_character(running: Running) -> None:
    assert running.send(TEXT, b'{"max_tokens": 1, "prompt": "\\ud83d\\ude42"}')[0] == 200


def test_a_request_with_both_lengths_is_refused_and_nothing_behind_it_is_read(
    running: Running,
) -> None:
    both = HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    got = rest(running.open(both + b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
    assert got.count(b"HTTP/1.1 ") == 1
    assert got.startswith(b"HTTP/1.1 400")
    assert b"allowed: one of them" in got


@pytest.mark.parametrize(
    ("sent", "trickled", "status"),
    [
        (b"", b"", b""),  # connected, and nothing more
        (b"GET /hea", b"l", b""),
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"A: b\r\n", b""),
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n", b"a", b"200"),
        (HEAD + b"Content-Length: 99\r\n\r\n{", b" ", b"408"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", b"408"),
    ],
)
def test_a_half_sent_request_ends_in_time_however_it_trickles(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
    trickled: bytes,
    status: bytes,
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.6)
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.6)
    client = running.open(sent)
    begin, got = time.monotonic(), b""
    client.settimeout(0.1)
    with client:
        while time.monotonic() - begin < 10:
            try:
                client.sendall(trickled)
                piece = client.recv(65536)
            except TimeoutError:
                continue
            except OSError:  # it was reset
                break
            if not piece:
                break
            got += piece
    assert time.monotonic() - begin < 5
    assert got.startswith(b"HTTP/1.1 " + status if status else b"")
    assert bool(got) == bool(status)


def test_half_sent_requests_keep_nobody_out(running: Running, plain: str) -> None:
    half = [running.open(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n") for _ in range(MOST + 20)]
    try:
        assert running.chat() == (200, plain)
    finally:
        for client in half:
            client.close()
    assert running.chat() == (200, plain)


def test_a_slow_answer_and_a_kept_connection_are_no_late_heads(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    body = json.dumps({"prompt": "a", "max_tokens": 64, "n": 4})
    for pause in (0.5, 0.5, 0.0):
        client.request("POST", TEXT, body, {"Content-Type": "application/json"})
        response = client.getresponse()
        response.read()
        assert response.status == 200
        time.sleep(pause)
    client.close()


def test_a_client_that_does_not_read_is_cut_off(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 0.5)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5)
        client.connect(("127.0.0.1", running.port))
        asked = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 500_000
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            client.sendall(asked)
    assert running.chat()[0] == 200
