"""An httpx transport with one connection and no pool around it."""

from __future__ import annotations

import ssl

import httpcore
import httpx

KEEPALIVE_S = 30.0


class AsyncOneConnectionTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, so that vcrpy and respx see it and errors are mapped as usual, over one connection.

    httpx has no public way to hand in what the transport sends through, so its private attribute is replaced; were it
    ever renamed, the transport's ordinary pool would be used, and only speed would be lost.
    """

    def __init__(self, ssl_context: ssl.SSLContext | bool) -> None:
        super().__init__(verify=ssl_context, limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_S))
        self._pool = _AsyncOneConnection(ssl_context)  # type: ignore[assignment]  # it is used as a request interface


class _AsyncOneConnection:
    """Opens its connection on first use, and anew where it was closed, broken or idle for too long."""

    def __init__(self, ssl_context: ssl.SSLContext | bool) -> None:
        self._ssl_context = ssl_context if isinstance(ssl_context, ssl.SSLContext) else None
        self._connection: httpcore.AsyncHTTPConnection | None = None

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send one request; the caller reads the answer to its end before it sends another one."""
        connection = self._connection
        if connection is None or connection.has_expired() or not connection.is_available():
            await self.aclose()
            connection = self._connection = httpcore.AsyncHTTPConnection(
                origin=request.url.origin, ssl_context=self._ssl_context, keepalive_expiry=KEEPALIVE_S
            )
        return await connection.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()
