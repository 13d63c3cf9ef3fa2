"""The ledger's name is looked up where no code of the caller's is in the way, and all of its addresses are tried."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, closing, contextmanager, suppress
from types import FrameType
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from tests.helpers.concurrency import async_gather, async_until, sync_until
from tests.helpers.served_ledger import ServedLedger
from verity import VerityClient
from verity._async.connection import AsyncOneConnectionTransport, AsyncProxyTransport
from verity._concurrency import async_connect, names, sync_connect
from verity._core.replies import why_no_answer
from verity._sync.connection import SyncOneConnectionTransport

NAME = "ledger.localhost"
BEYOND = "http://beyond.localhost/"
LONG_S = 30.0
SHORT_S = 0.2
NEVER_AGAIN_S = 1e6
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Names:
    """A name service: what a name leads to, and which names nobody answers for."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {NAME: ["127.0.0.1"]}
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: str, port: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(host, str) or host not in {"nowhere.localhost", *self.addresses}:
            return self._real(host, port, *args, **options)
        self.asked.append(host)
        assert self.answers.wait(LONG_S)
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [each for address in self.addresses[host] for each in self._real(address, port, *args, **options)]


@pytest.fixture
def name_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    service = Names()
    monkeypatch.setattr(socket, "getaddrinfo", service.getaddrinfo)
    yield service
    service.answers.set()
    sync_until(lambda: not names._under_way)


@pytest.fixture(scope="module")
def ledger() -> Iterator[ServedLedger]:
    with ServedLedger() as served:
        yield served


@contextmanager
def _server() -> Iterator[int]:
    """The port of one that answers the first request of each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        if connection.recv(65_536):
                            connection.sendall(_ANSWER)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def _all_threads_taken(backend: str) -> AsyncIterator[None]:
    """The event loop's threads are in functions of the caller's, as with acts that use `asyncio.to_thread`."""
    done = threading.Event()
    async with anyio.create_task_group() as group:
        if backend == "asyncio":
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(1))
            loop.run_in_executor(None, done.wait, LONG_S)
        else:
            limiter = anyio.to_thread.current_default_thread_limiter()
            limiter.total_tokens = 1
            group.start_soon(anyio.to_thread.run_sync, lambda: done.wait(LONG_S))
            await async_until(lambda: limiter.borrowed_tokens == 1)
        try:
            yield
        finally:
            done.set()


def _url(base_url: str) -> str:
    return base_url.replace("127.0.0.1", NAME)


def _request(url: str, timeout_s: float = LONG_S) -> httpx.Request:
    return httpx.Request("GET", url, extensions={"timeout": httpx.Timeout(timeout_s).as_dict()})


@pytest.mark.usefixtures("name_service")
async def test_a_lease_is_taken_and_an_effect_committed_while_all_of_the_loops_threads_are_taken(
    ledger: ServedLedger, anyio_backend: str
) -> None:
    async with VerityClient(_url(ledger.base_url), ledger.create_key(), "names", request_timeout_s=2.0) as client:

        async def act() -> int:
            return 1

        async with _all_threads_taken(anyio_backend):
            assert await client.protect(f"effect on {anyio_backend}", act=act) == 1


@pytest.mark.usefixtures("name_service")
async def test_so_is_a_proxys_name_looked_up(anyio_backend: str) -> None:
    with _server() as port:
        transport = AsyncProxyTransport(ssl_context=False, proxy=f"http://{NAME}:{port}")
        async with aclosing(transport), _all_threads_taken(anyio_backend):
            response = await transport.handle_async_request(_request(BEYOND, 2.0))
            assert await response.aread() == b"{}"


async def test_who_wants_the_same_name_shares_one_look_up(name_service: Names) -> None:
    name_service.answers.clear()

    async def look_up() -> list[str]:
        return await names.async_addresses(NAME, LONG_S)

    async with anyio.create_task_group() as group:
        outcomes: list[Any] = []

        async def all_of_them() -> None:
            outcomes.extend(await async_gather([look_up] * 20))

        group.start_soon(all_of_them)
        await async_until(lambda: any(len(each.waiting) == 20 for each in list(names._under_way.values())))
        name_service.answers.set()
    assert outcomes == [["127.0.0.1"]] * 20
    assert name_service.asked == [NAME]


async def test_a_look_up_that_hangs_ends_with_the_timeout_and_holds_up_no_other(name_service: Names) -> None:
    name_service.answers.clear()
    with _server() as port:
        async with aclosing(AsyncOneConnectionTransport(ssl_context=False)) as transport:
            with pytest.raises(httpx.ConnectTimeout):
                await transport.handle_async_request(_request(f"http://{NAME}:{port}/", SHORT_S))
            response = await transport.handle_async_request(_request(f"http://127.0.0.1:{port}/"))
            assert await response.aread() == b"{}"
            assert await names.async_addresses("localhost", LONG_S)


def test_nor_does_a_thread_wait_longer(name_service: Names) -> None:
    name_service.answers.clear()
    with closing(SyncOneConnectionTransport(ssl_context=False)) as transport, pytest.raises(httpx.ConnectTimeout):
        transport.handle_request(_request(f"http://{NAME}/", SHORT_S))


def test_a_look_up_that_hangs_is_begun_again(name_service: Names) -> None:
    """Or one whose thread never began: an interrupt may come at any moment."""
    name_service.answers.clear()
    for ask_again_after_s in (names.ASK_AGAIN_AFTER_S, 0.0):
        with pytest.raises(TimeoutError):
            names.sync_addresses(NAME, SHORT_S, ask_again_after_s)
    sync_until(lambda: name_service.asked == [NAME] * 2)
    name_service.answers.set()
    sync_until(lambda: not names._under_way)  # whoever waited in vain leaves nothing behind
    assert names.sync_addresses(NAME, None) == ["127.0.0.1"]


def test_without_a_thread_the_name_is_looked_up_all_the_same(
    name_service: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(names, "start_new_thread", refuse)  # the system's function, under the name that is called
    assert names.sync_addresses(NAME, LONG_S) == ["127.0.0.1"]
    assert name_service.asked == [NAME]


@pytest.mark.usefixtures("name_service")
async def test_a_name_that_nobody_knows_is_told_in_the_systems_words() -> None:
    request = _request("http://nowhere.localhost/")
    told = "ConnectError: Name or service not known"
    async with aclosing(AsyncOneConnectionTransport(ssl_context=False)) as transport:
        with pytest.raises(httpx.ConnectError) as error:
            await transport.handle_async_request(request)
    assert why_no_answer(error.value) == told
    with closing(SyncOneConnectionTransport(ssl_context=False)) as twin, pytest.raises(httpx.ConnectError) as error:
        twin.handle_request(request)
    assert why_no_answer(error.value) == told


@pytest.mark.parametrize("addresses", [["::1", "127.0.0.1"], ["127.0.0.2", "127.0.0.3", "127.0.0.1"]])
async def test_where_an_address_refuses_the_next_one_is_tried(name_service: Names, addresses: list[str]) -> None:
    name_service.addresses[NAME] = addresses
    with _server() as port:
        url = f"http://{NAME}:{port}/"
        async with aclosing(AsyncOneConnectionTransport(ssl_context=False)) as transport:
            response = await transport.handle_async_request(_request(url))
            assert await response.aread() == b"{}"
        with closing(SyncOneConnectionTransport(ssl_context=False)) as twin:
            assert twin.handle_request(_request(url)).read() == b"{}"


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["::1", "127.0.0.1"]])
async def test_where_all_refuse_that_is_told(name_service: Names, addresses: list[str]) -> None:
    name_service.addresses[NAME] = addresses
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"http://{NAME}:{port}/"
    async with aclosing(AsyncOneConnectionTransport(ssl_context=False)) as transport:
        with pytest.raises(httpx.ConnectError) as error:
            await transport.handle_async_request(_request(url))
    assert why_no_answer(error.value) != "ConnectError"
    with closing(SyncOneConnectionTransport(ssl_context=False)) as twin, pytest.raises(httpx.ConnectError) as error:
        twin.handle_request(_request(url))
    assert why_no_answer(error.value) == "ConnectError: Connection refused"


@pytest.mark.parametrize(
    ("found", "tried"),
    [
        (["::1", "::2", "127.0.0.1", "127.0.0.2"], ["::1", "127.0.0.1", "::2", "127.0.0.2"]),
        (["127.0.0.1", "127.0.0.1", "::1"], ["127.0.0.1", "::1"]),
        (["fe80::1%1"], ["fe80::1%1"]),
    ],
)
def test_the_second_address_is_of_the_other_family(name_service: Names, found: list[str], tried: list[str]) -> None:
    """In the system's order otherwise."""
    name_service.addresses[NAME] = found
    assert names.sync_addresses(NAME, LONG_S) == tried


def test_a_name_without_an_address_is_told(name_service: Names) -> None:
    name_service.addresses[NAME] = []
    with pytest.raises(OSError, match="no IP address"):
        names.sync_addresses(NAME, LONG_S)


# --- several addresses, of which one leads nowhere ---


class Connection:
    """One that is open until it is closed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_open = True

    async def aclose(self) -> None:
        self.is_open = False


class Unreachable(Exception):
    """This address leads nowhere."""


ERRORS = (Unreachable,)


async def test_an_address_that_leads_nowhere_keeps_the_others_waiting_for_a_moment_only() -> None:
    async def connect(address: str, timeout: float | None) -> Connection:
        assert timeout is None
        if address == "nowhere":
            await anyio.sleep_forever()
        return Connection(address)

    opened = await async_connect(["nowhere", "here"], connect, None, ERRORS)
    assert (opened.address, opened.is_open) == ("here", True)


async def test_of_two_that_open_at_once_one_is_closed() -> None:
    made: list[Connection] = []
    both = anyio.Event()

    async def connect(address: str, timeout: float | None) -> Connection:
        with anyio.CancelScope(shield=True):
            made.append(Connection(address))
            if len(made) == 2:
                both.set()
            await both.wait()
        return made[-1] if address == "second" else made[0]

    opened = await async_connect(["first", "second"], connect, None, ERRORS)
    assert [each for each in made if each.is_open] == [opened]


async def test_a_connection_that_a_cancellation_overtakes_is_closed() -> None:
    made: list[Connection] = []
    with anyio.CancelScope() as scope:

        async def connect(address: str, timeout: float | None) -> Connection:
            made.append(Connection(address))
            scope.cancel()
            return made[-1]

        await async_connect(["first", "second"], connect, None, ERRORS)
    assert scope.cancelled_caught
    assert [each.is_open for each in made] == [False]


def test_in_a_thread_each_address_has_its_share_of_the_time() -> None:
    shares: list[float | None] = []

    def connect(address: str, timeout: float | None) -> str:
        shares.append(timeout)
        if address != "here":
            raise Unreachable
        return address

    assert sync_connect(["nowhere", "here"], connect, time.monotonic() + 10.0, ERRORS) == "here"
    assert sync_connect(["nowhere", "here"], connect, None, ERRORS) == "here"
    with pytest.raises(Unreachable):
        sync_connect(["nowhere", "nowhere"], connect, time.monotonic() - 1.0, ERRORS)
    first, second, *endless = shares[:4]
    assert first is not None
    assert second is not None
    assert 0 < first <= 5.0 < second <= 10.0
    assert endless == [None, None]
    assert all(share is not None and share > 0 for share in shares[4:]), "a socket takes 0 for not waiting at all"


class Interrupted(Exception):
    """What a signal's handler raises."""


def _look_up_interrupted(at: int) -> bool:
    """Look the name up, and raise at that line of it or of Python's threads; whether there is such a line."""
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in {names.__file__, threading.__file__}:
            return None
        if event == "line":
            lines += 1
            if lines == at:
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        names.sync_addresses(NAME, LONG_S, NEVER_AGAIN_S)
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_interrupted_look_up_keeps_nobody_else_waiting(name_service: Names) -> None:
    """The next one may be that of a commit, which is finished in another thread whatever interrupted it."""
    at = 1
    while _look_up_interrupted(at):
        assert names.sync_addresses(NAME, LONG_S, NEVER_AGAIN_S) == name_service.addresses[NAME], (
            f"interrupted at line {at}"
        )
        at += 1
    assert at > 10
