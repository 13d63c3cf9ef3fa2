"""Many one-connection transports behind one: a request takes an idle one, uses it alone, and puts it back.

httpcore's pool walks all its connections and all its waiters for every request, so that its cost grows with
concurrency (measured: 627 requests/s with one task, 230 with 256). With one connection in each pool there is
nothing to walk. Each is still an ordinary httpx transport, so vcrpy, respx and proxies see what they expect.

What a holder says has places of its own, so that nothing else can let its lease run out: neither requests that the
ledger holds, nor slow leases and reads, nor, for renewals, slow commits. Idle connections are for all.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx

from verity._async.connection import AsyncOneConnectionTransport, AsyncProxyTransport
from verity._concurrency import AsyncLimiter, AsyncLoopBinding, Permit, forget_in_child, notice_fork
from verity._operations import Operation

MAX_CONNECTIONS = 100
"""Of each kind of request at a time. As many connections at the most are kept while they are idle."""

_ASKING = Operation.LEASE_EFFECT
_KINDS = {
    each.path.rpartition("/")[2].encode(): kind
    for each, kind in (
        (Operation.RENEW_EFFECT, Operation.RENEW_EFFECT),
        (Operation.COMMIT_EFFECT, Operation.COMMIT_EFFECT),
        (Operation.FAIL_EFFECT, Operation.COMMIT_EFFECT),
        (Operation.REPORT_OBSERVE, Operation.REPORT_OBSERVE),
    )
}
"""Which requests share a limit, by the last part of their path. All others only ask: leases, reads, administration."""

_SPOIL = "verity_spoil"
_STREAM = "network_stream"
"""What httpcore hands over with an answer that came by a connection."""

_Transport = AsyncOneConnectionTransport | AsyncProxyTransport


class AsyncTransportPool(httpx.AsyncBaseTransport):
    """Sends each request through a transport of its own and reads the whole answer before it returns."""

    def __init__(self, make_transport: Callable[[], _Transport], max_connections: int = MAX_CONNECTIONS) -> None:
        self._make_transport = make_transport
        self._max_connections = max_connections
        self._binding = AsyncLoopBinding(self._close_idle)
        self._closed = False
        self._start_anew()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Leave the parent's sockets alone: forget them without a word on the wire."""
        in_use = [
            permit.using
            for limiter in self._limiters.values()
            for permit in limiter.permits
            if permit.using is not None
        ]
        self._binding.abandon_after_fork([*self._idle, *in_use])
        self._start_anew()

    def _start_anew(self) -> None:
        # Last in, first out keeps few connections warm rather than many lukewarm.
        self._idle: list[_Transport] = []
        kinds = {_ASKING, *_KINDS.values()}
        self._limiters = {kind: AsyncLimiter(self._max_connections) for kind in kinds}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send and receive; raises what the transport raises.

        It may be interrupted between any two of its steps: what is shared changes by single calls into C, and a
        transport is in nobody else's hands before it is whole again.
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
                # Tools that stand in for a server may say the same again; only a real connection has a stream.
                if _STREAM in response.extensions and transport.answers.have(response):
                    raise httpx.RemoteProtocolError("an earlier answer came again", request=request)
            except BaseException:
                # Whatever it was, an answer may be on its way, or a lock of httpcore's held: it is not used again.
                await transport.aclose()
                raise
            response.extensions[_SPOIL] = transport.spoil
            if idle is self._idle and not self._closed and len(idle) < self._max_connections:
                idle.append(transport)
            else:  # closed, or moved to another event loop meanwhile; or there are enough
                await transport.aclose()
            return response
        finally:
            try:  # see verity/_mutex.py
                limiter.permits.pop(permit, None)
            finally:
                limiter.wake_next()

    async def aclose(self) -> None:
        """Close all idle connections. Calls under way are left to finish, each request on a connection of its own."""
        self._closed = True
        await self._binding.release()

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        while (transport := _take_last(idle)) is not None:
            await transport.aclose()


def _take_last(idle: list[_Transport]) -> _Transport | None:
    try:
        return idle.pop()
    except IndexError:  # also where another thread was quicker
        return None


def spoil(response: httpx.Response) -> None:
    """Have the connection on which this answer came not used again, where it is one of ours."""
    spoil_connection: Callable[[], None] | None = response.extensions.get(_SPOIL)
    if spoil_connection is not None:
        spoil_connection()
