"""Connections whose TLS handshake is under way, under the ledger's own eyes.

Left to the event loop's own server, a connection is not known here before its handshake is over: until then it would
count for nothing, and nobody could end it, so that it would hold up a server that stops.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

_logger = logging.getLogger("verity.server")

_NOTHING_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_TRY_AGAIN_AFTER_S = 1.0


class Handshakes:
    """Accepts connections on a socket, as the servers of an event loop do.

    Args:
        context: the certificate.
        make_protocol: makes what takes a connection over once its handshake is done.
        timeout_s: how long a handshake may take, in seconds.
        has_room: whether there may be one more connection besides so many handshakes. If not, the oldest handshake
            makes room.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        make_protocol: Callable[[], asyncio.Protocol],
        timeout_s: float,
        has_room: Callable[[int], bool],
    ) -> None:
        self._context = context
        self._make_protocol = make_protocol
        self._timeout_s = timeout_s
        self._has_room = has_room
        self._under_way: dict[asyncio.Task[None], socket.socket] = {}
        """In the order in which they began; without those that were given up."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self, listener: socket.socket) -> None:
        """Begin to accept, in this event loop."""
        listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    def close(self) -> None:
        """Accept nothing more, and end the handshakes: nobody has asked for anything yet."""
        if self._accepting is not None:
            self._accepting.cancel()
        for connection in self._under_way.values():
            _give_up(connection)

    async def wait_closed(self) -> None:
        """Return once they have ended."""
        await asyncio.gather(*filter(None, (self._accepting, *self._tasks)), return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                if listener.fileno() < 0:
                    return
                is_full = error.errno in _NOTHING_LEFT  # any other error is the connection's own end
                if is_full:
                    _logger.error("a connection could not be accepted: %s", type(error).__name__)
                await asyncio.sleep(_TRY_AGAIN_AFTER_S if is_full else 0)
                continue
            connection.setblocking(False)
            task = loop.create_task(self._shake_hands(connection))
            self._under_way[task] = connection
            self._tasks.add(task)
            task.add_done_callback(self._end)
            if not self._has_room(len(self._under_way)):
                _give_up(self._under_way.pop(next(iter(self._under_way))))

    async def _shake_hands(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make_protocol, connection, ssl=self._context, ssl_handshake_timeout=self._timeout_s
            )
        except OSError as error:  # the client's fault, or it has left; TLS's errors are such, too
            _logger.debug("a TLS handshake failed: %s", type(error).__name__)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _logger.error("a TLS handshake failed: %s", type(task.exception()).__name__)


def _give_up(connection: socket.socket) -> None:
    """End a handshake. Its task is not cancelled: where the event loop is at the very beginning of it, that would leave
    the connection open.
    """
    with suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)
