"""Answers that trickle in: the timeout is for all of one, not for each byte. And one that nobody asked for."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing, contextmanager, suppress

import httpx
import pytest
import trustme

from verity._async.connection import AsyncOneConnectionTransport, AsyncProxyTransport
from verity._sync.connection import SyncOneConnectionTransport, SyncProxyTransport

_GIVES_UP_AFTER_S = 5.0
_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Answer = Callable[[socket.socket, int], None]


@contextmanager
def _server(answer: Answer) -> Iterator[str]:
    """One connection; `answer` is given each request's number."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            number = 0
            with connection, suppress(OSError):
                while connection.recv(65_536):
                    answer(connection, number)
                    number += 1

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(_GIVES_UP_AFTER_S)


def _drip(start: bytes, drop: bytes) -> Answer:
    def answer(connection: socket.socket, _: int) -> None:
        give_up_at = time.monotonic() + _GIVES_UP_AFTER_S
        connection.sendall(start)
        while time.monotonic() < give_up_at:
            connection.sendall(drop)
            threading.Event().wait(0.02)
        connection.close()

    return answer


DRIPS = [
    _drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
    _drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    _drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
]


_BEYOND = "http://ledger.example/"
WAYS = ["direct", "proxy"]


def _async_way(way: str, address: str) -> tuple[httpx.AsyncBaseTransport, str]:
    """What leads to the server, or by way of it, and the URL to ask for."""
    if way == "proxy":
        return AsyncProxyTransport(ssl_context=False, proxy=address), _BEYOND
    return AsyncOneConnectionTransport(ssl_context=False), address


def _sync_way(way: str, address: str) -> tuple[httpx.BaseTransport, str]:
    """The twin for threads."""
    if way == "proxy":
        return SyncProxyTransport(ssl_context=False, proxy=address), _BEYOND
    return SyncOneConnectionTransport(ssl_context=False), address


def _request(url: str, timeout_s: float) -> httpx.Request:
    return httpx.Request("GET", url, extensions={"timeout": httpx.Timeout(timeout_s).as_dict()})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("drip", DRIPS, ids=["body", "header", "informational"])
async def test_who_sends_a_byte_now_and_then_keeps_nobody_for_ever(drip: Answer, way: str) -> None:
    with _server(drip) as address:
        transport, url = _async_way(way, address)
        async with aclosing(transport):
            with pytest.raises(httpx.ReadTimeout):
                await (await transport.handle_async_request(_request(url, 0.2))).aread()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("drip", DRIPS, ids=["body", "header", "informational"])
def test_nor_a_thread(drip: Answer, way: str) -> None:
    with _server(drip) as address:
        transport, url = _sync_way(way, address)
        with closing(transport), pytest.raises(httpx.ReadTimeout):
            transport.handle_request(_request(url, 0.2)).read()


async def test_each_answer_of_a_connection_has_its_own_time() -> None:
    first_s = 1.0
    asked_at = time.monotonic()

    def answer(connection: socket.socket, number: int) -> None:
        while number and time.monotonic() < asked_at + first_s * 1.1:  # later than the first one would have been
            threading.Event().wait(0.02)
        connection.sendall(_WHOLE)

    with _server(answer) as url:
        async with aclosing(AsyncOneConnectionTransport(ssl_context=False)) as transport:
            for timeout_s in (first_s, 30.0):
                response = await transport.handle_async_request(_request(url, timeout_s))
                assert await response.aread() == b"{}"


def _answer_twice(connection: socket.socket, number: int) -> None:
    if number == 0:
        connection.sendall(_WHOLE + _WHOLE)


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_that_nobody_asked_for_is_not_the_next_requests(way: str) -> None:
    """It may be about another effect. The next request has a new connection, which nobody answers here."""
    with _server(_answer_twice) as address:
        transport, url = _async_way(way, address)
        async with aclosing(transport):
            response = await transport.handle_async_request(_request(url, 30.0))
            assert await response.aread() == b"{}"
            with pytest.raises(httpx.ReadTimeout):
                await transport.handle_async_request(_request(url, 0.2))


@pytest.mark.parametrize("way", WAYS)
def test_nor_a_threads(way: str) -> None:
    with _server(_answer_twice) as address:
        transport, url = _sync_way(way, address)
        with closing(transport):
            assert transport.handle_request(_request(url, 30.0)).read() == b"{}"
            with pytest.raises(httpx.ReadTimeout):
                transport.handle_request(_request(url, 0.2))


@contextmanager
def _tls_server() -> Iterator[tuple[str, ssl.SSLContext]]:
    """One connection, whose first request gets two answers, each a record of its own, in one packet."""
    authority, mine, theirs = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(mine)
    authority.configure_trust(theirs)

    def answer(connection: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        while data := connection.recv(65_536):
            incoming.write(data)
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                tls.read(65_536)
                tls.write(_WHOLE)
                tls.write(_WHOLE)
            connection.sendall(outgoing.read())

    def serve() -> None:
        connection, _ = listener.accept()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with connection, suppress(OSError):
            answer(connection, mine.wrap_bio(incoming, outgoing, server_side=True), incoming, outgoing)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/", theirs
        thread.join(_GIVES_UP_AFTER_S)


async def test_nor_is_one_that_tls_still_holds() -> None:
    """It is neither on the socket any more nor was it read."""
    with _tls_server() as (url, context):
        async with aclosing(AsyncOneConnectionTransport(context)) as transport:
            response = await transport.handle_async_request(_request(url, 30.0))
            assert await response.aread() == b"{}"
            with pytest.raises(httpx.ConnectTimeout):
                await transport.handle_async_request(_request(url, 0.2))


def test_nor_is_one_that_tls_still_holds_a_threads() -> None:
    with _tls_server() as (url, context), closing(SyncOneConnectionTransport(context)) as transport:
        assert transport.handle_request(_request(url, 30.0)).read() == b"{}"
        with pytest.raises(httpx.ConnectTimeout):
            transport.handle_request(_request(url, 0.2))
