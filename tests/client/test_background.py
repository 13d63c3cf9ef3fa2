"""What runs in the background: no task until a renewal is due, one thread for all sync renewals, nothing afterwards."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from tests.helpers.concurrency import sync_until
from verity import SyncVerityClient, VerityClient
from verity._clock import suspend_aware_clock
from verity._concurrency import AsyncRuntime, SyncRuntime
from verity._concurrency.runtime import MAX_TIMER_THREADS
from verity._store.sqlite.group_commit import LoopGroupCommit
from verity._store.sqlite.store import SqliteStore


def _timer_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "verity-timers"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_task_unless_a_renewal_is_due() -> None:
    counts: list[int] = []

    async def act() -> None:
        counts.append(len(asyncio.all_tasks()))

    before = len(asyncio.all_tasks())
    async with VerityClient("sqlite://", namespace="n") as client:
        for number in range(3):
            await client.protect(f"k{number}", act=act)
    assert counts == [before] * 3
    assert len(asyncio.all_tasks()) == before


async def test_a_timer_fires_once_and_a_stopped_one_never() -> None:
    runtime = AsyncRuntime()
    fired: list[str] = []
    done = anyio.Event()

    async def fire(name: str) -> None:
        fired.append(name)
        if name == "last":
            done.set()

    def planned(name: str) -> Callable[[], Any]:
        return lambda: fire(name)

    runtime.call_later(0.0, planned("first"))
    runtime.call_later(0.0, planned("stopped")).stop()
    runtime.call_later(0.02, planned("last"))
    await done.wait()
    assert fired == ["first", "last"]


async def test_a_stopped_timer_interrupts_what_it_started() -> None:
    runtime = AsyncRuntime()
    started, ended = anyio.Event(), anyio.Event()

    async def hang() -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    timer = runtime.call_later(0.0, hang)
    await started.wait()
    timer.stop()
    timer.stop()
    await ended.wait()


async def test_a_background_call_that_fails_is_logged_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise LookupError("in the background")

    after = anyio.Event()

    async def go_on() -> None:
        after.set()

    runtime = AsyncRuntime()
    runtime.call_later(0.0, fail)
    runtime.call_later(0.02, go_on)
    await after.wait()
    assert "in the background" in caplog.text


def test_sync_timers_share_one_lazy_daemon_thread(caplog: pytest.LogCaptureFixture) -> None:
    before = set(_timer_threads())
    runtime = SyncRuntime()
    assert set(_timer_threads()) == before
    fired: list[str] = []
    first, last = threading.Event(), threading.Event()

    def fail() -> None:
        first.wait(30)
        raise LookupError("in the background")

    late = [runtime.call_later(3600.0, lambda: fired.append("late")) for _ in range(20)]
    (thread,) = set(_timer_threads()) - before
    assert thread.daemon
    runtime.call_later(0.0, lambda: fired.append("stopped")).stop()
    runtime.call_later(0.0, fail)
    runtime.call_later(0.02, last.set)
    runtime.call_later(0.0, first.set)
    assert last.wait(30)
    for timer in late:
        timer.stop()
    _end(runtime, before)
    assert not fired
    assert "in the background" in caplog.text


def test_a_sync_timer_that_takes_long_holds_up_no_other() -> None:
    """Renewals one behind the other, at a ledger that answers slowly, let leases run out."""
    before = set(_timer_threads())
    runtime = SyncRuntime()
    everybody = threading.Barrier(MAX_TIMER_THREADS)
    one_more = threading.Event()

    def meet() -> None:
        everybody.wait(30)

    for _ in range(MAX_TIMER_THREADS):
        runtime.call_later(0.05, meet)
    runtime.call_later(0.05, one_more.set)
    assert len(set(_timer_threads()) - before) <= MAX_TIMER_THREADS
    assert one_more.wait(30)
    assert not everybody.broken
    _end(runtime, before)


def _end(runtime: SyncRuntime, before: set[threading.Thread]) -> None:
    runtime.close()
    for _ in range(MAX_TIMER_THREADS):
        for thread in set(_timer_threads()) - before:
            thread.join(30)
    assert set(_timer_threads()) <= before


def test_a_sync_client_has_one_thread_however_many_calls() -> None:
    before = set(_timer_threads())
    with SyncVerityClient("sqlite://", namespace="n") as client:
        assert set(_timer_threads()) == before, "no thread before the first lease"
        for number in range(20):
            client.protect(f"k{number}", act=lambda: 1)
        (thread,) = set(_timer_threads()) - before
    thread.join(30)
    assert not thread.is_alive(), "close() ends it"


def test_clients_that_nobody_closed_leave_no_threads() -> None:
    def named(name: str) -> int:
        return sum(thread.name == name for thread in threading.enumerate())

    async def protect_once() -> None:
        await VerityClient("sqlite://", namespace="n").protect("k", act=lambda: 1)

    before = named("verity-timers"), named("verity-ledger-writer")
    for _ in range(10):
        SyncVerityClient("sqlite://", namespace="n").protect("k", act=lambda: 1)
        asyncio.run(protect_once())
    gc.collect()
    sync_until(lambda: (named("verity-timers"), named("verity-ledger-writer")) <= before)


def test_what_a_child_drops_wakes_no_thread_of_the_parent() -> None:
    """It waits in a queue that is not to be used in the child: Python 3.13 crashes there."""
    runtime, group = SyncRuntime(), LoopGroupCommit(SqliteStore(None))
    bell, inbox = runtime._timers._bell, group._inbox
    kept = (runtime._timers, group._owner)  # as the parent's threads do
    runtime.reset_after_fork()
    group.after_fork_in_child()
    assert runtime._timers is not kept[0]
    del runtime, group
    gc.collect()
    assert (bell.qsize(), inbox.qsize()) == (0, 0)


def test_a_closed_runtime_still_calls_what_is_planned() -> None:
    """A client may be closed while acts go on in other threads: without renewals, others would act, too."""
    before = set(_timer_threads())
    runtime = SyncRuntime()
    again, last = threading.Event(), threading.Event()

    def renew() -> None:
        again.set()
        runtime.call_later(0.02, last.set)

    runtime.call_later(0.02, renew)
    runtime.close()
    assert again.wait(30)
    assert last.wait(30)
    _end(runtime, before)


def test_ids_are_unique_and_the_clock_is_monotonic() -> None:
    runtime = SyncRuntime()
    assert len({runtime.new_id() for _ in range(1000)}) == 1000
    before = runtime.monotonic()
    assert before <= runtime.monotonic() < before + 60
    assert 0 <= runtime.random() < 1
    runtime.sleep(0)


def test_the_clock_goes_on_while_the_machine_is_suspended() -> None:
    """What was granted before a laptop's lid was closed is another holder's afterwards; Python's clock stood still."""

    def read(clock: str) -> float:
        return {"boot time": 3600.0, "monotonic": 3600.0}[clock]

    linux = SimpleNamespace(
        CLOCK_BOOTTIME="boot time", CLOCK_MONOTONIC="stands still", clock_gettime=read, monotonic=lambda: 0.0
    )
    macos = SimpleNamespace(CLOCK_MONOTONIC="monotonic", clock_gettime=read, monotonic=lambda: 0.0)
    windows = SimpleNamespace(monotonic=lambda: 3600.0)
    for clocks, platform in ((linux, "linux"), (macos, "darwin"), (windows, "win32")):
        assert suspend_aware_clock(clocks, platform)() == 3600.0
