"""HTTP on one connection: uvicorn's protocol with the limits of a ledger, and a shorter way for plain requests.

Uvicorn calls an ASGI application once a request's header is here, and hands the body and the answer over in messages. A
plain request, which nearly every one is, has a small body that comes with the header. It is taken in first, and its
answer is written in one go: the messages, and what waits for them, would cost more than the answer itself. All others
go uvicorn's way.
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
from verity.server.transport import BufferedTransport, Flow
from verity.server.uvicorn_names import HttpToolsProtocol

MOST_PLAIN_BYTES = 16_384
"""A body over it is not taken in before its sender is known: many senders could fill the memory."""

MOST_HEADER_BYTES = 65_536
"""What a header has beyond it may be anything, and there may be no end to it."""

GOODBYE_S = 0.25
"""How long the client of an idle connection may take to say that it has seen the end of it, as TLS asks for."""

_MOST_LINES_AT_ONCE = 64
_PARSED_AT_ONCE = 512
_PLAIN_METHODS = frozenset({b"GET", b"POST"})
_PLAIN_URL = re.compile(rb"/v1/[A-Za-z0-9%._~!$&'()*+,;=:@/-]*")
_NOT_PLAIN = frozenset({b"connection", b"expect", b"transfer-encoding", b"upgrade"})

_logger = logging.getLogger("verity.server")


class LedgerProtocol(HttpToolsProtocol):
    """One connection. It notes until when its client must send or take in what is due; `Connections` looks at that."""

    cycle: Any  # uvicorn's own, or a `PlainExchange`
    parser: Any
    transport: Any  # a `LastingTransport`

    def __init__(self, connections: Connections, **parts: Any) -> None:
        super().__init__(**parts)
        self.connections_of_server = connections
        self.app = connections.app
        settings = connections.settings
        self._header_timeout_s = settings.header_timeout_s
        self._body_timeout_s = settings.body_timeout_s
        self._read_timeout_s = settings.read_timeout_s
        self._most_plain_bytes = min(MOST_PLAIN_BYTES, settings.max_body_bytes)
        self._due: float | None = None
        self._unspent_bytes = 0
        """What has come since the last whole header or part of a body."""
        self._is_refused = False
        self._unread_until: float | None = None
        self._idle_until: float | None = None
        self._abort_at: float | None = None
        self._rest = b""
        self.share = connections.shares.unauthenticated
        self.unread_bytes = 0
        """What is kept of its answers, and of requests that wait for their turn, until its client reads."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for a request, or say that there are too many."""
        super().connection_made(BufferedTransport(transport, self.loop, self.keep))  # type: ignore[arg-type]
        self.flow = Flow(self.transport, lambda: bool(self.pipeline or self._rest))
        self._allow(self._header_timeout_s)
        self.connections_of_server.add(self, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.transport.forget()
        self.connections_of_server.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request, or line ends between two, which must not keep a connection for ever."""
        if self._is_refused:
            return
        self._idle_until = None
        if self._rest:
            self._rest += data
            self.keep(len(data))
            return
        if self._due is None:
            self._allow(self._header_timeout_s)
        self._unspent_bytes += len(data)
        self._feed(data)
        if self._unspent_bytes > MOST_HEADER_BYTES and self._due is not None:
            self._refuse_header()

    def _feed(self, data: bytes) -> None:
        """Have it parsed. A request that waits for its turn takes a hundred times the room of its bytes: of many in one
        go the most are left as they came.
        """
        if data.count(b"\n") <= _MOST_LINES_AT_ONCE:
            super().data_received(data)
            return
        for start in range(0, len(data), _PARSED_AT_ONCE):
            if self._is_refused or self.transport.is_closing():
                return
            if self.pipeline:
                self._rest = data[start:]
                self.keep(len(self._rest))
                return
            super().data_received(data[start : start + _PARSED_AT_ONCE])

    def _feed_rest(self) -> None:
        """Go on with what was left, where it is its turn."""
        if self._rest and not self.pipeline and not self.transport.is_closing():
            rest, self._rest = self._rest, b""
            self._idle_until = None
            self.keep(-len(rest))
            self._feed(rest)
            self.flow.resume_reading()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._allow(self._header_timeout_s)
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Its body is next."""
        self._allow(self._body_timeout_s)
        self._unspent_bytes = 0
        headers = dict(self.headers)
        if self._is_plain(headers):
            call = HttpRequest(self.parser.get_method().decode(), self.url.decode(), b"", headers)
            self.cycle = PlainExchange(call, self)
            return
        url, sent, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += sent  # by now the list that is in uvicorn's scope
        self.scope.setdefault("state", {})["connection"] = self
        super().on_headers_complete()
        self.headers = []  # for the trailers, which say nothing here: none may pass for a header

    def on_body(self, body: bytes) -> None:
        """A part of it."""
        self._unspent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is here."""
        self._due = None
        super().on_message_complete()
        if isinstance(self.cycle, PlainExchange):
            self.cycle.begin()

    def on_response_complete(self) -> None:
        """The next request, if it is here already; else the connection is idle."""
        if self._rest:
            self.loop.call_soon(self._feed_rest)
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_until = self.loop.time() + self.timeout_keep_alive

    def pause_writing(self) -> None:
        """The client does not take in what is written."""
        if self._unread_until is None:
            self._unread_until = self.loop.time() + self._read_timeout_s
        self.transport.pause()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        if self.transport.resume():
            self._unread_until = None
            super().resume_writing()

    def belong_to(self, key_id: str) -> None:
        """A request of this API key came.

        Raises:
            Problem: 429, the key has too many connections.
        """
        if self.share.key_id == key_id or self not in self.connections_of_server.open:
            return  # who left while the key was looked up has no connection that could be counted, or would ever end
        if not self.connections_of_server.shares.move(self, key_id):
            self.connections_of_server.metrics.count_connection_too_many()
            raise problems.too_many_connections_of_key()

    def keep(self, size: int) -> None:
        """So much more is kept until its client reads, or less."""
        self.connections_of_server.shares.keep(self, size)

    def is_behind(self) -> bool:
        """Whether the clients of its API key have as much left unread as they may."""
        return self.connections_of_server.shares.is_full(self.share)

    async def drain(self, size: int) -> None:
        """Wait, with an answer of so many bytes, until its client has read those before."""
        if self.flow.write_paused:
            self.keep(size)
            try:
                await self.flow.drain()
            finally:
                self.keep(-size)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless it follows a request that is being carried out: to that one the refusal would
        pass for the answer. Such a connection just ends, which leaves the outcome unknown, as it is.
        """
        cycle = self.cycle
        is_under_way = not (cycle is None or cycle.response_complete)
        if self.pipeline or (is_under_way and _is_whole_or_answered(cycle)):
            self.transport.close()
        else:
            super().send_400_response(msg)

    def shutdown(self) -> None:
        """The server stops: an idle connection ends now, any other one with the answer that is under way."""
        if self.cycle is None or self.cycle.response_complete:
            self.timeout_keep_alive_handler()
        else:
            self.cycle.keep_alive = False

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection. With TLS that wants a word of the client, which an idle one may never say: it is
        waited for until the next look.
        """
        if not self.transport.is_closing():
            self.transport.close()
            self._abort_at = self.loop.time() + GOODBYE_S

    def _unsupported_upgrade_warning(self) -> None:
        """Answer a request that offers another protocol in this one, and end the connection: the parser leaves off at
        the end of such a header, and would take a body that comes next for a request.
        """
        self._is_refused = True
        self.cycle.keep_alive = False

    def cut_off(self, now: float) -> None:
        """End the connection if its client took too long, of which the application is told, or if it was idle for too
        long.
        """
        if self._abort_at is not None and now >= self._abort_at:
            self.transport.abort()
            return
        if self._unread_until is not None and now >= self._unread_until:
            self._unread_until = None
            self.connections_of_server.metrics.count_slow_reader()
            self.transport.abort()
            return
        if self._idle_until is not None and now >= self._idle_until:
            self.timeout_keep_alive_handler()
        if self._due is None or now < self._due:
            return
        if self.transport.is_reading():
            self._due = None
            self.connections_of_server.metrics.count_slow_sender()
            self.transport.abort()
        else:  # it is this side that takes nothing in at the moment
            self._allow(self._body_timeout_s)

    def _refuse_header(self) -> None:
        """What still comes of it is thrown away for as long as a header may take: closed on unread data, the connection
        would be reset, and the answer lost with it. One after a request that is under way ends the connection.
        """
        if self.pipeline or not (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
            return
        self._is_refused = True
        self.transport.write_at_once(write_refusal(problems.header_too_large(MOST_HEADER_BYTES)))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _allow(self, seconds: float) -> None:
        self._due = self.loop.time() + seconds

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
    """The exchange of a plain request. It stands where uvicorn keeps a `RequestResponseCycle`, and has what it looks at
    there.
    """

    __slots__ = (
        *("_gone", "_protocol", "body", "call", "disconnected", "keep_alive", "more_body", "response_complete"),
        "response_started",
    )

    def __init__(self, call: HttpRequest, protocol: LedgerProtocol) -> None:
        self.call = call
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
        """Where uvicorn tells that something has changed."""
        return self

    def set(self) -> None:
        """Something has changed; that the client has left is all that matters."""
        if not self.disconnected:
            return
        if self.more_body:
            self._protocol.connections_of_server.app.give_up(self.call)
        elif self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def begin(self) -> None:
        """Have the request answered: all of it is here."""
        protocol = self._protocol
        task = protocol.loop.create_task(protocol.connections_of_server.app.serve(self.call, self))
        protocol.tasks.add(task)
        task.add_done_callback(self._end)

    async def read_body(self, max_bytes: int) -> bytes:  # noqa: ARG002 - a plain request's body is small
        """All of the request's body."""
        return self.body

    @property
    def connection(self) -> LedgerProtocol:
        """What it came on."""
        return self._protocol

    async def until_gone(self) -> None:
        """Return when the client has left."""
        if not self.disconnected:
            self._gone = self._protocol.loop.create_future()
            await self._gone

    async def send(self, answer: Answer, request_id: str) -> None:
        """Answer, if there is still somebody."""
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
        date = protocol.connections_of_server.lines_for_all(protocol.server_state.default_headers)
        protocol.transport.write_at_once(b"%b%b%b\r\n%b" % (STATUS_LINE[answer.status], date, lines, answer.body))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def _end(self, task: asyncio.Task[None]) -> None:
        self._protocol.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _logger.error("a request failed: %s", describe(error), extra={"requestId": self.call.request_id})
            self._protocol.transport.close()
