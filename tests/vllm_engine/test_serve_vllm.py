"""``springback serve`` through vLLM, by the official client."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

import openai

import springback
from served_fixture import Served
from springback.inference import Loaded

TOKEN = "a-token"


class VllmServed(Served):
    """Asks with the token, and ends gently: killed, it would leave vLLM's own processes behind."""

    timeout = 600.0
    unset = ("SPRINGBACK_TOKEN", "VLLM_ENABLE_V1_MULTIPROCESSING")

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, str]:
        return super().post(path, body, **{"Authorization": f"Bearer {TOKEN}", **headers})

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(120)
        super().close()


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    words = ("--name", "tiny", "--batch", "4", "--queue", "20", "--max-new-tokens", "200")
    more = "--enforce-eager --max-model-len 512"
    server = VllmServed(str(folder), *words, "--max-body", "20000", "--vllm", more, token=TOKEN)
    yield server
    server.close()


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return springback.load(folder)


def ask(served: Served, text: str = "the thing", **options: Any) -> Any:
    held: dict[str, Any] = {"model": "tiny", "max_tokens": 16, **options}
    return served.client.chat.completions.create(
        messages=[{"role": "user", "content": text}], **held
    )


def answer_of(loaded: Loaded, text: str = "the thing", **options: Any) -> str:
    """The plain loop's; vLLM holds back a character whose last bytes have not come."""
    how = {"max_new_tokens": 16, "reference": True, **options}
    return springback.generate(loaded, [text], **how)[0].rstrip("\ufffd")


def plain(text: str | None) -> str:
    return (text or "").rstrip("\ufffd")


def test_a_chat_is_answered_as_generate_does(served: Served, loaded: Loaded) -> None:
    """vLLM is the default where it is installed; greedy, with the folder's system message."""
    told = ask(served)
    assert plain(told.choices[0].message.content) == answer_of(loaded)
    assert told.model == "tiny"
    messages: Any = [{"role": "system", "content": "a"}, {"role": "user", "content": "the thing"}]
    told = served.client.chat.completions.create(model="tiny", messages=messages, max_tokens=16)
    assert plain(told.choices[0].message.content) == answer_of(loaded, system="a")


def test_completions_stream(served: Served, loaded: Loaded) -> None:
    chunks = served.client.completions.create(
        model="tiny", prompt="the thing", max_tokens=12, stream=True
    )
    pieces = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert plain("".join(pieces)) == answer_of(loaded, raw=True, max_new_tokens=12)
    assert len(pieces) > 3


def test_sixteen_clients_at_once_get_their_own_answers(served: Served, loaded: Loaded) -> None:
    texts = [f"the {i} thing" for i in range(16)]
    lams = [(None, 0.0, 3.0, 0.5)[i % 4] for i in range(16)]

    async def all_of_them() -> list[str]:
        client = openai.AsyncOpenAI(base_url=served.url + "/v1", api_key=TOKEN, max_retries=0)

        async def one(text: str, lam: float | None) -> str:
            extra = {} if lam is None else {"vllm_xargs": {"lambda": lam}}
            told = await client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": text}],
                max_tokens=24,
                extra_body=extra,
            )
            return plain(told.choices[0].message.content)

        async with client:
            return await asyncio.gather(*(one(*each) for each in zip(texts, lams, strict=True)))

    found = asyncio.run(all_of_them())
    for text, lam, answer in zip(texts, lams, found, strict=True):
        own = loaded.lam if lam is None else lam
        held = Loaded(
            loaded.expert,
            loaded.amateur if own else None,
            loaded.tokenizer,
            own,
            loaded.alpha,
            loaded.system,
        )
        assert answer == answer_of(held, text, max_new_tokens=24), (text, lam)
    assert len(set(found)) > 8


@pytest.mark.parametrize("lam", [None, 3.0])
def test_a_grammar_over_implausible_tokens_is_followed(served: Served, lam: float | None) -> None:
    schema = {
        "type": "object",
        "properties": {"size": {"type": "string", "enum": ["small", "large"]}},
        "required": ["size"],
        "additionalProperties": False,
    }
    told = ask(
        served,
        max_tokens=100,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        extra_body={} if lam is None else {"vllm_xargs": {"lambda": lam}},
        logprobs=True,
        top_logprobs=2,
    )
    assert json.loads(told.choices[0].message.content)["size"] in ("small", "large")


def test_what_the_gate_refuses(served: Served) -> None:
    body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 2}).encode()
    assert served.post("/v1/completions", body)[0] == 200
    assert served.post("/v1/completions", body, Authorization="Bearer x")[0] == 401
    assert served.post("/v1/completions", b" " * 20_001)[0] == 413
    assert served.post("/v1/completions", body, **{"Content-Type": "text/plain"})[0] == 415
    with pytest.raises(openai.BadRequestError, match="lambda 'x'"):
        ask(served, extra_body={"vllm_xargs": {"lambda": "x"}})
    (model,) = served.client.models.list().data
    assert model.id == "tiny"


def test_it_ends_cleanly(served: Served) -> None:
    """The last one: it stops the server of the others."""
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 0, "".join(served.said)
