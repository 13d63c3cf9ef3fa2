"""The threads of sync acts and observes on the async client: a limit of Verity's own, and what happens without one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from trio._core._thread_cache import THREAD_CACHE

from tests.helpers._async.faulty_transport import AsyncFaultyTransport
from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers.concurrency import async_gather, async_until
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity import (
    ActNotStartedError,
    ConflictRetryConfig,
    EffectPolicy,
    SyncVerityClient,
    VerityClient,
    VerityError,
    VerityValidationError,
)
from verity._concurrency.threads import MAX_THREADS, Job

ROOT = Path(__file__).parents[2]
WITHIN_S = 30.0


@pytest.fixture
def client() -> VerityClient:
    retry = ConflictRetryConfig(max_attempts=200, initial_delay_s=0.01, max_delay_s=0.01)
    return VerityClient("sqlite://", namespace="threads", conflict_retry=retry)


# --- whose limit ---


async def test_others_who_use_all_threads_hold_up_no_act(client: VerityClient) -> None:
    may_end = threading.Event()
    async with client, anyio.create_task_group() as group:
        for _ in range(int(anyio.to_thread.current_default_thread_limiter().total_tokens)):
            group.start_soon(anyio.to_thread.run_sync, lambda: may_end.wait(WITHIN_S))
        await anyio.lowlevel.checkpoint()
        with anyio.fail_after(WITHIN_S):
            assert await client.protect("k", observe=lambda: None, act=lambda: 7) == 7
        may_end.set()


async def test_acts_that_use_all_threads_hold_up_nobody_else(client: VerityClient) -> None:
    may_end, began = threading.Event(), []

    def act() -> None:
        began.append(1)
        may_end.wait(WITHIN_S)

    async with client, anyio.create_task_group() as group:
        for number in range(MAX_THREADS + 3):
            group.start_soon(lambda key: client.protect(key, act=act), f"k{number}")
        await async_until(lambda: len(began) == MAX_THREADS)
        with anyio.fail_after(WITHIN_S):
            assert await anyio.to_thread.run_sync(lambda: 7) == 7
        assert len(began) == MAX_THREADS
        may_end.set()
    assert len(began) == MAX_THREADS + 3


async def test_acts_that_wait_for_acts_inside_them_do_not_wait_for_each_other(client: VerityClient) -> None:
    """Three deep, with two calls at once in each: all the threads there are wait for one that is not there."""
    everybody = threading.Barrier(MAX_THREADS)
    acts: list[str] = []

    async def protect_two(key: str, depth: int) -> None:
        with anyio.fail_after(WITHIN_S / 2):
            await async_gather([partial(protect, f"{key}-{number}", depth) for number in range(2)])

    async def protect(key: str, depth: int) -> str:
        def act() -> str:
            if depth == 3:
                everybody.wait(WITHIN_S)
            if depth > 1:
                anyio.from_thread.run(protect_two, key, depth - 1)
            acts.append(key)
            return key

        return await client.protect(key, observe=lambda: None, act=act)

    async with client:
        with anyio.fail_after(WITHIN_S):
            results = await async_gather([partial(protect, f"k{number}", 3) for number in range(MAX_THREADS)])
    assert results == [f"k{number}" for number in range(MAX_THREADS)]
    assert len(acts) == len(set(acts)) == MAX_THREADS * (1 + 2 + 4)


async def test_what_an_act_left_behind_takes_no_place_beside_the_limit(client: VerityClient) -> None:
    began: list[int] = []
    may_end = threading.Event()

    def hold() -> None:
        began.append(1)
        may_end.wait(WITHIN_S)

    async with client, anyio.create_task_group() as group:

        def leave_behind() -> None:
            anyio.from_thread.run_sync(group.start_soon, later)

        go_on = anyio.Event()

        async def later() -> None:
            await go_on.wait()
            await client.protect("later", act=hold)

        await client.protect("outer", act=leave_behind)
        for number in range(MAX_THREADS):
            group.start_soon(lambda key: client.protect(key, act=hold), f"k{number}")
        await async_until(lambda: len(began) == MAX_THREADS)
        go_on.set()
        for _ in range(20):
            await anyio.sleep(0.005)
        assert len(began) == MAX_THREADS
        may_end.set()


def test_a_function_may_be_called_until_that_is_prevented() -> None:
    class Late:
        def is_due(self) -> bool:
            return True

        async def confirm(self) -> None:
            """Not asked for."""

    job, late, begun = Job(list, None, [], []), Job(list, Late(), [], []), Job(list, None, [], [])
    assert [each.may_have_begun for each in (job, late, begun)] == [True] * 3
    late()
    begun()
    for each in (job, begun):
        each.withdraw()
    assert [each.may_have_begun for each in (job, late, begun)] == [False, False, True]
    job()
    assert [each.may_have_begun for each in (job, late, begun)] == [False, False, True]


# --- a key inside itself ---


async def test_a_key_inside_its_own_act_is_refused_at_once(client: VerityClient) -> None:
    key = ""

    async def again() -> object:
        return await client.protect(key, act=lambda: 1)

    async def in_another() -> object:
        return await client.protect(f"inner-{key}", act=again)

    async def in_a_task() -> None:
        (outcome,) = await async_gather([again])
        raise outcome

    calls: list[dict[str, Any]] = [
        {"act": again},
        {"act": in_another},
        {"act": in_a_task},
        {"act": lambda: anyio.from_thread.run(again)},
        {"act": lambda: 1, "observe": again, "policy": EffectPolicy(observe_when="always")},
        {"act": lambda: 1, "on_lease": lambda _: again()},
    ]
    async with client:
        for number, arguments in enumerate(calls):
            key = f"k{number}"
            with pytest.raises(VerityError) as caught:
                await client.protect(key, **arguments)
            error: Any = getattr(caught.value, "observe_error", caught.value)
            assert "inside its own act" in str(error)
            assert (type(error), error.parameter, error.effect_key) == (VerityValidationError, "effect_key", key)


def test_a_key_inside_its_own_act_is_refused_by_the_sync_client_too() -> None:
    with SyncVerityClient("sqlite://", namespace="threads") as client:
        with pytest.raises(VerityValidationError, match="inside its own act"):
            client.protect("k", act=lambda: client.protect("k", act=lambda: 1))
        assert client.protect("other", act=lambda: client.protect("other", act=lambda: 2, namespace="n2")) == 2


async def test_the_same_key_is_refused_whichever_client_is_used(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/verity.db"
    with SyncVerityClient(url, namespace="threads") as inner:
        async with VerityClient(url, namespace="threads") as outer:
            with pytest.raises(VerityValidationError, match="inside its own act"):
                await outer.protect("k", act=lambda: inner.protect("k", act=lambda: 1))


async def test_a_key_is_free_for_what_its_act_left_behind(client: VerityClient) -> None:
    go_on, results = anyio.Event(), []
    async with client, anyio.create_task_group() as group:

        async def later() -> None:
            await go_on.wait()
            results.append(await client.protect("k", act=lambda: 2))

        async def act() -> int:
            group.start_soon(later)
            return 1

        assert await client.protect("k", act=act) == 1
        go_on.set()
    assert results == [1]


async def test_calls_of_a_key_that_are_not_inside_each_other_wait_for_each_other(client: VerityClient) -> None:
    acts: list[int] = []

    async def act() -> int:
        await anyio.sleep(0.01)
        acts.append(1)
        return 7

    async def both() -> list[Any]:
        return await async_gather([partial(client.protect, "k", act=act)] * 2)

    async with client:
        assert await client.protect("outer", act=both) == [7, 7]
    assert acts == [1]


# --- without a thread ---


class NoThreads:
    """The system refuses every new thread that this one asks for, as it does at its limit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __enter__(self) -> NoThreads:
        start, here = threading.Thread.start, threading.current_thread()

        def refuse(thread: threading.Thread) -> None:
            if threading.current_thread() is not here:  # the served ledger's
                start(thread)
                return
            raise RuntimeError("can't start new thread")

        self._monkeypatch.setattr(threading.Thread, "start", refuse)
        self._monkeypatch.setattr(THREAD_CACHE, "_idle_workers", {})  # trio's, of the tests before
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._monkeypatch.undo()


@pytest.fixture
def ledger() -> Iterator[ServedLedger]:
    with ServedLedger(clock=TestClock()) as served:
        yield served


@pytest.mark.parametrize("observes", [False, True])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_without_a_thread_nothing_is_recorded(
    backend: str, observes: bool, ledger: ServedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a failure, above all: act never ran. And the second call takes no lease that it could not use."""
    acts: list[int] = []
    call: dict[str, Any] = {"act": lambda: acts.append(1), "on_observe_error": "act"}
    if observes:  # an act that needs no thread does not begin, either

        async def act() -> None:
            acts.append(1)

        call |= {"observe": lambda: None, "act": act, "policy": EffectPolicy(observe_when="always")}

    async def main() -> None:
        network = AsyncFaultyTransport()
        runtime = AsyncVirtualRuntime(TestClock())
        async with VerityClient(
            ledger.base_url, ledger.create_key(), "threads", transport=network, _runtime=runtime
        ) as client:
            with NoThreads(monkeypatch):
                for number in range(3):
                    with pytest.raises(ActNotStartedError, match="no thread") as caught:
                        await client.protect(f"k{number}", **call)
                    assert isinstance(caught.value.__cause__, RuntimeError)
                    assert caught.value.effect_key == f"k{number}"
            assert network.operations() == ["lease", "release"]
            assert network.sent[1].body["acted"] == "no"
            assert not runtime.planned(), "the lease is given up"
            assert not acts
            await client.protect("k0", **call)
        assert acts == [1]
        await network.aclose()

    anyio.run(main, backend=backend)  # the tests' own loop on trio needs threads itself


AT_EXIT = """
import asyncio, atexit, sys
import verity

client = verity.VerityClient("sqlite://", namespace="n")

async def protect():
    try:
        print(await client.protect("k", act=lambda: "acted"))
    except verity.ActNotStartedError as error:
        print("not started", "Nothing was sent" in str(error))

atexit.register(lambda: asyncio.run(protect()))
"""


def test_at_the_end_of_the_interpreter_it_acts_or_says_that_it_did_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout in {"acted\n", "not started True\n"}
    assert not done.stderr


# --- a thread that starts late ---


async def test_a_thread_that_starts_late_does_not_act_on_a_lease_that_may_have_run_out(ledger: ServedLedger) -> None:
    """Whoever was granted meanwhile has acted; the lease is looked at in the thread itself."""
    clock = TestClock()
    network = AsyncFaultyTransport()
    acts: list[int] = []
    late = iter([True, False])

    class LateThreads(AsyncVirtualRuntime):
        """Time passes on the way into the first thread."""

        def monotonic_in_threads(self) -> float:
            if threading.current_thread() is not loop_thread and next(late, False):
                clock.advance(25_000)
            return clock.now_ms / 1000

    loop_thread = threading.current_thread()
    runtime = LateThreads(clock)
    runtime.monotonic = runtime.monotonic_in_threads
    async with VerityClient(
        ledger.base_url, ledger.create_key(), "threads", auto_renew=False, transport=network, _runtime=runtime
    ) as client:
        await client.protect("k", act=lambda: acts.append(1))
    assert acts == [1]
    assert network.operations() == ["lease", "renew", "commit"]
    await network.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_act_does_not_begin_once_its_caller_is_cancelled(
    client: VerityClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its thread has begun: it takes a moment to start."""
    acts: list[int] = []
    held: list[threading.Thread] = []
    here = threading.current_thread()
    start = threading.Thread.start

    def hold(thread: threading.Thread) -> None:
        if threading.current_thread() is here and "AnyIO" in thread.name:
            held.append(thread)
        else:
            start(thread)

    async with client:
        monkeypatch.setattr(threading.Thread, "start", hold)
        task = asyncio.ensure_future(client.protect("k", act=lambda: acts.append(1)))
        await async_until(lambda: bool(held))
        monkeypatch.undo()
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        held[0].start()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not acts
