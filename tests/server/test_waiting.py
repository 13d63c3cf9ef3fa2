"""Lease requests that wait (`Prefer: wait`), over real sockets, on one node and on two."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.concurrency import async_until, sync_until
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity._ledger.calls import Answer, Request, Scope
from verity._ledger.prefer import read_wait_s
from verity._ledger.raw_json import read_members
from verity._operations import Operation
from verity._store.interface import StorageError
from verity._store.lease_states import EffectName, LeaseState
from verity._store.sqlite.async_store import AsyncSqliteStore
from verity._store.sqlite.registry import OpenLedger, open_ledger
from verity.server.settings import ServerSettings
from verity.server.waiting import LeaseWaiters


class Node:
    """One node of a ledger, and a client of it."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.served = ServedLedger(url, settings=ServerSettings(key_cache_s=0.0, **settings)).start()
        self.http = httpx.Client(
            base_url=self.served.base_url,
            headers={"Authorization": f"Bearer {self.served.create_key(role='org_admin')}"},
            limits=httpx.Limits(max_connections=None),
            timeout=12,  # far less than a request is held for: an answer that comes only then is none
        )
        self.threads = ThreadPoolExecutor(64)

    @property
    def waiting_count(self) -> int:
        return self.served.app.waiting.waiting_count

    def post(self, call: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        return self.http.post(f"/effects/payments/{call}", json={"effectKey": "k", **body}, headers=headers or {})

    def lease(self, wait_s: int = 25, **body: Any) -> Future[httpx.Response]:
        """A lease request that may be held, sent in the background."""
        return self.threads.submit(self.post, "lease", {"Prefer": f"wait={wait_s}"}, **body)

    def hold(self, duration_ms: int = 30_000) -> dict[str, Any]:
        """Take the lease; returns its tokens."""
        lease = self.post("lease", leaseDurationMs=duration_ms).json()
        return {name: lease[name] for name in ("fenceToken", "leaseToken")}

    def stop(self) -> None:
        self.served.stop()
        self.threads.shutdown()
        self.http.close()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/v.db"


@pytest.fixture
def node(url: str) -> Iterator[Node]:
    node = Node(url)
    yield node
    node.stop()


@pytest.fixture
def other(url: str) -> Iterator[Node]:
    other = Node(url)
    yield other
    other.stop()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=10", 10),
        ("wait=25", 25),
        ("wait=600", 25),
        ("respond-async, wait=3", 3),
        ("Wait = 4 ; x=y, return=minimal", 4),
        ('wait="7"', 7),
        ("wait=0", 0),
        ("wait=-1", 0),
        ("wait=1.5", 0),
        ("wait", 0),
        ("wait=99999999999", 0),
        ("await=5", 0),
        ("wait=\u0663", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_a_preference(header: str | None, seconds: int) -> None:
    assert read_wait_s(header) == seconds


@pytest.mark.parametrize("decision", ["commit", "fail"])
def test_all_are_answered_when_the_effect_is_decided(node: Node, decision: str) -> None:
    tokens = node.hold()
    held = [node.lease() for _ in range(20)]
    sync_until(lambda: node.waiting_count == 20)
    payload: dict[str, Any] = {"result": 7} if decision == "commit" else {"error": 7}
    node.post(decision, **tokens, **payload)
    answers = [each.result().json() for each in held]
    assert {answer["status"] for answer in answers} == {"cached_completed" if decision == "commit" else "cached_failed"}
    assert node.waiting_count == 0


def test_what_another_node_decides_is_seen(node: Node, other: Node) -> None:
    tokens = node.hold()
    held = [other.lease() for _ in range(3)]
    sync_until(lambda: other.waiting_count == 3)
    node.post("commit", **tokens, result=7)
    answers = [each.result() for each in held]
    assert [answer.json()["cachedResult"] for answer in answers] == [7] * 3
    assert [answer.headers["preference-applied"] for answer in answers] == ["wait"] * 3


def test_a_lease_that_runs_out_or_is_reset_is_granted_to_one(node: Node) -> None:
    node.hold(5_000)
    held = [node.lease(wait_s=6) for _ in range(5)]
    sync_until(lambda: node.waiting_count == 5)
    statuses = sorted(each.result().status_code for each in held)
    assert statuses == [200, 409, 409, 409, 409]
    waiting = node.lease()
    sync_until(lambda: node.waiting_count == 1)
    node.post("reset", force=True)
    assert waiting.result().json()["fenceToken"] == 4


def test_a_lease_that_is_given_back_without_an_act_is_granted_to_one_at_once(node: Node) -> None:
    tokens = node.hold(120_000)
    held = [node.lease() for _ in range(3)]
    sync_until(lambda: node.waiting_count == 3)
    for fence in (2, 3, 4):
        assert node.post("release", **tokens, acted="no").json()["status"] == "released"
        sync_until(lambda: any(each.done() for each in held))
        (granted,) = [each for each in held if each.done()]
        held.remove(granted)
        answer = granted.result().json()
        assert (answer["fenceToken"], answer["priorState"]) == (fence, "none")
        tokens = {name: answer[name] for name in ("fenceToken", "leaseToken")}


def test_a_lease_that_is_given_back_after_an_act_is_granted_once_it_has_settled(node: Node) -> None:
    tokens = node.hold(120_000)
    held = [node.lease(wait_s=20) for _ in range(3)]
    sync_until(lambda: node.waiting_count == 3)
    released = node.post("release", **tokens, acted="unknown", settleMs=1_500).json()
    refused = node.post("lease")
    assert (refused.status_code, refused.headers["retry-after"]) == (409, "1")
    assert refused.json()["error"]["details"]["leaseExpiresAt"] == released["settlesAt"]
    sync_until(lambda: any(each.done() for each in held))
    (granted,) = [each for each in held if each.done()]
    assert granted.result().json()["priorState"] == "expired"
    events = node.http.get("/effects/payments/events", params={"effectKey": "k"}).json()["items"]
    assert [event["type"] for event in events] == ["LEASE_GRANTED", "LEASE_RELEASED", "LEASE_GRANTED"]
    assert events[2]["at"] >= released["settlesAt"]
    tokens = {name: granted.result().json()[name] for name in ("fenceToken", "leaseToken")}
    node.post("commit", **tokens, result=7)
    assert {each.result().status_code for each in held} == {200}


def test_when_the_time_is_over_the_answer_is_the_conflict(node: Node) -> None:
    node.hold()
    answer = node.lease(wait_s=1).result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "lease_conflict")
    assert answer.headers["preference-applied"] == "wait"
    plain = node.post("lease", {"Prefer": "wait=soon"})
    assert (plain.status_code, plain.headers.get("preference-applied")) == (409, None)


def test_the_holder_that_asks_again_is_not_held(node: Node) -> None:
    first = node.post("lease", {"Idempotency-Key": "one"}).json()
    again = node.post("lease", {"Idempotency-Key": "one", "Prefer": "wait=25"}).json()
    assert again["leaseToken"] == first["leaseToken"]


def test_only_so_many_are_held(url: str) -> None:
    node = Node(url, max_waits=1)
    try:
        tokens = node.hold()
        held = node.lease()
        sync_until(lambda: node.waiting_count == 1)
        refused = node.lease().result()
        assert (refused.status_code, refused.headers.get("preference-applied")) == (409, None)
        node.post("commit", **tokens, result=7)
        assert held.result().status_code == 200
    finally:
        node.stop()


def test_one_key_can_have_half_of_the_places(url: str) -> None:
    node = Node(url, max_waits=4)
    other = {"Authorization": f"Bearer {node.served.create_key()}"}
    try:
        tokens = node.hold()
        held = [node.lease() for _ in range(2)]
        sync_until(lambda: node.waiting_count == 2)
        refused = node.lease().result()
        assert (refused.status_code, refused.headers.get("preference-applied")) == (409, None)
        held += [node.threads.submit(node.post, "lease", {"Prefer": "wait=25", **other}) for _ in range(2)]
        sync_until(lambda: node.waiting_count == 4)
        node.post("commit", **tokens, result=7)
        assert [each.result().json()["cachedResult"] for each in held] == [7] * 4
        assert not node.served.app.waiting._waiting_by_key, "who has left is forgotten"
    finally:
        node.stop()


def test_a_server_that_stops_answers_everybody_first(url: str) -> None:
    node = Node(url)
    node.hold()
    held = [node.lease(wait_s=25) for _ in range(3)]
    sync_until(lambda: node.waiting_count == 3)
    node.stop()
    assert [each.result().status_code for each in held] == [409] * 3


def test_a_client_that_leaves_is_forgotten_and_granted_nothing(node: Node) -> None:
    tokens = node.hold()
    authorization = node.http.headers["Authorization"]
    body = b'{"effectKey":"k"}'
    with socket.create_connection((node.http.base_url.host, node.http.base_url.port or 0)) as raw:
        raw.sendall(
            b"POST /v1/effects/payments/lease HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Prefer: wait=25\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (authorization.encode(), len(body), body)
        )
        sync_until(lambda: node.waiting_count == 1)
    sync_until(lambda: node.waiting_count == 0)
    node.post("fail", **tokens, error=1)
    node.post("reset")
    assert node.post("lease").json()["fenceToken"] == 2


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


async def check() -> None:
    """Nobody's key was revoked."""


class CountingStore(AsyncSqliteStore):
    """Tells how many effects each look was at."""

    def __init__(self, ledger: OpenLedger) -> None:
        super().__init__(ledger)
        self.looks: list[int] = []

    async def lease_states(self, names: Sequence[EffectName]) -> list[LeaseState]:
        self.looks.append(len(names))
        return await super().lease_states(names)


class BlindStore(AsyncSqliteStore):
    """Sees no change when it is polled, so that only a call on this node can wake a waiter."""

    async def lease_states(self, names: Sequence[EffectName]) -> list[LeaseState]:
        return [LeaseState(60_000, is_decided=False)] * len(names)


@pytest.mark.parametrize(
    ("operation", "body"), [("release_effect", {"acted": "no"}), ("reset_effect", {"force": True})]
)
async def test_a_call_on_the_node_wakes_one_waiter_at_once(operation: str, body: dict[str, Any]) -> None:
    store = BlindStore(open_ledger("sqlite://"))
    waiters = LeaseWaiters(store, 10)
    outcomes: list[str] = []

    def request(name: str, **body: Any) -> Request:
        text = json.dumps({"effectKey": "k", **body}).encode()
        return Request(Scope("test"), Operation(name), "payments", text, read_members(text))

    async def stay() -> None:
        await asyncio.Event().wait()

    async def ask(asked: Request) -> Answer:
        answer = await store.answer(asked)
        outcomes.append(answer.outcome[0])
        return answer

    lease = json.loads((await store.answer(request("lease_effect"))).body)
    held = [asyncio.create_task(waiters.answer_lease(request("lease_effect"), 20, ask, stay, check)) for _ in range(3)]
    await async_until(lambda: len(outcomes) == 3)
    tokens = {} if operation == "reset_effect" else {name: lease[name] for name in ("fenceToken", "leaseToken")}
    change = request(operation, **tokens, **body)
    await store.answer(change)
    waiters.wake_after(change)
    await async_until(lambda: any(each.done() for each in held))
    assert outcomes == ["lease_conflict"] * 3 + ["granted"]
    waiters.close()
    await asyncio.gather(*held)


async def test_many_waiters_are_one_look() -> None:
    ledger = open_ledger("sqlite://")
    store = CountingStore(ledger)
    waiters = LeaseWaiters(store, 10_000)

    def request(operation: str, **body: Any) -> Request:
        text = json.dumps({"effectKey": "k", **body}).encode()
        return Request(Scope("test"), Operation(operation), "payments", text, read_members(text))

    async def stay() -> None:
        await asyncio.Event().wait()

    lease = json.loads((await store.answer(request("lease_effect"))).body)
    held = [
        asyncio.create_task(waiters.answer_lease(request("lease_effect"), 20, store.answer, stay, check))
        for _ in range(500)
    ]
    await async_until(lambda: waiters.waiting_count == 500 and len(store.looks) >= 3)
    commit = request("commit_effect", result=7, fenceToken=1, leaseToken=lease["leaseToken"])
    await store.answer(commit)
    waiters.wake_after(commit)
    assert {(await each).outcome[0] for each in held} == {"cached_completed"}
    assert set(store.looks) == {1}
    await async_until(lambda: waiters._polling is None)
    ledger.close()


async def test_a_lease_that_runs_out_wakes_one(clock: TestClock) -> None:
    """A thousand that ask at once would get one grant and 999 refusals, again and again."""
    ledger = open_ledger("sqlite://", clock=clock)

    class Asked(CountingStore):
        times = 0

        async def answer(self, asked: Request) -> Answer:
            self.times += 1
            return await super().answer(asked)

    store = Asked(ledger)
    waiters = LeaseWaiters(store, 10_000)
    body = b'{"effectKey":"k"}'
    request = Request(Scope("test"), Operation.LEASE_EFFECT, "payments", body, read_members(body))
    await store.answer(request)
    stay = asyncio.Event().wait
    held = [asyncio.create_task(waiters.answer_lease(request, 25, store.answer, stay, check)) for _ in range(100)]
    await async_until(lambda: waiters.waiting_count == 100 and len(store.looks) >= 3)
    asked = store.times
    clock.advance(30_000)
    done, _ = await asyncio.wait(held, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert [each.result().outcome[0] for each in done] == ["granted"]
    looked = len(store.looks)
    await async_until(lambda: len(store.looks) >= looked + 3)
    assert store.times - asked <= 5, "the one; a few more where a look was overtaken by its grant"
    waiters.close()
    assert {each.outcome[0] for each in await asyncio.gather(*held)} == {"granted", "lease_conflict"}
    await async_until(lambda: waiters._polling is None)
    ledger.close()


async def test_what_is_decided_while_a_waiter_asks_is_not_missed() -> None:
    ledger = open_ledger("sqlite://")

    def request(operation: str, **body: Any) -> Request:
        text = json.dumps({"effectKey": "k", **body}).encode()
        return Request(Scope("test"), Operation(operation), "payments", text, read_members(text))

    class Overtaking(AsyncSqliteStore):
        """The holder commits after the waiter was refused and before it hears of it; and nobody looks."""

        async def answer(self, asked: Request) -> Answer:
            answer = await super().answer(asked)
            if answer.outcome[0] == "lease_conflict":
                commit = request("commit_effect", result=7, fenceToken=1, leaseToken=lease["leaseToken"])
                await super().answer(commit)
                waiters.wake_after(commit)
            return answer

        async def lease_states(self, names: Sequence[EffectName]) -> list[LeaseState]:
            raise StorageError("away")

    store = Overtaking(ledger)
    waiters = LeaseWaiters(store, 10)
    lease = json.loads((await store.answer(request("lease_effect"))).body)
    answer = await asyncio.wait_for(
        waiters.answer_lease(request("lease_effect"), 25, store.answer, asyncio.Event().wait, check), 12
    )
    assert answer.outcome[0] == "cached_completed"
    await async_until(lambda: waiters._polling is None)
    ledger.close()


async def test_a_storage_that_cannot_be_looked_at_leaves_them_waiting(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises: a database that refuses one look is looked at again."""
    ledger = open_ledger("sqlite://")

    class Blinking(AsyncSqliteStore):
        errors: tuple[Exception, ...] = (StorageError("away"), LookupError("refused"))

        async def lease_states(self, names: Sequence[EffectName]) -> list[LeaseState]:
            if self.errors:
                error, *self.errors = self.errors  # type: ignore[assignment]
                raise error
            return await super().lease_states(names)

    store = Blinking(ledger)
    waiters = LeaseWaiters(store, 10)
    body = b'{"effectKey":"k"}'
    request = Request(Scope("test"), Operation.LEASE_EFFECT, "payments", body, read_members(body))
    lease = json.loads((await store.answer(request)).body)
    held = asyncio.create_task(waiters.answer_lease(request, 20, store.answer, asyncio.Event().wait, check))
    await async_until(lambda: not store.errors)
    assert not held.done()
    text = json.dumps({"effectKey": "k", "result": 7, "fenceToken": 1, "leaseToken": lease["leaseToken"]}).encode()
    # As if another node had done it: only a look tells.
    await store.answer(Request(Scope("test"), Operation.COMMIT_EFFECT, "payments", text, read_members(text)))
    assert (await held).outcome[0] == "cached_completed"
    assert [record.message for record in caplog.records] == [
        "the store could not be polled for waiting requests: StorageError"
    ]
    await async_until(lambda: waiters._polling is None)
    ledger.close()


def test_a_key_that_is_revoked_meanwhile_gets_nothing(node: Node) -> None:
    tokens = node.hold()
    held = node.lease()
    sync_until(lambda: node.waiting_count == 1)
    (record,) = node.served.store.list_keys()
    node.http.headers["Authorization"] = f"Bearer {node.served.create_key()}"
    assert node.served.store.revoke_key(record.id, record.created_at)
    assert node.post("commit", **tokens, result="theirs").status_code == 200
    answer = held.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
    assert "theirs" not in answer.text
