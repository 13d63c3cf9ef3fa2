"""Plain requests, which go a way of their own, and all others: they get the same answers. Loopback sockets."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
import pytest

from tests.helpers.served_ledger import ServedLedger
from verity.server.protocol import MOST_HEADER_BYTES, MOST_PLAIN_BYTES, LedgerProtocol, PlainExchange
from verity.server.settings import ServerSettings

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def new_key() -> str:
    return secrets.token_hex(8)


class Raw:
    """A connection, byte for byte."""

    def __init__(self, served: ServedLedger, key: str = "") -> None:
        url = httpx.URL(served.base_url)
        self.socket = socket.create_connection((url.host, url.port or 0), timeout=30)
        self.key = key
        self._received = b""
        self._served = served

    def request(self, method: str, path: str, body: bytes = b"", *, headers: str = "", version: str = "1.1") -> bytes:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {path} HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n{length}{headers}\r\n"
        return head.encode() + body

    def lease(self, key: str, *, headers: str = "", version: str = "1.1") -> bytes:
        body = json.dumps({"effectKey": key}).encode()
        return self.request("POST", "/v1/effects/n/lease", body, headers=headers, version=version)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: its status, headers and body."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, rest = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers["content-length"])
        self._received = rest
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return int(first.split()[1]), headers, body

    def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        self.socket.sendall(request)
        return self.answer()

    def of_server(self) -> LedgerProtocol:
        """The other end of it."""
        (connection,) = [each for each in self._served.connections if each.client == self.socket.getsockname()]
        return connection

    def is_plain(self) -> bool:
        """Whether the latest request went the short way."""
        return isinstance(self.of_server().cycle, PlainExchange)

    def is_closed(self) -> bool:
        return self.socket.recv(1000) == b""

    def _receive(self) -> None:
        part = self.socket.recv(65_536)
        assert part, "the connection was closed"
        self._received += part

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.fixture
def raw(served: ServedLedger) -> Iterator[Raw]:
    with Raw(served, served.create_key()) as connection:
        yield connection


OTHER = "Connection: keep-alive\r\n"  # a header that makes a request none of the plain ones


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/effects/n/lease", b'{"effectKey":"same"}'),
        ("POST", "/v1/effects/n/lease", b'{"effectKey":1}'),
        ("POST", "/v1/effects/n/lease", b'{"effectKey":"a"'),
        ("POST", "/v1/effects/n/lease", b""),
        ("POST", "/v1/effects/%FF/lease", b'{"effectKey":"a"}'),
        ("POST", f"/v1/effects/{'n' * 300}/lease", b'{"effectKey":"a"}'),
        ("POST", "/v1/effects/n/commit", b'{"effectKey":"a"}'),
        ("GET", "/v1/effects/n/lease", b""),
        ("GET", "/v1/nowhere", b""),
        ("GET", "/v1/namespaces", b""),
        ("GET", "/v1/namespaces", b"x"),
        ("POST", "/v1/effects/n/reset", b'{"effectKey":"a"}'),
    ],
)
def test_a_plain_request_is_answered_as_any_other(method: str, path: str, body: bytes, raw: Raw) -> None:
    raw.ask(raw.lease("same"))  # so that both meet the same state
    status, head, answer = raw.ask(raw.request(method, path, body))
    assert raw.is_plain()
    other = raw.ask(raw.request(method, path, body, headers=OTHER))
    assert not raw.is_plain()
    assert (status, sorted(head)) == (other[0], sorted(other[1]))
    known = re.compile(rb"req_[0-9a-f]{24}")
    assert known.sub(b"", answer) == known.sub(b"", other[2])
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", head["date"])


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        (lambda raw: raw.lease(new_key(), headers="Expect: 100-continue\r\n"), 100),
        (lambda raw: raw.lease(new_key(), headers="Upgrade: websocket\r\n"), 200),
        (lambda raw: raw.lease(new_key(), headers="X-A: 1\r\nX-A: 2\r\n"), 200),
        (lambda raw: raw.request("GET", "/v1/effects?limit=1"), 200),
        (lambda raw: raw.request("HEAD", "/v1/namespaces"), 405),
        (lambda raw: raw.request("PUT", "/v1/namespaces"), 405),
        (lambda raw: raw.request("POST", "/v1/effects/n/lease", b"x" * (MOST_PLAIN_BYTES + 1)), 400),
        (lambda raw: raw.request("GET", "http://x/v1/namespaces"), 200),
        (lambda raw: raw.request("GET", "/v1/namespaces#x"), 200),
        (lambda raw: raw.request("GET", "/healthz"), 200),
        (
            lambda raw: (
                raw.request("POST", "/v1/effects/n/lease", headers="Transfer-Encoding: chunked\r\n")
                + b'11\r\n{"effectKey":"a"}\r\n0\r\n\r\n'
            ),
            409,
        ),
    ],
)
def test_what_is_not_plain_goes_the_long_way(request_of, status: int, raw: Raw) -> None:  # type: ignore[no-untyped-def]
    raw.ask(raw.lease("a"))
    raw.socket.sendall(request_of(raw))
    assert raw.socket.recv(65_536).startswith(f"HTTP/1.1 {status} ".encode())
    assert not raw.is_plain()


@pytest.mark.parametrize(("version", "headers"), [("1.0", ""), ("1.0", OTHER), ("1.1", "Connection: close\r\n")])
def test_what_asks_to_be_closed_is_answered_and_closed(version: str, headers: str, raw: Raw) -> None:
    status, head, _ = raw.ask(raw.lease(new_key(), version=version, headers=headers))
    assert (status, head["connection"]) == (200, "close")
    assert raw.is_closed()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_follows_an_offer_of_another_protocol_is_no_request(method: str, raw: Raw) -> None:
    """Its own body least of all, which a proxy takes for one."""
    smuggled = raw.lease(new_key())
    offer = f"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: {len(smuggled)}\r\n"
    status, head, _ = raw.ask(raw.request(method, "/v1/effects/n/lease", headers=offer))
    assert (status, head["connection"]) == (405 if method == "GET" else 400, "close")
    with suppress(ConnectionError):
        raw.socket.sendall(smuggled)
        assert raw.is_closed()


def test_requests_in_one_go_are_answered_in_their_order(raw: Raw) -> None:
    keys = [f"pipelined {number}" for number in range(20)]
    raw.socket.sendall(b"".join(raw.lease(key) if number % 3 else HEALTHZ for number, key in enumerate(keys)))
    for number, key in enumerate(keys):
        status, _, body = raw.answer()
        assert status == 200
        assert json.loads(body).get("effectKey") == (key if number % 3 else None)


def test_requests_that_come_faster_than_they_are_answered_are_not_taken_in(raw: Raw) -> None:
    count, most = 30_000, 0
    at_once = 512 * 1024  # what one read may bring, and then some
    sender = threading.Thread(target=raw.socket.sendall, args=[HEALTHZ * count])
    sender.start()
    assert raw.answer()[0] == 200
    connection = raw.of_server()
    for _ in range(count - 1):
        raw.answer()
        most = max(most, connection.unread_bytes)
    sender.join()
    assert 0 < most <= at_once


def test_a_request_in_pieces(raw: Raw) -> None:
    raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = raw.lease("in pieces")
    for at in range(len(request)):
        raw.socket.sendall(request[at : at + 1])
    assert json.loads(raw.answer()[2])["effectKey"] == "in pieces"
    assert raw.is_plain()


def test_an_idle_connection_is_closed_after_its_time_and_not_before_it_was_used_again() -> None:
    with ServedLedger(settings=ServerSettings(keep_alive_s=1, header_timeout_s=0.1)) as served:
        key = served.create_key()
        with Raw(served, key) as plain, Raw(served) as other:
            assert plain.ask(plain.lease("idle"))[0] == 200
            assert other.ask(HEALTHZ)[0] == 200
            assert other.ask(HEALTHZ)[0] == 200
            assert plain.is_closed()
            assert other.is_closed()


LARGE = b"x" * 1_000_000


@pytest.mark.parametrize(
    "start",
    [b"GET /v1/namespaces HTTP/1.1\r\nX-Large: ", b"GET /v1/namespaces?"],
    ids=["header", "URL"],
)
def test_a_header_without_end_is_refused_and_not_kept(start: bytes, served: ServedLedger, raw: Raw) -> None:
    raw.socket.sendall(start + LARGE)
    status, head, body = raw.answer()
    assert (status, json.loads(body)["error"]["code"], head["connection"]) == (431, "invalid_request", "close")
    for _ in range(20):  # taken in and thrown away
        raw.socket.sendall(LARGE)
    connection = raw.of_server()
    assert (
        sum(map(len, (connection.url, *(part for header in connection.headers or () for part in header)))) < 1_000_000
    )


def test_a_trailer_without_end_ends_the_connection(raw: Raw) -> None:
    chunked = raw.request("POST", "/v1/effects/n/lease", headers="Transfer-Encoding: chunked\r\n")
    with pytest.raises(ConnectionError):
        raw.socket.sendall(chunked + b"0\r\nX-Large: " + LARGE * 100)


@pytest.mark.parametrize("trailer", ["Authorization: Bearer x", "Content-Type: text/xml", "X-Request-Id: trailing"])
def test_a_trailer_is_no_header(trailer: str, raw: Raw) -> None:
    """Whoever looks at the header, such as a proxy that lets in what it knows, would not have seen it."""
    start = raw.request("POST", "/v1/effects/n/lease", headers="Transfer-Encoding: chunked\r\n")
    chunk = f'20\r\n{{"effectKey":"{new_key()}"}}\r\n'
    status, head, _ = raw.ask(start + f"{chunk}0\r\n{trailer}\r\n\r\n".encode())
    assert status == 200
    assert head["x-request-id"] != "trailing"


def test_line_ends_without_end_are_refused(raw: Raw) -> None:
    assert raw.ask(HEALTHZ)[0] == 200
    assert raw.ask(b"\r\n" * 500_000)[0] == 431


def test_many_requests_in_one_go_are_no_large_header(raw: Raw) -> None:
    request = raw.request("GET", "/v1/namespaces")
    count = 4 * MOST_HEADER_BYTES // len(request)
    sender = threading.Thread(target=raw.socket.sendall, args=[request * count])
    sender.start()
    assert {raw.answer()[0] for _ in range(count)} == {200}
    sender.join()


def test_a_large_header_within_the_limit_is_read(raw: Raw) -> None:
    padding = "".join(f"X-{number}: {'x' * 500}\r\n" for number in range(100))
    assert raw.ask(raw.request("GET", "/v1/namespaces", headers=padding))[0] == 200


@pytest.mark.parametrize("name", ["traceparent", "Prefer"])
def test_a_header_that_says_nothing_is_ignored_however_long_it_is(name: str, raw: Raw) -> None:
    """As their standards ask for (W3C Trace Context 3.2, RFC 7240 2)."""
    assert raw.ask(raw.lease(new_key(), headers=f"{name}: {'x' * 10_000}\r\n"))[0] == 200


def fill_the_buffers(raw: Raw) -> tuple[bytes, int]:
    """Ask for a large answer and read nothing, until no more fits between the two ends.

    Returns the request, and how often it was answered.
    """
    granted = json.loads(raw.ask(raw.lease(key := new_key()))[2])
    tokens = {name: granted[name] for name in ("fenceToken", "leaseToken")}
    commit = json.dumps({"effectKey": key, **tokens, "result": "x" * 60_000}).encode()
    assert raw.ask(raw.request("POST", "/v1/effects/n/commit", commit))[0] == 200
    read = raw.request("GET", f"/v1/effect-ids/{granted['effectId']}")
    connection = raw.of_server()
    asked = 0
    while not connection.flow.write_paused:
        connection.cycle = None
        raw.socket.sendall(read)
        asked += 1
        wait_until(lambda: connection.cycle is not None and connection.cycle.response_complete)
        assert asked < 1_000
    return read, asked


def test_who_reads_nothing_is_not_answered_without_end(served: ServedLedger, raw: Raw) -> None:
    """The answers of one connection don't gather in memory."""
    read, asked = fill_the_buffers(raw)
    connection = raw.of_server()
    connection.cycle = None
    raw.socket.sendall(read)
    wait_until(lambda: connection.cycle is not None and not connection.cycle.more_body)
    assert httpx.get(served.base_url.replace("/v1", "/healthz")).status_code == 200
    assert not connection.cycle.response_complete
    wait_until(lambda: connection.unread_bytes >= 60_000)
    for _ in range(asked + 1):
        assert raw.answer()[0] == 200
    wait_until(lambda: connection.unread_bytes == 0)


def test_who_reads_nothing_is_cut_off() -> None:
    with ServedLedger(settings=ServerSettings(read_timeout_s=0.3)) as served, Raw(served, served.create_key()) as raw:
        read, _ = fill_the_buffers(raw)
        raw.socket.sendall(read)  # whose answer waits, and is given up
        wait_until(lambda: not served.connections)
        text = httpx.get(served.base_url.replace("/v1", "/metrics")).text
        assert '\nverity_connections_cut_total{reason="slow_reader"} 1.0\n' in text


def test_a_stopping_server_answers_what_has_begun_and_closes(served: ServedLedger) -> None:
    with ServedLedger() as other, Raw(other, other.create_key()) as holder, Raw(other) as waiter:
        waiter.key = holder.key
        assert holder.ask(holder.lease("held"))[0] == 200
        waiter.socket.sendall(waiter.lease("held", headers="Prefer: wait=20\r\n"))
        wait_until(lambda: other.app.waiting.waiting_count == 1)
        stopping = threading.Thread(target=other.stop)
        stopping.start()
        status, head, _ = waiter.answer()
        assert (status, head["connection"]) == (409, "close")
        assert waiter.is_closed()
        assert holder.is_closed()
        stopping.join()


def test_who_leaves_while_waiting_waits_no_more(served: ServedLedger, raw: Raw) -> None:
    assert raw.ask(raw.lease("left"))[0] == 200
    with Raw(served, raw.key) as waiter:
        waiter.socket.sendall(waiter.lease("left", headers="Prefer: wait=20\r\n"))
        wait_until(lambda: served.app.waiting.waiting_count == 1)
    wait_until(lambda: served.app.waiting.waiting_count == 0)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return once it is so; fail where that takes longer than anything here could take of its own accord."""
    end = time.monotonic() + 15
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


async def test_until_gone_returns_at_once_where_the_client_has_left() -> None:
    exchange = PlainExchange(None, None)  # type: ignore[arg-type]  # neither is looked at
    exchange.more_body = False
    exchange.disconnected = True
    await asyncio.wait_for(exchange.until_gone(), 5)
