# Made from verity/_async/connection.py by scripts/mirror.py. Do not edit.
"""httpx transports with one connection each: a direct one without a pool, and one through a proxy.

Both detect an answer that no request asked for, and limit the time of a whole answer.

Only this module and its mirror use private names of httpx and httpcore. `check_libraries` looks for them.
Safety depends on them. Without `_pool`, requests would go through httpx's own pool. Without the others, the client
could not detect an answer that no request asked for, nor limit the time of an answer that comes through a proxy.
"""

from __future__ import annotations

import ssl
from collections import deque
from functools import cache
from typing import Any

import httpcore
import httpx

from verity._clock import monotonic
from verity._concurrency import sync_addresses, sync_connect
from verity._private_names import check_names

HTTPX = "httpx>=0.27,<0.29"
HTTPCORE = "httpcore>=1.0.3,<1.1"
KEEPALIVE_S = 30.0
_REMEMBERED = 8
"""How many of its latest answers a connection remembers, to detect one that comes again."""
_ONE_CONNECTION = httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_S)
_ORIGIN = httpcore.Origin(b"http", b"ledger", 80)
_TLS_ORIGIN = httpcore.Origin(b"https", b"ledger", 443)


@cache
def check_libraries(*, proxy: bool) -> None:
    """Refuse an httpx or httpcore without the private names that this module uses. Opens no connection.

    Args:
        proxy: whether connections go through a proxy.

    Raises:
        VerityConfigError: a name is gone.
    """
    transport = httpx.HTTPTransport(verify=False, proxy="http://proxy" if proxy else None)
    check_names(HTTPX, transport, "_pool")
    check_names(HTTPCORE, httpcore.HTTPConnection(_ORIGIN), "_connection")
    check_names(HTTPCORE, httpcore.HTTP11Connection(_ORIGIN, httpcore.NetworkStream()), "_h11_state")
    if proxy:
        pool = transport._pool  # noqa: SLF001 - as below
        check_names(HTTPCORE, pool, "_network_backend", "connections", "create_connection")
        for origin in (_ORIGIN, _TLS_ORIGIN):  # a proxy has a kind of connection for each of the two
            check_names(HTTPCORE, pool.create_connection(origin), "_connection")


class Answers:
    """The latest answers of a connection, to detect one that a proxy sends again.

    The ledger gives each answer an id of its own, so that no two are alike. An answer that comes again may be about the
    effect that the next request asks for: an earlier holder's grant, or the renewal of a lease that is lost by now.
    """

    def __init__(self) -> None:
        self._latest: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)

    def have(self, response: httpx.Response) -> bool:
        """Return whether this answer came before, and remember it. An answer without an id counts as new."""
        request_id = response.headers.get("x-request-id")
        if request_id is None:
            return False
        answer = (request_id, hash(response.content))
        came_before = answer in self._latest
        self._latest.append(answer)
        return came_before


class SyncOneConnectionTransport(httpx.HTTPTransport):
    """httpx's own transport, so that vcrpy and respx see it and errors are mapped as usual, over one connection.

    httpx has no public way to replace a transport's pool, so its private attribute is set. With httpx's own pool, an
    answer that no request asked for could pass for the next one's, and a slow answer would have no time limit.
    """

    def __init__(self, ssl_context: ssl.SSLContext | bool) -> None:
        super().__init__(verify=ssl_context, limits=_ONE_CONNECTION)
        self.answers = Answers()
        self._one = _SyncOneConnection(ssl_context)
        self._pool = self._one  # type: ignore[assignment]  # it is used as a request interface

    def spoil(self) -> None:
        """Have the next request open a new connection: this one gave the answer to a different request."""
        self._one.is_spoilt = True


class SyncProxyTransport(httpx.HTTPTransport):
    """One connection through a proxy, over httpx's own pool, with the same checks of its answers."""

    def __init__(self, ssl_context: ssl.SSLContext | bool, proxy: str) -> None:
        super().__init__(verify=ssl_context, proxy=proxy, limits=_ONE_CONNECTION)
        self._pool._network_backend = _Network()  # noqa: SLF001 - httpx has no way to hand it in
        self.answers = Answers()
        self._is_spoilt = False

    def spoil(self) -> None:
        """Have the next request open a new connection: this one gave the answer to a different request."""
        self._is_spoilt = True

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. The caller reads the answer to its end before it sends the next request."""
        if self._is_spoilt or any(_answers_unasked(each) for each in self._pool.connections):
            self.close()  # closes the connections only: the transport then opens new ones
            self._is_spoilt = False
        return super().handle_request(request)

    def close(self) -> None:
        """Close the connections without the lock of httpx's pool: an interrupted thread may still hold that lock."""
        for connection in self._pool.connections:
            connection.close()


class _SyncOneConnection:
    """Opens its connection on first use, and a new one when the old one is closed, broken or idle for too long."""

    def __init__(self, ssl_context: ssl.SSLContext | bool) -> None:
        self._ssl_context = ssl_context if isinstance(ssl_context, ssl.SSLContext) else None
        self._connection: httpcore.HTTPConnection | None = None
        self.is_spoilt = False

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send one request. The caller reads the answer to its end before it sends the next request."""
        connection = self._connection
        if (
            connection is None
            or connection.has_expired()
            or not connection.is_available()
            or _answers_unasked(connection)
            or self.is_spoilt
        ):
            self.close()
            self.is_spoilt = False
            connection = self._connection = httpcore.HTTPConnection(
                origin=request.url.origin,
                ssl_context=self._ssl_context,
                keepalive_expiry=KEEPALIVE_S,
                network_backend=_Network(),
            )
        return connection.handle_request(request)

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _answers_unasked(connection: object) -> bool:
    """Return whether the connection has received more than the answer to the last request.

    httpcore would take those bytes for the answer to the next request, and so return another effect's result. It has no
    public way to ask, so this function reads private attributes. A connection without them counts as not trustworthy.
    """
    while (inner := getattr(connection, "_connection", connection)) is not connection:  # a proxy's has several layers
        if inner is None:  # it is not open yet
            return False
        connection = inner
    state = getattr(connection, "_h11_state", None)
    return state is None or bool(state.trailing_data[0])


class _Network(httpcore.NetworkBackend):
    """Opens connections on which an answer has to be complete within the timeout of a read.

    httpcore allows that time for each single read. A proxy that sends a byte now and then could delay an answer for
    ever, even that of a commit, which no cancellation interrupts.
    """

    def __init__(self) -> None:
        self._real: Any = httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *args: Any, **options: Any
    ) -> httpcore.NetworkStream:
        """Open a connection. Resolving the host and connecting take `timeout` seconds at most, together."""
        ends_at = None if timeout is None else monotonic() + timeout
        try:
            addresses = sync_addresses(host, timeout)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return _Stream(
            sync_connect(
                addresses,
                lambda address, seconds: self._real.connect_tcp(address, port, seconds, *args, **options),
                ends_at,
                (httpcore.ConnectError, httpcore.ConnectTimeout),
            )
        )


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._answered_by: float | None = None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if timeout is not None:
            now = monotonic()
            self._answered_by = self._answered_by or now + timeout
            timeout = self._answered_by - now
            if timeout <= 0:
                raise httpcore.ReadTimeout("the answer is not complete")
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._answered_by = None
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        found = self._stream.get_extra_info(info)
        if info == "is_readable" and not found:  # httpcore asks it before each request, and drops the connection
            return _holds_more(self._stream.get_extra_info("ssl_object"))
        return found


def _holds_more(tls: object) -> bool:
    """Return whether TLS holds bytes that nobody has read: an answer that no request asked for, or the end.

    An `ssl.SSLSocket` never does: it takes one record at a time, and httpcore reads all of it.
    """
    if not isinstance(tls, ssl.SSLObject):
        return False
    try:
        tls.read(1)
    except ssl.SSLError as error:
        return not isinstance(error, ssl.SSLWantReadError)
    return True
