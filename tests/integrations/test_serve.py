"""``springback serve`` through the official client: a real server in a process of its own."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed (make integrations)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (make integrations)")
openai = pytest.importorskip("openai", reason="openai is not installed (make integrations)")

import springback
from boosted_fixture import boosted
from served_fixture import Served
from springback.decoding import DecodeSettings
from springback.errors import SpringbackError
from springback.inference import Loaded
from springback.integrations.server.metrics import Metrics
from springback.integrations.server.worker import Busy, Job, Worker

TOKEN = "a-token"
BUILTIN = ("--engine", "builtin")
LONG = 400  # tokens: some tenths of a second for the tiny model


@pytest.fixture(scope="module")
def folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boosted(tiny_llama, tmp_path_factory.mktemp("boosted"), system="in the thing")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return springback.load(folder)


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    words = ("--name", "tiny", "--batch", "4", "--queue", "4", "--max-new-tokens", str(LONG))
    server = Served(str(folder), *words, "--max-body", "20000", *BUILTIN)
    yield server
    server.close()


def ask(served: Served, text: str = "the thing", **options: Any) -> Any:
    held: dict[str, Any] = {"model": "tiny", "max_tokens": 16, **options}
    return served.client.chat.completions.create(
        messages=[{"role": "user", "content": text}], **held
    )


def answer_of(loaded: Loaded, text: str = "the thing", **options: Any) -> str:
    return springback.generate(loaded, [text], **{"max_new_tokens": 16, **options})[0]


def test_a_chat_is_answered_as_generate_does(served: Served, loaded: Loaded) -> None:
    told = ask(served)
    assert told.choices[0].message.content == answer_of(loaded)
    assert told.choices[0].finish_reason in ("stop", "length")
    assert told.model == "tiny"
    assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens
    plain = springback.generate(
        Loaded(loaded.expert, None, loaded.tokenizer, system=loaded.system),
        ["the thing"],
        max_new_tokens=16,
    )
    assert told.choices[0].message.content != plain[0], "contrast must matter"


def test_the_callers_system_message_replaces_the_folders(served: Served, loaded: Loaded) -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "the thing"}]
    told = served.client.chat.completions.create(model="tiny", messages=messages, max_tokens=16)
    assert told.choices[0].message.content == answer_of(loaded, system="a")
    assert answer_of(loaded, system="a") != answer_of(loaded)


def test_sampling_repeats_with_a_seed(served: Served, loaded: Loaded) -> None:
    options: dict[str, Any] = {"temperature": 0.9, "seed": 4, "top_p": 0.9}
    extra: dict[str, Any] = {"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.2}
    told = ask(served, **options, extra_body=extra)
    assert told.choices[0].message.content == answer_of(loaded, **options, **extra)
    several = ask(served, **options, n=3)
    texts = [choice.message.content for choice in several.choices]
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert several.usage.completion_tokens > told.usage.completion_tokens


def test_completions_continue_bare_text(served: Served, loaded: Loaded) -> None:
    prompts = ["the thing", "a"]
    told = served.client.completions.create(model="tiny", prompt=prompts, max_tokens=12)
    ours = springback.generate(loaded, prompts, raw=True, max_new_tokens=12)
    assert [choice.text for choice in told.choices] == ours
    ids = loaded.tokenizer("the thing")["input_ids"]
    told = served.client.completions.create(model="tiny", prompt=ids, max_tokens=12)
    assert told.choices[0].text == ours[0]


@pytest.mark.parametrize("stop", [None, "e"])
def test_streamed_pieces_are_the_answer(served: Served, loaded: Loaded, stop: str | None) -> None:
    options = {"stop": stop} if stop else {}
    chunks = list(
        ask(served, max_tokens=40, stream=True, stream_options={"include_usage": True}, **options)
    )
    pieces = [c.choices[0].delta.content for c in chunks if c.choices]
    text = "".join(piece or "" for piece in pieces)
    assert text == answer_of(loaded, max_new_tokens=40, **options)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(chunks) > 5, "in pieces, not at the end"
    whole = ask(served, max_tokens=40, **options)
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    bare = served.client.completions.create(
        model="tiny", prompt="the thing", max_tokens=12, stream=True
    )
    ours = springback.generate(loaded, ["the thing"], raw=True, max_new_tokens=12)[0]
    assert "".join(chunk.choices[0].text for chunk in bare) == ours


def test_sixteen_clients_at_once_get_their_own_answers(served: Served, loaded: Loaded) -> None:
    """Four rows a batch and four waiting: clients that are refused come again."""
    texts = [f"the {i} thing" for i in range(16)]

    async def all_of_them() -> list[str]:
        client = openai.AsyncOpenAI(
            base_url=served.url + "/v1", api_key="none", max_retries=60, timeout=120
        )

        async def one(text: str) -> str:
            told = await client.chat.completions.create(
                model="tiny", max_tokens=16, messages=[{"role": "user", "content": text}]
            )
            return str(told.choices[0].message.content)

        async with client:
            return await asyncio.gather(*(one(text) for text in texts))

    before = served.value("batches_total")
    assert asyncio.run(all_of_them()) == springback.generate(loaded, texts, max_new_tokens=16)
    assert served.value("batches_total") - before < 16, "some were decoded together"


def test_more_than_may_wait_is_refused(served: Served) -> None:
    """However quick the decoder is beside this client: it asks until it is refused."""
    streams = [ask(served, max_tokens=LONG, stream=True)]
    next(iter(streams[0]))  # it runs, so that no other is decoded together with it
    try:
        with pytest.raises(openai.RateLimitError, match="too many requests wait"):
            streams.extend(ask(served, max_tokens=LONG, stream=True) for _ in range(200))
        assert len(streams) >= 5, "one runs, four may wait"
    finally:
        for stream in streams:
            stream.close()
    _idle(served)
    assert ask(served).choices[0].message.content


def test_a_client_that_left_takes_no_place_among_those_that_wait(loaded: Loaded) -> None:
    worker = Worker(loaded, batch=1, queue=1, metrics=Metrics())
    started, go_on = threading.Event(), threading.Event()
    ended: list[object] = []

    def hold(row: int, token: int) -> None:
        started.set()
        assert go_on.wait(60)

    def job(on_token: Callable[[int, int], None] = lambda row, token: None) -> Job:
        return Job([[1, 2, 3]], DecodeSettings(max_new_tokens=2), on_token, ended.append)

    worker.submit(job(hold))
    assert started.wait(60)
    left, waits = job(), job()
    worker.submit(left)
    with pytest.raises(Busy):
        worker.submit(waits)
    left.cancelled.set()
    worker.submit(waits)
    assert worker.waiting == 1
    with pytest.raises(Busy):
        worker.submit(job())
    go_on.set()
    end = time.monotonic() + 60
    while len(ended) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    worker.close()
    assert [type(answers) for answers in ended] == [list, list]


def _idle(served: Served) -> None:
    end = time.monotonic() + 30
    while served.value("rows_running") or served.value("rows_waiting"):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_client_that_leaves_frees_the_decoder(served: Served) -> None:
    """Its batch is broken off, not finished; once at least, should the decoder be the quicker."""
    for _ in range(5):
        finished = served.value("batches_total")
        stream = ask(served, max_tokens=LONG, stream=True, n=4)
        next(iter(stream))
        stream.close()
        _idle(served)
        if served.value("batches_total") == finished:
            return
    pytest.fail("every batch was finished for a client that had left")


def test_models_health_and_metrics(served: Served) -> None:
    assert [model.id for model in served.client.models.list()] == ["tiny"]
    assert served.client.models.retrieve("tiny").owned_by == "springback"
    assert served.get("/health") == (200, '{"status":"ok"}')
    ask(served)
    text = served.get("/metrics")[1]
    assert re.search(
        r'springback_requests_total\{route="/v1/chat/completions",status="200"\} \d+', text
    )
    assert served.value("amateur_calls_total") > 0
    assert served.value("request_seconds_count") > 0
    assert 'le="+Inf"' in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "other"}, "no model 'other'; served: 'tiny'"),
        ({"max_tokens": LONG + 1}, f"allowed by the server: {LONG}"),
        ({"text": "the " * 600}, "the model takes 512"),
        ({"n": 5}, "5 answers in one request; allowed: 4"),
        ({"logprobs": True}, "logprobs is not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported; allowed: 0"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
        ({"stop": ""}, "stop: allowed are up to 4 texts"),
        ({"top_p": 2}, "top_p"),
        ({"extra_body": {"lambda": 2}}, "lambda"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    served: Served, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError), match=re.escape(message)):
        ask(served, **options)


def test_what_asks_for_nothing_is_taken(served: Served, loaded: Loaded) -> None:
    told = ask(served, frequency_penalty=0, user="me", response_format={"type": "text"})
    assert told.choices[0].message.content == answer_of(loaded)


def test_a_page_in_the_browser_cannot_reach_it(served: Served) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}).encode()
    path = "/v1/chat/completions"
    assert served.post(path, body)[0] == 200
    assert served.post(path, body, Host="evil.example")[0] == 403  # a name that was rebound
    assert served.post(path, body, **{"Content-Type": "text/plain"})[0] == 415  # a plain form
    assert served.post(path, b"{")[0] == 400
    assert served.post(path, b"[1]")[0] == 400
    status, text = served.post(path, b" " * 20001)
    assert status == 413
    assert json.loads(text)["error"]["message"] == "the body is larger than 20000 bytes"
    assert served.get("/v1/nothing")[0] == 404
    assert served.get(path)[0] == 405


def test_a_token_is_asked_for_and_running_answers_are_finished(folder: Path) -> None:
    served = Served(str(folder), "--name", "tiny", "--grace", "60", *BUILTIN, token=TOKEN)
    try:
        wrong = served.client.with_options(api_key="another")  # shares the connection
        with pytest.raises(openai.AuthenticationError, match="wrong or missing token"):
            wrong.models.list()
        assert served.get("/metrics")[0] == 401
        assert served.get("/health")[0] == 200
        assert served.get("/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
        stream = iter(ask(served, max_tokens=60, stream=True))
        next(stream)
        served.process.send_signal(signal.SIGTERM)
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
        assert served.process.wait(60) == 0
    finally:
        served.close()
    assert TOKEN not in "".join(served.said)
    assert "Traceback" not in "".join(served.said)


def test_answers_that_take_too_long_are_broken_off(folder: Path) -> None:
    served = Served(
        str(folder), "--name", "tiny", "--grace", "0", "--max-new-tokens", "450", *BUILTIN
    )
    try:
        streams = [iter(ask(served, max_tokens=440, stream=True, n=8)) for _ in range(4)]
        next(streams[0])
        begin = time.monotonic()
        served.process.send_signal(signal.SIGINT)
        for stream in streams:
            with pytest.raises(openai.APIError, match="the server is stopping"):
                list(stream)
        assert served.process.wait(60) == 0
        assert time.monotonic() - begin < 20
    finally:
        served.close()
    assert "Traceback" not in "".join(served.said)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--engine", "vllm"), "needs the package 'vllm'"),
        (("--host", "0.0.0.0"), "without a token"),
        (("--batch", "0"), "given: --batch 0; allowed: 1 or more"),
        (("--port", "70000"), "given: --port 70000"),
    ],
)
def test_settings_that_cannot_be_followed(
    words: tuple[str, ...], message: str, folder: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "springback.cli", "serve", str(folder), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_a_server_decodes_in_the_dtype_that_is_asked_for(folder: Path) -> None:
    words = ("--name", "tiny", "--dtype", "bfloat16", "--device", "cpu", *BUILTIN)
    server = Served(str(folder), *words)
    try:
        rounded = springback.load(folder, dtype="bfloat16")
        assert ask(server).choices[0].message.content == answer_of(rounded)
    finally:
        server.close()


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(served: Served) -> None:
    from springback.integrations.server.run import serve
    from springback.integrations.server.settings import ServeSettings

    port = int(served.url.rpartition(":")[2])
    with pytest.raises(SpringbackError, match=f"port {port} .*choose another --port"):
        serve("no-model", ServeSettings(port=port))
