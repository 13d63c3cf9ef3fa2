"""How a client's requests share its connections: a holder's have places of their own, and an interrupt keeps none."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.concurrency import AsyncBackground, SyncBackground, async_until, sync_until
from verity import SyncVerityClient, VerityClient
from verity._async.connection import AsyncOneConnectionTransport, AsyncProxyTransport
from verity._async.pool import AsyncTransportPool
from verity._async.pool import spoil as async_spoil
from verity._concurrency import AsyncRuntime, SyncRuntime
from verity._operations import Operation
from verity._sync.connection import SyncOneConnectionTransport, SyncProxyTransport
from verity._sync.pool import SyncTransportPool
from verity._sync.pool import spoil as sync_spoil

ROOT = Path(__file__).parents[2]
LONG_S = 30.0
WAYS = ["direct", "proxy"]
OPERATIONS = ["lease", "report-observe", "commit", "renew"]
"""Each has places of its own."""


class Server(ThreadingHTTPServer):
    """A ledger that keeps the requests of some operations waiting, or a proxy before one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.held: set[str] = set()
        self.waiting = 0
        self.opened = 0
        self.let_go = threading.Event()
        self.answers: list[dict[str, Any]] = []
        self.numbers = itertools.count()
        self.repeats = False
        self.address = f"127.0.0.1:{self.server_port}"

    def get_request(self) -> tuple[object, object]:  # type: ignore[override]  # only counted
        self.opened += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    latest = b""
    server: Server

    def do_POST(self) -> None:
        if self.path.rpartition("/")[2] in self.server.held:
            self.server.waiting += 1
            assert self.server.let_go.wait(LONG_S)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = json.dumps(self.server.answers.pop(0) if self.server.answers else {}).encode()
        head = f"HTTP/1.1 200 OK\r\nX-Request-Id: {next(self.server.numbers)}\r\nContent-Length: {len(answer)}\r\n\r\n"
        again = self.latest if self.server.repeats else b""
        self.latest = head.encode() + answer
        self.wfile.write(again + self.latest)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def _serve() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=partial(server.serve_forever, 0.02), daemon=True).start()
        try:
            yield server
        finally:
            server.let_go.set()
            server.shutdown()


@pytest.fixture
def server() -> Iterator[Server]:
    with _serve() as server:
        yield server


def _request(server: Server, operation: str) -> httpx.Request:
    return httpx.Request(
        "POST",
        f"http://{server.address}/v1/effects/payments/{operation}",
        extensions={"timeout": httpx.Timeout(LONG_S).as_dict()},
    )


def _async_pool(way: str, server: Server, places: int = 1) -> AsyncTransportPool:
    if way == "proxy":
        return AsyncTransportPool(partial(AsyncProxyTransport, False, f"http://{server.address}"), places)
    return AsyncTransportPool(partial(AsyncOneConnectionTransport, False), places)


def _sync_pool(way: str, server: Server, places: int = 1) -> SyncTransportPool:
    if way == "proxy":
        return SyncTransportPool(partial(SyncProxyTransport, False, f"http://{server.address}"), places)
    return SyncTransportPool(partial(SyncOneConnectionTransport, False), places)


@pytest.mark.parametrize("way", WAYS)
async def test_slow_requests_of_one_kind_keep_none_of_another_waiting(way: str, server: Server) -> None:
    async with aclosing(_async_pool(way, server)) as pool, AsyncBackground() as background:
        for number, operation in enumerate(OPERATIONS):
            await pool.handle_async_request(_request(server, operation))
            server.held.add(operation)
            background.start(partial(pool.handle_async_request, _request(server, operation)))
            await async_until(lambda taken=number + 1: server.waiting == taken)  # type: ignore[misc]
        server.let_go.set()
    assert [each.status_code for each in background.outcomes] == [200] * len(OPERATIONS)


@pytest.mark.parametrize("way", WAYS)
def test_nor_of_threads(way: str, server: Server) -> None:
    with closing(_sync_pool(way, server)) as pool, SyncBackground() as background:
        for number, operation in enumerate(OPERATIONS):
            pool.handle_request(_request(server, operation))
            server.held.add(operation)
            background.start(partial(pool.handle_request, _request(server, operation)))
            sync_until(lambda taken=number + 1: server.waiting == taken)  # type: ignore[misc]
        server.let_go.set()
    assert [each.status_code for each in background.outcomes] == [200] * len(OPERATIONS)


async def test_who_finds_no_place_waits_for_one_and_may_be_cancelled(server: Server) -> None:
    server.held = {"commit"}
    async with aclosing(_async_pool("direct", server)) as pool, AsyncBackground() as background:
        background.start(partial(pool.handle_async_request, _request(server, "commit")))
        await async_until(lambda: server.waiting == 1)
        permits = pool._limiters[Operation.COMMIT_EFFECT].permits
        scopes = [background.start(partial(pool.handle_async_request, _request(server, "fail"))) for _ in range(2)]
        await async_until(lambda: len(permits) == 3)
        scopes[0].cancel()
        await async_until(lambda: len(permits) == 2)
        server.let_go.set()
    assert [each.status_code for each in background.outcomes] == [200, 200]
    assert not permits
    assert server.opened == 1


def test_threads_wait_for_a_place_too(server: Server) -> None:
    server.held = {"commit"}
    with closing(_sync_pool("direct", server)) as pool, SyncBackground() as background:
        background.start(partial(pool.handle_request, _request(server, "commit")))
        sync_until(lambda: server.waiting == 1)
        permits = pool._limiters[Operation.COMMIT_EFFECT].permits
        for _ in range(2):
            background.start(partial(pool.handle_request, _request(server, "fail")))
        sync_until(lambda: len(permits) == 3)
        server.let_go.set()
    assert [each.status_code for each in background.outcomes] == [200] * 3
    assert not permits
    assert server.opened == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_connection_that_answered_another_request_is_not_used_again(way: str, server: Server) -> None:
    async with aclosing(_async_pool(way, server)) as pool:
        await pool.handle_async_request(_request(server, "lease"))
        async_spoil(await pool.handle_async_request(_request(server, "lease")))
        assert server.opened == 1
        await pool.handle_async_request(_request(server, "lease"))
        assert server.opened == 2


@pytest.mark.parametrize("way", WAYS)
def test_nor_a_threads(way: str, server: Server) -> None:
    with closing(_sync_pool(way, server)) as pool:
        pool.handle_request(_request(server, "lease"))
        sync_spoil(pool.handle_request(_request(server, "lease")))
        assert server.opened == 1
        pool.handle_request(_request(server, "lease"))
        assert server.opened == 2


OTHERS, MINE = [{"status": "cached_completed", "effectKey": key, "cachedResult": key} for key in ("theirs", "mine")]


class AsyncHasty(AsyncRuntime):
    """Does not wait before it sends a request again."""

    async def sleep(self, seconds: float) -> None:
        """At once."""


class SyncHasty(SyncRuntime):
    """The twin for threads."""

    def sleep(self, seconds: float) -> None:
        """At once."""


async def test_after_another_effects_answer_the_request_goes_out_on_a_new_connection(server: Server) -> None:
    """What came too late on the old one would be taken for the answer to the next request."""
    server.answers = [OTHERS, MINE]
    url = f"http://{server.address}/v1"
    async with VerityClient(url, "vt_test_x", "payments", _runtime=AsyncHasty()) as client:
        assert await client.protect("mine", act=lambda: "acted") == "mine"
    assert server.opened == 2


def test_so_it_does_in_a_thread(server: Server) -> None:
    server.answers = [OTHERS, MINE]
    with SyncVerityClient(f"http://{server.address}/v1", "vt_test_x", "payments", _runtime=SyncHasty()) as client:
        assert client.protect("mine", act=lambda: "acted") == "mine"
    assert server.opened == 2


async def test_an_answer_that_comes_again_is_not_the_next_requests(server: Server) -> None:
    """Though it is about the same effect: each request of a lease has a grant of its own."""
    server.repeats = True
    async with aclosing(_async_pool("direct", server)) as pool:
        first = await pool.handle_async_request(_request(server, "lease"))
        with pytest.raises(httpx.RemoteProtocolError, match="came again"):
            await pool.handle_async_request(_request(server, "lease"))
        later = await pool.handle_async_request(_request(server, "lease"))
    assert [each.headers["x-request-id"] for each in (first, later)] == ["0", "2"]
    assert server.opened == 2


@pytest.mark.parametrize("way", WAYS)
def test_nor_a_threads_next_request(way: str, server: Server) -> None:
    server.repeats = True
    with closing(_sync_pool(way, server)) as pool:
        first = pool.handle_request(_request(server, "lease"))
        with pytest.raises(httpx.RemoteProtocolError, match="came again"):
            pool.handle_request(_request(server, "lease"))
        later = pool.handle_request(_request(server, "lease"))
    assert [each.headers["x-request-id"] for each in (first, later)] == ["0", "2"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
def test_a_storm_of_interrupts_keeps_no_place_and_no_quota() -> None:
    storm = [sys.executable, "-m", "tests.client.storms"]
    done = subprocess.run(storm, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
