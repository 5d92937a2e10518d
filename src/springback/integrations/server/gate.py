"""Checks before every request: the token, the host it names, its size."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from springback.integrations.server.metrics import Metrics
from springback.integrations.server.protocol import Refused
from springback.integrations.server.settings import ServeSettings, is_loopback

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class Gate:
    """An ASGI middleware.

    On loopback without a token, requests must name this machine as their host, and bodies must
    call themselves JSON: so no web page can reach the server through the user's browser.
    """

    def __init__(self, app: Any, settings: ServeSettings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Any, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: _Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self.metrics.count("requests_total", route=route, status=str(message["status"]))
            await send(message)

        await self._pass(scope, receive, counted)

    async def _pass(self, scope: Any, receive: _Receive, send: _Send) -> None:
        try:
            self._check(scope)
            body = await self._body(receive) if scope["method"] == "POST" else b""
            if body is None:  # the client is gone
                return
            self.check_body(body)
            if scope["method"] == "POST":
                receive = _replayed(body, receive)
            await self.pass_on(scope, receive, send)
        except Refused as refused:  # before anything was sent
            await _answer(send, refused)

    def check_body(self, body: bytes) -> None:
        """Raise :class:`Refused` for a body that may not pass."""

    async def pass_on(self, scope: Any, receive: _Receive, send: _Send) -> None:
        """The application's turn."""
        await self.app(scope, receive, send)

    def _check(self, scope: Any) -> None:
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        token = self.settings.token
        if token is None:
            host = headers.get("host", "").rsplit(":", 1)[0].strip("[]")
            if not is_loopback(host):
                raise Refused(403, f"host {host!r}; allowed: 127.0.0.1 or localhost")
        elif scope["path"] != "/health":
            kind, _, given = headers.get("authorization", "").partition(" ")
            fine = hmac.compare_digest(given.encode("utf-8"), token.encode("utf-8"))
            if kind.lower() != "bearer" or not fine:
                raise Refused(401, "wrong or missing token; send it as API key", "invalid_api_key")
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise Refused(415, f"content type {kind!r}; allowed: application/json")

    async def _body(self, receive: _Receive) -> bytes | None:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.settings.max_body:
                raise Refused(413, f"the body is larger than {self.settings.max_body} bytes")
            if not message.get("more_body"):
                return b"".join(parts)


def _replayed(body: bytes, receive: _Receive) -> _Receive:
    """``receive`` with the body put back in front."""
    given = False

    async def again() -> _Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(send: _Send, refused: Refused) -> None:
    body = json.dumps(refused.body()).encode("utf-8")
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
