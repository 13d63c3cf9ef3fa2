"""What reads may take of a node: few at a time for each key, each for a while, and nothing of what writers need."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract_hook import check
from tests.gather import async_until, sync_until
from tests.ledger.slow_reads import endless_reads, held_searches
from tests.served import ServedLedger
from verity._ledger.calls import Answer
from verity.server.exchange import ClientGone
from verity.server.problems import Problem
from verity.server.searches import MAX_LOOKUPS, MAX_SEARCHES_OF_ALL, ReadLimit
from verity.server.settings import ServerSettings

DONE = Answer(200, b"{}")


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


class Callers:
    """Reads that are under way until they are told to end."""

    def __init__(self, limit: ReadLimit) -> None:
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
    callers = Callers(ReadLimit(4))
    tasks = [callers.begin(name) for name in ("a1", "a2", "a3", "b1", "c1", "b2")]
    await callers.until_running("a1", "b1")
    callers.ends["b1"].set()
    await callers.until_running("a1", "c1")
    callers.ends["c1"].set()
    await callers.until_running("a1", "b2")
    for event in callers.ends.values():
        event.set()
    assert await asyncio.gather(*tasks) == [DONE] * 6


async def test_what_is_too_much_is_refused_at_once() -> None:
    callers = Callers(ReadLimit(2))
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
    callers = Callers(ReadLimit(1))
    letters = [chr(1000 + number) for number in range(MAX_SEARCHES_OF_ALL)]
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
    callers = Callers(ReadLimit(4, turn_within_s=0.05))
    first = callers.begin("a1")
    await callers.until_running("a1")
    with pytest.raises(Problem) as refused:
        await callers.begin("a2")
    assert (refused.value.status, refused.value.code) == (503, "unavailable")
    callers.ends["a1"].set()
    assert await first is DONE


async def test_a_search_ends_with_its_client() -> None:
    callers = Callers(ReadLimit(4))
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


class Node:
    """A served ledger in a file with one committed effect, and two keys."""

    def __init__(self, stack: ExitStack, directory: Path, **settings: Any) -> None:
        self.served = ServedLedger(
            f"sqlite:///{directory}/v.db", settings=ServerSettings(key_cache_s=0.0, **settings)
        ).start()
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

    def search(self, client: httpx.Client) -> Future[httpx.Response]:
        return self._threads.submit(client.get, "/effects", params={"search": "k"})


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_node_whose_ledger_is_being_read_does_all_the_rest(stack: ExitStack, tmp_path: Path) -> None:
    node = Node(stack, tmp_path)
    gate = stack.enter_context(held_searches())
    searches = [node.search(node.reader) for _ in range(4)]
    sync_until(lambda: gate.reached == 1)
    refusals = sync_until_status(node, 429)
    assert refusals.json()["error"]["code"] == "rate_limited"
    assert int(refusals.headers["retry-after"]) >= 1
    searches.append(node.search(node.other))
    sync_until(lambda: gate.reached == 2)
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
    assert gate.reached == 2
    assert not any(search.done() for search in searches)
    gate.open()
    assert [search.result().status_code for search in searches] == [200] * 5


def sync_until_status(node: Node, status: int) -> httpx.Response:
    """Four are under way or on their way; the one that is too many is refused once they are all there."""
    sync_until(lambda: node.served.app._reads._searches.total() == 4)
    response = node.reader.get("/stats")
    assert response.status_code == status
    return response


def test_a_search_that_takes_too_long_is_given_up(stack: ExitStack, tmp_path: Path) -> None:
    node = Node(stack, tmp_path, search_timeout_s=0.1)
    with endless_reads():
        response = node.reader.get("/stats")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert "too long" in response.json()["error"]["message"]
    assert node.reader.get("/stats").json()["byStatus"]["COMMITTED"] == 1


def test_a_search_whose_client_has_left_is_given_up(stack: ExitStack, tmp_path: Path) -> None:
    node = Node(stack, tmp_path, search_timeout_s=60)
    threads = node.served._database._ledger.reads._searches  # type: ignore[attr-defined] # this one is SQLite
    with endless_reads():
        with pytest.raises(httpx.ReadTimeout):
            node.reader.get("/stats", timeout=0.2)
        sync_until(lambda: not threads._working)
        assert not node.served.app._reads._searches
