"""One HTTP exchange: a request and its answer, as the application sees them.

The application works with an `Exchange`. `AsgiExchange` below carries it over any ASGI server; `protocol.PlainExchange`
over the ledger's own protocol.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from verity._ledger.calls import Answer
from verity._tracing import RequestSpan
from verity._unique import draw_bits
from verity.server import problems

Headers = dict[bytes, bytes]
AsgiScope = MutableMapping[str, Any]
AsgiReceive = Callable[[], Awaitable[MutableMapping[str, Any]]]
AsgiSend = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_logger = logging.getLogger("verity.server")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
_DISCARD_BYTES = 8 * 1024 * 1024
_DISCARD_WITHIN_S = 2.0


class Connection(Protocol):
    """The client's connection, as the application uses it."""

    def assign_to_key(self, key_id: str) -> None:
        """Count this connection for the API key of the request that came.

        Raises:
            Problem: 429, the key has too many connections.
        """
        ...

    def has_too_much_unread(self) -> bool:
        """Whether its API key has reached the limit of unread bytes."""
        ...

    def has_left(self) -> bool:
        """Whether the client has closed the connection."""
        ...

    async def drain(self, size: int) -> None:
        """Wait until the client has read the answers before the next one, which has so many bytes."""
        ...


class ClientGone(Exception):
    """The client closed the connection before it had sent its request."""


class HttpRequest:
    """One HTTP request without its body, and what the server finds out about it.

    Args:
        method: in capitals.
        path: still percent-encoded.
        query: the raw text after the `?`.
        headers: by their names in lower case; of several with one name, the last.
    """

    __slots__ = ("headers", "key_id", "method", "operation", "path", "query", "request_id", "span", "started_at")

    def __init__(self, method: str, path: str, query: bytes, headers: Headers) -> None:
        self.started_at = time.perf_counter()
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.request_id = _read_request_id(headers)
        self.operation: str = "unknown"
        """An `Operation`, or the name of a probe."""
        self.key_id: str | None = None
        """The id of the API key, once the rate limiter has admitted the request."""
        self.span = RequestSpan(headers)


class Exchange(Protocol):
    """The application's way to the client of one request."""

    @property
    def connection(self) -> Connection | None:
        """The connection of the request; None under another ASGI server than `LedgerServer`."""
        ...

    async def read_body(self, max_bytes: int) -> bytes:
        """The whole body of the request.

        Raises:
            ClientGone: the client left before it had sent all of it.
            Problem: 413, the body is over `max_bytes`.
        """
        ...

    async def until_gone(self) -> None:
        """Return when the client has closed the connection: it needs no answer then. Call it after `read_body`."""
        ...

    async def send(self, answer: Answer, request_id: str) -> None:
        """Send the answer, if the client is still connected."""
        ...


class AsgiExchange:
    """An exchange over ASGI's messages."""

    def __init__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        self.request = HttpRequest(
            scope["method"], scope["raw_path"].decode("latin-1"), scope["query_string"], dict(scope["headers"])
        )
        self.connection: Connection | None = scope.get("state", {}).get("connection")
        self._receive = receive
        self._send = send

    async def read_body(self, max_bytes: int) -> bytes:
        """The whole body of the request."""
        length = self.request.headers.get(b"content-length")
        if length is not None and int(length) > max_bytes:
            raise problems.body_too_large(max_bytes)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > max_bytes:
                raise problems.body_too_large(max_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def until_gone(self) -> None:
        """Return when the client has left."""
        await self._receive()  # the body is read, so that the next message is http.disconnect

    async def send(self, answer: Answer, request_id: str) -> None:
        """Send the answer, if the client is still connected."""
        headers = [(name.encode(), value.encode()) for name, value in head_of(answer, request_id).items()]
        is_refused = answer.status == 413
        if self.connection is not None:
            await self.connection.drain(len(answer.body))
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": is_refused})
        if is_refused:
            await self._discard_body()

    async def _discard_body(self) -> None:
        """Read and discard the rest of a refused body, up to a limit of bytes and time (a lingering close).

        Closing a connection that has unread data resets it, and then the client may lose the answer.
        """

        async def discard() -> None:
            size, more = 0, True
            while more and size < _DISCARD_BYTES:
                message = await self._receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)

        try:
            await asyncio.wait_for(discard(), _DISCARD_WITHIN_S)
        except asyncio.TimeoutError:
            _logger.debug("a client went on sending a body that was refused")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def head_of(answer: Answer, request_id: str) -> dict[str, str]:
    """The headers of an answer, by their names in lower case."""
    return {
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
        "x-request-id": request_id,
        **answer.headers,
    }


def _read_request_id(headers: Headers) -> str:
    """The request id that the caller sent, if it is well formed, or a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return new_request_id()


def new_request_id() -> str:
    """A new random request id."""
    return f"req_{draw_bits(96):024x}"
