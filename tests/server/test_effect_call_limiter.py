"""How many effect calls of one API key reach the store at a time, and in which order."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from tests.helpers.concurrency import async_until, sync_until
from tests.helpers.served_ledger import ServedLedger
from tests.helpers.store_double import StoreDouble
from verity._ledger.calls import Answer, Request, Scope
from verity._operations import Operation
from verity._store.api_keys import ApiKey
from verity.server.api_keys import issue
from verity.server.app import create_app
from verity.server.effect_call_limiter import MIN_CALLS, EffectCallLimiter, max_calls_for
from verity.server.exchange import ClientGone

DONE = Answer(200, b"{}")
MANY = 5_000


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


class SlowStore(StoreDouble):
    """Records the calls in the order in which they reach it, and answers the oldest ones when it is told to."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        """By API key, its name here."""
        self._records: dict[bytes, ApiKey] = {}
        for name in ("a", "b"):
            key, record = issue("test", "agent", now=0)
            self.keys[key], self._records[record.sha256] = name, record
        self.names: list[str] = []
        self._under_way: list[asyncio.Future[Answer]] = []

    async def answer(self, request: Request) -> Answer:
        self.names.append(request.request_id)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._under_way.append(future)
        return await future

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        return self._records.get(sha256)

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return len(self._under_way)

    def finish(self, count: int) -> None:
        """Answer the oldest calls."""
        for future in self._under_way[:count]:
            if not future.done():
                future.set_result(DONE)
        del self._under_way[:count]


class Calls:
    """Calls of several keys to one store, named `key-number`."""

    def __init__(self, max_calls: int = MIN_CALLS, *, check_every_s: float = 60.0) -> None:
        self.store = SlowStore()
        self.limit = EffectCallLimiter(self.store, max_calls, check_every_s=check_every_s)
        self.left: set[str] = set()

    def begin(self, name: str, operation: Operation = Operation.LEASE_EFFECT) -> asyncio.Task[Answer]:
        request = Request(Scope("test", None, name.partition("-")[0]), operation, "payments", request_id=name)
        return asyncio.create_task(self._answer(request))

    async def _answer(self, request: Request) -> Answer:
        return await self.limit.answer(request, lambda: request.request_id in self.left)

    async def settle(self) -> None:
        """Return when every call has gone as far as it can."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def finish_all(self, tasks: list[asyncio.Task[Answer]]) -> list[Any]:
        async def finish() -> None:
            while not all(task.done() for task in tasks):
                self.store.finish(self.store.calls)
                await asyncio.sleep(0)

        await asyncio.wait_for(finish(), 30)
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_key_with_thousands_of_calls_delays_no_other_key() -> None:
    calls = Calls()
    tasks = [calls.begin(f"a-{number}") for number in range(MANY)]
    await calls.settle()
    assert len(calls.store.names) == MIN_CALLS
    tasks.append(calls.begin("b-0"))
    await calls.settle()
    assert calls.store.names.index("b-0") == MIN_CALLS, "nothing of the other key is in front but those"
    assert await calls.finish_all(tasks) == [DONE] * (MANY + 1)
    assert [name for name in calls.store.names if name != "b-0"] == [f"a-{number}" for number in range(MANY)]
    await calls.settle()
    assert not calls.limit._at_store


async def test_each_answer_lets_one_more_call_go_on() -> None:
    calls = Calls(2)
    tasks = [calls.begin(f"a-{number}") for number in range(6)]
    for expected in (2, 3, 4):
        await calls.settle()
        assert len(calls.store.names) == expected
        calls.store.finish(1)
    late = calls.begin("a-6")
    assert await calls.finish_all([*tasks, late]) == [DONE] * 7
    assert calls.store.names == [f"a-{number}" for number in range(7)]


@pytest.mark.parametrize(
    "operation",
    [Operation.COMMIT_EFFECT, Operation.FAIL_EFFECT, Operation.RENEW_EFFECT, Operation.RELEASE_EFFECT],
)
async def test_finishing_calls_do_not_wait_behind_leases(operation: Operation) -> None:
    calls = Calls(2)
    tasks = [calls.begin(f"a-{number}") for number in range(6)]
    tasks.append(calls.begin("a-finishing", operation))
    await calls.settle()
    assert calls.store.names == ["a-0", "a-1", "a-finishing"]
    assert await calls.finish_all(tasks) == [DONE] * 7


async def test_renewals_do_not_wait_behind_commits() -> None:
    calls = Calls(2)
    tasks = [calls.begin(f"a-{number}", Operation.COMMIT_EFFECT) for number in range(6)]
    tasks.append(calls.begin("a-renewal", Operation.RENEW_EFFECT))
    await calls.settle()
    assert calls.store.names == ["a-0", "a-1", "a-renewal"]
    assert await calls.finish_all(tasks) == [DONE] * 7


async def test_a_call_whose_client_left_is_not_carried_out_unless_it_finishes_an_effect() -> None:
    calls = Calls(1)
    tasks = [calls.begin("a-0"), calls.begin("a-1"), calls.begin("a-2")]
    tasks += [calls.begin(f"a-c{number}", Operation.COMMIT_EFFECT) for number in range(2)]
    calls.left = {"a-0", "a-1", "a-c1"}
    results = await calls.finish_all(tasks)
    assert results[0] is DONE, "it had been handed over before"
    assert isinstance(results[1], ClientGone)
    assert results[2:] == [DONE] * 3
    assert set(calls.store.names) == {"a-0", "a-2", "a-c0", "a-c1"}


async def test_cancelled_calls_keep_no_place() -> None:
    calls = Calls(1)
    first, second, third, fourth = [calls.begin(f"a-{number}") for number in range(4)]
    await calls.settle()
    second.cancel()
    calls.store.finish(1)
    await asyncio.sleep(0)
    (queue,) = calls.limit._queues.values()
    assert len(queue.turns) == 1, "the third call has been given a place, and has not gone on yet"
    third.cancel()
    results = await calls.finish_all([first, second, third, fourth])
    assert [type(each) for each in results] == [Answer, asyncio.CancelledError, asyncio.CancelledError, Answer]
    assert calls.store.names == ["a-0", "a-3"]
    assert not calls.limit._at_store


async def test_calls_that_are_blocked_do_not_block_the_rest_of_their_key() -> None:
    calls = Calls(2, check_every_s=0.001)
    blocked = [calls.begin(f"a-{number}") for number in range(2)]
    tasks = [calls.begin(f"a-{number}") for number in range(2, 7)]
    await async_until(lambda: len(calls.store.names) >= 4)
    assert not any(task.done() for task in blocked)
    assert await calls.finish_all([*blocked, *tasks]) == [DONE] * 7
    await async_until(lambda: not calls.limit._queues)


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=1"}])
async def test_the_application_limits_leases_of_both_kinds(headers: dict[str, str]) -> None:
    store = SlowStore()
    app = create_app(store)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://ledger/v1/effects/payments", headers=headers
    ) as client:

        def lease(key: str, number: int) -> asyncio.Task[httpx.Response]:
            about = {"Authorization": f"Bearer {key}", "X-Request-Id": f"{store.keys[key]}-{number}"}
            return asyncio.create_task(client.post("/lease", json={"effectKey": f"{number}"}, headers=about))

        one, other = store.keys
        tasks = [lease(one, number) for number in range(MIN_CALLS + 5)]
        await async_until(lambda: store.calls == MIN_CALLS and len(app._effect_call_limiter._queues) == 1)
        tasks.append(lease(other, 0))
        await async_until(lambda: store.calls == MIN_CALLS + 1)
        assert store.names[-1] == "b-0"
        while not all(task.done() for task in tasks):
            store.finish(store.calls)
            await asyncio.sleep(0)
        assert {task.result().status_code for task in tasks} == {200}


def test_a_connection_tells_whether_its_client_has_left() -> None:
    with ServedLedger() as served:
        url = httpx.URL(served.base_url)
        client = socket.create_connection((url.host, url.port or 0))
        sync_until(lambda: len(served.connections) == 1)
        (connection,) = served.connections
        assert not connection.has_left()
        client.close()
        sync_until(connection.has_left)


def test_the_limit_keeps_batches_full() -> None:
    assert max_calls_for(1) == MIN_CALLS
    assert max_calls_for(1_000) == 2_000
