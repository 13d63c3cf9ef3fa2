"""What a cancellation does, on asyncio (`Task.cancel`, `timeout`, `wait_for`), in anyio's scopes, and on trio.

Nothing is recorded of an act that was cancelled; a commit that has begun is finished first.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from tests.helpers._async.faulty_transport import AsyncFaultyTransport
from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers.concurrency import async_until
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity import (
    CommitUncertainError,
    EffectPolicy,
    EffectPreviouslyFailedError,
    SyncVerityClient,
    VerityApiError,
    VerityClient,
    VerityValidationError,
)
from verity._concurrency.interrupts import MAX_INTERRUPTS
from verity._concurrency.threads import loop_threads

ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(scope="module")
def ledger() -> Iterator[ServedLedger]:
    with ServedLedger() as served:
        yield served


class GatedTransport(AsyncFaultyTransport):
    """Holds an operation's answers back until the gate is opened; the ledger has acted by then."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self._operation = operation
        self.reached = anyio.Event()
        self.gate = anyio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.url.path.endswith(self._operation):
            self.reached.set()
            await self.gate.wait()
        return response


def _client(ledger: ServedLedger, transport: httpx.AsyncBaseTransport) -> VerityClient:
    return VerityClient(ledger.base_url, ledger.create_key(), "payments", transport=transport)


async def _is_committed(ledger: ServedLedger, key: str) -> bool:
    async with VerityClient(ledger.base_url, ledger.create_key(), "payments") as other:
        return (await other.request_lease("payments", {"effectKey": key})).status == "cached_completed"


# --- in a scope of anyio or trio ---


async def test_a_scope_cancels_an_act_and_nothing_is_recorded(ledger: ServedLedger) -> None:
    network = AsyncFaultyTransport()
    async with _client(ledger, network) as client:
        with anyio.CancelScope() as scope:

            async def act() -> None:
                scope.cancel()
                await anyio.sleep_forever()

            await client.protect("scope-act" + _backend(), act=act)
        assert scope.cancelled_caught
        assert network.operations() == ["lease", "release"]
        assert network.sent[1].body["acted"] == "unknown"
    await network.aclose()


async def test_a_scope_lets_a_commit_finish(ledger: ServedLedger) -> None:
    key = "scope-commit" + _backend()
    network = GatedTransport("commit")
    results: list[Any] = []
    async with _client(ledger, network) as client:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                results.append(await client.protect(key, act=lambda: 7))
                await anyio.lowlevel.checkpoint()
                results.append("went on")

            group.start_soon(run)
            await network.reached.wait()
            group.cancel_scope.cancel()
            network.gate.set()
        assert results == [7], "the commit was finished, then the cancellation went on"
    assert await _is_committed(ledger, key)
    await network.aclose()


# --- asyncio's own cancellation ---


@ON_ASYNCIO
async def test_a_task_that_is_cancelled_in_act_records_nothing(ledger: ServedLedger) -> None:
    network = AsyncFaultyTransport()
    started = asyncio.Event()

    async def act() -> None:
        started.set()
        await asyncio.sleep(3600)

    async with _client(ledger, network) as client:
        for number, wrapped in enumerate((act, lambda: act())):  # noqa: PLW0108 - its type tells nothing
            started.clear()
            task = asyncio.create_task(client.protect(f"task-act-{number}", act=wrapped))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert network.operations() == ["lease", "release"] * 2
        assert {sent.body.get("acted") for sent in network.sent} == {None, "unknown"}
    await network.aclose()


@ON_ASYNCIO
@pytest.mark.parametrize("times", [1, 3])
async def test_a_task_that_is_cancelled_in_the_commit_finishes_it_first(ledger: ServedLedger, times: int) -> None:
    key = f"task-commit-{times}"
    network = GatedTransport("commit")
    async with _client(ledger, network) as client:
        task = asyncio.create_task(client.protect(key, act=lambda: 7))
        await network.reached.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        network.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert network.operations() == ["lease", "commit"]
    assert await _is_committed(ledger, key)
    await network.aclose()


@ON_ASYNCIO
async def test_a_cancelled_commit_that_fails_is_uncertain_all_the_same(ledger: ServedLedger) -> None:
    network = GatedTransport("commit")
    async with _client(ledger, network) as client:

        def cancel_and_lose() -> None:
            task.cancel()
            raise OSError("lost")

        network.faults["commit"] = [cancel_and_lose] * 3
        task = asyncio.create_task(client.protect("task-uncertain", act=lambda: 7))
        with pytest.raises(CommitUncertainError) as caught:
            await task
        assert caught.value.result == 7
    await network.aclose()


@ON_ASYNCIO
@pytest.mark.parametrize("raised", [RuntimeError("declined"), EffectPreviouslyFailedError("an effect inside act")])
async def test_a_task_that_is_cancelled_while_a_failure_is_recorded_records_it_and_ends(
    ledger: ServedLedger, raised: Exception
) -> None:
    """A worker that goes on after `except Exception` would otherwise never hear that it was cancelled."""
    key = f"task-fail-{type(raised).__name__}"

    async def decline() -> None:
        raise raised

    network = GatedTransport("fail")
    async with _client(ledger, network) as client:
        task = asyncio.create_task(client.protect(key, act=decline))
        await network.reached.wait()
        task.cancel()
        await asyncio.sleep(0)
        network.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(EffectPreviouslyFailedError):
            await client.protect(key, act=decline)
    await network.aclose()


async def test_what_ends_an_act_without_being_an_error_is_no_failure(ledger: ServedLedger) -> None:
    class Stopped(BaseException):
        pass

    def stop() -> None:
        raise Stopped

    key = f"stopped {uuid4()}"  # asyncio and trio share the ledger, and the lease lives on
    async with VerityClient(ledger.base_url, ledger.create_key(), "app") as client:
        with pytest.raises(Stopped):
            await client.protect(key, act=stop)
        assert (await client.effects.get(key)).status == "EXPIRED"


async def test_a_lease_that_was_granted_to_a_cancelled_request_is_given_back(ledger: ServedLedger) -> None:
    """Otherwise the effect would be in doubt, although nobody acted."""
    key = "scope-lease" + _backend()
    network = GatedTransport("lease")
    async with _client(ledger, network) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(client.protect, key, act=lambda: 1))
            await network.reached.wait()
            group.cancel_scope.cancel()
            network.gate.set()
        assert network.operations() == ["lease", "lease", "release"]
        assert len({sent.headers.get("idempotency-key") for sent in network.sent[:2]}) == 1
        assert (await client.effects.get(key)).status == "IDLE"
        assert await client.protect(key, act=lambda: 7) == 7
    await network.aclose()


async def test_a_cancelled_request_for_an_effect_that_is_committed_gives_nothing_back(ledger: ServedLedger) -> None:
    key = "scope-committed" + _backend()
    network = GatedTransport("lease")
    async with VerityClient(ledger.base_url, ledger.create_key(), "payments") as other:
        await other.protect(key, act=lambda: 7)
    async with _client(ledger, network) as client, anyio.create_task_group() as group:
        group.start_soon(partial(client.protect, key, act=lambda: 1))
        await network.reached.wait()
        group.cancel_scope.cancel()
        network.gate.set()
    assert network.operations() == ["lease", "lease"]
    await network.aclose()


async def test_a_cancelled_request_for_a_lease_that_another_holder_has_takes_nothing_away(
    ledger: ServedLedger,
) -> None:
    key = "scope-conflict" + _backend()
    network = GatedTransport("lease")
    async with VerityClient(ledger.base_url, ledger.create_key(), "payments") as holder:
        lease = await holder.request_lease("payments", {"effectKey": key})
        async with _client(ledger, network) as client, anyio.create_task_group() as group:
            group.start_soon(partial(client.protect, key, act=lambda: 1))
            await network.reached.wait()
            group.cancel_scope.cancel()
            network.gate.set()
        assert network.operations() == ["lease", "lease"]
        assert (await holder.effects.get(key)).fence_token == lease.fence_token
    await network.aclose()


class _ClosedInAct:
    """Awaits a coroutine, and closes it where it waits inside act: as the garbage collector does."""

    def __init__(self, coroutine: Any, begun: list[int]) -> None:
        self._coroutine = coroutine
        self._begun = begun

    def __await__(self) -> Any:
        value = None
        while True:
            awaited = self._coroutine.send(value)
            if self._begun:
                self._coroutine.close()
                return
            value = yield awaited


async def test_a_coroutine_that_is_closed_inside_act_sends_nothing_more() -> None:
    begun: list[int] = []

    async def act() -> None:
        begun.append(1)
        await anyio.sleep_forever()

    async with VerityClient("sqlite://", namespace="payments") as client:
        await _ClosedInAct(client.protect("closed", act=act), begun)
        assert (await client.effects.get("closed")).status == "RUNNING"


async def test_an_act_in_a_thread_that_was_stopped_may_have_acted(ledger: ServedLedger) -> None:
    network = AsyncFaultyTransport()

    def act() -> None:
        raise SystemExit

    async with _client(ledger, network) as client:
        with pytest.raises(SystemExit):
            await client.protect("stopped thread" + _backend(), act=act)
        assert network.operations() == ["lease", "release"]
        assert network.sent[1].body["acted"] == "unknown"
    await network.aclose()


async def test_an_act_that_still_waits_for_its_thread_has_not_begun(ledger: ServedLedger) -> None:
    network, threads = AsyncFaultyTransport(), BusyThreads()
    key = "no thread yet" + _backend()
    async with _client(ledger, network) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(client.protect, key, act=lambda: 1))
            await async_until(lambda: threads.waited_for == 1)
            group.cancel_scope.cancel()
        assert network.operations() == ["lease", "release"]
        assert network.sent[1].body["acted"] == "no"
        threads.free_all()
        assert await client.protect(key, act=lambda: 7) == 7
    await network.aclose()


@ON_ASYNCIO
async def test_a_closing_loop_does_not_lose_a_commit(ledger: ServedLedger) -> None:
    """`asyncio.run` cancels all tasks at its end, also the one that commits."""
    key = "loop-end"
    network = GatedTransport("commit")
    client = _client(ledger, network)
    others = asyncio.all_tasks()
    task = asyncio.create_task(client.protect(key, act=lambda: 7))
    await network.reached.wait()
    for each in asyncio.all_tasks() - others:
        each.cancel()
    network.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert network.operations() == ["lease", "commit", "commit"]
    await client.close()
    assert await _is_committed(ledger, key)
    await network.aclose()


@ON_ASYNCIO
async def test_wait_for_works_as_usual(ledger: ServedLedger) -> None:
    async with VerityClient(ledger.base_url, ledger.create_key(), "payments") as client:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.protect("wait-for", act=partial(asyncio.sleep, 3600)), 0.05)
        assert await client.protect("after-wait-for", act=lambda: 1) == 1


# --- sync acts in worker threads ---


@ON_ASYNCIO
async def test_a_thread_cannot_be_cancelled_so_its_result_is_kept(ledger: ServedLedger) -> None:
    key = "thread"
    network = AsyncFaultyTransport()
    started, may_end = threading.Event(), threading.Event()

    def act() -> int:
        started.set()
        may_end.wait(30)
        return 7

    async with _client(ledger, network) as client:
        task = asyncio.create_task(client.protect(key, act=act))
        await asyncio.get_running_loop().run_in_executor(None, started.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert network.operations() == ["lease", "commit"]
    assert await _is_committed(ledger, key)
    await network.aclose()


@ON_ASYNCIO
async def test_a_result_is_kept_while_all_tasks_are_cancelled_again_and_again(ledger: ServedLedger) -> None:
    """As a server may do that shuts down. The first cancellation ends the task that waits for the thread."""
    has_begun, may_end = threading.Event(), threading.Event()
    network = AsyncFaultyTransport()

    def act() -> int:
        has_begun.set()
        may_end.wait(30)
        return 7

    async with _client(ledger, network) as client:
        others = asyncio.all_tasks()
        task = asyncio.create_task(client.protect("thread-often", act=act))
        await async_until(has_begun.is_set)
        for _ in range(3 * MAX_INTERRUPTS):
            for each in asyncio.all_tasks() - others:
                each.cancel()
            await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert network.operations() == ["lease", "commit"]
    assert await _is_committed(ledger, "thread-often")
    await network.aclose()


@ON_ASYNCIO
async def test_a_coroutine_from_a_cancelled_thread_does_not_run(ledger: ServedLedger) -> None:
    started, may_end = threading.Event(), threading.Event()
    ran: list[int] = []

    async def refund() -> None:
        ran.append(1)

    def act() -> Awaitable[None]:
        started.set()
        may_end.wait(30)
        return refund()

    network = AsyncFaultyTransport()
    async with _client(ledger, network) as client:
        task = asyncio.create_task(client.protect("thread-coroutine", act=act))
        await asyncio.get_running_loop().run_in_executor(None, started.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert network.operations() == ["lease", "release"]
        assert network.sent[1].body["acted"] == "unknown", "the function that gave the coroutine was called"
    assert not ran
    await network.aclose()


@ON_ASYNCIO
@pytest.mark.parametrize("raises", [False, True])
async def test_a_cancelled_observe_in_a_thread_does_not_act(ledger: ServedLedger, raises: bool) -> None:
    started, may_end = threading.Event(), threading.Event()
    acts: list[int] = []

    def observe() -> None:
        started.set()
        may_end.wait(30)
        if raises:
            raise OSError("the provider is down")

    network = AsyncFaultyTransport()
    async with _client(ledger, network) as client:
        call = client.protect(
            f"thread-observe-{raises}",
            observe=observe,
            act=lambda: acts.append(1),
            policy=EffectPolicy(observe_when="always", on_observe_error="act"),
        )
        task = asyncio.create_task(call)
        await asyncio.get_running_loop().run_in_executor(None, started.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert network.operations()[-1] == "release"
        assert network.sent[-1].body["acted"] == "no"
    assert not acts
    await network.aclose()


async def test_a_sync_act_has_its_context_and_leaves_the_loop_free(ledger: ServedLedger) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    user.set("anna")
    loop_is_free, seen = threading.Event(), []

    def act() -> str:
        assert loop_is_free.wait(30), "the loop runs while act does"
        seen.append(threading.current_thread())
        return user.get()

    async with (
        VerityClient(ledger.base_url, ledger.create_key(), "payments") as client,
        anyio.create_task_group() as group,
    ):

        async def run() -> None:
            assert await client.protect("context" + _backend(), act=act) == "anna"

        group.start_soon(run)
        await anyio.lowlevel.checkpoint()
        loop_is_free.set()
    assert seen[0] is not threading.main_thread()


class BusyThreads:
    """All places for threads of this event loop, each kept from others until it is freed."""

    def __init__(self) -> None:
        self._limiter = loop_threads().limiter
        self._busy = [object() for _ in range(int(self._limiter.total_tokens))]
        for each in self._busy:
            self._limiter.acquire_on_behalf_of_nowait(each)

    @property
    def waited_for(self) -> int:
        return self._limiter.statistics().tasks_waiting

    @property
    def free(self) -> float:
        return self._limiter.available_tokens

    @property
    def borrowed(self) -> int:
        return self._limiter.borrowed_tokens

    def free_one(self) -> None:
        self._limiter.release_on_behalf_of(self._busy.pop())

    def free_all(self) -> None:
        while self._busy:
            self.free_one()


async def test_an_act_that_waited_for_a_thread_for_too_long_does_not_run() -> None:
    """All threads may be busy for longer than its lease lasts, and another holder may have acted by then."""
    clock = TestClock()
    acts: list[int] = []
    threads = BusyThreads()
    with ServedLedger(clock=clock) as ledger:
        runtime = AsyncVirtualRuntime(clock)
        async with (
            VerityClient(
                ledger.base_url, ledger.create_key(), "payments", auto_renew=False, _runtime=runtime
            ) as client,
            anyio.create_task_group() as group,
        ):

            async def run() -> None:
                with pytest.raises(VerityApiError, match="stale_fence"):
                    await client.protect("no-thread", act=lambda: acts.append(1))

            group.start_soon(run)
            await async_until(lambda: threads.waited_for == 1)
            clock.advance(30_000)
            await client.request_lease("payments", {"effectKey": "no-thread"})
            threads.free_all()
    assert not acts
    assert threads.borrowed == 0


async def test_no_thread_is_kept_while_a_lease_is_confirmed() -> None:
    """Others may have it meanwhile."""
    clock = TestClock()
    network = AsyncFaultyTransport()
    threads = BusyThreads()
    free: list[float] = []
    network.faults["renew"] = [lambda: free.append(threads.free)]
    with ServedLedger(clock=clock) as ledger:
        async with (
            VerityClient(
                ledger.base_url,
                ledger.create_key(),
                "payments",
                auto_renew=False,
                transport=network,
                _runtime=AsyncVirtualRuntime(clock),
            ) as client,
            anyio.create_task_group() as group,
        ):

            async def run() -> None:
                assert await client.protect("late-thread", act=lambda: 7) == 7

            group.start_soon(run)
            await async_until(lambda: threads.waited_for == 1)
            clock.advance(25_000)
            threads.free_one()
    threads.free_all()
    await network.aclose()
    assert free == [1]
    assert network.operations() == ["lease", "renew", "commit"]


@ON_ASYNCIO
async def test_an_act_that_waits_for_a_thread_can_be_cancelled(ledger: ServedLedger) -> None:
    acts: list[int] = []
    threads = BusyThreads()
    async with VerityClient(ledger.base_url, ledger.create_key(), "payments") as client:
        task = asyncio.create_task(client.protect("waits-for-thread", act=lambda: acts.append(1)))
        await async_until(lambda: threads.waited_for == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    threads.free_all()
    assert not acts
    assert threads.borrowed == 0


# --- what is not a function ---


async def test_a_coroutine_object_is_refused_before_any_call(ledger: ServedLedger) -> None:
    async def act() -> None:
        raise AssertionError("never runs")

    network = AsyncFaultyTransport()
    async with _client(ledger, network) as client:
        for arguments in ({"act": act()}, {"act": act, "observe": act()}):
            with pytest.raises(Exception, match="pass the function itself") as caught:
                await client.protect("coroutine", **arguments)
            assert type(caught.value).__name__ == "VerityValidationError"
    assert not network.sent


async def test_a_generator_function_is_refused_before_any_call(ledger: ServedLedger) -> None:
    def refunds() -> Iterator[int]:
        yield 1

    async def async_refunds() -> AsyncIterator[int]:
        yield 1

    class Refunds:
        def __call__(self) -> Iterator[int]:
            yield 1

    network = AsyncFaultyTransport()
    async with _client(ledger, network) as client:
        for fn in (refunds, async_refunds, partial(refunds), Refunds()):
            for arguments in ({"act": fn}, {"act": lambda: 1, "observe": fn}):
                with pytest.raises(VerityValidationError, match="without yield"):
                    await client.protect("generator", **arguments)
    assert not network.sent
    with SyncVerityClient(ledger.base_url, ledger.create_key(), "payments") as sync_client:
        for fn in (refunds, async_refunds, Refunds()):
            with pytest.raises(VerityValidationError, match="without yield"):
                sync_client.protect("generator", act=fn)


class AsyncCallable:
    """An object that is called like a coroutine function."""

    async def __call__(self) -> int:
        return 7


@pytest.mark.parametrize(
    "act",
    [AsyncCallable(), partial(AsyncCallable()), lambda: AsyncCallable()()],  # noqa: PLW0108 - its type tells nothing
)
async def test_whatever_gives_an_awaitable_is_awaited(ledger: ServedLedger, act: Callable[[], Any]) -> None:
    async with VerityClient(ledger.base_url, ledger.create_key(), "payments") as client:
        assert await client.protect(f"callable-{id(act)}" + _backend(), act=act) == 7


# --- the sync client ---


async def _refund() -> int:
    return 1


@pytest.mark.parametrize(
    ("arguments", "prior_state"),
    [
        ({"act": _refund}, "none"),
        ({"act": partial(_refund)}, "none"),
        ({"act": AsyncCallable()}, "none"),
        ({"act": lambda: 1, "observe": _refund}, "none"),
        ({"act": lambda: _refund()}, "expired"),  # noqa: PLW0108 - its type tells nothing
        ({"act": lambda: 1, "observe": lambda: _refund()}, "none"),  # noqa: PLW0108
        ({"act": lambda: 1, "on_lease": lambda _: _refund()}, "none"),
    ],
)
def test_the_sync_client_takes_no_awaitables(ledger: ServedLedger, arguments: dict[str, Any], prior_state: str) -> None:
    """Nothing is recorded. A function that was called may have done something."""
    key = f"sync-{id(arguments)}"
    always = EffectPolicy(observe_when="always", settle_s=0)
    with SyncVerityClient(ledger.base_url, ledger.create_key(), "payments", policy=always) as client:
        with pytest.raises(Exception, match="use VerityClient") as caught:
            client.protect(key, **arguments)
        assert type(caught.value).__name__ == "VerityValidationError"
        lease = client.request_lease("payments", {"effectKey": key})
        assert lease.prior_state == prior_state


def test_an_interrupt_in_the_commit_finishes_it_first(ledger: ServedLedger) -> None:
    calls: list[str] = []

    class Interrupting(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            calls.append(request.url.path.rsplit("/", 1)[-1])
            if calls.count("commit") == 1:
                calls.append("interrupted")
                raise KeyboardInterrupt
            return super().handle_request(request)

    with Interrupting() as transport:
        client = SyncVerityClient(ledger.base_url, ledger.create_key(), "payments", transport=transport)
        with pytest.raises(KeyboardInterrupt):
            client.protect("sync-interrupt", act=lambda: 7)
        assert calls == ["lease", "commit", "interrupted", "commit"]
        assert client.protect("sync-interrupt", act=lambda: 8) == 7
        client.close()


def test_an_interrupt_while_a_failure_is_recorded_records_it_and_goes_on(ledger: ServedLedger) -> None:
    class Interrupting(httpx.HTTPTransport):
        interrupts = 1

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/fail") and self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt
            return super().handle_request(request)

    def decline() -> None:
        raise RuntimeError("declined")

    with Interrupting() as transport:
        client = SyncVerityClient(ledger.base_url, ledger.create_key(), "payments", transport=transport)
        with pytest.raises(KeyboardInterrupt):
            client.protect("sync-fail-interrupt", act=decline)
        with pytest.raises(EffectPreviouslyFailedError):
            client.protect("sync-fail-interrupt", act=decline)
        client.close()


def test_an_interrupt_in_act_records_no_failure(ledger: ServedLedger) -> None:
    def act() -> None:
        raise KeyboardInterrupt

    with SyncVerityClient(ledger.base_url, ledger.create_key(), "payments") as client:
        with pytest.raises(KeyboardInterrupt):
            client.protect("sync-act-interrupt", act=act)
        with pytest.raises(Exception, match="settled"):
            client.protect("sync-act-interrupt", act=lambda: 1, on_conflict="throw")


def _backend() -> str:
    """A key of its own for each backend: the ledger is shared."""
    return "-asyncio" if "asyncio" in sys.modules and _on_asyncio() else "-trio"


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# --- the end of the event loop ---


@pytest.mark.parametrize("how", ["return", "interrupt"])
def test_an_act_in_a_thread_is_started_once_however_the_loop_ends(ledger: ServedLedger, how: str) -> None:
    """`asyncio.run` cancels all that is left, also what finishes a call whose own cancellation is held back."""
    begun, ends = threading.Event(), threading.Event()
    acts: list[str] = []

    def act() -> str:
        acts.append(how)
        begun.set()
        assert ends.wait(30)
        return "done"

    async def end_act_with_the_loop() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ends.set()

    async def main() -> None:
        client = VerityClient(ledger.base_url, ledger.create_key(), "payments")
        call = asyncio.create_task(client.protect(f"loop-{how}", act=act))
        watch = asyncio.create_task(end_act_with_the_loop())
        await async_until(begun.is_set)
        assert not call.done()
        assert not watch.done()
        if how == "interrupt":
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(3600)

    with pytest.raises(KeyboardInterrupt) if how == "interrupt" else nullcontext():
        asyncio.run(main())
    assert acts == [how]
