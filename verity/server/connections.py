"""Connections: how many there may be, and how long a sender may take.

Each notes when its sender must be done; one timer for all of them looks at the notes twice a second. That costs a
request next to nothing, where a timer of its own would be planned and cancelled twice for each.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from verity.server import problems
from verity.server.metrics import Metrics
from verity.server.settings import ServerSettings

_LOOK_EVERY_S = 0.5


class Connections:
    """All connections of a server.

    Args:
        settings: `header_timeout_s`, `body_timeout_s` and `max_connections` count here.
        metrics: is told how many are open, and of each that is cut off.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.open: set[LedgerProtocol] = set()
        self._timer: asyncio.TimerHandle | None = None
        metrics.watch_connections(lambda: len(self.open))

    def watch(self) -> None:
        """Begin to cut off slow senders, in this event loop."""
        look_every_s = min(_LOOK_EVERY_S, self.settings.header_timeout_s, self.settings.body_timeout_s)
        loop = asyncio.get_running_loop()

        def look() -> None:
            for connection in list(self.open):
                connection.cut_off_if_slow(loop.time())
            self._timer = loop.call_later(look_every_s, look)

        look()

    def stop(self) -> None:
        """Leave them alone from now on."""
        if self._timer is not None:
            self._timer.cancel()


class LedgerProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with the limits of a ledger."""

    def __init__(self, connections: Connections, **parts: Any) -> None:
        super().__init__(**parts)
        self._connections = connections
        self._header_timeout_s = connections.settings.header_timeout_s
        self._body_timeout_s = connections.settings.body_timeout_s
        self._due: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for a request, or say that there are too many."""
        super().connection_made(_Lasting(transport, self.loop))  # type: ignore[arg-type]
        self._connections.open.add(self)
        self._allow(self._header_timeout_s)
        if len(self._connections.open) > self._connections.settings.max_connections:
            self._connections.metrics.count_connection_too_many()
            transport.write(_too_many())
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._connections.open.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request, or line ends between two, which must not keep a connection for ever."""
        if self._due is None:
            self._allow(self._header_timeout_s)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._allow(self._header_timeout_s)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its body is next."""
        self._allow(self._body_timeout_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is here."""
        self._due = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless it follows a request that is being carried out: to that one the refusal would
        pass for the answer. Such a connection just ends, which leaves the outcome unknown, as it is.
        """
        cycle = self.cycle
        is_answered = cycle is None or cycle.response_complete
        if self.pipeline or (not is_answered and (cycle.response_started or not cycle.more_body)):
            self.transport.close()
        else:
            super().send_400_response(msg)

    def cut_off_if_slow(self, now: float) -> None:
        """End the connection if its sender took too long; the application is told that the client is gone."""
        if self._due is None or now < self._due:
            return
        if self.transport.is_reading():
            self._due = None
            self._connections.metrics.count_slow_sender()
            self.transport.abort()
        else:  # it is this side that takes nothing in at the moment
            self._allow(self._body_timeout_s)

    def _allow(self, seconds: float) -> None:
        self._due = self.loop.time() + seconds


class _Lasting:
    """A transport that can be used beyond its end, and then does nothing; and that sends in one go what is written in
    one turn of the event loop.

    Of several requests that came in one go, uvicorn tells only the last that the connection is lost. To the others'
    answers uvloop's own transport would raise. And uvicorn writes an answer's head and body apart, which uvloop sends
    with a system call each: a fifth of a node's time.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send, if there is still somebody."""
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        """End, once all is sent."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        data = b"".join(self._written)
        self._written.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def pause_reading(self) -> None:
        """Take nothing in for a while."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _too_many() -> bytes:
    answer = problems.to_answer(problems.too_many_connections(), f"req_{secrets.token_hex(12)}")
    headers = {"content-type": "application/json", "content-length": str(len(answer.body)), **answer.headers}
    lines = ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + answer.body
