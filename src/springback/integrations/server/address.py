"""The address that a server listens on."""

from __future__ import annotations

import socket

from springback.errors import SpringbackError, describe
from springback.integrations.server.settings import ServeSettings


def bind(settings: ServeSettings) -> socket.socket:
    """A listening socket; raises :class:`SpringbackError` if the address cannot be had."""
    try:
        kind, *_, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=kind)
    except OSError as error:
        raise SpringbackError(
            describe(
                f"{settings.host} port {settings.port} ({error.strerror or error})",
                "an address of this machine that is free",
                "choose another --port, or 0 for any",
            )
        ) from error
