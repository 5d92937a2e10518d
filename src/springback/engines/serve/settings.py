"""How to serve.  Light: the help of the command line reads it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from springback.errors import SpringbackError, describe

#: What can decode behind the server.  vLLM will be another entry; it is not there yet.
ENGINES = ("builtin",)
LATER = ("vllm",)


@dataclass(frozen=True)
class ServeSettings:
    """``token``: what clients give as their API key; None asks for none, on loopback only.

    ``batch``: rows decoded together; ``queue``: rows that may wait beside them, more are refused
    with 429.  ``max_new_tokens``: longest answer, and the length where a request names none.
    ``max_body``: bytes of a request.  ``grace``: seconds that running answers have when the server
    is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    token: str | None = field(default=None, repr=False)
    engine: str = "builtin"
    batch: int = 8
    queue: int = 64
    max_new_tokens: int = 1024
    max_body: int = 1_000_000
    grace: float = 20.0


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
    if s.engine in LATER:
        raise SpringbackError(
            describe(
                f"--engine {s.engine}",
                ", ".join(ENGINES),
                "leave it out; serving through vLLM comes in a later version",
            )
        )
    if s.engine not in ENGINES:
        raise SpringbackError(describe(f"--engine {s.engine}", ", ".join(ENGINES), "change it"))
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
    for name in ("queue", "grace"):
        if getattr(s, name) < 0:
            raise SpringbackError(describe(f"--{name} {getattr(s, name)}", "0 or more", "raise it"))
