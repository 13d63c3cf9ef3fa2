"""One request and its answer, as the application sees them, whatever carries them."""

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
_LINGER_BYTES = 8 * 1024 * 1024
_LINGER_S = 2.0


class Connection(Protocol):
    """What requests of one client come on."""

    def belong_to(self, key_id: str) -> None:
        """A request of this API key came.

        Raises:
            Problem: 429, the key has too many connections.
        """
        ...

    def is_behind(self) -> bool:
        """Whether the clients of its API key have as much left unread as they may."""
        ...

    async def drain(self, size: int) -> None:
        """Wait, with an answer of so many bytes, until its client has read those before."""
        ...


class ClientGone(Exception):
    """The client closed the connection before it had sent its request."""


class HttpRequest:
    """What is known of one request by and by.

    Args:
        method: in capitals.
        path: as it came, still percent-encoded.
        query: what came after its `?`, as it came.
        headers: by their names in small letters; of several with one name, the last.
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
        """The id of its sender's API key, once it has been let through."""
        self.span = RequestSpan(headers)


class Exchange(Protocol):
    """The way to the client of one request."""

    @property
    def connection(self) -> Connection | None:
        """What it came on; None with a server that is not ours."""
        ...

    async def read_body(self, max_bytes: int) -> bytes:
        """All of the request's body.

        Raises:
            ClientGone: the client left before it had sent all of it.
            Problem: 413.
        """
        ...

    async def until_gone(self) -> None:
        """Return when the client has left, who need not be answered any more. To be called after `read_body`."""
        ...

    async def send(self, answer: Answer, request_id: str) -> None:
        """Answer, if there is still somebody."""
        ...


class AsgiExchange:
    """An exchange by way of an ASGI server."""

    def __init__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        self.call = HttpRequest(
            scope["method"], scope["raw_path"].decode("latin-1"), scope["query_string"], dict(scope["headers"])
        )
        self.connection: Connection | None = scope.get("state", {}).get("connection")
        self._receive = receive
        self._send = send

    async def read_body(self, max_bytes: int) -> bytes:
        """All of the request's body."""
        length = self.call.headers.get(b"content-length")
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
        await self._receive()  # all of the body is here, so that it has nothing else to tell

    async def send(self, answer: Answer, request_id: str) -> None:
        """Answer, if there is still somebody."""
        headers = [(name.encode(), value.encode()) for name, value in head_of(answer, request_id).items()]
        is_refused = answer.status == 413
        if self.connection is not None:
            await self.connection.drain(len(answer.body))
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": is_refused})
        if is_refused:
            await self._linger()

    async def _linger(self) -> None:
        """Take in, for a moment, what a client still sends of a body that was refused.

        A connection that is closed on unread data is reset, and the reset may take the answer away with it.
        """

        async def discard() -> None:
            size, more = 0, True
            while more and size < _LINGER_BYTES:
                message = await self._receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)

        try:
            await asyncio.wait_for(discard(), _LINGER_S)
        except asyncio.TimeoutError:
            _logger.debug("a client went on sending a body that was refused")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def head_of(answer: Answer, request_id: str) -> dict[str, str]:
    """The headers of an answer, by their names in small letters."""
    return {
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
        "x-request-id": request_id,
        **answer.headers,
    }


def _read_request_id(headers: Headers) -> str:
    """The caller's own id of the request where it is a sane one, or a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return new_request_id()


def new_request_id() -> str:
    """An id for a request that has none of its own."""
    return f"req_{draw_bits(96):024x}"
