"""What reads may take of a node: few at a time for each key, each for a while, and nothing of what writers need."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.helpers.concurrency import async_until, sync_until
from tests.helpers.openapi import check
from tests.helpers.postgres import PostgresServer
from tests.helpers.served_ledger import ServedLedger
from tests.helpers.slow_reads import Gate, endless_reads, held_searches
from verity._ledger.calls import Answer
from verity._ledger.problems import Problem
from verity.server.exchange import ClientGone
from verity.server.read_limiter import MAX_LOOKUPS, MAX_SEARCHES_PER_NODE, ReadLimiter
from verity.server.settings import ServerSettings

DONE = Answer(200, b"{}")


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


class Callers:
    """Reads that are under way until they are told to end."""

    def __init__(self, limit: ReadLimiter) -> None:
        self.limit = limit
        self.running: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.gone: dict[str, asyncio.Event] = {}

    def begin(self, name: str, operation: str = "get_stats") -> asyncio.Task[Answer]:
        """Begin a read of the key that is the name's first letter."""
        self.ends[name], self.gone[name] = asyncio.Event(), asyncio.Event()

        async def read() -> Answer:
            self.running.append(name)
            try:
                await self.ends[name].wait()
            finally:
                self.running.remove(name)
            return DONE

        async def until_gone() -> None:
            await self.gone[name].wait()

        return asyncio.create_task(self.limit.answer(name[0], operation, read, until_gone))

    async def until_running(self, *names: str) -> None:
        await async_until(lambda: self.running == list(names))


async def test_one_key_reads_one_after_another_and_two_at_the_same_time() -> None:
    callers = Callers(ReadLimiter(4))
    tasks = [callers.begin(name) for name in ("a1", "a2", "a3", "b1", "c1", "b2")]
    await callers.until_running("a1", "b1")
    callers.ends["b1"].set()
    await callers.until_running("a1", "c1")
    callers.ends["c1"].set()
    await callers.until_running("a1", "b2")
    for event in callers.ends.values():
        event.set()
    assert await asyncio.gather(*tasks) == [DONE] * 6


async def test_keys_take_turns_however_many_one_of_them_sends() -> None:
    callers = Callers(ReadLimiter(4))
    tasks = [callers.begin(name) for name in ("a1", "b1", "a2", "a3", "a4", "b2", "b3", "c1")]
    await callers.until_running("a1", "b1")
    callers.ends["a1"].set()
    await callers.until_running("b1", "c1")
    for event in callers.ends.values():
        event.set()
    assert await asyncio.gather(*tasks) == [DONE] * 8


async def test_what_is_too_much_is_refused_at_once() -> None:
    callers = Callers(ReadLimiter(2))
    searches = [callers.begin("a1"), callers.begin("a2")]
    await callers.until_running("a1")
    with pytest.raises(Problem) as refused:
        await callers.begin("a3")
    assert (refused.value.status, refused.value.code) == (429, "rate_limited")
    assert int(refused.value.headers["retry-after"]) >= 1
    lookups = [callers.begin(f"a look-up {number}", "get_effect") for number in range(MAX_LOOKUPS)]
    await async_until(lambda: len(callers.running) == 1 + MAX_LOOKUPS)
    with pytest.raises(Problem):
        await callers.begin("a look-up too many", "list_effect_events")
    for event in callers.ends.values():
        event.set()
    await asyncio.gather(*searches, *lookups)


async def test_a_node_takes_only_so_many_searches_of_all_keys() -> None:
    callers = Callers(ReadLimiter(1))
    letters = [chr(0x4E00 + number) for number in range(MAX_SEARCHES_PER_NODE)]
    tasks = [callers.begin(letter) for letter in letters]
    await async_until(lambda: len(callers.running) == 2)
    with pytest.raises(Problem) as refused:
        await callers.begin("z")
    assert (refused.value.status, "node" in refused.value.message) == (429, True)
    for task in tasks:
        task.cancel()
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [
        asyncio.CancelledError
    ] * len(tasks)
    last = callers.begin("z")
    await callers.until_running("z")
    callers.ends["z"].set()
    assert await last is DONE


async def test_who_waits_too_long_for_a_turn_is_told() -> None:
    callers = Callers(ReadLimiter(4, max_wait_s=0.05))
    first = callers.begin("a1")
    await callers.until_running("a1")
    with pytest.raises(Problem) as refused:
        await callers.begin("a2")
    assert (refused.value.status, refused.value.code) == (503, "unavailable")
    callers.ends["a1"].set()
    assert await first is DONE


async def test_a_search_ends_with_its_client() -> None:
    callers = Callers(ReadLimiter(4))
    tasks = [callers.begin(name) for name in ("a1", "a2")]
    await callers.until_running("a1")
    for name in ("a2", "a1"):
        callers.gone[name].set()
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [ClientGone] * 2
    await callers.until_running()
    after = callers.begin("a3")
    await callers.until_running("a3")
    callers.ends["a3"].set()
    assert await after is DONE


# --- served ---

_GATE = """
CREATE FUNCTION public.strpos(text, text) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN 1; END $$;
ALTER DATABASE {database} SET search_path = public, pg_catalog;
"""
"""A search by a part of the key waits for a lock that the test has."""


class SqliteReads:
    """Searches in a file that last until the test ends them."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.url = f"sqlite:///{directory}/v.db"
        self._stack = stack
        self._gate: Gate

    def hold(self) -> None:
        """From now on."""
        self._gate = self._stack.enter_context(held_searches())

    def held(self) -> int:
        return self._gate.reached

    def go_on(self) -> None:
        self._gate.open()

    @contextmanager
    def endless(self) -> Iterator[None]:
        with endless_reads():
            yield

    def working(self, served: ServedLedger) -> int:
        """How many the database is at."""
        return len(served._database._ledger.reads._searches._working)  # type: ignore[attr-defined] # this is SQLite's


class PostgresReads:
    """The same in a database."""

    def __init__(self, stack: ExitStack, server: PostgresServer) -> None:
        self.url = server.create_database()
        stack.callback(server.drop_database, self.url)
        self._server = server
        self._name = self.url.rpartition("/")[2]
        server.execute(_GATE.format(database=self._name), self._name)
        self._blocker = stack.enter_context(closing(Blocker(self.url)))

    def hold(self) -> None:
        self._blocker.run("SELECT pg_advisory_lock(1)")

    def held(self) -> int:
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        count: int = self._server.query(waiting, self._name)[0][0]
        return count

    def go_on(self) -> None:
        self._blocker.run("SELECT pg_advisory_unlock(1)")

    @contextmanager
    def endless(self) -> Iterator[None]:
        self.hold()
        yield
        self.go_on()

    def working(self, _served: ServedLedger) -> int:
        return self.held()


class Blocker:
    """A session that keeps a lock."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection: Any = self._loop.run_until_complete(asyncpg.connect(url, ssl=False))

    def run(self, sql: str) -> None:
        self._loop.run_until_complete(self._connection.execute(sql))

    def close(self) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["sqlite", "postgres"])
def reads(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path) -> SqliteReads | PostgresReads:
    if request.param == "sqlite":
        return SqliteReads(stack, tmp_path)
    return PostgresReads(stack, request.getfixturevalue("postgres_server"))


class Node:
    """A served ledger with one committed effect, and two keys."""

    def __init__(self, stack: ExitStack, url: str, **settings: Any) -> None:
        self.served = ServedLedger(url, settings=ServerSettings(key_cache_s=0.0, **settings)).start()
        stack.callback(self.served.stop)
        self._stack = stack
        self.reader, self.other = self.client(), self.client()
        self._threads = stack.enter_context(ThreadPoolExecutor(16))
        lease = self.post("lease", effectKey="k").json()
        self.post("commit", **self.tokens(lease), result=1)

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.served.create_key()}"}
        client = httpx.Client(
            base_url=self.served.base_url, headers=headers, event_hooks={"response": [check]}, timeout=40
        )
        return self._stack.enter_context(client)

    def post(self, call: str, client: httpx.Client | None = None, **body: Any) -> httpx.Response:
        return (client or self.reader).post(f"/effects/payments/{call}", json=body)

    @staticmethod
    def tokens(lease: Any) -> dict[str, Any]:
        return {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}

    @staticmethod
    def search(client: httpx.Client, **options: Any) -> httpx.Response:
        return client.get("/effects", params={"search": "k"}, **options)

    def begin(self, client: httpx.Client) -> Future[httpx.Response]:
        return self._threads.submit(self.search, client)


def test_a_node_whose_ledger_is_being_read_does_all_the_rest(
    stack: ExitStack, reads: SqliteReads | PostgresReads
) -> None:
    node = Node(stack, reads.url, search_timeout_s=40, max_searches=4)
    reads.hold()
    searches = [node.begin(node.reader) for _ in range(4)]
    sync_until(lambda: node.served.app._read_limiter._searches.total() == 4)
    refused = node.reader.get("/stats")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1
    searches.append(node.begin(node.other))
    sync_until(lambda: reads.held() == 2)
    for client in (node.reader, node.other):
        lease = node.post("lease", client, effectKey=f"of {client is node.reader}", leaseDurationMs=5000).json()
        assert node.post("renew", client, **node.tokens(lease)).status_code == 200
        assert node.post("commit", client, **node.tokens(lease), result=1).status_code == 200
        assert client.get("/effects/payments/effect", params={"effectKey": "k"}).status_code == 200
    new = node.client()
    assert node.post("lease", new, effectKey="of a key that was never looked up").status_code == 200
    waiting = new.post("/effects/payments/lease", json={"effectKey": "k"}, headers={"Prefer": "wait=1"})
    assert waiting.json()["status"] == "cached_completed"
    root = node.served.base_url.removesuffix("/v1")
    assert httpx.get(f"{root}/readyz").status_code == 200
    metrics = httpx.get(f"{root}/metrics").text
    assert "\nverity_rate_limited_total 1" in metrics
    assert '\nverity_oldest_expired_effect_age_seconds{environment="test"} 0.0' in metrics
    assert reads.held() == 2
    assert not any(search.done() for search in searches)
    reads.go_on()
    assert [search.result().status_code for search in searches] == [200] * 5


def test_a_search_that_takes_too_long_is_given_up(stack: ExitStack, reads: SqliteReads | PostgresReads) -> None:
    node = Node(stack, reads.url, search_timeout_s=0.2)
    with reads.endless():
        response = node.search(node.reader)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert "too long" in response.json()["error"]["message"]
    assert len(node.search(node.reader).json()["items"]) == 1


def test_a_search_whose_client_has_left_is_given_up(stack: ExitStack, reads: SqliteReads | PostgresReads) -> None:
    node = Node(stack, reads.url, search_timeout_s=60)
    with reads.endless():
        with pytest.raises(httpx.ReadTimeout):
            node.search(node.reader, timeout=0.5)
        sync_until(lambda: not reads.working(node.served))
        assert not node.served.app._read_limiter._searches
    assert len(node.search(node.reader).json()["items"]) == 1


def test_every_connection_of_a_database_may_be_reading(stack: ExitStack, postgres_server: PostgresServer) -> None:
    """As with reads of single effects that a lock holds up; what the node looks up is not behind them."""
    reads = PostgresReads(stack, postgres_server)
    node = Node(stack, reads.url)
    name = reads.url.rpartition("/")[2]
    with closing(Blocker(reads.url)) as blocker:
        blocker.run("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        trails = [
            node._threads.submit(node.reader.get, "/effects/payments/events", params={"effectKey": "k"})
            for _ in range(8)
        ]
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted"
        sync_until(lambda: postgres_server.query(waiting, name)[0][0] == 4)
        assert httpx.get(node.served.base_url.replace("/v1", "/readyz")).status_code == 200
        assert node.client().get("/nothing").status_code == 404, "the key was looked up"
        blocker.run("COMMIT")
    assert [trail.result().status_code for trail in trails] == [200] * 8
