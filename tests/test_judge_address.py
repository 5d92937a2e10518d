"""The judge behind an address, against small servers on this machine: never the network."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from springback.errors import SpringbackError
from springback.probes import load_scorer
from springback.probes.judges import address
from springback.probes.judges.rubrics import TEXTS

KEY = "sk-secret-of-the-test"
#: Status and reply to the nth request.
Answer = Callable[[int, dict[str, Any]], tuple[int, Any]]


class Judge:
    """A server that records what it is asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.lock = threading.Lock()


def said(text: str | None) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def by_answer(_: int, body: dict[str, Any]) -> tuple[int, Any]:
    """Yes to answers with "bomb" in them, nonsense to empty ones."""
    text = body["messages"][0]["content"]
    answer = text.partition("[Answer]\n")[2].partition("\n[End of the answer]")[0]
    return 200, said("Yes." if "bomb" in answer else "**no**, not that" if answer else "Perhaps")


@contextmanager
def serving(answer: Answer, **headers: str) -> Iterator[Judge]:
    judge = Judge()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with judge.lock:
                number = len(judge.bodies)
                judge.bodies.append(body)
                judge.headers.append(dict(self.headers))
            status, reply = answer(number, body)
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _quick_and_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(address.KEY, raising=False)
    monkeypatch.setattr(address, "WAITS", (0.0, 0.0))


def test_verdicts_by_the_rubric_at_temperature_0() -> None:
    with serving(by_answer) as judge:
        scorer = load_scorer(f"openai:{judge.url}/#org/m:8b=harmful")
        found = scorer.score(["how?", "what?", "who?"], ["a bomb", "bread", "a bomb too"])
    assert found == [1.0, 0.0, 1.0]
    asked = {body["messages"][0]["content"] for body in judge.bodies}
    assert TEXTS["harmful"].replace("{prompt}", "how?").replace("{answer}", "a bomb") in asked
    assert all(body["temperature"] == 0 and body["model"] == "org/m:8b" for body in judge.bodies)
    assert all("Authorization" not in headers for headers in judge.headers)
    assert (scorer.name, scorer.unit, scorer.asked) == ("org/m:8b=harmful", "share yes", True)
    assert scorer.sends_to == judge.url


def test_a_reply_that_is_neither_is_a_gap_and_too_many_are_an_error() -> None:
    with serving(by_answer) as judge:
        scorer = load_scorer(f"openai:{judge.url}#m")
        assert list(map(str, scorer.score([""] * 2, ["", "bread"]))) == ["nan", "0.0"]
        with pytest.raises(SpringbackError, match="neither yes nor no to more than half of 3"):
            scorer.score([""] * 3, ["", "", "bread"])
    with (  # all of it was thought
        serving(lambda n, body: (200, said(None))) as judge,
        pytest.raises(SpringbackError, match="neither yes nor no"),
    ):
        load_scorer(f"openai:{judge.url}#m").score([""], ["x"])


def test_the_key_is_sent_and_stands_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(address.KEY, f" {KEY}\n")
    with serving(by_answer) as judge:
        scorer = load_scorer(f"openai:{judge.url}#m", tmp_path)
        scorer.score(["p"], ["a bomb"])
    assert [h["Authorization"] for h in judge.headers] == [f"Bearer {KEY}"]
    assert KEY not in repr(scorer)
    (file,) = tmp_path.iterdir()
    kept = file.read_text()
    assert KEY not in kept
    assert "bomb" not in kept  # hashes, no texts
    with (
        serving(lambda n, body: (401, {"error": {"message": f"{KEY} and the text"}})) as judge,
        pytest.raises(SpringbackError, match=f"status 401.*variable {address.KEY}") as caught,
    ):
        load_scorer(f"openai:{judge.url}#m").score(["p"], ["the text"])
    assert KEY not in str(caught.value)
    assert "the text" not in str(caught.value)
    monkeypatch.setenv(address.KEY, "two\nlines")
    with pytest.raises(SpringbackError, match="holds signs that no key has") as caught:
        load_scorer(f"openai:{judge.url}#m").score(["p"], ["x"])
    assert "two" not in str(caught.value)


def test_nothing_is_asked_for_twice(tmp_path: Path) -> None:
    prompts, texts = ["p", "p", "q", "p"], ["a bomb", "bread", "", "a bomb"]
    with serving(by_answer) as judge:
        scorer = load_scorer(f"openai:{judge.url}#m", tmp_path)
        first = scorer.score(prompts, texts)
        assert len(judge.bodies) == 3
        again = load_scorer(f"openai:{judge.url}#m", tmp_path).score(prompts, texts)
        assert len(judge.bodies) == 3  # a reply that was neither is not asked for again either
        assert list(map(str, again)) == list(map(str, first)) == ["1.0", "0.0", "nan", "1.0"]
        load_scorer(f"openai:{judge.url}#other", tmp_path).score(prompts, texts)
        assert len(judge.bodies) == 6
        for file in tmp_path.iterdir():
            file.write_text("{")
        with pytest.warns(UserWarning, match="damaged and counts for nothing"):
            load_scorer(f"openai:{judge.url}#m", tmp_path).score(prompts, texts)
        assert len(judge.bodies) == 9


def test_what_was_answered_before_a_failure_stays(tmp_path: Path) -> None:
    texts = [f"bread {i}" for i in range(40)]
    with serving(lambda n, b: by_answer(n, b) if n < 20 else (400, {})) as judge:
        scorer = load_scorer(f"openai:{judge.url}#m", tmp_path)
        with pytest.raises(SpringbackError, match="status 400"):
            scorer.score([""] * 40, texts)
        assert len(json.loads(next(tmp_path.iterdir()).read_text())) == 16


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with serving(lambda n, b: by_answer(n, b) if n == 2 else (status, {})) as judge:
        assert load_scorer(f"openai:{judge.url}#m").score(["p"], ["a bomb"]) == [1.0]
        assert len(judge.bodies) == 3
    with (
        serving(lambda n, b: (status, {})) as judge,
        pytest.raises(SpringbackError, match=f"status {status}, 3 times from the judge at"),
    ):
        load_scorer(f"openai:{judge.url}#m").score(["p"], ["a bomb"])


def test_the_servers_own_wait_is_kept_to_within_bounds() -> None:
    assert address._seconds("7", 1.0) == 7.0
    assert address._seconds("99999", 1.0) == address.LONGEST_WAIT
    for odd in (None, "Wed, 21 Oct 2026 07:28:00 GMT", "-3", "nan"):
        assert address._seconds(odd, 4.0) == 4.0


@pytest.mark.parametrize("reply", [b"<html>", b"{}", b"[]", b'{"choices": []}', b"[" * 100_000])
def test_a_reply_of_another_form_is_one_line(reply: bytes) -> None:
    with (
        serving(lambda n, body: (200, reply)) as judge,
        pytest.raises(SpringbackError, match="a reply that is no chat completion") as caught,
    ):
        load_scorer(f"openai:{judge.url}#m").score(["p"], ["x"])
    assert "\n" not in str(caught.value)


def test_a_slow_server_and_none_at_all_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "TIMEOUT", 0.1)
    release = threading.Event()

    def slow(_: int, body: dict[str, Any]) -> tuple[int, Any]:
        release.wait(5)
        return by_answer(0, body)

    with serving(slow) as judge:
        try:
            with pytest.raises(SpringbackError, match="TimeoutError, 3 times"):
                load_scorer(f"openai:{judge.url}#m").score(["p"], ["x"])
        finally:
            release.set()
    with pytest.raises(SpringbackError, match="ConnectionRefusedError, 3 times"):
        load_scorer(f"openai:{judge.url}#m").score(["p"], ["x"])


def _moved(status: int, _: int, __: dict[str, Any]) -> tuple[int, Any]:
    return status, {}


def test_texts_follow_no_redirect_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go where the user said; a loopback address is reached past a proxy."""
    monkeypatch.setenv(address.KEY, KEY)
    with serving(by_answer) as elsewhere:
        monkeypatch.setenv("http_proxy", elsewhere.url)
        target = f"{elsewhere.url}/chat/completions"
        for status in (301, 302, 303, 307, 308):
            with (
                serving(partial(_moved, status), Location=target) as judge,
                pytest.raises(SpringbackError, match="leads elsewhere"),
            ):
                load_scorer(f"openai:{judge.url}#m").score(["p"], ["x"])
        assert elsewhere.bodies == []


@pytest.mark.parametrize(
    "spec",
    [
        "openai:",
        "openai:m",
        "openai:http://#m",
        "openai:ftp://h/v1#m",
        "openai:http://h:x/v1#m",
        "openai:http://h:0/v1#m",
        "openai:http://h/v1",
        "openai:http://h/v1#",
        "openai:http://h/v1#=harmful",
    ],
)
def test_a_spec_of_another_form_names_those_allowed(spec: str) -> None:
    with pytest.raises(SpringbackError, match=r"allowed: vader, .*openai:URL#MODEL"):
        load_scorer(spec)


@pytest.mark.parametrize("url", [f"https://me:{KEY}@h/v1", f"https://h/v1?key={KEY}"])
def test_an_address_with_a_secret_in_it_is_refused(url: str) -> None:
    with pytest.raises(SpringbackError, match=f"put the key into {address.KEY}") as caught:
        load_scorer(f"openai:{url}#m")
    assert KEY not in str(caught.value)


@pytest.fixture
def served(tiny_llama: Path) -> Iterator[tuple[Any, str]]:
    """`springback serve` with the tiny model, in a thread: the model, and the server's address."""
    pytest.importorskip("uvicorn")
    import uvicorn

    from springback.inference import load
    from springback.integrations.server.app import Server
    from springback.integrations.server.run import config_of
    from springback.integrations.server.settings import ServeSettings

    loaded = load(tiny_llama)
    server = Server(loaded, ServeSettings(), "tiny")
    running = uvicorn.Server(config_of(server))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield loaded, f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    running.should_exit = True
    thread.join(30)
    server.worker.close()
    listening.close()


def test_our_own_server_can_be_the_judge(served: tuple[Any, str]) -> None:
    """What the client sends is what the server takes; a random model says neither yes nor no."""
    from springback.inference import generate

    loaded, url = served
    client = address.Client(url, "tiny")
    question = TEXTS["harmful"].replace("{prompt}", "the").replace("{answer}", "thing")
    assert (
        client.reply(question, threading.Event())
        == generate(loaded, [question], max_new_tokens=64)[0]
    )
    with pytest.raises(SpringbackError, match="neither yes nor no to more than half of 2"):
        load_scorer(f"openai:{url}#tiny").score(["the", "a"], ["thing", "heron"])


def test_a_failure_ends_the_others_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """One question is refused for good while another waits for its next try."""
    monkeypatch.setattr(address, "WAITS", (600.0,))

    def refuse_one(_: int, body: dict[str, Any]) -> tuple[int, Any]:
        return (400 if "bomb" in body["messages"][0]["content"] else 503), {}

    with (
        serving(refuse_one) as judge,
        pytest.raises(SpringbackError, match="status 400"),
    ):
        # The first result that is waited for is the one that fails.
        load_scorer(f"openai:{judge.url}#m").score(["p", "p"], ["a bomb", "bread"])


def test_a_link_in_the_place_of_kept_verdicts_is_refused(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere.json", tmp_path / "partial"
    folder.mkdir()
    with serving(by_answer) as judge:
        scorer = load_scorer(f"openai:{judge.url}#m", folder)
        scorer.score(["p"], ["bread"])
        (kept,) = folder.iterdir()
        kept.rename(elsewhere)
        kept.symlink_to(elsewhere)
        with pytest.raises(SpringbackError, match="is a link"):
            scorer.score(["p"], ["a bomb"])
    assert len(judge.bodies) == 1
