"""An act whose lease is lost: it is told in every kind of code, and cancelled where the policy says so."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.helpers._async.faulty_transport import LOSE_REQUEST, AsyncFaultyTransport
from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers._sync.faulty_transport import SyncFaultyTransport
from tests.helpers._sync.virtual_runtime import SyncVirtualRuntime
from tests.helpers.concurrency import AsyncBackground, async_until
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity import (
    CommitUncertainError,
    CurrentEffect,
    EffectPolicy,
    NotExecuted,
    OutcomeUnknownError,
    SyncVerityClient,
    VerityClient,
    current_effect,
)

CANCEL = EffectPolicy(on_lease_lost="cancel")
_numbers = itertools.count()
ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(scope="module")
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(scope="module")
def ledger(clock: TestClock) -> Iterator[ServedLedger]:
    with ServedLedger(clock=clock) as served:
        yield served


class Bench:
    """A client on virtual time, and what its acts do."""

    def __init__(self, ledger: ServedLedger, clock: TestClock, **settings: Any) -> None:
        self.clock = clock
        self.runtime = AsyncVirtualRuntime(clock)
        self.network = AsyncFaultyTransport()
        self.began = anyio.Event()
        self.namespace = f"lost-{next(_numbers)}"
        self.client = VerityClient(
            ledger.base_url,
            ledger.create_key(role="org_admin"),
            self.namespace,
            transport=self.network,
            _runtime=self.runtime,
            **settings,
        )

    async def act(self) -> str:
        """It never ends by itself."""
        self.began.set()
        await anyio.sleep_forever()
        return "never"

    async def take_away(self) -> None:
        """Another holder gets the lease; the next renewal learns of it."""
        await self.client.effects.reset("k", force=True)
        await self.client.request_lease(self.namespace, {"effectKey": "k"})
        await self.runtime.advance(20)

    async def let_it_expire(self) -> None:
        """No renewal gets through, until the lease has expired."""
        self.network.faults["renew"] = [LOSE_REQUEST] * 100
        await self.runtime.advance(30.1)

    async def lose(self, how: str) -> None:
        await self.began.wait()
        await (self.take_away() if how == "taken" else self.let_it_expire())

    async def protect(self, act: Callable[[], Any], how: str, **options: Any) -> Any:
        """Protect an effect whose lease is lost while it acts."""
        outcome: list[Any] = []

        async def call() -> None:
            try:
                outcome.append(await self.client.protect("k", act=act, **{"policy": CANCEL, **options}))
            except Exception as error:  # noqa: BLE001 - it is raised below
                outcome.append(error)

        async with AsyncBackground() as background:
            background.start(call)
            background.start(lambda: self.lose(how))
        assert background.outcomes == [None, None]
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    async def status(self) -> str:
        return str((await self.client.effects.get("k")).status)


@pytest.fixture
async def bench(ledger: ServedLedger, clock: TestClock) -> AsyncIterator[Bench]:
    made = Bench(ledger, clock)
    yield made
    await made.client.close()
    await made.network.aclose()


def current() -> CurrentEffect:
    effect = current_effect()
    assert effect is not None
    return effect


# --- cancel ---


@pytest.mark.parametrize("how", ["taken", "expired"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["coroutine", "coroutine from a thread"])
async def test_the_loss_cancels_an_async_act_and_its_outcome_is_unknown(bench: Bench, how: str, wrapped: bool) -> None:
    act = (lambda: bench.act()) if wrapped else bench.act  # noqa: PLW0108 - its type tells nothing
    with pytest.raises(OutcomeUnknownError, match="was lost while act ran") as caught:
        await bench.protect(act, how)
    assert (caught.value.effect_key, caught.value.fence_token) == ("k", 1)
    assert "fail" not in bench.network.operations()
    assert "commit" not in bench.network.operations()
    assert [sent.body["acted"] for sent in bench.network.sent if sent.operation == "release"] == ["unknown"]
    assert await bench.status() == ("RUNNING" if how == "taken" else "EXPIRED")
    assert not bench.runtime.planned(), "nothing is watched or renewed any more"


async def test_it_needs_no_renewals(ledger: ServedLedger, clock: TestClock) -> None:
    bench = Bench(ledger, clock, auto_renew=False)
    with pytest.raises(OutcomeUnknownError):
        await bench.protect(bench.act, "expired")
    await bench.client.close()
    await bench.network.aclose()


async def test_a_lease_that_is_renewed_cancels_nothing(bench: Bench) -> None:
    async def act() -> str:
        await bench.runtime.advance(200)
        await anyio.lowlevel.checkpoint()
        assert len(bench.runtime.planned()) == 2, "the next renewal, and the next look at the expiry"
        return "done"

    assert await bench.client.protect("k", act=act, policy=CANCEL) == "done"


async def test_by_default_act_goes_on(bench: Bench) -> None:
    async def act() -> str:
        bench.began.set()
        await async_until(current().lease_lost.is_set)
        return "done"

    with pytest.raises(CommitUncertainError):
        await bench.protect(act, "taken", policy=EffectPolicy())
    assert bench.network.operations()[-1] == "commit"


async def test_the_result_of_an_act_that_ends_all_the_same_is_committed(bench: Bench) -> None:
    """It expired, and nobody else was granted."""

    async def act() -> str:
        try:
            return await bench.act()
        except BaseException:  # noqa: BLE001 - the cancellation
            bench.network.faults.clear()
            return "done"

    assert await bench.protect(act, "expired") == "done"
    assert await bench.status() == "COMMITTED"


async def test_how_a_cancelled_act_fails_tells_nothing(bench: Bench) -> None:
    async def act() -> str:
        try:
            return await bench.act()
        except BaseException as error:
            raise LookupError("cleaned up") from error

    with pytest.raises(OutcomeUnknownError) as caught:
        await bench.protect(act, "expired")
    assert isinstance(caught.value.__cause__, LookupError)
    assert "fail" not in bench.network.operations()


async def test_but_an_act_that_knows_that_nothing_happened_is_believed(bench: Bench) -> None:
    async def act() -> str:
        try:
            return await bench.act()
        except BaseException as error:
            raise NotExecuted("not sent yet") from error

    with pytest.raises(NotExecuted, match="not sent yet"):
        await bench.protect(act, "expired")


async def test_a_failure_before_the_loss_is_a_failure(bench: Bench) -> None:
    async def act() -> None:
        raise LookupError("declined")

    with pytest.raises(LookupError):
        await bench.client.protect("k", act=act, policy=CANCEL)
    assert await bench.status() == "FAILED"
    assert not bench.runtime.planned()


@pytest.mark.parametrize("how", ["taken", "expired"])
async def test_a_sync_act_finds_it_set(bench: Bench, how: str) -> None:
    loop_began = bench.began
    waited: list[bool] = []

    def act() -> str:
        anyio.from_thread.run_sync(loop_began.set)
        waited.append(current().lease_lost.wait())
        return "done"

    if how == "taken":
        with pytest.raises(CommitUncertainError):
            await bench.protect(act, how)
    else:
        bench.network.faults["commit"] = []
        assert await bench.protect(act, how) == "done"
    assert waited == [True]


async def test_a_cancellation_from_outside_wins(bench: Bench) -> None:
    with anyio.CancelScope() as scope:

        async def act() -> str:
            scope.cancel()
            return await bench.act()

        await bench.client.protect("k", act=act, policy=CANCEL)
    assert scope.cancelled_caught
    assert "fail" not in bench.network.operations()


@ON_ASYNCIO
async def test_a_task_that_is_cancelled_at_the_same_time_ends(bench: Bench) -> None:
    task = asyncio.create_task(bench.client.protect("k", act=bench.act, policy=CANCEL))
    await bench.lose("expired")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "fail" not in bench.network.operations()


async def test_a_nested_effect_is_cancelled_with_the_outer_one(bench: Bench) -> None:
    async def outer() -> str:
        return await bench.client.protect("inner", act=bench.act)

    with pytest.raises(OutcomeUnknownError) as caught:
        await bench.protect(outer, "taken")
    assert caught.value.effect_key == "k"
    assert (await bench.client.effects.get("inner")).status != "FAILED"


# --- waiting for it ---


@pytest.mark.parametrize("how", ["taken", "expired"])
async def test_a_coroutine_can_wait_for_the_loss(bench: Bench, how: str) -> None:
    waited: list[bool] = []

    async def act() -> None:
        bench.began.set()
        waited.append(await current().lease_lost.wait_async())
        raise NotExecuted

    with pytest.raises(NotExecuted):
        await bench.protect(act, how, policy=EffectPolicy())
    assert waited == [True]


async def test_a_task_that_outlives_the_call_waits_no_longer_and_has_no_effect(bench: Bench) -> None:
    seen: list[Any] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            lease_lost = current().lease_lost
            bench.began.set()
            seen.append(await lease_lost.wait_async())
            seen.append(current_effect())

        async def act() -> None:
            group.start_soon(watch)
            await bench.began.wait()

        await bench.client.protect("k", act=act)
    assert seen == [False, None]


async def test_a_thread_that_outlives_the_call_waits_no_longer(bench: Bench) -> None:
    waited: list[bool] = []
    threads: list[threading.Thread] = []

    def act() -> None:
        lease_lost = current().lease_lost
        threads.append(threading.Thread(target=lambda: waited.append(lease_lost.wait()), daemon=True))
        threads[0].start()

    await bench.client.protect("k", act=act)
    await anyio.to_thread.run_sync(threads[0].join, 30)
    assert waited == [False]


async def test_a_thread_with_the_context_of_act_knows_the_effect(bench: Bench) -> None:
    seen: list[Any] = []

    async def act() -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(lambda: seen.append(current().key)))
        thread.start()
        await anyio.to_thread.run_sync(thread.join, 60)

    await bench.client.protect("k", act=act)
    assert seen == ["k"]


def test_a_sync_act_can_wait_in_an_event_loop_of_its_own(ledger: ServedLedger, clock: TestClock) -> None:
    """The loss is then told by a thread that does not run that loop."""
    began = threading.Event()
    waited: list[bool] = []
    runtime = SyncVirtualRuntime(clock)
    network = SyncFaultyTransport()
    network.faults["renew"] = [LOSE_REQUEST] * 100

    def act() -> None:
        async def wait() -> bool:
            began.set()
            return await current().lease_lost.wait_async()

        waited.append(anyio.run(wait))
        raise NotExecuted

    def expire() -> None:
        assert began.wait(60)
        runtime.advance(30.1)

    thread = threading.Thread(target=expire)
    thread.start()
    with (
        SyncVerityClient(ledger.base_url, ledger.create_key(), "lost", transport=network, _runtime=runtime) as client,
        pytest.raises(NotExecuted),
    ):
        client.protect("k", act=act)
    thread.join()
    network.close()
    assert waited == [True]
