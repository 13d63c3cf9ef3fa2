"""Many one-connection transports behind one: a request takes an idle one, uses it alone, and puts it back.

httpcore's pool walks all its connections and all its waiters for every request, so that its cost grows with
concurrency (measured: 627 requests/s with one task, 230 with 256). With one connection in each pool there is
nothing to walk. Each is still an ordinary httpx transport, so vcrpy, respx and proxies see what they expect.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx

from verity._async.connection import AsyncOneConnectionTransport
from verity._concurrency import AsyncHome, AsyncSemaphore, forget_in_child

MAX_CONNECTIONS = 100


class AsyncTransportPool(httpx.AsyncBaseTransport):
    """Sends each request through a transport of its own and reads the whole answer before it returns."""

    def __init__(
        self, make_transport: Callable[[], httpx.AsyncBaseTransport], max_connections: int = MAX_CONNECTIONS
    ) -> None:
        self._make_transport = make_transport
        self._max_connections = max_connections
        self._home = AsyncHome(self._close_idle)
        self._closed = False
        self._start_anew()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Leave the parent's sockets alone: forget them without a word on the wire."""
        # A transport of another kind that is in use may hold a lock of a thread that is not here: it is left open.
        in_use = [each for each in self._in_use if isinstance(each, AsyncOneConnectionTransport)]
        self._home.abandon([*self._idle, *in_use])
        self._start_anew()

    def _start_anew(self) -> None:
        # Last in, first out keeps few connections warm rather than many lukewarm.
        self._idle: list[httpx.AsyncBaseTransport] = []
        self._in_use: set[httpx.AsyncBaseTransport] = set()
        self._places = AsyncSemaphore(self._max_connections)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send and receive; raises what the transport raises."""
        if await self._home.moved():
            self._start_anew()
        places, idle, in_use = self._places, self._idle, self._in_use
        async with places:
            transport = idle.pop() if idle else self._make_transport()
            in_use.add(transport)
            try:
                response = await transport.handle_async_request(request)
                await response.aread()
                return response
            finally:
                in_use.discard(transport)
                if idle is self._idle and not self._closed:
                    idle.append(transport)
                else:  # closed, or moved to another event loop meanwhile
                    await transport.aclose()

    async def aclose(self) -> None:
        """Close all idle connections. Calls under way are left to finish, each request on a connection of its own."""
        self._closed = True
        await self._home.leave()

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for transport in idle:
            await transport.aclose()
