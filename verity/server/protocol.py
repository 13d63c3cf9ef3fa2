"""HTTP on one connection: uvicorn's protocol with the limits of a ledger, and a fast path for plain requests.

A plain request has a small body and no unusual header; nearly every request is one. Its body is read before the
application is called, and its answer is written at once. All other requests take uvicorn's path: uvicorn calls the ASGI
application after the header, and passes body and answer in messages, which cost more than the answer itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

from verity._ledger.calls import Answer
from verity.server import problems
from verity.server.connections import Connections
from verity.server.exchange import Headers, HttpRequest, head_of
from verity.server.head import STATUS_LINE, write_lines, write_refusal
from verity.server.logs import describe
from verity.server.transport import BufferedTransport, PipelineFlow
from verity.server.uvicorn_names import HttpToolsProtocol

MOST_PLAIN_BYTES = 16_384
"""The largest body of a plain request. A larger body is read only after its sender is authenticated: otherwise many
unauthenticated clients could fill the memory.
"""

MOST_HEADER_BYTES = 65_536
"""The largest header of a request. A larger one is refused with 431."""

CLOSE_NOTIFY_S = 0.25
"""How long the server waits for the client's close_notify (TLS) when it closes an idle connection, in seconds."""

_MOST_LINES_AT_ONCE = 64
_PARSED_AT_ONCE = 512
_PLAIN_METHODS = frozenset({b"GET", b"POST"})
_PLAIN_URL = re.compile(rb"/v1/[A-Za-z0-9%._~!$&'()*+,;=:@/-]*")
_NOT_PLAIN = frozenset({b"connection", b"expect", b"transfer-encoding", b"upgrade"})

_logger = logging.getLogger("verity.server")


class LedgerProtocol(HttpToolsProtocol):
    """One connection. It sets deadlines for its client, and `Connections` calls `enforce_deadlines` regularly."""

    cycle: Any  # uvicorn's RequestResponseCycle, or a `PlainExchange`
    parser: Any
    transport: Any  # a `BufferedTransport`

    def __init__(self, connections: Connections, **parts: Any) -> None:
        super().__init__(**parts)
        self.connections_of_server = connections
        self.app = connections.app
        settings = connections.settings
        self._header_timeout_s = settings.header_timeout_s
        self._body_timeout_s = settings.body_timeout_s
        self._read_timeout_s = settings.read_timeout_s
        self._most_plain_bytes = min(MOST_PLAIN_BYTES, settings.max_body_bytes)
        self._receive_deadline: float | None = None
        self._bytes_since_progress = 0
        """Bytes received since the last whole header or part of a body."""
        self._is_refused = False
        self._read_deadline: float | None = None
        self._idle_deadline: float | None = None
        self._abort_at: float | None = None
        self._unparsed = b""
        self.usage = connections.usage_by_key.unauthenticated
        self.unread_bytes = 0
        """Bytes of answers that its client has not read, and of pipelined requests that are not parsed yet."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        """Wait for a request, or answer that there are too many connections."""
        super().connection_made(BufferedTransport(transport, self.loop, self.add_unread))  # type: ignore[arg-type]
        self.flow = PipelineFlow(self.transport, lambda: bool(self.pipeline or self._unparsed))
        self._set_receive_deadline(self._header_timeout_s)
        self.connections_of_server.add(self, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.transport.forget()
        self.connections_of_server.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request, or line ends between two requests, which must not keep a connection open."""
        if self._is_refused:
            return
        self._idle_deadline = None
        if self._unparsed:
            self._unparsed += data
            self.add_unread(len(data))
            return
        if self._receive_deadline is None:
            self._set_receive_deadline(self._header_timeout_s)
        self._bytes_since_progress += len(data)
        self._parse(data)
        if self._bytes_since_progress > MOST_HEADER_BYTES and self._receive_deadline is not None:
            self._refuse_header()

    def _parse(self, data: bytes) -> None:
        """Parse what came. If it may be many pipelined requests, most of it stays unparsed for now.

        A parsed request that waits takes a hundred times the memory of its bytes.
        """
        if data.count(b"\n") <= _MOST_LINES_AT_ONCE:
            super().data_received(data)
            return
        for start in range(0, len(data), _PARSED_AT_ONCE):
            if self._is_refused or self.transport.is_closing():
                return
            if self.pipeline:
                self._unparsed = data[start:]
                self.add_unread(len(self._unparsed))
                return
            super().data_received(data[start : start + _PARSED_AT_ONCE])

    def _parse_rest(self) -> None:
        """Parse more of what stayed unparsed, if no parsed request waits."""
        if self._unparsed and not self.pipeline and not self.transport.is_closing():
            rest, self._unparsed = self._unparsed, b""
            self._idle_deadline = None
            self.add_unread(-len(rest))
            self._parse(rest)
            self.flow.resume_reading()

    def on_message_begin(self) -> None:
        """Called when a request begins."""
        self._set_receive_deadline(self._header_timeout_s)
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Called after a request's header: choose the fast path or uvicorn's path."""
        self._set_receive_deadline(self._body_timeout_s)
        self._bytes_since_progress = 0
        headers = dict(self.headers)
        if self._is_plain(headers):
            request = HttpRequest(self.parser.get_method().decode(), self.url.decode(), b"", headers)
            self.cycle = PlainExchange(request, self)
            return
        url, sent, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += sent  # this is now the list in uvicorn's scope
        self.scope.setdefault("state", {})["connection"] = self
        super().on_headers_complete()
        self.headers = []  # for the trailers, which are ignored: none may pass for a header

    def on_body(self, body: bytes) -> None:
        """Called for a part of a request's body."""
        self._bytes_since_progress = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called when the whole request is here."""
        self._receive_deadline = None
        super().on_message_complete()
        if isinstance(self.cycle, PlainExchange):
            self.cycle.begin()

    def on_response_complete(self) -> None:
        """Go on with the next pipelined request; if there is none, the connection is idle."""
        if self._unparsed:
            self.loop.call_soon(self._parse_rest)
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_deadline = self.loop.time() + self.timeout_keep_alive

    def pause_writing(self) -> None:
        """Called when the buffers are full: the client does not read."""
        if self._read_deadline is None:
            self._read_deadline = self.loop.time() + self._read_timeout_s
        self.transport.pause()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Called when the buffers have room again."""
        if self.transport.resume():
            self._read_deadline = None
            super().resume_writing()

    def assign_to_key(self, key_id: str) -> None:
        """Count this connection for the API key of the request that came.

        Raises:
            Problem: 429, the key has too many connections.
        """
        if self.usage.key_id == key_id or self not in self.connections_of_server.open:
            return  # a connection that ended while the key was looked up would be counted for ever
        if not self.connections_of_server.usage_by_key.assign(self, key_id):
            self.connections_of_server.metrics.count_connection_too_many()
            raise problems.too_many_connections_of_key()

    def add_unread(self, size: int) -> None:
        """Add to the connection's unread bytes; a negative size subtracts."""
        self.connections_of_server.usage_by_key.add_unread(self, size)

    def has_too_much_unread(self) -> bool:
        """Whether its API key has reached the limit of unread bytes."""
        return self.connections_of_server.usage_by_key.has_too_much_unread(self.usage)

    def has_left(self) -> bool:
        """Whether the client has closed the connection."""
        closing: bool = self.transport.is_closing()
        return closing

    async def drain(self, size: int) -> None:
        """Wait until the client has read the answers before the next one, which has so many bytes."""
        if self.flow.write_paused:
            self.add_unread(size)
            try:
                await self.flow.drain()
            finally:
                self.add_unread(-size)

    def send_400_response(self, msg: str) -> None:
        """Answer 400 to bytes that are not HTTP, unless an earlier request is under way.

        The client would take the 400 for the answer to that earlier request. In this case the connection is closed
        without an answer: the client then knows that the outcome is unknown.
        """
        cycle = self.cycle
        is_under_way = not (cycle is None or cycle.response_complete)
        if self.pipeline or (is_under_way and _is_whole_or_answered(cycle)):
            self.transport.close()
        else:
            super().send_400_response(msg)

    def shutdown(self) -> None:
        """Stop with the server: an idle connection ends now, any other one after its current answer."""
        if self.cycle is None or self.cycle.response_complete:
            self.timeout_keep_alive_handler()
        else:
            self.cycle.keep_alive = False

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection.

        With TLS, closing waits for the client's close_notify, which an idle client may never send. After
        `CLOSE_NOTIFY_S`, the next check of the deadlines aborts the connection.
        """
        if not self.transport.is_closing():
            self.transport.close()
            self._abort_at = self.loop.time() + CLOSE_NOTIFY_S

    def _unsupported_upgrade_warning(self) -> None:
        """Answer a request that offers a protocol upgrade in HTTP, and close the connection after the answer.

        The parser stops at the end of such a header. It would take a body that follows for the next request.
        """
        self._is_refused = True
        self.cycle.keep_alive = False

    def enforce_deadlines(self, now: float) -> None:
        """End the connection if its client missed a deadline, which the metrics count, or if it was idle for too long.

        Args:
            now: the event loop's time, in seconds.
        """
        if self._abort_at is not None and now >= self._abort_at:
            self.transport.abort()
            return
        if self._read_deadline is not None and now >= self._read_deadline:
            self._read_deadline = None
            self.connections_of_server.metrics.count_slow_reader()
            self.transport.abort()
            return
        if self._idle_deadline is not None and now >= self._idle_deadline:
            self.timeout_keep_alive_handler()
        if self._receive_deadline is None or now < self._receive_deadline:
            return
        if self.transport.is_reading():
            self._receive_deadline = None
            self.connections_of_server.metrics.count_slow_sender()
            self.transport.abort()
        else:  # the server itself does not read at the moment: not the client's fault
            self._set_receive_deadline(self._body_timeout_s)

    def _refuse_header(self) -> None:
        """Answer 431, unless an earlier request is under way: then close the connection, as `send_400_response` does.

        The rest of the header is discarded until the receive deadline. Closing a connection that has unread data resets
        it, and then the client may lose the answer.
        """
        if self.pipeline or not (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
            return
        self._is_refused = True
        self.transport.write_at_once(write_refusal(problems.header_too_large(MOST_HEADER_BYTES)))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _set_receive_deadline(self, seconds: float) -> None:
        self._receive_deadline = self.loop.time() + seconds

    def _is_plain(self, headers: Headers) -> bool:
        if not (self.cycle is None or self.cycle.response_complete):
            return False
        if len(headers) != len(self.headers) or not _NOT_PLAIN.isdisjoint(headers):
            return False
        length = headers.get(b"content-length", b"0")
        return (
            len(length) < 8
            and int(length) <= self._most_plain_bytes
            and _PLAIN_URL.fullmatch(self.url) is not None
            and self.parser.get_method() in _PLAIN_METHODS
            and self.parser.get_http_version() == "1.1"
        )


def _is_whole_or_answered(cycle: Any) -> bool:
    return bool(cycle.response_started or not cycle.more_body)


class PlainExchange:
    """The exchange of a plain request.

    It is stored where uvicorn keeps its `RequestResponseCycle`, and has the attributes that uvicorn uses there.
    """

    __slots__ = (
        *("_gone", "_protocol", "body", "disconnected", "keep_alive", "more_body", "request", "response_complete"),
        "response_started",
    )

    def __init__(self, request: HttpRequest, protocol: LedgerProtocol) -> None:
        self.request = request
        self.body = b""
        self.more_body = True
        self.keep_alive = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self._protocol = protocol
        self._gone: asyncio.Future[None] | None = None

    @property
    def message_event(self) -> PlainExchange:
        """The event that uvicorn sets when the exchange has changed."""
        return self

    def set(self) -> None:
        """Called by uvicorn after a change; only the change to `disconnected` matters."""
        if not self.disconnected:
            return
        if self.more_body:
            self._protocol.connections_of_server.app.record_client_gone(self.request)
        elif self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def begin(self) -> None:
        """Start the task that answers the request."""
        protocol = self._protocol
        task = protocol.loop.create_task(protocol.connections_of_server.app.serve(self.request, self))
        protocol.tasks.add(task)
        task.add_done_callback(self._end)

    async def read_body(self, max_bytes: int) -> bytes:  # noqa: ARG002 - a plain request's body is small
        """The whole body of the request."""
        return self.body

    @property
    def connection(self) -> LedgerProtocol:
        """The connection of the request."""
        return self._protocol

    async def until_gone(self) -> None:
        """Return when the client has left."""
        if not self.disconnected:
            self._gone = self._protocol.loop.create_future()
            await self._gone

    async def send(self, answer: Answer, request_id: str) -> None:
        """Send the answer, if the client is still connected."""
        protocol = self._protocol
        if protocol.flow.write_paused:
            await protocol.drain(len(answer.body))
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        head = head_of(answer, request_id)
        if not self.keep_alive:
            head["connection"] = "close"
        elif "connection" in head:
            self.keep_alive = False
        lines = write_lines(head)
        date = protocol.connections_of_server.default_header_lines(protocol.server_state.default_headers)
        protocol.transport.write_at_once(b"%b%b%b\r\n%b" % (STATUS_LINE[answer.status], date, lines, answer.body))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def _end(self, task: asyncio.Task[None]) -> None:
        self._protocol.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _logger.error("a request failed: %s", describe(error), extra={"requestId": self.request.request_id})
            self._protocol.transport.close()
