"""Waiting for another holder: in real time, since it is the ledger that waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.helpers._async.faulty_transport import AsyncFaultyTransport, Says
from tests.helpers._async.world import AsyncWorld
from tests.helpers.concurrency import AsyncBackground, async_until
from tests.helpers.served_ledger import ServedLedger
from verity import ConflictRetryConfig, EffectPolicy, LeaseConflictError, VerityApiError, VerityClient
from verity._async.acquisition import SINGLE_FLIGHT
from verity._async.pool import MAX_CONNECTIONS
from verity._concurrency import AsyncRuntime
from verity._core.backoff import MAX_WAITS

LONG = ConflictRetryConfig(initial_delay_s=15.0, jitter=False, wait=True)
"""Long enough for whatever a test does meanwhile, however busy the machine is."""


class Contest:
    """A holder of an effect, and a client whose calls have to wait for it."""

    def __init__(self, holder: VerityClient, client: VerityClient, network: AsyncFaultyTransport | None) -> None:
        self.holder, self.client, self.network = holder, client, network
        self.lease: Any = None
        self.acts = 0

    async def hold(self, duration_ms: int = 30_000) -> None:
        self.lease = await self.holder.request_lease("payments", {"effectKey": "k", "leaseDurationMs": duration_ms})

    async def commit(self, result: Any = "theirs") -> None:
        tokens = {name: self.lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
        await self.holder.commit("payments", {**tokens, "result": result})

    async def fail(self) -> None:
        tokens = {name: self.lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
        await self.holder.fail("payments", {**tokens, "error": "declined"})

    async def act(self) -> str:
        self.acts += 1
        return "ours"

    async def protect(self) -> Any:
        return await self.client.protect("k", act=self.act, policy=EffectPolicy(on_unknown="act"))

    def in_line(self) -> int:
        """How many calls were refused the lease and wait now."""
        return sum(map(len, SINGLE_FLIGHT.flights.values()))

    def held(self) -> int:
        """How many requests asked to be held."""
        assert self.network is not None
        return sum("prefer" in each.headers for each in self.network.sent)


def _nothing() -> None:
    """A request that goes through."""


@pytest.fixture
async def served() -> AsyncIterator[ServedLedger]:
    with ServedLedger() as served:
        yield served


@pytest.fixture
async def contest(served: ServedLedger) -> AsyncIterator[Contest]:
    network = AsyncFaultyTransport()
    key = served.create_key()
    async with (
        VerityClient(served.base_url, key, "payments") as holder,
        VerityClient(served.base_url, key, "payments", transport=network, conflict_retry=LONG) as client,
    ):
        yield Contest(holder, client, network)
    await network.aclose()


@pytest.fixture(params=["file", "memory"])
async def embedded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Contest]:
    url = f"sqlite:///{tmp_path}/v.db" if request.param == "file" else "sqlite://"
    async with VerityClient(url, namespace="payments") as client, VerityClient(url, namespace="payments") as other:
        yield Contest(other if request.param == "file" else client, client, None)


async def test_who_waits_has_the_result_with_the_second_request(contest: Contest, served: ServedLedger) -> None:
    await contest.hold()
    async with AsyncBackground() as background:
        background.start(contest.protect)
        await async_until(lambda: served.app.waiting.waiting_count == 1)
        await contest.commit()
    assert background.outcomes == ["theirs"]
    assert contest.acts == 0
    assert contest.network is not None
    assert [each.headers.get("prefer") for each in contest.network.sent] == [None, "wait=15"]


async def test_of_many_that_wait_for_one_effect_one_asks(contest: Contest, served: ServedLedger) -> None:
    await contest.hold()
    async with AsyncBackground() as background:
        for _ in range(40):
            background.start(contest.protect)
        await async_until(lambda: contest.in_line() == 40 and served.app.waiting.waiting_count == 1)
        await contest.commit()
    assert background.outcomes == ["theirs"] * 40
    assert contest.held() == 1
    assert contest.acts == 0


async def test_clients_of_one_process_stand_in_one_line(served: ServedLedger) -> None:
    key = served.create_key()
    clients = [VerityClient(served.base_url, key, "payments", conflict_retry=LONG) for _ in range(4)]
    contest = Contest(clients[0], clients[1], None)
    await contest.hold()
    async with AsyncBackground() as background:
        for client in clients[1:]:
            background.start(partial(client.protect, "k", act=contest.act))
        await async_until(lambda: contest.in_line() == 3 and served.app.waiting.waiting_count == 1)
        await contest.commit()
    assert background.outcomes == ["theirs"] * 3
    assert contest.acts == 0
    for client in clients:
        await client.close()


@pytest.mark.parametrize("other", ["key", "pace", "transport"])
async def test_who_may_be_answered_otherwise_stands_in_another_line(other: str, served: ServedLedger) -> None:
    """A tenant's result is nobody else's, and nobody waits at another's pace."""
    key = served.create_key("test")
    network = AsyncFaultyTransport()
    others: dict[str, Any] = {
        "key": {"api_key": served.create_key("live")},
        "pace": {"conflict_retry": ConflictRetryConfig(initial_delay_s=14.0, jitter=False)},
        "transport": {"transport": network},
    }
    arguments: dict[str, Any] = {"namespace": "payments", "api_key": key, "conflict_retry": LONG}
    client = VerityClient(served.base_url, **arguments)
    another = VerityClient(served.base_url, **{**arguments, **others[other]})
    contest, theirs = Contest(client, client, None), Contest(another, another, None)
    await contest.hold()
    if other == "key":
        await theirs.hold()
    async with AsyncBackground() as background:
        background.start(contest.protect)
        background.start(theirs.protect)
        await async_until(lambda: served.app.waiting.waiting_count == 2)
        await contest.commit("one")
        if other == "key":
            await theirs.commit("two")
    assert sorted(background.outcomes) == (["one", "two"] if other == "key" else ["one", "one"])
    assert contest.acts + theirs.acts == 0
    for each in (client, another):
        await each.close()
    await network.aclose()


async def test_what_failed_is_everybodys_answer_too(contest: Contest, served: ServedLedger) -> None:
    await contest.hold()
    async with AsyncBackground() as background:
        for _ in range(5):
            background.start(contest.protect)
        await async_until(lambda: contest.in_line() == 5 and served.app.waiting.waiting_count == 1)
        await contest.fail()
    assert [type(each).__name__ for each in background.outcomes] == ["EffectPreviouslyFailedError"] * 5
    assert contest.held() == 1


async def test_a_lease_that_runs_out_is_granted_to_one_of_those_who_wait(contest: Contest) -> None:
    await contest.hold(5_000)
    async with AsyncBackground() as background:
        for _ in range(8):
            background.start(contest.protect)
    assert background.outcomes == ["ours"] * 8
    assert contest.acts == 1


# async only
async def test_when_the_one_who_asks_is_cancelled_the_next_one_asks(contest: Contest, served: ServedLedger) -> None:
    await contest.hold()
    async with AsyncBackground() as background:
        first = background.start(contest.protect)
        await async_until(lambda: served.app.waiting.waiting_count == 1)
        for _ in range(3):
            background.start(contest.protect)
        await async_until(lambda: contest.in_line() == 4)
        first.cancel()
        await async_until(lambda: contest.held() == 2)
        await contest.commit()
    assert background.outcomes == ["theirs"] * 3


# end async only
async def test_when_the_one_who_asks_is_answered_with_an_error_the_next_one_asks(contest: Contest) -> None:
    await contest.hold()
    assert contest.network is not None
    contest.network.faults["lease"] = [_nothing, Says(403, b"{}", once=lambda: contest.in_line() == 2)]
    async with AsyncBackground() as background:
        background.start(contest.protect)
        await async_until(lambda: contest.network is not None and not contest.network.faults["lease"])
        background.start(contest.protect)
        await async_until(lambda: contest.held() == 2)
        await contest.commit()
    assert sorted(map(str, background.outcomes))[1] == "theirs"
    assert contest.acts == 0


async def test_patience_ends(contest: Contest) -> None:
    await contest.hold()
    retry = ConflictRetryConfig(max_attempts=2, initial_delay_s=0.01, max_delay_s=1)
    client = VerityClient(
        contest.client._settings.base_url, contest.client._settings.api_key, "payments", conflict_retry=retry
    )
    async with client, AsyncBackground() as background:
        for _ in range(3):
            background.start(lambda: client.protect("k", act=contest.act))
    assert [type(each) for each in background.outcomes] == [LeaseConflictError] * 3
    assert any(each.waited for each in background.outcomes)
    assert contest.acts == 0


async def test_an_older_ledger_is_asked_after_delays_as_ever(world: AsyncWorld) -> None:
    client = world.new_client(conflict_retry=ConflictRetryConfig(max_attempts=4, wait=True))
    world.network.faults["lease"] = [Says(409, b"{}")] * 3
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.runtime.slept == [0.5, 1.0]
    assert [each.headers.get("prefer") for each in world.network.sent[:4]] == [None, "wait=1", None, None]


@pytest.mark.parametrize("retry", [{"wait": False}, {"wait": True, "max_delay_s": 0.9}, {}])
async def test_a_client_that_may_not_wait_sleeps(retry: Any, world: AsyncWorld) -> None:
    client = world.new_client(conflict_retry=ConflictRetryConfig(**retry))
    world.network.faults["lease"] = [Says(409, b"{}")]
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert [each.headers.get("prefer") for each in world.network.sent[:2]] == [None, None]
    assert world.runtime.slept == [0.5]


async def test_each_has_a_result_of_its_own(contest: Contest, served: ServedLedger) -> None:
    await contest.hold()
    async with AsyncBackground() as background:
        for _ in range(3):
            background.start(contest.protect)
        await async_until(lambda: contest.network is not None and len(contest.network.sent) == 4)
        await async_until(lambda: served.app.waiting.waiting_count == 1)
        await contest.commit({"items": []})
    for number, result in enumerate(background.outcomes):
        result["items"].append(number)
    assert background.outcomes == [{"items": [0]}, {"items": [1]}, {"items": [2]}]


class Sleepers(AsyncRuntime):
    """Those who sleep do so until it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeping = 0
        self.is_over = False

    async def sleep(self, seconds: float) -> None:
        self.sleeping += 1
        await async_until(lambda: self.is_over, 120.0)


async def test_what_is_held_leaves_connections_for_those_who_act(served: ServedLedger) -> None:
    """More calls wait, each for another effect, than the client has connections."""
    key = served.create_key()
    retry = ConflictRetryConfig(initial_delay_s=20.0, max_delay_s=20.0)
    runtime = Sleepers()
    keys = [f"k{number}" for number in range(MAX_CONNECTIONS + 10)]
    async with (
        VerityClient(served.base_url, key, "payments") as holder,
        VerityClient(served.base_url, key, "payments", conflict_retry=retry, _runtime=runtime) as client,
    ):
        grants: list[Any] = [await holder.request_lease("payments", {"effectKey": each}) for each in keys]
        async with AsyncBackground() as background:
            for each in keys:
                background.start(partial(client.protect, each, act=_nothing))
            await async_until(lambda: served.app.waiting.waiting_count + runtime.sleeping == len(keys))
            assert served.app.waiting.waiting_count == MAX_WAITS < MAX_CONNECTIONS
            await client.protect("mine", act=_nothing)
            assert served.app.waiting.waiting_count == MAX_WAITS, "it did not wait for one of them to end"
            for grant in grants:
                tokens = {name: grant[name] for name in ("effectKey", "fenceToken", "leaseToken")}
                await holder.commit("payments", {**tokens, "result": "theirs"})
            runtime.is_over = True
    assert background.outcomes == ["theirs"] * len(keys)


async def test_an_embedded_ledger_waits_too(embedded: Contest) -> None:
    await embedded.hold()
    async with AsyncBackground() as background:
        for _ in range(5):
            background.start(embedded.protect)
        await async_until(lambda: embedded.in_line() == 5)
        await embedded.commit()
    assert background.outcomes == ["theirs"] * 5
    assert embedded.acts == 0
    assert not SINGLE_FLIGHT.flights


async def test_a_request_that_is_held_in_vain_gives_its_place_back(world: AsyncWorld) -> None:
    """One call that is refused more often than requests may be held at a time."""
    many = MAX_WAITS + 5
    retry = ConflictRetryConfig(max_attempts=many + 1, initial_delay_s=1.0, max_delay_s=1.0, wait=True)
    client = world.new_client(conflict_retry=retry)
    world.network.faults["lease"] = [Says(409, b"{}", {"preference-applied": "wait"})] * many
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    leases = [each.headers.get("prefer") for each in world.network.sent if each.operation == "lease"]
    assert leases == [None] + ["wait=1"] * many
    assert not world.runtime.slept


async def test_nobody_waits_in_line_for_longer_than_its_patience(contest: Contest) -> None:
    """The one whose turn it is has no answer before the next one has given up."""
    await contest.hold()
    assert contest.network is not None
    retry = ConflictRetryConfig(max_attempts=2, initial_delay_s=0.5, max_delay_s=1.0, wait=True)
    url, key = contest.client._settings.base_url, contest.client._settings.api_key
    client = VerityClient(url, key, "payments", transport=contest.network, conflict_retry=retry)
    async with client, AsyncBackground() as background:
        contest.network.faults["lease"] = [_nothing, Says(403, b"{}", once=lambda: len(background.outcomes) == 1)]
        background.start(lambda: client.protect("k", act=contest.act))
        await async_until(lambda: contest.held() == 1)
        background.start(lambda: client.protect("k", act=contest.act))
    assert [type(each) for each in background.outcomes] == [LeaseConflictError, VerityApiError]
    assert contest.network.operations() == ["lease"] * 3
    assert contest.acts == 0
