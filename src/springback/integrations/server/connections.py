"""HTTP/1.1 connections that do not wait for ever: uvicorn's own, with the limits it lacks."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds in which the head of a request must be there, from its first byte or the connection's.
HEAD_SECONDS = 10.0
#: Seconds in which a client must read on when more than a buffer of its answer waits.
READ_SECONDS = 60.0


class Connection(H11Protocol):
    """A connection that is closed when the head of its next request, or its client's reading, is
    late.

    Where connections are as many as the server takes, a new one displaces the one that has waited
    longest for its head: so half-sent requests keep nobody out.
    """

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        alive = [c for c in self.connections if not c.transport.is_closing()]
        if self.limit_concurrency is not None and len(alive) >= self.limit_concurrency:
            late = [(c._head.when(), c) for c in alive if isinstance(c, Connection) and c._head]
            if late:
                min(late, key=lambda pair: pair[0])[1].transport.abort()
        self._time_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _time_head(self) -> None:
        """Let the time run while nothing is being answered, whatever trickles in meanwhile."""
        waiting = self.cycle is None or self.cycle.response_complete
        if not waiting and self._head is not None:
            self._head.cancel()
            self._head = None
        elif waiting and self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
