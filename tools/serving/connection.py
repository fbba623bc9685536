"""HTTP connections that are closed if no request arrives."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0


class TimedProtocol(H11Protocol):
    """A connection that is closed if the headers of a request do not arrive in time.

    The time of the body is limited by `Guard`.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Starts the time of the first request."""
        super().connection_made(transport)
        self._restart()

    def data_received(self, data: bytes) -> None:
        """Starts the time when a request begins to arrive; headers that arrived stop it."""
        super().data_received(data)
        if self._is_idle():
            if self._waiting is None:
                self._restart()
        else:
            self._cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the time."""
        self._cancel()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _restart(self) -> None:
        self._waiting = self.loop.call_later(HEADER_SECONDS, self._expire)

    def _expire(self) -> None:
        self._waiting = None
        if self._is_idle() and not self.transport.is_closing():
            self.transport.close()

    def _cancel(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
