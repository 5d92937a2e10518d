"""The routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from springback.inference import Loaded
from springback.integrations.server import protocol
from springback.integrations.server.gate import Gate
from springback.integrations.server.metrics import Metrics
from springback.integrations.server.protocol import ChatRequest, CompletionRequest, Refused, Reply
from springback.integrations.server.settings import ServeSettings
from springback.integrations.server.text import Pieces
from springback.integrations.server.worker import Busy, Closed, Job, Worker
from springback.models.encoding import answer_text, may_change

#: Seconds between looks whether a client that waits for a whole answer is still there.
_LOOK = 0.5
_Asked = ChatRequest | CompletionRequest


class _Call:
    """One request that is being answered: its job, and the job's events in the server's thread."""

    def __init__(self, server: Server, asked: _Asked) -> None:
        self.server, self.began = server, time.monotonic()
        loaded = asked.prepared(server.loaded)
        self.prompts = asked.prompts(loaded)
        rows = protocol.rows_of(asked, self.prompts, server.settings)
        self.settings = protocol.decode_settings(asked, rows, loaded, server.settings)
        self.answers: list[list[int]] | None = None
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, int] | list[list[int]] | Exception] = asyncio.Queue()
        self.job = Job(rows, self.settings, lambda r, t: self._tell((r, t)), self._tell)
        stop, waits = self.settings.stop_strings, partial(may_change, loaded.tokenizer)
        self.pieces = [Pieces(server.decode, stop, waits) for _ in rows]
        try:
            server.worker.submit(self.job)
        except Busy as error:
            raise Refused(429, "too many requests wait; try again later", "busy") from error
        except Closed as error:
            raise Refused(503, "the server is stopping") from error

    def _tell(self, event: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def pieces_of_text(self, request: Request | None) -> AsyncIterator[tuple[int, str]]:
        """Row and new text, as it comes; afterwards ``answers`` is there.

        ``request``: looked at now and then, to stop when its client is gone.
        """
        first = True
        try:
            while True:
                try:
                    event = await asyncio.wait_for(self._events.get(), _LOOK if request else None)
                except TimeoutError:
                    if request is not None and await request.is_disconnected():
                        return
                    continue
                if isinstance(event, Exception):
                    stopping = isinstance(event, Closed)
                    text = "the server is stopping" if stopping else "decoding failed"
                    raise Refused(503 if stopping else 500, text) from event
                if isinstance(event, list):
                    self._ended(event)
                    return
                if first:
                    first = False
                    self.server.metrics.took("first_token_seconds", time.monotonic() - self.began)
                row, token = event
                if piece := self.pieces[row].add(token):
                    yield row, piece
        finally:
            self.job.cancelled.set()

    def _ended(self, answers: list[list[int]]) -> None:
        metrics, self.answers = self.server.metrics, answers
        metrics.took("request_seconds", time.monotonic() - self.began)
        metrics.count("prompt_tokens_total", sum(map(len, self.prompts)))
        metrics.count("completion_tokens_total", sum(map(len, answers)))

    def usage(self) -> dict[str, int]:
        return protocol.usage_of(self.prompts, self.answers or [])

    def reason(self, row: int) -> str:
        """Why an answer ended: a stop token or string, or its length."""
        assert self.answers is not None
        full = len(self.answers[row]) >= self.settings.max_new_tokens
        return "length" if full and not self.pieces[row].stopped else "stop"


class Server:
    """A loaded model, its worker, and the routes in :attr:`app`."""

    def __init__(self, loaded: Loaded, settings: ServeSettings, name: str) -> None:
        self.loaded, self.settings, self.name = loaded, settings, name
        self.started = int(time.time())
        self.metrics = Metrics()
        self.worker = Worker(loaded, settings.batch, settings.queue, self.metrics)
        self.app = FastAPI(lifespan=self._lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        self._routes()
        self.app.add_middleware(Gate, settings=settings, metrics=self.metrics)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.worker.close)

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens to text."""
        return answer_text(self.loaded.tokenizer, ids)

    def _routes(self) -> None:
        app = self.app

        @app.exception_handler(Refused)
        async def refused(request: Request, error: Refused) -> Response:
            headers = {"Retry-After": "1"} if error.status in (429, 503) else None
            return JSONResponse(error.body(), error.status, headers)

        @app.exception_handler(RequestValidationError)
        async def invalid(request: Request, error: RequestValidationError) -> Response:
            faults = [
                f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'body'}: {_fault(fault)}"
                for fault in error.errors()
            ]
            return JSONResponse(Refused(400, "; ".join(faults[:3])).body(), 400)

        @app.exception_handler(HTTPException)
        async def unknown(request: Request, error: HTTPException) -> Response:
            text = f"{request.method} {request.url.path}: {error.detail}"
            return JSONResponse(Refused(error.status_code, text).body(), error.status_code)

        @app.get("/health")
        async def health() -> Response:
            closing = self.worker.closing
            word = "stopping" if closing else "ok"
            return JSONResponse({"status": word}, 503 if closing else 200)

        @app.get("/metrics")
        async def metrics() -> Response:
            gauges = {"rows_running": self.worker.running, "rows_waiting": self.worker.waiting}
            return PlainTextResponse(
                self.metrics.render(gauges), media_type="text/plain; version=0.0.4"
            )

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": [self._model()]}

        @app.get("/v1/models/{name:path}")
        async def model(name: str) -> dict[str, Any]:
            self._check_name(name)
            return self._model()

        @app.post("/v1/chat/completions")
        async def chat(asked: ChatRequest, request: Request) -> Response:
            return await self._answer(asked, request, Reply(True, self.name))

        @app.post("/v1/completions")
        async def completions(asked: CompletionRequest, request: Request) -> Response:
            return await self._answer(asked, request, Reply(False, self.name))

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "springback",
        }

    def _check_name(self, name: str | None) -> None:
        if name is not None and name != self.name:
            raise Refused(404, f"no model {name!r}; served: {self.name!r}", "model_not_found")

    async def _answer(self, asked: _Asked, request: Request, reply: Reply) -> Response:
        self._check_name(asked.model)
        call = _Call(self, asked)
        if asked.stream:
            options = asked.stream_options
            events = self._events(call, reply, options is not None and options.include_usage)
            return StreamingResponse(events, media_type="text/event-stream")
        texts = [""] * len(call.pieces)
        async for row, piece in call.pieces_of_text(request):
            texts[row] += piece
        if call.answers is None:
            return Response(status_code=499)  # the client left; nobody reads this
        for row, pieces in enumerate(call.pieces):
            texts[row] += pieces.finish()
        ends = [(text, call.reason(row)) for row, text in enumerate(texts)]
        return JSONResponse(reply.whole(ends, call.usage()))

    async def _events(self, call: _Call, reply: Reply, with_usage: bool) -> AsyncIterator[str]:
        """Server-sent events; Starlette ends this when the client is gone."""
        if reply.chat:
            for row in range(len(call.pieces)):
                yield _event(reply.chunk(row, "", first=True))
        try:
            async for row, piece in call.pieces_of_text(None):
                yield _event(reply.chunk(row, piece))
        except Refused as refused:
            yield _event(refused.body())
            return
        for row, pieces in enumerate(call.pieces):
            if rest := pieces.finish():
                yield _event(reply.chunk(row, rest))
            yield _event(reply.chunk(row, "", call.reason(row)))
        if with_usage:
            yield _event(reply.usage(call.usage()))
        yield "data: [DONE]\n\n"


def _fault(fault: Any) -> str:
    """What pydantic says of a fault, in the words of a request's sender."""
    if fault["type"] == "extra_forbidden":
        return "this field is not supported; leave it out"
    return str(fault["msg"]).removeprefix("Value error, ")


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
