"""Connections: how many there may be, and how long a client may take.

Each notes when its client must be done; one timer for all of them looks at the notes twice a second. That costs a
request next to nothing, where a timer of its own would be planned and cancelled twice for each.
"""

from __future__ import annotations

import asyncio

from verity.server import problems
from verity.server.app import LedgerApp, Operators
from verity.server.head import write_refusal
from verity.server.settings import ServerSettings
from verity.server.shares import OpenConnection, Shares

_LOOK_EVERY_S = 0.5
_LAST_WORDS_S = 0.1


class Connections:
    """All connections of a server.

    Args:
        app: answers the requests; its metrics are told how many connections are open, and of each that is cut off.
        settings: the timeouts of headers, bodies and readers, `max_body_bytes`,
            `max_connections` and `max_unread_bytes` count here.
    """

    def __init__(self, app: LedgerApp | Operators, settings: ServerSettings) -> None:
        self.app = app
        self.settings = settings
        self.metrics = app.metrics
        self.open: set[OpenConnection] = set()
        self.shares = Shares(settings.max_connections, settings.max_unread_bytes)
        self._timer: asyncio.TimerHandle | None = None
        self._for_all: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    def watch(self) -> None:
        """Begin to cut off slow clients, in this event loop."""
        timeouts_s = (self.settings.header_timeout_s, self.settings.body_timeout_s, self.settings.read_timeout_s)
        look_every_s = min(_LOOK_EVERY_S, *timeouts_s)
        loop = asyncio.get_running_loop()

        def look() -> None:
            for connection in list(self.open):
                connection.cut_off(loop.time())
            for connection in self.shares.most_unread():
                self.metrics.count_unread()
                connection.transport.abort()
            self._timer = loop.call_later(look_every_s, look)

        look()

    def has_room(self, handshakes: int) -> bool:
        """Whether there may be as many as there are, and so many more; it is counted where there may not."""
        if len(self.open) + handshakes <= self.settings.max_connections:
            return True
        self.metrics.count_connection_too_many()
        return False

    async def end(self) -> None:
        """Cut off those that are still there, after a moment in which what was answered last can go out."""
        if self.open:
            await asyncio.sleep(_LAST_WORDS_S)
        for connection in list(self.open):
            connection.transport.abort()
        if self._timer is not None:
            self._timer.cancel()

    def add(self, connection: OpenConnection, transport: asyncio.Transport) -> None:
        """One more. Where there are too many, the oldest of those who have shown no API key goes, or it is refused."""
        self.open.add(connection)
        self.shares.unauthenticated.connections[connection] = None
        if len(self.open) <= self.settings.max_connections:
            return
        self.metrics.count_connection_too_many()
        if self.shares.has_too_many_unauthenticated():  # those who show a key do so at once
            oldest = next(iter(self.shares.unauthenticated.connections))
            self.remove(oldest)
            oldest.transport.abort()
        else:
            transport.write(write_refusal(problems.too_many_connections()))
            transport.close()

    def remove(self, connection: OpenConnection) -> None:
        """It is lost."""
        self.open.discard(connection)
        self.shares.leave(connection)

    def lines_for_all(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The header lines that uvicorn puts into all answers: the date. It makes a new list each second."""
        if self._for_all[0] is not headers:
            self._for_all = (headers, b"".join([b"%b: %b\r\n" % header for header in headers]))
        return self._for_all[1]
