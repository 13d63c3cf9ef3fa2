"""Answers that trickle in: the timeout is for all of one, not for each byte. And one that nobody asked for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing, contextmanager, suppress

import httpx
import pytest

from verity._async.connection import AsyncOneConnectionTransport
from verity._sync.connection import SyncOneConnectionTransport

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


def _request(url: str, timeout_s: float) -> httpx.Request:
    return httpx.Request("GET", url, extensions={"timeout": httpx.Timeout(timeout_s).as_dict()})


@pytest.mark.parametrize("drip", DRIPS, ids=["body", "header", "informational"])
async def test_who_sends_a_byte_now_and_then_keeps_nobody_for_ever(drip: Answer) -> None:
    with _server(drip) as url:
        async with aclosing(AsyncOneConnectionTransport(ssl_context=False)) as transport:
            with pytest.raises(httpx.ReadTimeout):
                await (await transport.handle_async_request(_request(url, 0.2))).aread()


@pytest.mark.parametrize("drip", DRIPS, ids=["body", "header", "informational"])
def test_nor_a_thread(drip: Answer) -> None:
    with (
        _server(drip) as url,
        closing(SyncOneConnectionTransport(ssl_context=False)) as transport,
        pytest.raises(httpx.ReadTimeout),
    ):
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


async def test_an_answer_that_nobody_asked_for_is_not_the_next_requests() -> None:
    """It may be about another effect. The next request has a new connection, which nobody answers here."""
    with _server(_answer_twice) as url:
        async with aclosing(AsyncOneConnectionTransport(ssl_context=False)) as transport:
            response = await transport.handle_async_request(_request(url, 30.0))
            assert await response.aread() == b"{}"
            with pytest.raises(httpx.ReadTimeout):
                await transport.handle_async_request(_request(url, 0.2))


def test_nor_a_threads() -> None:
    with (
        _server(_answer_twice) as url,
        closing(SyncOneConnectionTransport(ssl_context=False)) as transport,
    ):
        assert transport.handle_request(_request(url, 30.0)).read() == b"{}"
        with pytest.raises(httpx.ReadTimeout):
            transport.handle_request(_request(url, 0.2))
