"""Load a model and serve it until a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn

from springback.inference import load_at
from springback.integrations.server.address import bind
from springback.integrations.server.app import Server
from springback.integrations.server.connections import Connection
from springback.integrations.server.settings import ServeSettings, check
from springback.integrations.server.worker import Worker
from springback.models.placement import placement
from springback.models.templates import with_chat

#: Seconds after the grace in which broken-off answers reach their clients.
_LAST_RESORT = 10


class _Uvicorn(uvicorn.Server):
    """Drains the worker on a signal, so that answers end in time and in the protocol's form."""

    def __init__(self, config: uvicorn.Config, worker: Worker, grace: float) -> None:
        super().__init__(config)
        self._worker, self._grace = worker, grace

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        again = self.should_exit
        super().handle_exit(sig, frame)
        self._worker.drain(0.0 if again else self._grace)


def config_of(server: Server) -> uvicorn.Config:
    """How uvicorn runs a server."""
    settings = server.settings
    return uvicorn.Config(
        server.app,
        http=Connection,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.grace) + _LAST_RESORT,
        timeout_keep_alive=5,
        limit_concurrency=2 * (settings.queue + settings.batch) + 64,
    )


def serve(model: str, settings: ServeSettings, tell: Callable[[str], None] = print) -> None:
    """Serve ``model`` until SIGINT or SIGTERM; returns after a clean end.

    Answers that run then have ``settings.grace`` seconds to finish; later ones are broken off.
    ``tell`` is called with the address as soon as requests are taken.
    """
    check(settings)
    place = placement(settings)
    with bind(settings) as listening:
        loaded = load_at(model, place)
        loaded = replace(loaded, tokenizer=with_chat(loaded.tokenizer, settings))
        server = Server(loaded, settings, settings.name or Path(model).name or model)
        config = config_of(server)
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        # uvicorn raises the signal again when all is done; the end was clean, so that is nothing.
        held = {s: signal.signal(s, lambda *_: None) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            tell(f"serving {server.name} at http://{shown}:{port}/v1")
            _Uvicorn(config, server.worker, settings.grace).run(sockets=[listening])
        finally:
            server.worker.close()
            for number, handler in held.items():
                signal.signal(number, handler)
