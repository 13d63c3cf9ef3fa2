"""All open connections of a server: how many there may be, and how long a client may take.

Each connection notes its own deadlines. One timer for all connections checks the deadlines twice a second. This costs a
request almost nothing; a timer for each connection would be set and cancelled twice a request.
"""

from __future__ import annotations

import asyncio

from verity.server import problems
from verity.server.app import LedgerApp, OperatorApp
from verity.server.head import write_refusal
from verity.server.key_usage import OpenConnection, UsageByKey
from verity.server.settings import ServerSettings

_CHECK_EVERY_S = 0.5
_FLUSH_WITHIN_S = 0.1


class Connections:
    """All connections of a server.

    Args:
        app: answers the requests. Its metrics count the connections that are open and those that are cut off.
        settings: of these, the connections use the timeouts of headers, bodies and readers, `max_body_bytes`,
            `max_connections` and `max_unread_bytes`.
    """

    def __init__(self, app: LedgerApp | OperatorApp, settings: ServerSettings) -> None:
        self.app = app
        self.settings = settings
        self.metrics = app.metrics
        self.open: set[OpenConnection] = set()
        self.usage_by_key = UsageByKey(settings.max_connections, settings.max_unread_bytes)
        self._timer: asyncio.TimerHandle | None = None
        self._default_header_lines: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    def start_checks(self) -> None:
        """Begin to check deadlines and unread bytes, in this event loop."""
        timeouts_s = (self.settings.header_timeout_s, self.settings.body_timeout_s, self.settings.read_timeout_s)
        check_every_s = min(_CHECK_EVERY_S, *timeouts_s)
        loop = asyncio.get_running_loop()

        def check() -> None:
            for connection in list(self.open):
                connection.enforce_deadlines(loop.time())
            for connection in self.usage_by_key.find_worst_readers():
                self.metrics.count_unread()
                connection.transport.abort()
            self._timer = loop.call_later(check_every_s, check)

        check()

    def has_room(self, handshakes: int) -> bool:
        """Whether so many TLS handshakes may be under way beside the open connections; counts a refusal."""
        if len(self.open) + handshakes <= self.settings.max_connections:
            return True
        self.metrics.count_connection_too_many()
        return False

    async def abort_all(self) -> None:
        """Wait for a moment, so that the last answers are sent, and end all connections."""
        if self.open:
            await asyncio.sleep(_FLUSH_WITHIN_S)
        for connection in list(self.open):
            connection.transport.abort()
        if self._timer is not None:
            self._timer.cancel()

    def add(self, connection: OpenConnection, transport: asyncio.Transport) -> None:
        """Count a new connection.

        If there are too many, the oldest unauthenticated one is cut off, if these have more than half of the places;
        otherwise the new one is refused.
        """
        self.open.add(connection)
        self.usage_by_key.unauthenticated.connections[connection] = None
        if len(self.open) <= self.settings.max_connections:
            return
        self.metrics.count_connection_too_many()
        if self.usage_by_key.has_too_many_unauthenticated():  # a client with an API key shows it at once
            oldest = next(iter(self.usage_by_key.unauthenticated.connections))
            self.remove(oldest)
            oldest.transport.abort()
        else:
            transport.write(write_refusal(problems.too_many_connections()))
            transport.close()

    def remove(self, connection: OpenConnection) -> None:
        """Forget a connection that has ended."""
        self.open.discard(connection)
        self.usage_by_key.release(connection)

    def default_header_lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The header lines that uvicorn puts into all answers (the date). Uvicorn makes a new list each second."""
        if self._default_header_lines[0] is not headers:
            self._default_header_lines = (headers, b"".join([b"%b: %b\r\n" % header for header in headers]))
        return self._default_header_lines[1]
