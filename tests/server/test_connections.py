"""Slow senders are cut off and the others are served. Loopback sockets, short limits, nothing timed."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.helpers.served_ledger import ServedLedger
from verity.server.settings import ServerSettings

SETTINGS = ServerSettings(header_timeout_s=0.3, body_timeout_s=0.3, key_cache_s=0.0)
START = b"POST /v1/effects/a/lease HTTP/1.1\r\nHost: x\r\n"
BODY = START + b"Content-Length: 1000\r\n\r\n{"
DONE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def served() -> Iterator[ServedLedger]:
    with ServedLedger(settings=SETTINGS) as ledger:
        yield ledger


def address(served: ServedLedger) -> tuple[str, int]:
    url = httpx.URL(served.base_url)
    return url.host, url.port or 0


def connect(served: ServedLedger) -> socket.socket:
    return socket.create_connection(address(served), timeout=30)


def trickle(connection: socket.socket, part: bytes) -> None:
    """Send again and again, a little at a time, until the ledger has had enough."""
    connection.settimeout(0.02)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            connection.send(part)
            if connection.recv(1000) == b"":
                return
        except TimeoutError:
            continue
        except ConnectionError:
            return
    pytest.fail("it is never cut off")


def served_again(served: ServedLedger) -> socket.socket:
    """A connection that is not refused, perhaps after some that were."""
    for _ in range(1_000):
        connection = connect(served)
        try:
            connection.sendall(DONE)
            if connection.recv(10_000).startswith(b"HTTP/1.1 200 "):
                return connection
        except ConnectionError:
            pass
        connection.close()
    pytest.fail("it is refused for ever")


def until_closed(connection: socket.socket) -> bytes:
    """All that comes until the connection is closed or reset; times out (30 s) where it is not."""
    received = b""
    try:
        while part := connection.recv(10_000):
            received += part
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("sent", [b"", b"PO", START, BODY, START + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"])
def test_who_stops_sending_is_cut_off(sent: bytes, served: ServedLedger) -> None:
    with connect(served) as connection:
        connection.sendall(sent)
        assert until_closed(connection)[:13] in (b"", b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("first", "then"),
    [(START, b"x: y\r\n"), (BODY, b" "), (DONE, b"\r\n")],
    ids=["headers", "a body", "line ends after a request"],
)
def test_who_trickles_is_cut_off(first: bytes, then: bytes, served: ServedLedger) -> None:
    with connect(served) as connection:
        connection.sendall(first)
        trickle(connection, then)


def test_who_waits_for_an_answer_or_between_two_requests_is_not(served: ServedLedger) -> None:
    """The keep-alive time is another limit, of its own."""
    with connect(served) as idle:
        idle.sendall(DONE)
        assert idle.recv(10_000).startswith(b"HTTP/1.1 200 ")
        with connect(served) as slow:  # cut off after a time that would have been too long for the idle one, too
            slow.sendall(START)
            until_closed(slow)
        idle.sendall(DONE)
        assert idle.recv(10_000).startswith(b"HTTP/1.1 200 ")


def test_fifty_slow_senders_and_a_healthy_one() -> None:
    with ServedLedger(settings=SETTINGS) as served, ExitStack() as stack:
        key = served.create_key()
        slow = [stack.enter_context(connect(served)) for _ in range(50)]
        for number, connection in enumerate(slow):
            connection.sendall((b"", START, BODY)[number % 3])
        with httpx.Client(base_url=served.base_url, headers={"Authorization": f"Bearer {key}"}) as client:
            assert client.post("/effects/a/lease", json={"effectKey": "healthy"}).json()["status"] == "granted"
        for connection in slow:
            until_closed(connection)
        text = httpx.get(served.base_url.replace("/v1", "/metrics")).text
        assert '\nverity_connections_cut_total{reason="slow_sender"} 50.0\n' in text
        assert "\nverity_open_connections 1.0\n" in text


def test_too_many_connections() -> None:
    """Those who have shown an API key stay."""
    with ServedLedger(settings=ServerSettings(max_connections=2)) as served:
        keys = [served.create_key() for _ in range(2)]
        read = b"GET /v1/namespaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
        reads = [read % key.encode() for key in keys]
        with connect(served) as first, connect(served) as second:
            for _ in range(2):
                for connection, request in zip((first, second), reads, strict=True):
                    connection.sendall(request)
                    assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
                with connect(served) as third:
                    answer = until_closed(third)
                    assert answer.startswith(b"HTTP/1.1 503 ")
                    assert b"retry-after: 1\r\n" in answer
        served_again(served).close()  # the places are free once the ledger has seen that they are left


@pytest.fixture
def lease() -> bytes:
    """A good request, all but its API key."""
    return START + b'Content-Length: 17\r\nAuthorization: Bearer KEY\r\n\r\n{"effectKey":"a"}'


def test_what_is_no_http_is_not_refused_in_place_of_the_request_before(served: ServedLedger, lease: bytes) -> None:
    """That one is being carried out: a 400 would tell its sender that it was not."""
    lease = lease.replace(b"KEY", served.create_key().encode())
    for junk in (b"\x00\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", lease + b"\x00"):
        with connect(served) as connection:
            connection.sendall(lease + junk)
            assert until_closed(connection)[:13] in (b"", b"HTTP/1.1 200 ", b"HTTP/1.1 409 ")
    for first in (b"", DONE):
        with connect(served) as connection:
            connection.sendall(first)
            received = connection.recv(10_000) if first else b""
            connection.sendall(b"\x00\x00\r\n\r\n")
            assert b"HTTP/1.1 400 " in received + until_closed(connection)


def test_who_leaves_with_several_requests_under_way_leaves_no_fault_behind(
    served: ServedLedger, lease: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    lease = lease.replace(b"KEY", served.create_key().encode())
    for number in range(50):
        with connect(served) as connection:
            connection.sendall(lease * (number % 3 + 1))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    with connect(served) as connection:
        connection.sendall(DONE)
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_pipelined_request_is_not_taken_for_slow(served: ServedLedger) -> None:
    with connect(served) as connection:
        connection.sendall(DONE * 3)
        received = b""
        while received.count(b"HTTP/1.1 200 ") < 3:
            part = connection.recv(10_000)
            assert part, "the connection was closed before the last answer"
            received += part
