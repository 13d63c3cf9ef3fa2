"""The connection pool: many transports with one connection each. A request takes an idle one, and puts it back.

httpcore's pool walks all its connections and all its waiters for every request, so that its cost grows with
concurrency (measured: 627 requests/s with one task, 230 with 256). With one connection in each transport there is
nothing to walk. Each is an ordinary httpx transport, so vcrpy, respx and proxies see what they expect.

A holder's requests have limits of their own, so that no other request can make its lease expire: neither lease requests
that wait at the ledger, nor slow leases and reads, nor, for renewals, slow commits. All kinds share idle connections.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx

from verity._async.connection import AsyncOneConnectionTransport, AsyncProxyTransport
from verity._concurrency import AsyncLimiter, AsyncLoopBinding, Permit, forget_in_child, notice_fork
from verity._operations import Operation

MAX_CONNECTIONS = 100
"""The limit on requests of each kind at a time. The pool keeps at most as many idle connections."""

_ASKING = Operation.LEASE_EFFECT
_KINDS = {
    each.path.rpartition("/")[2].encode(): kind
    for each, kind in (
        (Operation.RENEW_EFFECT, Operation.RENEW_EFFECT),
        (Operation.COMMIT_EFFECT, Operation.COMMIT_EFFECT),
        (Operation.FAIL_EFFECT, Operation.COMMIT_EFFECT),
        (Operation.RELEASE_EFFECT, Operation.COMMIT_EFFECT),
        (Operation.REPORT_OBSERVE, Operation.REPORT_OBSERVE),
    )
}
"""Which requests share a limit, by the last part of their path. All others share one: leases, reads, administration."""

_SPOIL = "verity_spoil"
_STREAM = "network_stream"
"""The extension that httpcore adds to an answer that came over a real connection."""

_Transport = AsyncOneConnectionTransport | AsyncProxyTransport


class AsyncTransportPool(httpx.AsyncBaseTransport):
    """Sends each request through a transport that no other request uses meanwhile, and reads the whole answer."""

    def __init__(self, make_transport: Callable[[], _Transport], max_connections: int = MAX_CONNECTIONS) -> None:
        self._make_transport = make_transport
        self._max_connections = max_connections
        self._binding = AsyncLoopBinding(self._close_idle)
        self._closed = False
        self._start_anew()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's sockets, and send nothing on them."""
        in_use = [
            permit.using
            for limiter in self._limiters.values()
            for permit in limiter.permits
            if permit.using is not None
        ]
        self._binding.abandon_after_fork([*self._idle, *in_use])
        self._start_anew()

    def _start_anew(self) -> None:
        # Last in, first out: few connections stay in use, and the others expire.
        self._idle: list[_Transport] = []
        kinds = {_ASKING, *_KINDS.values()}
        self._limiters = {kind: AsyncLimiter(self._max_connections) for kind in kinds}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send and receive; raises what the transport raises.

        An interrupt may come between any two of its steps. So shared state changes by single calls into C, and a
        transport goes back to the pool only once its answer is complete.
        """
        notice_fork()
        if await self._binding.rebind():
            self._start_anew()
        idle = self._idle
        limiter = self._limiters[_KINDS.get(request.url.raw_path.rpartition(b"/")[2], _ASKING)]
        permit = Permit()
        try:
            await limiter.acquire(permit)
            transport = permit.using = _take_last(idle) or self._make_transport()
            try:
                response = await transport.handle_async_request(request)
                await response.aread()
                # Tools that stand in for a server may repeat an answer; only a real connection has a stream.
                if _STREAM in response.extensions and transport.answers.have(response):
                    raise httpx.RemoteProtocolError("an earlier answer came again", request=request)
            except BaseException:
                # An answer may still come, or a lock of httpcore's be held: the transport is not used again.
                await transport.aclose()
                raise
            response.extensions[_SPOIL] = transport.spoil
            if idle is self._idle and not self._closed and len(idle) < self._max_connections:
                idle.append(transport)
            else:  # the pool was closed or bound to another event loop meanwhile, or has enough idle connections
                await transport.aclose()
            return response
        finally:
            try:  # see verity/_mutex.py
                limiter.permits.pop(permit, None)
            finally:
                limiter.wake_next()

    async def aclose(self) -> None:
        """Close all idle connections. Calls under way may finish, each request on a new connection."""
        self._closed = True
        await self._binding.release()

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        while (transport := _take_last(idle)) is not None:
            await transport.aclose()


def _take_last(idle: list[_Transport]) -> _Transport | None:
    try:
        return idle.pop()
    except IndexError:  # another thread may have taken the last one
        return None


def spoil(response: httpx.Response) -> None:
    """Make sure that the connection of this answer is not used again, if it belongs to our pool."""
    spoil_connection: Callable[[], None] | None = response.extensions.get(_SPOIL)
    if spoil_connection is not None:
        spoil_connection()
