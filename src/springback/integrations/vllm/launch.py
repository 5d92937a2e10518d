"""``springback serve`` through vLLM's own server, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from springback.core import Checkpoint
from springback.errors import MissingExtraError, ModelError, SpringbackError, describe
from springback.integrations.server.address import bind
from springback.integrations.server.settings import ServeSettings, check
from springback.integrations.vllm.end_tokens import generation_config
from springback.integrations.vllm.folder import PROCESSOR, Folder, open_folder
from springback.models.loading import GENERATION_CONFIG, load_tokenizer, resolve
from springback.results.store import read_json, write_json
from springback.weights import is_adapter

#: Where the server's process reads what the gate is to let through, but for the token.
GATE_SETTINGS = "SPRINGBACK_SERVE"
_GATE = "springback.integrations.vllm.gate.VllmGate"
#: Seconds between looks whether the server is up, and for broken-off answers at the end.
_LOOK, _LAST_RESORT = 0.25, 30


def serve(model: str, settings: ServeSettings, tell: Callable[[str], None] = print) -> None:
    """Serve ``model`` by vLLM until SIGINT or SIGTERM; returns after a clean end.

    ``tell`` is called with the address as soon as requests are taken.  Raises
    :class:`SpringbackError` for settings, folders and addresses that cannot be served, and when
    vLLM ends by itself.
    """
    check(settings)
    if importlib.util.find_spec("vllm") is None:
        raise MissingExtraError("vllm", "vllm", "springback serve --engine vllm")
    folder = open_for_serving(model)
    port = _free_port(settings)
    name = settings.name or Path(model).name or model
    with tempfile.TemporaryDirectory(prefix="springback-") as place:
        words = command(folder, settings, name, port, _write_generation_config(folder, place))
        _run(words, settings, name, port, tell)


def _write_generation_config(folder: Folder, place: str) -> Path | None:
    """``place`` with a generation config in it, where the folder's own lacks end tokens."""
    complete = generation_config(folder, load_tokenizer(Checkpoint(str(_tokenizer_of(folder)))))
    if complete is None:
        return None
    write_json(Path(place) / GENERATION_CONFIG, complete)
    return Path(place)


def _run(
    words: list[str], settings: ServeSettings, name: str, port: int, tell: Callable[[str], None]
) -> None:
    """Start the server and wait for its end; raises where it ends by itself."""
    server = subprocess.Popen(words, env=_environment(settings), start_new_session=True)
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        server.send_signal(signal.SIGTERM if len(stopped) == 1 else signal.SIGKILL)

    held = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{shown}:{port}"
        if _wait_until_up(server, _reached(address)):
            tell(f"serving {name} at {address}/v1")
        server.wait()
    finally:
        if server.poll() is None:
            server.kill()
        for number, handler in held.items():
            signal.signal(number, handler)
    if not stopped:
        raise SpringbackError(
            f"vLLM ended by itself (status {server.returncode}); its own words are above; "
            "mend what they say, or use --engine transformers"
        )


def open_for_serving(model: str) -> Folder:
    """:func:`open_folder`, built-in names too; raises for what vLLM is not started with."""
    folder = open_folder(resolve(model).path if not is_adapter(model) else model)
    if folder.adapter is not None and folder.amateur is None:
        raise ModelError(
            describe(
                f"{model}, a single adapter",
                "a model, a boosted folder, a pair of adapters",
                "use vLLM's own --enable-lora, or --engine transformers",
            )
        )
    return folder


def command(
    folder: Folder,
    settings: ServeSettings,
    name: str,
    port: int,
    generation: Path | None = None,
) -> list[str]:
    """The words that start vLLM's server.  Its ``vllm serve`` is not on every build's path.

    ``generation``: a folder with the generation config that counts instead of the model's own.
    """
    s = settings
    # Greedy unless a request says otherwise, as the strengths were chosen.
    defaults = {"temperature": 0.0, "max_new_tokens": s.max_new_tokens}
    words = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(folder.model), "--served-model-name", name),
        *("--host", s.host, "--port", str(port), "--middleware", _GATE),
        *("--max-num-seqs", str(s.batch), "--load-format", "safetensors"),
        *("--override-generation-config", json.dumps(defaults)),
        *("--allowed-origins", "[]", "--uvicorn-log-level", "warning"),
        *("--shutdown-timeout", str(round(s.grace))),
    ]
    if s.dtype != "auto":
        words += ["--dtype", s.dtype]
    elif _stored_dtype(folder.model) == "float32":  # vLLM would round it to 16 bits
        words += ["--dtype", "float32"]
    if (tokenizer := _tokenizer_of(folder)) != folder.model:
        words += ["--tokenizer", str(tokenizer)]
    if generation is not None:
        words += ["--generation-config", str(generation)]
    if folder.architecture is not None:
        words += ["--hf-overrides", json.dumps(folder.overrides())]
        if s.by_request:
            words += ["--logits-processors", PROCESSOR]
    if folder.adapter is not None:
        words.append("--enforce-eager")
    if s.speculate:
        drafts = {"method": "ngram", "num_speculative_tokens": s.speculate, "prompt_lookup_max": 4}
        words += ["--speculative-config", json.dumps(drafts)]
    if folder.chat.system_in_user or s.system_in_user:
        raise SpringbackError(
            describe("--system-in-user with vLLM", "without it", "use --engine transformers")
        )
    if arguments := {**folder.chat.chat_template_args, **s.chat_template_args}:
        words += ["--default-chat-template-kwargs", json.dumps(arguments)]
    if folder.system is not None:
        words += ["--chat-template", chat_template(folder)]
    return [*words, *shlex.split(s.vllm_args)]


def _tokenizer_of(folder: Folder) -> Path:
    """The folder whose tokenizer counts: an adapter's own where it has one."""
    if folder.adapter is not None and (folder.adapter / "tokenizer_config.json").exists():
        return folder.adapter
    return folder.model


def chat_template(folder: Folder) -> str:
    """The tokenizer's template with the folder's system message where a request has none."""
    from transformers import AutoTokenizer

    named = AutoTokenizer.from_pretrained(_tokenizer_of(folder), trust_remote_code=False)
    template = named.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise ModelError(
            describe(
                f"{folder.model} with a system message and no chat template",
                "one template",
                "use --engine transformers",
            )
        )
    message = json.dumps(folder.system)  # a string of Jinja too
    first = (
        "{%- if not messages | selectattr('role', 'equalto', 'system') | list %}"
        f"{{%- set messages = [{{'role': 'system', 'content': {message}}}] + messages %}}"
        "{%- endif %}"
    )
    return first + template


def _stored_dtype(model: Path) -> str | None:
    config: dict[str, Any] = read_json(model / "config.json")
    return config.get("dtype") or config.get("torch_dtype")


def _environment(settings: ServeSettings) -> dict[str, str]:
    held = {k: v for k, v in asdict(settings).items() if k != "token"}
    ours = {GATE_SETTINGS: json.dumps(held), "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if settings.token is not None:
        ours["SPRINGBACK_TOKEN"] = settings.token
    quiet = {"VLLM_LOGGING_LEVEL": "WARNING"}
    return {**quiet, **os.environ, **ours}


def _free_port(settings: ServeSettings) -> int:
    """The port asked for, or a free one; raises if the address cannot be had."""
    with bind(settings) as listening:
        return int(listening.getsockname()[1])


def _reached(address: str) -> Callable[[], bool]:
    for every, loopback in (("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")):
        address = address.replace(f"//{every}:", f"//{loopback}:")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def up() -> bool:
        try:
            with direct.open(f"{address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    return up


def _wait_until_up(server: subprocess.Popen[bytes], up: Callable[[], bool]) -> bool:
    """Whether it answers; False when it ended before."""
    while server.poll() is None:
        if up():
            return True
        time.sleep(_LOOK)
    return False
