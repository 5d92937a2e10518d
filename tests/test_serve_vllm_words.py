"""What ``springback serve`` asks vLLM for, and refuses before it; vLLM is not needed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from boosted_fixture import boosted
from springback.errors import MissingExtraError, ModelError, SpringbackError
from springback.integrations.server.settings import ServeSettings, check, engine_of
from springback.integrations.vllm import launch
from springback.integrations.vllm.folder import PAIR, PROCESSOR, open_folder, strengths_of
from springback.integrations.vllm.gate import VllmGate
from springback.results.store import read_json, write_json

WITH_VLLM = ServeSettings(engine="vllm")


@pytest.fixture(scope="module")
def folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boosted(tiny_llama, tmp_path_factory.mktemp("boosted"), system='say "yes"')


def words(folder: Path, **changes: Any) -> list[str]:
    settings = ServeSettings(**{"engine": "vllm", **changes})
    check(settings)
    return launch.command(open_folder(folder), settings, "mine", 8000)


def after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_a_boosted_folder_is_served_as_a_pair(folder: Path) -> None:
    told = words(folder, batch=3, max_new_tokens=7, grace=2)
    assert json.loads(after(told, "--hf-overrides")) == {"architectures": [PAIR]}
    assert after(told, "--logits-processors") == PROCESSOR
    defaults = json.loads(after(told, "--override-generation-config"))
    assert defaults == {"temperature": 0.0, "max_new_tokens": 7}
    assert (after(told, "--max-num-seqs"), after(told, "--shutdown-timeout")) == ("3", "2")
    assert after(told, "--dtype") == "float32", "what is stored in fp32 is decoded in fp32"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_that_is_asked_for_goes_to_vllm(folder: Path, dtype: str) -> None:
    assert after(words(folder, dtype=dtype), "--dtype") == dtype


@pytest.mark.parametrize("where", [{"device": "cuda:1"}, {"device_map": "auto"}])
def test_devices_are_vllms_own_business(folder: Path, where: dict[str, Any]) -> None:
    with pytest.raises(SpringbackError, match="with vLLM; allowed: CUDA_VISIBLE_DEVICES"):
        words(folder, **where)
    check(ServeSettings(engine="builtin", **where))


def test_speculation_and_strengths_by_request_are_two_modes(folder: Path) -> None:
    told = words(folder, speculate=4)
    assert "--logits-processors" not in told
    drafts = json.loads(after(told, "--speculative-config"))
    assert (drafts["method"], drafts["num_speculative_tokens"]) == ("ngram", 4)
    with pytest.raises(SpringbackError, match="--speculate with --per-request"):
        words(folder, speculate=4, per_request=True)


def test_a_plain_folder_needs_no_plugin(tiny_llama: Path) -> None:
    told = words(tiny_llama, vllm_args="--tensor-parallel-size 2")
    assert not {"--hf-overrides", "--logits-processors", "--chat-template"} & {*told}
    assert told[-2:] == ["--tensor-parallel-size", "2"]


def test_the_system_message_comes_unless_the_caller_has_one(folder: Path) -> None:
    from springback.models.loading import load_tokenizer, resolve

    tokenizer = load_tokenizer(resolve(folder))
    template = after(words(folder), "--chat-template")
    user = {"role": "user", "content": "x"}
    for first, expected in (
        ([], {"role": "system", "content": 'say "yes"'}),
        ([{"role": "system", "content": "no"}], {"role": "system", "content": "no"}),
    ):
        ours = tokenizer.apply_chat_template(
            [*first, user], chat_template=template, tokenize=False, add_generation_prompt=True
        )
        assert ours == tokenizer.apply_chat_template(
            [expected, user], tokenize=False, add_generation_prompt=True
        )


def test_auto_is_vllm_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec, expected in ((None, "transformers"), (object(), "vllm")):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, found=spec: found)
        assert engine_of(ServeSettings()) == expected
        assert engine_of(ServeSettings(engine="builtin")) == "transformers", "its old name"


def test_vllm_options_are_refused_for_the_built_in_server() -> None:
    for change in ({"speculate": 4}, {"per_request": True}, {"vllm_args": "--x"}):
        with pytest.raises(SpringbackError, match="with the built-in server"):
            check(ServeSettings(engine="builtin", **change))


def test_a_missing_vllm_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"springback\[vllm\]"):
        launch.serve(str(folder), WITH_VLLM)


def test_folders_that_vllm_cannot_take(folder: Path, tiny_llama: Path, tmp_path: Path) -> None:
    whole = read_json(folder / "springback.json")
    (tmp_path / "model.safetensors").write_bytes(b"")
    for changes, told in (
        ({"kind": "contrast"}, "ContrastModel wrote"),
        ({"amateur": "../elsewhere"}, "a folder inside this one"),
        ({"amateur": "weak"}, "without safetensors"),
    ):
        write_json(tmp_path / "springback.json", {**whole, **changes})
        with pytest.raises(ModelError, match=told):
            open_folder(tmp_path)
    assert open_folder(tiny_llama).architecture is None


@pytest.mark.parametrize(
    "extra", [{"lambda": -0.1}, {"lambda": "inf"}, {"alpha": 1.1}, {"alpha": []}]
)
def test_strengths_out_of_range_are_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed: a number"):
        strengths_of(extra)


def test_strengths_of_a_request() -> None:
    assert strengths_of({"lambda": 0, "alpha": "0.5", "other": 1}) == (0.0, 0.5)
    assert strengths_of(None) == (None, None)


class Client:
    """Sends a body through the gate, and holds the status."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        monkeypatch.setenv(launch.GATE_SETTINGS, json.dumps({"engine": "vllm", **settings}))
        monkeypatch.delenv("SPRINGBACK_TOKEN", raising=False)
        self.wait = asyncio.Event()
        self.gate = VllmGate(self.app)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await self.wait.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def post(self, body: Any) -> int:
        status: list[int] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}
        await self.gate(scope, receive, send)
        return status[0]


def test_strengths_by_request_are_refused_where_they_would_be_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def statuses(client: Client) -> list[int]:
        client.wait.set()
        bodies: tuple[Any, ...] = (
            {"vllm_xargs": {"lambda": 1}},
            {"vllm_xargs": {"other": 1}},
            {"prompt": "x"},
            [],
        )
        return [await client.post(body) for body in bodies]

    assert asyncio.run(statuses(Client(monkeypatch, speculate=2))) == [400, 200, 200, 200]
    assert asyncio.run(statuses(Client(monkeypatch))) == [200] * 4


def test_more_than_may_wait_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def three() -> list[int]:
        client = Client(monkeypatch, batch=1, queue=1)
        first = [asyncio.create_task(client.post({})) for _ in range(2)]
        await asyncio.sleep(0)
        third = await client.post({})
        client.wait.set()
        return [*await asyncio.gather(*first), third, await client.post({})]

    assert asyncio.run(three()) == [200, 200, 429, 200]
