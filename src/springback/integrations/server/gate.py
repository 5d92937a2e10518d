"""Checks before every request: the token, the host it names, its size and form, its time."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from springback.integrations.server.metrics import Metrics
from springback.integrations.server.protocol import Refused
from springback.integrations.server.settings import ServeSettings, is_loopback

#: Seconds in which the body of a request must be there.
BODY_SECONDS = 30.0

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
            body = await self._body_in_time(receive) if scope["method"] == "POST" else b""
            if body is None:  # the client is gone
                return
            self.check_body(body)
            if scope["method"] == "POST":
                receive = _replayed(body, receive)
            await self.pass_on(scope, receive, send)
        except Refused as refused:  # before anything was sent
            await _answer(send, refused)

    def check_body(self, body: bytes) -> Any:
        """The body as JSON, None where it is empty; raises :class:`Refused` if it may not pass."""
        return json_of(body) if body else None

    async def pass_on(self, scope: Any, receive: _Receive, send: _Send) -> None:
        """The application's turn."""
        await self.app(scope, receive, send)

    def _check(self, scope: Any) -> None:
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        if {"content-length", "transfer-encoding"} <= headers.keys():
            # A proxy before us may end this body elsewhere than we do, and take for ours what
            # another client sent behind it.
            raise Refused(400, "Content-Length and Transfer-Encoding; allowed: one of them")
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

    async def _body_in_time(self, receive: _Receive) -> bytes | None:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._body(receive)
        except TimeoutError as error:
            text = f"the body was not there after {BODY_SECONDS:g} seconds"
            raise Refused(408, text) from error

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


def json_of(body: bytes) -> Any:
    """The value of a body; raises :class:`Refused` for what is no JSON, or no text in it."""
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise Refused(400, "the body is nested too deeply") from error
    except UnicodeEncodeError as error:
        text = "the body has half a surrogate pair, which is no character; send whole ones"
        raise Refused(400, text) from error
    except ValueError as error:  # also a number of more digits than Python reads
        raise Refused(400, f"the body is not JSON that can be read: {error}") from error
    return value


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
