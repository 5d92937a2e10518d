"""How to serve.  Light: the help of the command line reads it."""

from __future__ import annotations

import importlib.util
import ipaddress
from dataclasses import dataclass, field

from springback.errors import SpringbackError, describe
from springback.settings import (
    ENGINES,
    ChatSettings,
    ComputeSettings,
    Settings,
    engine_named,
    setting,
)


@dataclass(frozen=True)
class VllmSettings(Settings, group="vLLM"):
    """What is for vLLM only."""

    speculate: int = setting(0, "Tokens drafted from the prompt. 0: none.")
    per_request: bool | None = setting(
        None, "Requests may name lambda and alpha. [default: unless --speculate, which excludes it]"
    )
    vllm_args: str = setting("", "More of vLLM's own options, as one text.", flag="vllm")


@dataclass(frozen=True)
class LimitSettings(Settings, group="Limits"):
    """What the server takes on, and for how long."""

    batch: int = setting(8, "Answers decoded together.")
    queue: int = setting(64, "Answers that may wait; more are refused with 429.")
    max_new_tokens: int = setting(
        1024, "Longest answer of one request, and its length where the request names none."
    )
    max_body: int = setting(1_000_000, "Bytes of a request.")
    grace: float = setting(20.0, "Seconds that running answers have at the end.")


@dataclass(frozen=True)
class ServeSettings(ComputeSettings, VllmSettings, LimitSettings, ChatSettings):
    """``token``: what clients give as their API key; None asks for none, on loopback only."""

    host: str = setting("127.0.0.1", "Another one than this machine needs a token.")
    port: int = setting(8000, "0: any free one.")
    name: str | None = setting(None, "What clients call the model. [default: the folder's name]")
    token: str | None = field(default=None, repr=False)
    engine: str = setting("auto", f"{', '.join(ENGINES)}; auto is vLLM where it is installed.")

    @property
    def by_request(self) -> bool:
        """Whether requests may name lambda and alpha."""
        return not self.speculate if self.per_request is None else self.per_request


def engine_of(settings: ServeSettings) -> str:
    """``transformers`` or ``vllm``: what ``auto`` stands for here."""
    engine = engine_named(settings.engine)
    if engine != "auto":
        return engine
    return "vllm" if importlib.util.find_spec("vllm") is not None else "transformers"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check(settings: ServeSettings) -> None:
    """Raise :class:`SpringbackError` on settings that cannot be followed."""
    s = settings
    engine_named(s.engine)
    _check_vllm(s)
    if s.token is not None and not s.token.strip():
        raise SpringbackError("the token is empty; give one, or leave it out on loopback")
    if not is_loopback(s.host) and s.token is None:
        raise SpringbackError(
            describe(
                f"--host {s.host} without a token",
                "127.0.0.1, or any host with a token",
                "set SPRINGBACK_TOKEN",
            )
        )
    if not 0 <= s.port <= 65535:
        raise SpringbackError(
            describe(f"--port {s.port}", "0 (any free one) to 65535", "change it")
        )
    for name in ("batch", "max_new_tokens", "max_body"):
        if getattr(s, name) < 1:
            flag = name.replace("_", "-")
            raise SpringbackError(describe(f"--{flag} {getattr(s, name)}", "1 or more", "raise it"))
    for name in ("queue", "grace", "speculate"):
        if getattr(s, name) < 0:
            raise SpringbackError(describe(f"--{name} {getattr(s, name)}", "0 or more", "raise it"))


def _check_vllm(s: ServeSettings) -> None:
    if s.speculate > 0 and s.per_request:
        raise SpringbackError(
            describe(
                "--speculate with --per-request, which vLLM cannot do together",
                "one of them",
                "leave one out",
            )
        )
    if engine_of(s) == "vllm" and s.quantize:
        raise SpringbackError(
            describe(
                f"--quantize {s.quantize} with vLLM",
                "--engine builtin, or vLLM's own --vllm '--quantization bitsandbytes'",
                "choose one of these",
            )
        )
    if engine_of(s) == "vllm" and (s.device, s.device_map) != ("auto", None):
        raise SpringbackError(
            describe(
                f"--device {s.device} --device-map {s.device_map} with vLLM",
                "CUDA_VISIBLE_DEVICES, or vLLM's own --vllm '--tensor-parallel-size 2'",
                "leave them out, or use --engine transformers",
            )
        )
    given = {"--speculate": s.speculate, "--per-request": s.per_request, "--vllm": s.vllm_args}
    if engine_of(s) == "transformers" and (
        named := [flag for flag, value in given.items() if value]
    ):
        raise SpringbackError(
            describe(
                f"{', '.join(named)} with the built-in server",
                "these with --engine vllm",
                "leave them out, or install vLLM",
            )
        )
