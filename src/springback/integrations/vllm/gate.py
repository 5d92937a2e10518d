"""Checks before every request to vLLM's server: those of the built-in server, and two more."""

from __future__ import annotations

import json
import os
from typing import Any

from springback.integrations.server.gate import Gate
from springback.integrations.server.metrics import Metrics
from springback.integrations.server.protocol import Refused
from springback.integrations.server.settings import ServeSettings
from springback.integrations.vllm.folder import ALPHA, LAMBDA
from springback.integrations.vllm.launch import GATE_SETTINGS


class VllmGate(Gate):
    """vLLM makes it by ``--middleware``; its settings are in the environment.

    Answers that may wait are bounded, which vLLM does not do; and lambda and alpha by request are
    refused where vLLM would pass over them.
    """

    def __init__(self, app: Any) -> None:
        held = json.loads(os.environ[GATE_SETTINGS])
        settings = ServeSettings(**held, token=os.environ.get("SPRINGBACK_TOKEN"))
        super().__init__(app, settings, Metrics())
        self.running = 0

    def check_body(self, body: bytes) -> Any:
        asked = super().check_body(body)
        if self.settings.by_request:
            return asked
        extra = asked.get("vllm_xargs") if isinstance(asked, dict) else None
        if isinstance(extra, dict) and {LAMBDA, ALPHA} & extra.keys():
            raise Refused(
                400,
                f"{LAMBDA} and {ALPHA} by request; allowed: on a server without --speculate, "
                "which has the folder's own; leave them out",
            )
        return asked

    async def pass_on(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self.running >= self.settings.batch + self.settings.queue:
            raise Refused(429, "too many requests wait; try again later", "busy")
        self.running += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1
