"""A TLS server that counts and limits the handshakes that are under way.

The event loop's own TLS server shows a connection only after its handshake. Until then the ledger could neither count
nor end the connection, and a client that stays silent would delay a server that stops.
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

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_RETRY_AFTER_S = 1.0


class TlsListener:
    """Accepts connections on a socket. It has the methods of `asyncio.Server` that uvicorn calls.

    Args:
        context: the certificate.
        make_protocol: makes the protocol of a connection whose handshake is done.
        timeout_s: how long a handshake may take, in seconds.
        has_room: whether so many handshakes may be under way. If not, the oldest one is aborted.
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
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}
        """In the order in which they began, without the aborted ones."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self, listener: socket.socket) -> None:
        """Begin to accept connections, in this event loop."""
        listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    def close(self) -> None:
        """Accept no more connections, and abort the handshakes: their clients have sent no request yet."""
        if self._accepting is not None:
            self._accepting.cancel()
        for connection in self._handshakes.values():
            _abort(connection)

    async def wait_closed(self) -> None:
        """Return when all handshakes have ended."""
        await asyncio.gather(*filter(None, (self._accepting, *self._tasks)), return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                if listener.fileno() < 0:
                    return
                is_out_of_resources = error.errno in _OUT_OF_RESOURCES  # any other error ends this one connection
                if is_out_of_resources:
                    _logger.error("a connection could not be accepted: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_AFTER_S if is_out_of_resources else 0)
                continue
            connection.setblocking(False)
            task = loop.create_task(self._do_handshake(connection))
            self._handshakes[task] = connection
            self._tasks.add(task)
            task.add_done_callback(self._end)
            if not self._has_room(len(self._handshakes)):
                _abort(self._handshakes.pop(next(iter(self._handshakes))))

    async def _do_handshake(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make_protocol, connection, ssl=self._context, ssl_handshake_timeout=self._timeout_s
            )
        except OSError as error:  # the client left or made a mistake; ssl.SSLError is an OSError
            _logger.debug("a TLS handshake failed: %s", type(error).__name__)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _logger.error("a TLS handshake failed: %s", type(task.exception()).__name__)


def _abort(connection: socket.socket) -> None:
    """End a handshake by shutting its socket down.

    Its task is not cancelled: a task that is cancelled before its first step would leave the connection open.
    """
    with suppress(OSError):  # the connection has ended by itself
        connection.shutdown(socket.SHUT_RDWR)
