"""A cancellation or an interrupt while a commit waits for its ledger: one more try, then the caller goes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from tests.helpers._async.faulty_transport import LOSE_REQUEST, AsyncFaultyTransport
from tests.helpers._sync.faulty_transport import SyncFaultyTransport
from tests.helpers.served_ledger import ServedLedger
from verity import CommitUncertainError, EffectPolicy, SyncVerityClient, VerityClient
from verity._concurrency import AsyncRuntime, SyncRuntime

ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(scope="module")
def ledger() -> Iterator[ServedLedger]:
    with ServedLedger() as served:
        yield served


class Pausing(AsyncRuntime):
    """The second pause of a commit is so long that a test would notice if nothing ended it."""

    def __init__(self) -> None:
        self.pauses = 0
        self.has_ended_by_itself = False
        self.reached = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        self.pauses += 1
        if self.pauses == 2:
            self.reached.set()
            await anyio.sleep(10)
            self.has_ended_by_itself = True
        for _ in range(5):  # a cancellation under way arrives
            await anyio.lowlevel.checkpoint()


class Bench:
    def __init__(self, ledger: ServedLedger) -> None:
        self.network = AsyncFaultyTransport()
        self.runtime = Pausing()
        self.client = VerityClient(
            ledger.base_url, ledger.create_key(), "patience", transport=self.network, _runtime=self.runtime
        )

    def commits(self) -> int:
        return self.network.operations().count("commit")

    async def status(self, key: str) -> str:
        return str((await self.client.effects.get(key)).status)


@pytest.fixture
async def bench(ledger: ServedLedger) -> AsyncIterator[Bench]:
    made = Bench(ledger)
    yield made
    assert not made.runtime.has_ended_by_itself
    await made.client.close()
    await made.network.aclose()


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_scope_that_is_cancelled_meanwhile_gets_one_more_try(bench: Bench, in_thread: bool) -> None:
    key = f"scope-{anyio.get_current_task().id}-{in_thread}"
    bench.network.faults["commit"] = [LOSE_REQUEST] * 2
    went_on = False

    async def act() -> int:
        return 7

    async with anyio.create_task_group() as group:

        async def run() -> None:
            nonlocal went_on
            await bench.client.protect(key, act=(lambda: 7) if in_thread else act)
            went_on = True

        group.start_soon(run)
        await bench.runtime.reached.wait()
        group.cancel_scope.cancel()
    assert not went_on
    assert bench.commits() == 3
    assert await bench.status(key) == "COMMITTED"


async def test_a_scope_that_is_cancelled_in_vain_hears_of_the_result(bench: Bench) -> None:
    bench.network.faults["commit"] = [LOSE_REQUEST] * 100
    key = f"scope-vain-{anyio.get_current_task().id}"
    results: list[Any] = []

    async with anyio.create_task_group() as group:

        async def run() -> None:
            with pytest.raises(CommitUncertainError) as caught:
                await bench.client.protect(key, act=lambda: 7)
            results.append(caught.value.result)

        group.start_soon(run)
        await bench.runtime.reached.wait()
        group.cancel_scope.cancel()
    assert results == [7]
    assert bench.commits() == 3


@ON_ASYNCIO
@pytest.mark.parametrize("times", [1, 3])
async def test_a_task_that_is_cancelled_meanwhile_gets_one_more_try(bench: Bench, times: int) -> None:
    key = f"task-{times}"
    bench.network.faults["commit"] = [LOSE_REQUEST] * 2
    task = asyncio.create_task(bench.client.protect(key, act=lambda: 7))
    await bench.runtime.reached.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.commits() == 3
    assert await bench.status(key) == "COMMITTED"


@ON_ASYNCIO
async def test_a_task_that_is_cancelled_in_vain_hears_of_the_result(bench: Bench) -> None:
    bench.network.faults["commit"] = [LOSE_REQUEST] * 100
    task = asyncio.create_task(bench.client.protect("task-vain", act=lambda: 7))
    await bench.runtime.reached.wait()
    task.cancel()
    with pytest.raises(CommitUncertainError):
        await task
    assert bench.commits() == 3


@ON_ASYNCIO
async def test_a_task_that_is_cancelled_in_a_try_gets_one_more(bench: Bench) -> None:
    """The try under way fails; one more follows."""

    def cancel() -> None:
        task.cancel()
        raise OSError("lost")

    bench.network.faults["commit"] = [cancel, *[LOSE_REQUEST] * 100]
    task = asyncio.create_task(bench.client.protect("task-try", act=lambda: 7))
    with pytest.raises(CommitUncertainError):
        await task
    assert bench.commits() == 2


@ON_ASYNCIO
async def test_a_loop_that_closes_meanwhile_gets_one_more_try(bench: Bench) -> None:
    """It cancels the task that commits, too."""
    bench.network.faults["commit"] = [LOSE_REQUEST] * 2
    of_the_test = asyncio.all_tasks()
    task = asyncio.create_task(bench.client.protect("closing", act=lambda: 7))
    await bench.runtime.reached.wait()
    for each in asyncio.all_tasks() - of_the_test:
        each.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.commits() == 3
    assert await bench.status("closing") == "COMMITTED"


# --- the sync client ---


class Interrupt(Exception):
    """A handler's, as of a worker's soft time limit."""


@pytest.fixture
def interrupting() -> Iterator[type[SyncRuntime]]:
    """A runtime that a signal interrupts in the second pause of a commit."""

    def interrupt(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)

    class Interrupted(SyncRuntime):
        pauses = 0

        def sleep(self, seconds: float) -> None:
            self.pauses += 1
            if self.pauses == 2:
                signal.raise_signal(signal.SIGUSR1)

    yield Interrupted
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("source", ["acted", "observed"])
def test_an_interrupt_meanwhile_leaves_one_more_try(
    ledger: ServedLedger, interrupting: Callable[[], SyncRuntime], source: str
) -> None:
    network = SyncFaultyTransport()
    key = f"sync-{source}"
    found = (lambda: 7) if source == "observed" else None
    with SyncVerityClient(
        ledger.base_url, ledger.create_key(), "patience", transport=network, _runtime=interrupting()
    ) as client:
        network.faults["commit"] = [LOSE_REQUEST] * 2
        with pytest.raises(Interrupt):
            client.protect(key, act=lambda: 7, observe=found, policy=EffectPolicy(observe_when="always"))
        assert network.operations().count("commit") == 3
        assert client.effects.get(key).status == "COMMITTED"
    network.close()


def test_an_interrupt_in_vain_leaves_the_result(ledger: ServedLedger, interrupting: Callable[[], SyncRuntime]) -> None:
    network = SyncFaultyTransport()
    with SyncVerityClient(
        ledger.base_url, ledger.create_key(), "patience", transport=network, _runtime=interrupting()
    ) as client:
        network.faults["commit"] = [LOSE_REQUEST] * 100
        with pytest.raises(CommitUncertainError) as caught:
            client.protect("sync-vain", act=lambda: 7)
        assert caught.value.result == 7
        assert network.operations().count("commit") == 3
    network.close()
